package df11

import (
	"errors"
	"fmt"
	"io/fs"
	"strconv"
	"syscall"

	"github.com/libdf11/libdf11/bindings/go/internal/cdf11"
)

// Status is the kind of an error. It is an error itself, so that [errors.Is] can look for it:
//
//	if errors.Is(err, df11.ErrCorrupt) { … }
//
// 1 to 99 are mistakes of the caller, 100 to 199 faults of the file, 200 to 299 faults of the device, 900 to 999 faults
// of the library. Newer versions of the library may return statuses that are not in this list: treat an unknown one by
// its range.
//
// It is also what a device writes to the status word of a decode (see [Resident.Decompress]).
type Status int32

const (
	// StatusOK is success. No error has it.
	StatusOK Status = 0

	// ErrInvalidArgument reports an argument that is out of range or contradicts another, or the use of something
	// closed.
	ErrInvalidArgument Status = 1
	// ErrNotFound reports that no group, tensor or preset has that name or number.
	ErrNotFound Status = 2
	// ErrBufferTooSmall reports a destination that holds fewer bytes than the result.
	ErrBufferTooSmall Status = 3
	// ErrMisaligned reports an address that is not aligned as the call requires.
	ErrMisaligned Status = 4
	// ErrUnsupportedOption reports an option that the running library, which is older than this package, does not know,
	// or that the program was built without cgo. The latter is also [errors.ErrUnsupported].
	ErrUnsupportedOption Status = 5
	// ErrCancelled reports that the context ended. The error is also the context's own: errors.Is(err,
	// context.Canceled), for example.
	ErrCancelled Status = 6
	// ErrDefaultStream reports stream 0 on a device that was not opened to allow it.
	ErrDefaultStream Status = 7
	// ErrExists reports a file or folder that exists already and would be overwritten. The error is also
	// [io/fs.ErrExist].
	ErrExists Status = 8
	// ErrUnfinished reports the unfinished work of an earlier run: resume it, or write to another place.
	ErrUnfinished Status = 9
	// ErrBusy reports that another process is writing to the same place.
	ErrBusy Status = 10

	// ErrIO reports that the operating system could not open, read, map or write a file. The error is also the
	// system's: errors.Is(err, fs.ErrNotExist), for example.
	ErrIO Status = 100
	// ErrInvalidFormat reports a file that is not a safetensors file, or not a DF11 model.
	ErrInvalidFormat Status = 101
	// ErrUnsupportedFormat reports a DF11 model of a kind that cannot be decoded.
	ErrUnsupportedFormat Status = 102
	// ErrCorrupt reports a DF11 model whose parts contradict each other.
	ErrCorrupt Status = 103

	// ErrNoDriver reports that there is no usable CUDA driver.
	ErrNoDriver Status = 200
	// ErrNoKernel reports that there is no kernel for this device.
	ErrNoKernel Status = 201
	// ErrCUDA reports a failed call of the driver. The error's NativeCode is its CUresult.
	ErrCUDA Status = 202
	// ErrCapturing reports a call that is not allowed while a stream is being captured.
	ErrCapturing Status = 203
	// ErrWrongDevice reports a resident or a stream of another device or context.
	ErrWrongDevice Status = 204

	// ErrOutOfMemory reports that memory could not be allocated.
	ErrOutOfMemory Status = 900
	// ErrInternal reports a bug in the library. The message says where. Please report it.
	ErrInternal Status = 999
)

var statusNames = map[Status]string{
	StatusOK: "OK", ErrInvalidArgument: "INVALID_ARGUMENT", ErrNotFound: "NOT_FOUND",
	ErrBufferTooSmall: "BUFFER_TOO_SMALL", ErrMisaligned: "MISALIGNED", ErrUnsupportedOption: "UNSUPPORTED_OPTION",
	ErrCancelled: "CANCELLED", ErrDefaultStream: "DEFAULT_STREAM", ErrExists: "EXISTS", ErrUnfinished: "UNFINISHED",
	ErrBusy: "BUSY", ErrIO: "IO", ErrInvalidFormat: "INVALID_FORMAT", ErrUnsupportedFormat: "UNSUPPORTED_FORMAT",
	ErrCorrupt: "CORRUPT", ErrNoDriver: "NO_DRIVER", ErrNoKernel: "NO_KERNEL", ErrCUDA: "CUDA",
	ErrCapturing: "CAPTURING", ErrWrongDevice: "WRONG_DEVICE", ErrOutOfMemory: "OUT_OF_MEMORY", ErrInternal: "INTERNAL",
}

