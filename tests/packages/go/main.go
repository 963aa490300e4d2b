// The program of consumer.c in Go, with the package df11.
package main

import (
	"context"
	"fmt"
	"hash/fnv"
	"os"

	df11 "github.com/libdf11/libdf11/bindings/go"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "consumer:", err)
		os.Exit(1)
	}
}

func run() error {
	model, err := df11.Open(context.Background(), os.Args[1], nil)
	if err != nil {
		return err
	}
	defer model.Close()
	for _, tensor := range model.Tensors() {
		bytes := make([]byte, tensor.DataBytes)
		if err := model.ReadTensor(tensor.Index, 0, bytes, 2); err != nil {
			return err
		}
		hash := fnv.New64a()
		hash.Write(bytes)
		fmt.Printf("%s %d %016x\n", tensor.Name, len(bytes), hash.Sum64())
	}
	return nil
}
