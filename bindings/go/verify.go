package df11

import (
	"context"
	"log/slog"
	"time"

	"github.com/libdf11/libdf11/bindings/go/internal/cdf11"
)

// VerifyOptions say how to verify. A nil *VerifyOptions, and the zero one, are all defaults.
type VerifyOptions struct {
	// Threads to work with; 0 means 1.
	Threads int
	// AnyVersion accepts a version of the compressor that the library does not know.
	AnyVersion bool
	// Config is the text of a config.json to use instead of the model's own.
	Config []byte
	// Progress, if set, is told how many bytes of the work are done: at the beginning, some twenty times a second, and
	// at the end, on the goroutine that called Verify. Total is 0 until it is known.
	Progress func(done, total uint64)
	// Logger, if set, is told what came of it, and of everything that is wrong.
	Logger *slog.Logger
}

// VerifyReport is what came of a verification.
type VerifyReport struct {
	// Groups whose codes agree with their gaps and positions, and groups whose codes do not.
	GroupsGood, GroupsBad uint64
	// Codes in all groups, one for each weight.
	Codes uint64
	// Tensors that have the hash that the model's metadata says, and tensors that have another or cannot be decoded.
	HashesRight, HashesWrong uint64
	// Tensors that equal the original's, and tensors that differ from it or that only one of the two models has.
	TensorsEqual, TensorsDifferent uint64
	// Findings are about each group, and each tensor of which there is something to say.
	Findings []Finding
	// FindingsLost is how many more there were: some 16 MiB of them are kept.
	FindingsLost uint64
}

// Finding is what a verification has to say of a group or a tensor.
type Finding struct {
	Kind FindingKind
	// Name is the group's or tensor's. It comes from the file, and so does some of Text, one sentence: quote them
	// before you print them.
	Name, Text string
}

// FindingKind is what a [Finding] is about. Newer versions of the library may have more.
type FindingKind uint32

const (
	// FindingGood is a group whose codes agree with its gaps and positions: nothing is wrong.
	FindingGood FindingKind = cdf11.FindingGood
	// FindingBad is a group whose codes do not.
	FindingBad FindingKind = cdf11.FindingBad
	// FindingHash is a tensor that has another hash than the file's metadata says.
	FindingHash FindingKind = cdf11.FindingHash
	// FindingDiffers is a tensor that differs from the original's, or that only one of the two models has.
	FindingDiffers FindingKind = cdf11.FindingDiffers
	// FindingNote is what a person should know, such as a tied lm_head that is in one model only: nothing is wrong.
	FindingNote FindingKind = cdf11.FindingNote
)

// Wrong says whether something is wrong.
func (k FindingKind) Wrong() bool { return k != FindingGood && k != FindingNote }

// Verify opens a model, looks at everything in it, and closes it: every code of every group is walked, the SHA-256 of
// each tensor compared for which the files' metadata has one, and, unless original is empty, every tensor with the
// original's: type, shape where the model knows it, every bit. It goes on after what is wrong, so that all of it is
// found. Files are read piece by piece, never mapped, and memory is bounded, whatever the model.
//
// The error is nil if nothing is wrong, and [Corrupt] if something is; the report is complete in both cases. After
// other errors it is empty. When ctx ends, so does Verify, soon, with an error that is both [Cancelled] and the
// context's.
func Verify(ctx context.Context, path, original string, o *VerifyOptions) (VerifyReport, error) {
	if o == nil {
		o = &VerifyOptions{}
	}
	start := time.Now()
	report, err := verify(ctx, path, original, o)
	if log := o.Logger; log != nil {
		for _, f := range report.Findings {
			if f.Kind.Wrong() {
				log.ErrorContext(ctx, "df11: wrong in a model", "path", path, "name", f.Name, "finding", f.Text)
			}
		}
		if err != nil {
			log.ErrorContext(ctx, "df11: verification failed", "path", path, "error", err)
		} else {
			log.InfoContext(ctx, "df11: verified a model", "path", path, "groups", report.GroupsGood, "codes", report.Codes,
				"hashes", report.HashesRight, "equal", report.TensorsEqual, "took", time.Since(start))
		}
	}
	return report, err
}

func verify(ctx context.Context, path, original string, o *VerifyOptions) (VerifyReport, error) {
	const op = "verify"
	threads, err := threads(op, o.Threads)
	for _, text := range []struct{ what, text string }{{"path", path}, {"original", original}, {"config", string(o.Config)}} {
		if err == nil {
			err = noZero(op, text.what, text.text)
		}
	}
	if err != nil {
		return VerifyReport{}, err
	}
	var flags uint32
	if o.AnyVersion {
		flags |= cdf11.OpenAnyVersion
	}
	var r cdf11.Report
	err = watch(ctx, op, o.Progress, func(progress cdf11.Progress) (e *cdf11.Error) {
		r, e = cdf11.Verify(path, original, threads, flags, o.Config, progress)
		return e
	}, func() {})
	report := VerifyReport{
		GroupsGood:       r.GroupsGood,
		GroupsBad:        r.GroupsBad,
		Codes:            r.Codes,
		HashesRight:      r.HashesRight,
		HashesWrong:      r.HashesWrong,
		TensorsEqual:     r.TensorsEqual,
		TensorsDifferent: r.TensorsDifferent,
		FindingsLost:     r.FindingsLost,
	}
	if err == nil || errorStatus(err) == Corrupt {
		for _, f := range r.Findings {
			report.Findings = append(report.Findings, Finding{FindingKind(f.Kind), f.Name, f.Text})
		}
	}
	return report, err
}