// String returns the status's name in the C interface without its prefix, such as CORRUPT.
func (s Status) String() string {
	if name, ok := statusNames[s]; ok {
		return name
	}
	return "status " + strconv.Itoa(int(s))
}

// Error makes a Status an error.
func (s Status) Error() string { return "df11: " + s.String() }

// Is makes ErrExists equal to [io/fs.ErrExist].
func (s Status) Is(target error) bool { return s == ErrExists && target == fs.ErrExist }

// Error is the error type of every call of this package.
type Error struct {
	// Status is the kind of the error.
	Status Status
	// NativeCode is the system's error number: an errno with [ErrIO], a CUresult with [ErrCUDA], or 0.
	NativeCode int32
	// Message is one sentence. It names the file, the tensor and the byte in the file where they are known, and has no
	// control characters, whatever a model contains.
	Message string
	// Op is the call that failed: "open", "decompress", …
	Op string

	// cause is another error that this one is as well: the context's error of a cancelled call, fs.ErrClosed, or, in a
	// program that was built without cgo, errors.ErrUnsupported.
	cause error
}

// Error returns the call and the message.
func (e *Error) Error() string { return "df11: " + e.Op + ": " + e.Message }

// Unwrap returns the Status, so that errors.Is(err, df11.ErrCorrupt) works.
func (e *Error) Unwrap() error { return e.Status }

// Is makes the error equal to the operating system's, the context's, [io/fs.ErrClosed] or [errors.ErrUnsupported] as
// well.
func (e *Error) Is(target error) bool {
	if e.cause != nil && errors.Is(e.cause, target) {
		return true
	}
	errno, ok := e.errno()
	return ok && errors.Is(errno, target)
}

// As converts the error to a [syscall.Errno] if it came from the operating system.
func (e *Error) As(target any) bool {
	if to, ok := target.(*syscall.Errno); ok {
		if errno, ok := e.errno(); ok {
			*to = errno
			return true
		}
	}
	return e.cause != nil && errors.As(e.cause, target)
}

func (e *Error) errno() (syscall.Errno, bool) {
	return syscall.Errno(e.NativeCode), e.Status == ErrIO && e.NativeCode > 0
}

// result ends every call of the library: it passes the library's log lines to the logger, counts an error, and converts
// it to this package's type. For nil it returns an untyped nil.
func result(op string, e *cdf11.Error) error {
	takeLog()
	if e == nil {
		return nil
	}
	failure := &Error{Status: Status(e.Status), NativeCode: e.Native, Message: e.Message, Op: op}
	if !cdf11.Built {
		failure.cause = errors.ErrUnsupported
	}
	return failed(failure)
}

// failed counts the error of a call, and returns it.
func failed(e *Error) error {
	switch {
	case e.Status < 100:
		count.errorsCaller.Add(1)
	case e.Status < 200:
		count.errorsFile.Add(1)
	case e.Status < 300:
		count.errorsDevice.Add(1)
	default:
		count.errorsLibrary.Add(1)
	}
	return e
}

// errorStatus returns an error's status, or StatusOK if it has none.
func errorStatus(err error) Status {
	if e, ok := err.(*Error); ok {
		return e.Status
	}
	return StatusOK
}

// invalid returns an error about an argument that this package refuses without a call of the library.
func invalid(op, format string, args ...any) error {
	return failed(&Error{Status: ErrInvalidArgument, Message: fmt.Sprintf(format, args...), Op: op})
}
