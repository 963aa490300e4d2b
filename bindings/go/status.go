package df11

import (
	"errors"
	"fmt"
	"strconv"
	"syscall"

	"github.com/libdf11/libdf11/bindings/go/internal/cdf11"
)

// Status says what kind of thing went wrong. It is an error, so that [errors.Is] can ask for it:
//
//	if errors.Is(err, df11.Corrupt) { … }
//
// 1 to 99 are the caller's mistakes, 100 to 199 the file's, 200 to 299 the device's, 900 to 999 the library's. Newer
// versions of the library may return statuses that are not in this list: judge an unknown one by its range.
//
// It is also what a device writes to the status word of a decode (see [Resident.Decompress]).
type Status int32

const (
	// StatusOK is success; no error has it.
	StatusOK Status = 0

	// InvalidArgument : an argument is out of range or contradicts another, or something is used that is closed.
	InvalidArgument Status = 1
	// NotFound : there is no group or tensor of that name or number.
	NotFound Status = 2
	// BufferTooSmall : the destination holds fewer bytes than the result.
	BufferTooSmall Status = 3
	// Misaligned : an address is not aligned as the call asks.
	Misaligned Status = 4
	// UnsupportedOption : the library that is running is older than this package and does not know an option.
	UnsupportedOption Status = 5
	// Cancelled : the context ended. The error is also the context's own: errors.Is(err, context.Canceled), say.
	Cancelled Status = 6
	// DefaultStream : the stream is 0, on a device that was not opened to allow it.
	DefaultStream Status = 7

	// IO : the operating system could not open, read or map. The error is also the system's: errors.Is(err,
	// fs.ErrNotExist), say.
	IO Status = 100
	// InvalidFormat : not a safetensors file, or not a DF11 model.
	InvalidFormat Status = 101
	// UnsupportedFormat : a DF11 model of a kind that cannot be decoded.
	UnsupportedFormat Status = 102
	// Corrupt : a DF11 model whose parts contradict each other.
	Corrupt Status = 103

	// NoDriver : no usable CUDA driver.
	NoDriver Status = 200
	// NoKernel : no kernel for this device.
	NoKernel Status = 201
	// CUDA : a call of the driver failed; the error's NativeCode is its CUresult.
	CUDA Status = 202
	// Capturing : not allowed while a stream is being captured.
	Capturing Status = 203
	// WrongDevice : a resident or a stream of another device or context.
	WrongDevice Status = 204

	// OutOfMemory : memory could not be had.
	OutOfMemory Status = 900
	// Internal : a bug in the library. The message says where; please report it.
	Internal Status = 999
)

var statusNames = map[Status]string{
	StatusOK: "OK", InvalidArgument: "INVALID_ARGUMENT", NotFound: "NOT_FOUND", BufferTooSmall: "BUFFER_TOO_SMALL",
	Misaligned: "MISALIGNED", UnsupportedOption: "UNSUPPORTED_OPTION", Cancelled: "CANCELLED",
	DefaultStream: "DEFAULT_STREAM", IO: "IO", InvalidFormat: "INVALID_FORMAT", UnsupportedFormat: "UNSUPPORTED_FORMAT",
	Corrupt: "CORRUPT", NoDriver: "NO_DRIVER", NoKernel: "NO_KERNEL", CUDA: "CUDA", Capturing: "CAPTURING",
	WrongDevice: "WRONG_DEVICE", OutOfMemory: "OUT_OF_MEMORY", Internal: "INTERNAL",
}

// String is the status's name in the C interface without its prefix, such as CORRUPT.
func (s Status) String() string {
	if name, ok := statusNames[s]; ok {
		return name
	}
	return "status " + strconv.Itoa(int(s))
}

// Error makes a Status an error.
func (s Status) Error() string { return "df11: " + s.String() }

// Error is what every call of this package fails with.
type Error struct {
	// Status says what kind of thing went wrong.
	Status Status
	// NativeCode is the number that the system below gave: an errno with [IO], a CUresult with [CUDA], or 0.
	NativeCode int32
	// Message is one sentence, with the file, the tensor and the byte in the file where they are known. It has no control
	// characters, whatever a model says.
	Message string
	// Op is the call that failed: "open", "decompress", …
	Op string

	// cause is what else the error is: of a cancelled call the context's error, of something closed fs.ErrClosed.
	cause error
}

// Error is the call and the sentence.
func (e *Error) Error() string { return "df11: " + e.Op + ": " + e.Message }

// Unwrap returns the Status, so that errors.Is(err, df11.Corrupt) works.
func (e *Error) Unwrap() error { return e.Status }

// Is makes the error that of the operating system, of the context, or [io/fs.ErrClosed] as well.
func (e *Error) Is(target error) bool {
	if e.cause != nil && errors.Is(e.cause, target) {
		return true
	}
	errno, ok := e.errno()
	return ok && errors.Is(errno, target)
}

// As gives the operating system's error to who asks for a [syscall.Errno].
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
	return syscall.Errno(e.NativeCode), e.Status == IO && e.NativeCode > 0
}

// of makes an error of the library's this package's. It takes and gives nil, and what it gives is an error without a type.
func of(op string, e *cdf11.Error) error {
	if e == nil {
		return nil
	}
	return &Error{Status: Status(e.Status), NativeCode: e.Native, Message: e.Message, Op: op}
}

// invalid is an error about an argument that the library was not asked about.
func invalid(op, format string, args ...any) error {
	return &Error{Status: InvalidArgument, Message: fmt.Sprintf(format, args...), Op: op}
}
