//go:build ignore

// The smallest program: opens a model, finds a tensor by its name, decodes it on the CPU, and prints its first values.
//
//	hello MODEL TENSOR          for example: hello Qwen3-8B-DF11 model.embed_tokens.weight
//
//	make install PREFIX=$HOME/df11
//	cd examples && PKG_CONFIG_PATH=$HOME/df11/lib/pkgconfig go build -tags df11_static -o hello hello.go
package main

import (
	"context"
	"encoding/binary"
	"fmt"
	"os"

	df11 "github.com/libdf11/libdf11/bindings/go"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "hello:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 2 {
		return fmt.Errorf("usage: hello MODEL TENSOR")
	}
	model, err := df11.Open(context.Background(), args[0], nil)
	if err != nil {
		return err
	}
	defer model.Close()
	tensor, err := model.FindTensor(args[1])
	if err != nil {
		return err
	}
	if tensor.DType != df11.DTypeBF16 {
		return fmt.Errorf("%q is of type %v", tensor.Name, tensor.DType)
	}
	values := make([]byte, tensor.DataBytes)
	if err := model.ReadTensor(tensor.Index, 0, values, 4); err != nil {
		return err
	}
	for i := 0; i < 4 && 2*i < len(values); i++ {
		fmt.Printf("%g\n", df11.BF16(binary.NativeEndian.Uint16(values[2*i:])).Float32())
	}
	return nil
}
