package df11_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log"
	"log/slog"
	"net/http"
	"os"
	"time"

	df11 "github.com/libdf11/libdf11/bindings/go"
)

func Example() {
	model, err := df11.Open(context.Background(), "../../tests/data/golden/block/model", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()
	for _, group := range model.Groups() {
		weights := make([]df11.BF16, group.Elements)
		if err := model.Decompress(group.Index, 0, weights, 4); err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %d tensors, %.1f bits for each of %d weights, the first is %g\n", group.Name, group.Tensors,
			8*float64(group.PackedBytes)/float64(group.Elements), group.Elements, weights[0].Float32())
	}
	// Output:
	// lm_head: 1 tensors, 11.0 bits for each of 131072 weights, the first is 0.010620117
	// model.embed_tokens: 1 tensors, 11.0 bits for each of 131072 weights, the first is -0.025268555
	// model.layers.0: 7 tensors, 11.1 bits for each of 688128 weights, the first is -0.01953125
	// model.layers.1: 7 tensors, 11.2 bits for each of 688128 weights, the first is 0.03125
}

// A model is verified within ten seconds at most, and its progress is shown.
func ExampleOpen() {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	var verified uint64 // what a service would show
	model, err := df11.Open(ctx, "../../tests/data/golden/block/model", &df11.Options{
		Verify:   true,
		Threads:  4,
		Progress: func(done, total uint64) { verified = done },
	})
	switch {
	case errors.Is(err, df11.ErrCorrupt):
		fmt.Println("damaged:", err)
	case errors.Is(err, fs.ErrNotExist):
		fmt.Println("there is no such model")
	case errors.Is(err, context.DeadlineExceeded):
		fmt.Println("it takes too long")
	case err == nil:
		fmt.Println(len(model.Groups()), "groups,", verified, "bytes verified")
		model.Close()
	}
	// Output: 4 groups, 3276800 bytes verified
}

// A tensor is found by its name and read in pieces, so that the program can stop between them.
func ExampleModel_ReadTensor() {
	ctx := context.Background()
	model, err := df11.Open(ctx, "../../tests/data/golden/block/model", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer model.Close()
	tensor, err := model.FindTensor("model.layers.0.mlp.down_proj.weight")
	if err != nil {
		log.Fatal(err)
	}
	piece := make([]byte, 1<<16)
	var read uint64
	for read < tensor.DataBytes && ctx.Err() == nil {
		n := min(uint64(len(piece)), tensor.DataBytes-read)
		if err := model.ReadTensor(tensor.Index, read, piece[:n], 1); err != nil {
			log.Fatal(err)
		}
		read += n // use the piece here
	}
	fmt.Println(read, "bytes of", tensor.DType)
	// Output: 327680 bytes of BF16
}

func ExampleVerifyModel() {
	report, err := df11.VerifyModel(context.Background(), "../../tests/data/golden/tiny/model",
		"../../tests/data/golden/block/original.safetensors", nil)
	fmt.Println(errors.Is(err, df11.ErrCorrupt), report.GroupsGood, report.GroupsBad)
	for _, finding := range report.Findings {
		if finding.Kind.Wrong() {
			fmt.Printf("%q\n", finding.Text)
			break
		}
	}
	// Output:
	// true 1 0
	// "tensor 'linear.weight': the model has it and the original does not"
}

func ExampleWriteMetrics() {
	http.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; version=0.0.4")
		df11.WriteMetrics(w)
	})
}

func ExampleSetLogger() {
	df11.SetLogger(slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelWarn})))
	defer df11.SetLogger(nil)
}

// Streams and device memory come from the program's own CUDA package.
func ExampleDevice_Upload() {
	var ( // provided by the program
		model               *df11.Model
		stream, dst, status uintptr
		allocate            func(bytes uint64) uintptr
		synchronize         func(stream uintptr)
	)
	if model == nil {
		return // this example is compiled only
	}
	device, err := df11.OpenDevice(0, nil)
	if err != nil {
		log.Fatal(err)
	}
	defer device.Close()
	var layers []*df11.Resident
	for _, group := range model.Groups() {
		layer, err := device.Upload(model, group.Index, allocate(group.ImageBytes), group.ImageBytes, stream)
		if err != nil {
			log.Fatal(err)
		}
		defer layer.Close()
		layers = append(layers, layer)
	}
	synchronize(stream)
	for _, layer := range layers {
		layer.Uploaded() // releases the model's files
	}
	for i, group := range model.Groups() {
		if err := layers[i].Decompress(dst, 2*group.Elements, status, stream); err != nil {
			log.Fatal(err)
		}
		// Launch what uses the weights at dst, on the same stream.
	}
	synchronize(stream)
}
