// Go-service serves the tensors of a DF11 model over HTTP, decoded: see README.md beside this file.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"syscall"

	df11 "github.com/libdf11/libdf11/bindings/go"
	"github.com/libdf11/libdf11/examples/go-service/server"
)

func main() {
	os.Exit(run(os.Args[1:], os.LookupEnv, os.Stderr))
}

// run is the whole program: 0 after an end in order, 1 if requests had to be cut off or the listener failed, 2 for what
// cannot be meant.
func run(args []string, env func(string) (string, bool), out io.Writer) int {
	set, err := parse(args, env, out)
	if errors.Is(err, flag.ErrHelp) {
		return 0
	} else if err != nil {
		fmt.Fprintln(out, "go-service:", err)
		return 2
	}
	s, err := server.New(set.Config)
	if err != nil {
		fmt.Fprintln(out, "go-service:", err)
		return 2
	}
	// What the library has to say by itself, such as a config.json that it passes over.
	df11.SetLogger(set.Logger)
	defer df11.SetLogger(nil)

	// A second signal ends the process at once, as signals do.
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	context.AfterFunc(ctx, stop)

	listener, err := net.Listen("tcp", set.listen)
	if err != nil {
		fmt.Fprintln(out, "go-service:", err)
		return 2
	}
	if err := s.Run(ctx, listener); err != nil {
		set.Logger.Error("ended", "error", err)
		return 1
	}
	return 0
}
