package df11_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"syscall"
	"testing"

	df11 "github.com/libdf11/libdf11/bindings/go"
	"github.com/libdf11/libdf11/bindings/go/internal/cdf11"
)

func TestStatusesAreTheLibrarys(t *testing.T) {
	named := 0
	for s := df11.Status(0); s < 1100; s++ {
		theirs := cdf11.StatusName(int32(s))
		if ours := s.String(); ours != theirs && !(theirs == "UNKNOWN" && ours == fmt.Sprintf("status %d", s)) {
			t.Errorf("%d: %s here and %s there", s, ours, theirs)
		}
		if theirs != "UNKNOWN" {
			named++
		}
	}
	if named != 22 {
		t.Errorf("%d statuses", named)
	}
	if text := df11.ErrCorrupt.Error(); text != "df11: CORRUPT" {
		t.Error(text)
	}
	exists := fmt.Errorf("around it: %w", &df11.Error{Status: df11.ErrExists, Op: "compress"})
	if !errors.Is(exists, fs.ErrExist) || !errors.Is(exists, df11.ErrExists) || errors.Is(exists, df11.ErrBusy) ||
		errors.Is(df11.ErrUnfinished, fs.ErrExist) {
		t.Error(exists)
	}
	if cdf11.VersionNumber()/100 != cdf11.HeaderVersionNumber/100 || !strings.Contains(df11.Version(), ".") {
		t.Error(df11.Version())
	}
}

func TestErrorsOfTheSystem(t *testing.T) {
	_, err := df11.Open(ctx, golden+"nowhere", nil)
	var e *df11.Error
	if !errors.As(err, &e) || e.Status != df11.ErrIO || e.NativeCode != int32(syscall.ENOENT) || e.Op != "open" {
		t.Fatalf("%#v", err)
	}
	if !errors.Is(err, df11.ErrIO) || !errors.Is(err, fs.ErrNotExist) || !errors.Is(err, syscall.ENOENT) ||
		errors.Is(err, fs.ErrPermission) || errors.Is(err, df11.ErrCorrupt) || errors.Is(err, fs.ErrClosed) {
		t.Fatalf("%#v", err)
	}
	var errno syscall.Errno
	if !errors.As(fmt.Errorf("around it: %w", err), &errno) || errno != syscall.ENOENT {
		t.Fatalf("%#v", err)
	}
	if !strings.HasPrefix(err.Error(), "df11: open: ") || !strings.Contains(err.Error(), "golden/nowhere") {
		t.Fatal(err)
	}
	if os.Getuid() != 0 {
		file := t.TempDir() + "/x.safetensors"
		if err := os.WriteFile(file, nil, 0); err != nil {
			t.Fatal(err)
		}
		if _, err := df11.Open(ctx, file, nil); !errors.Is(err, fs.ErrPermission) {
			t.Fatal(err)
		}
	}
}

func TestTextsForC(t *testing.T) {
	for _, c := range []struct {
		path string
		o    df11.Options
	}{
		{"a\x00b", df11.Options{}},
		{modelOf("tiny"), df11.Options{Config: []byte("{}\x00")}},
		{modelOf("tiny"), df11.Options{Config: []byte{}}}, // not the same as nil
		{modelOf("tiny"), df11.Options{Config: []byte("\xff")}},
		{modelOf("tiny"), df11.Options{Threads: -1}},
	} {
		m, err := df11.Open(ctx, c.path, &c.o)
		if m != nil || !errors.Is(err, df11.ErrInvalidArgument) && !errors.Is(err, df11.ErrInvalidFormat) {
			t.Errorf("%q, %+v: %v", c.path, c.o, err)
		}
	}
	if _, err := df11.Open(ctx, "", nil); !errors.Is(err, df11.ErrIO) {
		t.Error(err)
	}
	if _, err := df11.VerifyModel(ctx, "a", "b\x00", nil); !errors.Is(err, df11.ErrInvalidArgument) {
		t.Error(err)
	}
	if _, err := df11.OpenDevice(0, &df11.DeviceOptions{LibCUDA: "\x00"}); !errors.Is(err, df11.ErrInvalidArgument) {
		t.Error(err)
	}
}

// Each hostile model gives an error with a status of the file when it is opened, verified or read. The message names
// the place.
func TestHostileModels(t *testing.T) {
	entries, err := os.ReadDir(hostile)
	if err != nil {
		t.Fatal(err)
	}
	refused, read := 0, 0
	for _, entry := range entries {
		if entry.Name() == "README.md" {
			continue
		}
		name := hostile + entry.Name()
		for _, noMap := range []bool{false, true} {
			m, err := df11.Open(ctx, name, &df11.Options{NoMap: noMap})
			if err == nil {
				read++
				for i, g := range m.Groups() {
					if e := m.Decompress(i, 0, make([]df11.BF16, g.Elements), 2); e != nil {
						err = e
					}
					if e := m.WriteImage(i, make([]byte, g.ImageBytes)); e != nil {
						err = e
					}
				}
				m.Close()
			}
			v, verified := df11.Open(ctx, name, &df11.Options{NoMap: noMap, Verify: true})
			if verified == nil {
				v.Close()
			} else if err == nil {
				err = verified
			}
			if report, e := df11.VerifyModel(ctx, name, "", nil); err == nil {
				err = e
				if errors.Is(e, df11.ErrCorrupt) && report.GroupsBad+report.HashesWrong == 0 {
					t.Errorf("%s: %v, and nothing of it in %+v", entry.Name(), e, report)
				}
			}
			var e *df11.Error
			if err == nil {
				t.Errorf("%s: nothing is wrong with it", entry.Name())
			} else if !errors.As(err, &e) || e.Status < 100 || e.Status > 199 || len(e.Message) == 0 || len(e.Message) > 503 {
				t.Errorf("%s: %#v", entry.Name(), err)
			} else if strings.ContainsFunc(e.Message, func(r rune) bool { return r < ' ' || r == 0x7f || r == '\ufffd' }) {
				t.Errorf("%s: not to be printed: %q", entry.Name(), e.Message)
			}
			refused++
		}
	}
	if refused < 300 || read == 0 {
		t.Errorf("only %d hostile models, of which %d could be opened", refused, read)
	}
	for name, want := range map[string]df11.Status{
		"exponent_240.safetensors":         df11.ErrUnsupportedFormat,
		"file_empty.safetensors":           df11.ErrInvalidFormat,
		"gaps_one_byte_short.safetensors":  df11.ErrCorrupt,
		"version_1_5_0":                    df11.ErrUnsupportedFormat,
		"gap_of_a_later_chunk.safetensors": df11.StatusOK,
	} {
		m, err := df11.Open(ctx, hostile+name, nil)
		if want == df11.StatusOK && err != nil || want != df11.StatusOK && !errors.Is(err, want) {
			t.Errorf("%s: %v", name, err)
		}
		if err == nil {
			m.Close()
		}
	}
	if _, err := df11.Open(ctx, hostile+"gap_of_a_later_chunk.safetensors", &df11.Options{Verify: true}); !errors.Is(err, df11.ErrCorrupt) {
		t.Error(err)
	}
}
