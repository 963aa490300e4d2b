package server

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"
)

func TestParseRange(t *testing.T) {
	const whole, wrong = "whole", "wrong"
	for _, c := range []struct {
		header string
		size   uint64
		want   string // first+length, whole or wrong
	}{
		{"bytes=0-9", 100, "0+10"},
		{"bytes=5-5", 100, "5+1"},
		{"bytes=99-99", 100, "99+1"},
		{"bytes=90-", 100, "90+10"},
		{"bytes=90-100", 100, "90+10"}, // overlapping the end
		{"bytes=0-18446744073709551615", 100, "0+100"},
		{"bytes=0-99999999999999999999999999", 100, "0+100"}, // more than 64 bits
		{"bytes=-1", 100, "99+1"},
		{"bytes=-100", 100, "0+100"},
		{"bytes=-1000", 100, "0+100"}, // a suffix longer than all
		{"bytes=-99999999999999999999999999", 100, "0+100"},
		{"BYTES= 1 - 2 ", 100, "1+2"},
		{"bytes=100-", 100, wrong}, // after the end
		{"bytes=100-200", 100, wrong},
		{"bytes=18446744073709551615-", 100, wrong},
		{"bytes=99999999999999999999999999-", 100, wrong},
		{"bytes=-0", 100, wrong},
		{"bytes=-00", 100, wrong},
		{"bytes=", 100, wrong},
		{"bytes=,", 100, wrong},
		{"bytes=-", 100, wrong},
		{"bytes=5", 100, wrong},
		{"bytes=5-4", 100, wrong},
		{"bytes=a-b", 100, wrong},
		{"bytes=+1-2", 100, wrong},
		{"bytes=0x1-2", 100, wrong},
		{"bytes=1--2", 100, wrong},
		{"bytes=--2", 100, wrong},
		{"bytes=1-2;3-4", 100, wrong},
		{"bytes=1.5-2", 100, wrong},
		{"bytes=0-0,x", 100, wrong},
		{"bytes=0-0,7-3", 100, wrong},
		// Several ranges become one if they touch or overlap, and else the whole.
		{"bytes=0-9,10-19", 100, "0+20"},
		{"bytes=10-19,0-9", 100, "0+20"},
		{"bytes=0-50,20-30", 100, "0+51"},
		{"bytes=0-0,,1-1 ,", 100, "0+2"},
		{"bytes=0-9,200-300", 100, "0+10"},
		{"bytes=200-300,400-", 100, wrong},
		{"bytes=0-9,11-19", 100, whole},
		{"bytes=0-0,-1", 100, whole},
		{"bytes=0-98,-1", 100, "0+100"},
		{"bytes=" + strings.Repeat("0-,", 64), 100, "0+100"},
		{"bytes=" + strings.Repeat("0-,", 65), 100, wrong},
		// Other units are ignored.
		{"items=0-9", 100, whole},
		{"bytes", 100, whole},
		{"", 100, whole},
		{"bytes =0-9", 100, "0+10"},
		// Ranges of an empty body.
		{"bytes=0-", 0, wrong},
		{"bytes=0-0", 0, wrong},
		{"bytes=-1", 0, whole},
		{"bytes=-0", 0, wrong},
		{"bytes=0-,-5", 0, whole},
		// The longest possible body.
		{"bytes=0-", 1<<64 - 1, "0+18446744073709551615"},
		{"bytes=18446744073709551614-", 1<<64 - 1, "18446744073709551614+1"},
		{"bytes=18446744073709551613-18446744073709551614,0-18446744073709551612", 1<<64 - 1, "0+18446744073709551615"},
	} {
		s, some, err := parseRange(c.header, c.size)
		got := fmt.Sprintf("%d+%d", s.first, s.length)
		if err != nil {
			got = wrong
		} else if !some {
			got = whole
		}
		if got != c.want {
			t.Errorf("%.60q of %d: %s, not %s", c.header, c.size, got, c.want)
		}
	}
}

