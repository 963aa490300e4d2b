// Package server serves the decoded tensors of one DF11 model over HTTP, in bounded memory. It opens the model in the
// background, reports health and metrics, and shuts down gracefully. It is not a file server, and has no users,
// passwords or TLS: use a proxy for these.
package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"time"

	df11 "github.com/libdf11/libdf11/bindings/go"
)

// Model is the part of [df11.Model] that the service uses.
type Model interface {
	Groups() []df11.GroupInfo
	Tensors() []df11.TensorInfo
	GroupPart(group int, part df11.Part) (df11.PartInfo, error)
	TensorRuns(tensor int) ([]df11.Run, error)
	ReadTensor(tensor int, offset uint64, dst []byte, threads int) error
	Close() error
}

// OpenFunc opens a model as [df11.Open] does.
type OpenFunc func(ctx context.Context, path string, o *df11.Options) (Model, error)

// Open is [df11.Open].
func Open(ctx context.Context, path string, o *df11.Options) (Model, error) {
	m, err := df11.Open(ctx, path, o)
	if err != nil {
		return nil, err // an untyped nil, not a nil *df11.Model
	}
	return m, nil
}

// Config says what is served, and sets the limits. Begin with [Defaults].
type Config struct {
	// Model is the path of a folder or a .safetensors file. Its files must not change while they are served.
	Model string
	// ConfigJSON is the text of a config.json that replaces the model's own, or nil.
	ConfigJSON []byte
	// Verify checks every code and hashes every byte before the model is ready. Without it, requests meet wrong codes,
	// and a tensor's hash is computed when it is first needed.
	Verify bool
	// VerifyThreads is the number of threads for the verification.
	VerifyThreads int
	// Map maps the files instead of reading them. It is somewhat faster, but a mapped file that is cut short ends the
	// process.
	Map bool
	// Retry is the time after which a model that could not be read is opened again; 0: never. A damaged model is not
	// opened again.
	Retry time.Duration

	// Streams is the number of bodies that are sent at once. Each holds one buffer of Chunk bytes until it is sent.
	Streams int
	// Chunk is the number of bytes that are decoded and sent as one piece. It is even.
	Chunk int
	// Decodes is the number of pieces that are decoded at once, by one thread each. Slow clients do not hold any of
	// these.
	Decodes int
	// Waiting is the number of requests that may wait for one of the Streams, and Wait how long. Others get 503.
	Waiting int
	Wait    time.Duration

	// Hosts are the names by which clients on this machine may call the service, in addition to localhost and
	// addresses. "*" allows any. See Server.hostAllowed.
	Hosts []string

	// Connections is the limit of connections. Beyond it, the connection that has been without a request for longest is
	// closed.
	Connections int
	// HeaderTimeout is the time that a client may take to send a request, IdleTimeout the time that it may send none,
	// and WriteTimeout the time that it may take to receive a piece of Chunk bytes.
	HeaderTimeout, IdleTimeout, WriteTimeout time.Duration

	// Drain is the time during which requests are still accepted after a signal, while /readyz answers 503. Shutdown is
	// the time that running requests may then take.
	Drain, Shutdown time.Duration

	// Logger receives a line for every request, and lines about the model.
	Logger *slog.Logger
	// Open opens the model. If it is nil, the function Open does.
	Open OpenFunc
}

// Defaults returns the default limits.
func Defaults() Config {
	return Config{
		Verify:        true,
		VerifyThreads: runtime.GOMAXPROCS(0),
		Retry:         30 * time.Second,
		Streams:       64,
		Chunk:         1 << 20,
		Decodes:       runtime.GOMAXPROCS(0),
		Waiting:       256,
		Wait:          5 * time.Second,
		Connections:   1024,
		HeaderTimeout: 5 * time.Second,
		IdleTimeout:   60 * time.Second,
		WriteTimeout:  30 * time.Second,
		Shutdown:      20 * time.Second,
		Logger:        slog.Default(),
		Open:          Open,
	}
}

// check returns an error for invalid settings.
func (c *Config) check() error {
	positive := func(name string, n int) error {
		if n < 1 {
			return fmt.Errorf("%s must be at least 1, not %d", name, n)
		}
		return nil
	}
	never := func(name string, d time.Duration) error {
		if d < 0 {
			return fmt.Errorf("%s must not be negative: %v", name, d)
		}
		return nil
	}
	some := func(name string, d time.Duration) error {
		if d <= 0 {
			return fmt.Errorf("%s must be longer than 0, not %v", name, d)
		}
		return nil
	}
	errs := []error{
		positive("streams", c.Streams), positive("decodes", c.Decodes), positive("connections", c.Connections),
		positive("verify-threads", c.VerifyThreads),
		some("header-timeout", c.HeaderTimeout), some("idle-timeout", c.IdleTimeout),
		some("write-timeout", c.WriteTimeout),
		some("shutdown", c.Shutdown), never("wait", c.Wait), never("retry", c.Retry), never("drain", c.Drain),
	}
	if c.Model == "" {
		errs = append(errs, errors.New("model: there is no path"))
	}
	if c.Chunk < 4096 || c.Chunk > 1<<30 || c.Chunk%2 != 0 {
		errs = append(errs, fmt.Errorf("chunk must be even, and 4096 to %d bytes, not %d", 1<<30, c.Chunk))
	}
	if c.Waiting < 0 {
		errs = append(errs, fmt.Errorf("waiting must not be negative: %d", c.Waiting))
	}
	return errors.Join(errs...)
}
