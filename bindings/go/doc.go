// Package df11 reads and writes DFloat11 models: bf16 weights of large language models, losslessly compressed to about
// 68 % of their size. It decodes them on the CPU directly into your slices, and on CUDA devices into your memory, on
// your streams. [CompressModel] makes such models. The package binds the C library libdf11. The library's version must
// agree with that of the header with which the package was compiled, in all numbers except the last.
//
//	model, err := df11.Open(ctx, "Qwen3-8B-DF11", nil)
//	if err != nil {
//		return err
//	}
//	defer model.Close()
//
//	tensor, err := model.FindTensor("model.layers.0.mlp.down_proj.weight") // one tensor, by its name
//	if err != nil {
//		return err
//	}
//	values := make([]df11.BF16, tensor.Elements)
//	err = model.ReadTensorBF16(tensor.Index, 0, values, runtime.NumCPU())
//
//	group := model.Groups()[0] // or a whole layer
//	weights := make([]df11.BF16, group.Elements)
//	err = model.Decompress(group.Index, 0, weights, runtime.NumCPU())
//
// Weights are stored in groups, usually one for each transformer layer. A group is decoded as a whole or in any range.
// A tensor is one weight matrix of the original model, either in a group or plain (not compressed). [Model.ReadTensor]
// reads any bytes of either kind, and [Model.ReadTensorBF16] any weights.
//
// # Building
//
// The package needs cgo, a C compiler, and an installed libdf11 that pkg-config finds (df11.pc; set PKG_CONFIG_PATH if
// it is in an unusual place). Programs then load libdf11.so at run time. With the build tag df11_static they contain
// the library:
//
//	go build -tags df11_static ./...
//
// Such a program needs the C library (libc, libm) of the system and nothing else, so it runs in images that have only
// glibc.
//
// With CGO_ENABLED=0, which is also Go's choice when it builds for another system, the package compiles and cannot work:
// every call that could returns an error that is [errors.ErrUnsupported]. Programs that use the package only sometimes can
// so be built everywhere.
//
// # Goroutines
//
// A [Model] is immutable, and so are a [Device] and a [Resident]: any number of goroutines may use one at once without
// locks, and close it. Close waits for running calls, and later calls fail with [io/fs.ErrClosed]. No call depends on
// the thread that it runs on, except [OpenCurrentDevice]. The library has no threads between calls. The threads that a
// call asks for are operating system threads, in addition to GOMAXPROCS, and the calling goroutine occupies one while
// the call runs.
//
// # Memory
//
// The library writes weights directly to your slice and keeps no pointer to it after the call. Calls that decode do not
// allocate in Go. The garbage collector frees objects that nobody closed, but it does not know how much C memory they
// hold: do not rely on it.
//
// # Errors
//
// Each error is an [*Error], with a [Status] for [errors.Is], and a message that names the file, the tensor and the
// byte. It is also the error of the operating system or of the context if it came from there:
//
//	errors.Is(err, df11.ErrCorrupt)    the model is damaged
//	errors.Is(err, fs.ErrNotExist)     there is no such file
//	errors.Is(err, context.Canceled)   ctx was cancelled
//	errors.Is(err, fs.ErrClosed)       the model, device or resident is closed
//
// A model is untrusted input. Whatever a file contains, nothing outside it is read, and nothing outside your slice is
// written. [Options].Verify and [VerifyModel] check more. Names come from the file: quote them before you print them.
//
// # Long calls
//
// [Open] with Options.Verify, [VerifyModel], [CompressModel] and [MergeModel] may take seconds to minutes, or longer.
// They report their progress, and return soon after their context ends. C does not call Go for that: the progress is
// two numbers in C memory, and the cancellation a flag. A decode cannot be interrupted: decode large ranges in pieces,
// and check your context between them.
//
// # Devices
//
// Addresses in device memory and streams are numbers (uintptr), as other packages provide them. You need no CUDA
// toolkit to build, and a driver only when [OpenDevice] is called. [Device.Upload] copies a group's image, compressed,
// to memory that you allocated, and [Resident.Decompress] decodes it when the weights are wanted. A decode consists of
// launches on your stream and may be captured in a graph. Keep everything that you pass to a stream until the stream
// has executed the work.
//
// # Metrics and logs
//
// [Stats] returns what the process has done through this package, and [WriteMetrics] writes it in Prometheus' text
// format. [SetLogger] sends the library's own log to a [log/slog.Logger]. The loggers in [Options], [VerifyOptions] and
// [CompressOptions] receive lines about single models.
package df11