// Go's own file server is the oracle: the answers to any single range are alike.
func TestRangesAsServeContentAnswersThem(t *testing.T) {
	const size = 10007
	content := fakeBytes(0, 0, size)
	_, url := serveFake(t, newFake(t, fakeTensor{"t", size, true}), nil)
	random := rand.New(rand.NewPCG(1, 2))
	number := func() string {
		switch random.IntN(6) {
		case 0:
			return ""
		case 1:
			return fmt.Sprint(size - 2 + random.IntN(4))
		case 2:
			return fmt.Sprint(random.Uint64() >> 2)
		case 3:
			return fmt.Sprint(random.IntN(3))
		}
		return fmt.Sprint(random.IntN(size))
	}
	seen := map[int]int{}
	for range 600 {
		asked := "bytes=" + number() + "-" + number()
		if asked == "bytes=-" || asked == "bytes=-0" {
			continue // to the last 0 bytes it answers 206 with a range that ends before it begins
		}
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("Range", asked)
		want := httptest.NewRecorder()
		http.ServeContent(want, r, "t.bin", time.Time{}, bytes.NewReader(content))

		got, body := get(t, url+"/v1/tensors/t", "Range: "+asked)
		seen[got.StatusCode]++
		if got.StatusCode != want.Code {
			t.Fatalf("%s: %d, not %d", asked, got.StatusCode, want.Code)
		}
		// It omits the header for a malformed range. Here every 416 has it, as RFC 9110 recommends.
		if was := want.Header().Get("Content-Range"); was != "" && got.Header.Get("Content-Range") != was {
			t.Fatalf("%s: %q, not %q", asked, got.Header.Get("Content-Range"), want.Header().Get("Content-Range"))
		}
		if want.Code == http.StatusPartialContent && !bytes.Equal(body, want.Body.Bytes()) {
			t.Fatalf("%s: another body", asked)
		}
	}
	if seen[206] < 100 || seen[416] < 100 {
		t.Errorf("few of a kind: %v", seen)
	}
}

// Ranges may begin and end inside a weight, and at any position in a buffer.
func TestRangesByTheByte(t *testing.T) {
	const size = 3*4096 + 10
	for _, plain := range []bool{false, true} {
		f := newFake(t, fakeTensor{"before", 6, false}, fakeTensor{"t", size, plain})
		_, url := serveFake(t, f, nil)
		for _, first := range []uint64{0, 1, 2, 3, 4095, 4096, 4097, 8191, size - 3, size - 2, size - 1} {
			for _, length := range []uint64{1, 2, 3, 4094, 4095, 4096, 4097, 8191, 8192, 8193, size} {
				end := min(first+length, size)
				answer, body := get(t, url+"/v1/tensors/t", fmt.Sprintf("Range: bytes=%d-%d", first, first+length-1))
				if answer.StatusCode != 206 || answer.ContentLength != int64(end-first) {
					t.Fatalf("%d+%d: %d of %d bytes", first, length, answer.StatusCode, answer.ContentLength)
				}
				if want := fmt.Sprintf("bytes %d-%d/%d", first, end-1,
					size); answer.Header.Get("Content-Range") != want {
					t.Fatalf("%d+%d: %q", first, length, answer.Header.Get("Content-Range"))
				}
				if !bytes.Equal(body, fakeBytes(1, first, end-first)) {
					t.Fatalf("%d+%d: other bytes", first, length)
				}
			}
		}
	}
}

func FuzzParseRange(f *testing.F) {
	for _, header := range []string{"bytes=0-1", "bytes=-5,3-", "bytes=1-2,3-4, 5-6", "x=1-2",
		"bytes=9999999999999999999999-"} {
		f.Add(header, uint64(100))
	}
	f.Fuzz(func(t *testing.T, header string, size uint64) {
		s, some, err := parseRange(header, size)
		if err == nil && some && (s.length == 0 || s.first >= size || s.length > size-s.first) {
			t.Errorf("%q of %d: %v", header, size, s)
		}
	})
}
