package main

import (
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/libdf11/libdf11/examples/go-service/server"
)

// settings holds the values of the command line and the environment.
type settings struct {
	server.Config
	listen string
}

// prefix begins the name of a flag's environment variable: -write-timeout is DF11_SERVICE_WRITE_TIMEOUT.
const prefix = "DF11_SERVICE_"

const usage = `usage: go-service [flags] MODEL

MODEL is a folder or a .safetensors file. Each flag may also be given as an environment variable:
-write-timeout is ` + prefix + `WRITE_TIMEOUT, and MODEL is ` + prefix + `MODEL.

`

// parse reads the flags, and the environment for flags that are not given.
func parse(args []string, env func(string) (string, bool), out io.Writer) (*settings, error) {
	set := &settings{Config: server.Defaults()}
	var config, format, hosts string
	var level slog.Level

	f := flag.NewFlagSet("go-service", flag.ContinueOnError)
	f.SetOutput(out)
	f.Usage = func() {
		fmt.Fprint(out, usage)
		f.PrintDefaults()
	}
	f.StringVar(&set.listen, "listen", "127.0.0.1:8311", "`address` to listen on; there is no authentication")
	f.StringVar(&hosts, "hosts", "",
		"comma-separated `names` that requests over loopback may have as Host, besides localhost and addresses; * is any")
	f.StringVar(&config, "config", "", "`file` to use instead of the model's own config.json")
	f.BoolVar(&set.Verify, "verify", set.Verify, "walk every code and hash every byte before the model is ready")
	f.IntVar(&set.VerifyThreads, "verify-threads", set.VerifyThreads, "threads to verify with")
	f.BoolVar(&set.Map, "map", set.Map,
		"map the files instead of reading them: a mapped file that is cut short ends the process")
	f.DurationVar(&set.Retry, "retry", set.Retry,
		"time after which a model that could not be read is opened again; 0: never")
	f.IntVar(&set.Streams, "streams", set.Streams, "tensors that are sent at once, each through one buffer")
	f.IntVar(&set.Chunk, "chunk", set.Chunk, "`bytes` of a buffer, which are decoded and sent as one piece")
	f.IntVar(&set.Decodes, "decodes", set.Decodes, "pieces that are decoded at once, by one thread each")
	f.IntVar(&set.Waiting, "waiting", set.Waiting, "requests that may wait for a buffer; others get 503")
	f.DurationVar(&set.Wait, "wait", set.Wait, "how long a request waits for a buffer before it gets 503")
	f.IntVar(&set.Connections, "connections", set.Connections,
		"limit of connections; beyond it the longest idle one is closed")
	f.DurationVar(&set.HeaderTimeout, "header-timeout", set.HeaderTimeout,
		"how long a client may take to send a request")
	f.DurationVar(&set.IdleTimeout, "idle-timeout", set.IdleTimeout, "how long a connection may be without a request")
	f.DurationVar(&set.WriteTimeout, "write-timeout", set.WriteTimeout, "how long a client may take to receive a piece")
	f.DurationVar(&set.Drain, "drain", set.Drain,
		"how long requests are still accepted after a signal, while /readyz answers 503")
	f.DurationVar(&set.Shutdown, "shutdown", set.Shutdown, "how long running requests may then take")
	f.StringVar(&format, "log-format", "text", "`text or json`")
	f.TextVar(&level, "log-level", slog.LevelInfo, "`level`: debug (with probes and scrapes), info, warn or error")

	if err := f.Parse(args); err != nil {
		return nil, err
	}
	if err := fromEnvironment(f, env); err != nil {
		return nil, err
	}
	switch path, ok := env(prefix + "MODEL"); {
	case f.NArg() == 1:
		set.Model = f.Arg(0)
	case f.NArg() == 0 && ok:
		set.Model = path
	case f.NArg() == 0:
		return nil, fmt.Errorf("no model is given; see -help")
	default:
		return nil, fmt.Errorf("give one model, after the flags: %q", f.Args())
	}
	if hosts != "" {
		set.Hosts = strings.Split(hosts, ",")
	}
	if config != "" {
		text, err := os.ReadFile(config)
		if err != nil {
			return nil, err
		}
		set.ConfigJSON = text
	}
	options := &slog.HandlerOptions{Level: level}
	switch format {
	case "text":
		set.Logger = slog.New(slog.NewTextHandler(out, options))
	case "json":
		set.Logger = slog.New(slog.NewJSONHandler(out, options))
	default:
		return nil, fmt.Errorf("log-format: text or json, not %q", format)
	}
	return set, nil
}

// fromEnvironment sets flags that were not given from the environment.
func fromEnvironment(f *flag.FlagSet, env func(string) (string, bool)) error {
	given := map[string]bool{}
	f.Visit(func(one *flag.Flag) { given[one.Name] = true })
	var failure error
	f.VisitAll(func(one *flag.Flag) {
		name := prefix + strings.ToUpper(strings.ReplaceAll(one.Name, "-", "_"))
		if value, ok := env(name); ok && !given[one.Name] && failure == nil {
			if err := f.Set(one.Name, value); err != nil {
				failure = fmt.Errorf("%s=%q: %w", name, value, err)
			}
		}
	})
	return failure
}
