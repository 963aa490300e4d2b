// Go-service serves the decoded tensors of a DF11 model over HTTP. See README.md in this folder.
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

// run is the whole program. It returns the exit status: 0 after a graceful shutdown, 1 if requests had to be cut off or
// the listener failed, 2 for invalid flags.
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
	// The library's own log, such as a warning about a config.json that it ignores.
	df11.SetLogger(set.Logger)
	defer df11.SetLogger(nil)

	// A second signal ends the process at once.
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
