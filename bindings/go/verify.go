package df11

import (
	"context"
	"log/slog"
	"time"

	"github.com/libdf11/libdf11/bindings/go/internal/cdf11"
)

// VerifyOptions control a verification. A nil *VerifyOptions and the zero value mean the defaults.
type VerifyOptions struct {
	// Threads is the number of threads that work; 0 means 1.
	Threads int
	// AnyVersion accepts models of a compressor version that the library does not know.
	AnyVersion bool
	// Incomplete accepts a model that lacks files, tensors or layers.
	Incomplete bool
	// AllowPlain accepts a model that has no group, which nobody compressed, also without an original.
	AllowPlain bool
	// Config is the text of a config.json that replaces the model's own.
	Config []byte
	// ShapesFrom and Shapes say the shapes that the model's files do not, as those of [Options]. They are compared with the
	// original's.
	ShapesFrom string
	Shapes     []byte
	// Progress, if set, is called with the number of bytes that are done: at the beginning, about twenty times a
	// second, and at the end, on the goroutine that called VerifyModel. The total is 0 until it is known.
	Progress func(done, total uint64)
	// Logger, if set, receives a line about the result, and one about each fault.
	Logger *slog.Logger
}

// VerifyReport is the result of a verification.
type VerifyReport struct {
	// GroupsGood counts groups whose codes agree with their gaps and positions, GroupsBad those whose codes do not.
	GroupsGood, GroupsBad uint64
	// Codes is the number of codes in all groups, one for each weight.
	Codes uint64
	// HashesRight counts tensors with the hash that is in the model's metadata, HashesWrong those with another hash and
	// those that cannot be decoded.
	HashesRight, HashesWrong uint64
	// TensorsEqual counts tensors that equal the original's, TensorsDifferent those that differ and those that only one
	// of the two models has.
	TensorsEqual, TensorsDifferent uint64
	// Missing counts files, tensors and layers that the model lacks, several in a row as one.
	Missing uint64
	// Findings has one entry for each group, and for each tensor that needs a remark.
	Findings []Finding
	// FindingsLost is the number of further findings, which were dropped: about 16 MiB are kept.
	FindingsLost uint64
}

// Finding is the result of a verification for a group or a tensor.
type Finding struct {
	Kind FindingKind
	// Name is the name of the group or tensor, and Text one sentence about it. Both may contain text of the file: quote
	// them before you print them.
	Name, Text string
}

// FindingKind is the kind of a [Finding]. Newer versions of the library may have more kinds.
type FindingKind uint32

const (
	// FindingGood is a group whose codes agree with its gaps and positions: nothing is wrong.
	FindingGood FindingKind = cdf11.FindingGood
	// FindingBad is a group whose codes do not.
	FindingBad FindingKind = cdf11.FindingBad
	// FindingHash is a tensor whose hash differs from the one in the file's metadata.
	FindingHash FindingKind = cdf11.FindingHash
	// FindingDiffers is a tensor that differs from the original's, or that only one of the two models has.
	FindingDiffers FindingKind = cdf11.FindingDiffers
	// FindingNote is a remark, such as a tied lm_head that is in one model only: nothing is wrong.
	FindingNote FindingKind = cdf11.FindingNote
	// FindingMissing is a file, a tensor or a layer that the model lacks.
	FindingMissing FindingKind = cdf11.FindingMissing
)

// Wrong reports whether something is wrong.
func (k FindingKind) Wrong() bool { return k != FindingGood && k != FindingNote }

// VerifyModel checks a whole model. It looks for what is absent from a folder: shards, files that an index lists, layers
// between others, and layers that config.json counts. Not everything that is absent shows. It walks every code of every group, and compares the SHA-256 of each tensor whose
// hash is in the files' metadata. Unless original is empty, it also compares every tensor with the original's: the
// type, the shape where the model knows it, and every bit. It continues after a fault, so that it finds all of them.
// Files are read piece by piece and never mapped, and memory use is bounded for any model.
//
// The error is nil if nothing is wrong, and [ErrCorrupt] if something is. The report is complete in both cases, and
// empty after other errors. When ctx ends, VerifyModel returns soon, with an error that is both [ErrCancelled] and the
// context's.
func VerifyModel(ctx context.Context, path, original string, o *VerifyOptions) (VerifyReport, error) {
	if o == nil {
		o = &VerifyOptions{}
	}
	start := time.Now()
	report, err := verify(ctx, path, original, o)
	if log := o.Logger; log != nil {
		for _, f := range report.Findings {
			if f.Kind.Wrong() {
				log.ErrorContext(ctx, "df11: a fault in a model", "path", path, "name", f.Name, "finding", f.Text)
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
	for _, text := range []struct{ what, text string }{{"path", path}, {"original", original}, {"config", string(o.Config)},
		{"path of the shapes", o.ShapesFrom}, {"list of shapes", string(o.Shapes)}} {
		if err == nil {
			err = noZero(op, text.what, text.text)
		}
	}
	if err != nil {
		return VerifyReport{}, err
	}
	how := cdf11.Reading{Threads: threads, Config: o.Config, ShapesFrom: given(o.ShapesFrom), Shapes: o.Shapes}
	if o.AnyVersion {
		how.Flags |= cdf11.OpenAnyVersion
	}
	if o.Incomplete {
		how.Flags |= cdf11.VerifyIncomplete
	}
	if o.AllowPlain {
		how.Flags |= cdf11.VerifyAllowPlain
	}
	var r cdf11.Report
	err = watch(ctx, op, o.Progress, func(progress cdf11.Progress) (e *cdf11.Error) {
		r, e = cdf11.Verify(path, original, &how, progress)
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
		Missing:          r.Missing,
		FindingsLost:     r.FindingsLost,
	}
	if err == nil || errorStatus(err) == ErrCorrupt {
		for _, f := range r.Findings {
			report.Findings = append(report.Findings, Finding{FindingKind(f.Kind), f.Name, f.Text})
		}
	}
	return report, err
}
