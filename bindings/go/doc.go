// Package df11 reads and writes DFloat11 models: bf16 weights of large language models, kept at about 68 % of their size,
// bit for bit. It decodes them on the CPU, straight into slices of yours, and on CUDA devices, into memory and on streams
// of yours, and [Compress] makes them. It binds the C library libdf11, of the version whose header it was compiled with;
// the numbers before the last must agree.
//
//	model, err := df11.Open(ctx, "Qwen3-8B-DF11", nil)
//	if err != nil {
//		return err
//	}
//	defer model.Close()
//	group := model.Groups()[0]
//	weights := make([]df11.BF16, group.Elements)
//	err = model.Decompress(group.Index, 0, weights, runtime.NumCPU())
//
// Weights come in groups, usually one for each transformer layer, which are decoded as a whole or in any range. A
// tensor is one weight matrix of the original model, in a group or plain (as it was); [Model.ReadTensor] reads any
// bytes of either.
//
// # Building
//
// cgo and a C compiler are needed, and an installed libdf11, which pkg-config finds (df11.pc; PKG_CONFIG_PATH says where, if it
// is in no usual place). Programs then load libdf11.so at run time. With the build tag df11_static they hold the
// library themselves:
//
//	go build -tags df11_static ./...
//
// # Goroutines
//
// A [Model] never changes once it is open, and neither does a [Device] or a [Resident]: any number of goroutines may
// use one at once, without locks, and close it, too. Close waits for the calls that run, and later ones fail with
// [io/fs.ErrClosed]. No call depends on the thread it runs on, but for [OpenCurrentDevice]. The library has no threads
// between calls; those that a call asks for are threads of the operating system, beside GOMAXPROCS. While a call runs,
// its goroutine holds one more.
//
// # Memory
//
// No weight is copied on its way to you: the library writes to your slice, and keeps no pointer to it after the call.
// Calls that decode allocate nothing in Go. What is closed by nobody is closed by the garbage collector, which does not
// know how much memory lies behind it: do not leave it to that.
//
// # Errors
//
// Each error is an [*Error], with a [Status] that [errors.Is] asks for, and a sentence that names the file, the tensor
// and the byte. It is the error of the system or the context as well, where it came from there:
//
//	errors.Is(err, df11.Corrupt)       the model is damaged
//	errors.Is(err, fs.ErrNotExist)     there is no such file
//	errors.Is(err, context.Canceled)   ctx was cancelled
//	errors.Is(err, fs.ErrClosed)       the model, device or resident is closed
//
// A model is a download, and is looked at as one: whatever a file says, nothing outside of it is read and nothing
// outside your slice written. [Options].Verify and [Verify] say how much more can be known. Names come from the file:
// quote them before you print them.
//
// # Long calls
//
// [Open] with Options.Verify, [Verify], [Compress] and [Merge] may take seconds to minutes, and longer. They tell their
// progress, and end soon after their context does. Nothing in C calls back into Go for that: two counters and a flag lie in C's memory. A decode
// cannot be interrupted: decode large ranges in pieces, and look at your context between them.
//
// # Devices
//
// Addresses of device memory and streams are numbers (uintptr), as other packages give them. No CUDA toolkit is needed
// to build, and a driver only when [OpenDevice] looks for it. [Device.Upload] brings a group's image to memory of
// yours, compressed, and [Resident.Decompress] decodes it whenever the weights are wanted: nothing but launches on your
// stream, also inside a captured graph. What you have given a stream you keep until the stream has passed it.
//
// # Metrics and logs
//
// [Stats] and [WriteMetrics] tell what the library has done in the process, the latter as Prometheus reads it.
// [SetLogger] sends the library's own log to a [log/slog.Logger], and the loggers in [Options], [VerifyOptions] and
// [CompressOptions] hear of single models.
package df11
