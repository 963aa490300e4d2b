// Package server serves the tensors of one DF11 model over HTTP, decoded, in bounded memory. It opens the model in the
// background, tells its health and its figures, and ends in order. It is no file server and has no users, passwords or
// TLS: what stands in front of it has.
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

// Model is what the service uses of a [df11.Model].
type Model interface {
	Groups() []df11.GroupInfo
	Tensors() []df11.TensorInfo
	GroupPart(group int, part df11.Part) (df11.PartInfo, error)
	ReadTensor(tensor int, offset uint64, dst []byte, threads int) error
	Close() error
}

// OpenFunc opens a model as [df11.Open] does.
type OpenFunc func(ctx context.Context, path string, o *df11.Options) (Model, error)

// Open is [df11.Open].
func Open(ctx context.Context, path string, o *df11.Options) (Model, error) {
	m, err := df11.Open(ctx, path, o)
	if err != nil {
		return nil, err // not a *df11.Model that is nil
	}
	return m, nil
}

// Config says what is served, and how much that may take. Begin with [Defaults].
type Config struct {
	// Model is the path of a folder or a .safetensors file. Its files must not change while they are served.
	Model string
	// ConfigJSON is the text of a config.json to use instead of the model's own, or nil.
	ConfigJSON []byte
	// Verify walks every code and hashes every byte before the model is ready. Without it wrong codes are met by the
	// requests for them, and a tensor's hash is computed when it is first asked for.
	Verify bool
	// VerifyThreads are the threads to verify with.
	VerifyThreads int
	// Map maps the files instead of reading them: somewhat faster, but who cuts a mapped file short kills the process.
	Map bool
	// Retry is how long to wait before a model that could not be read (not: one that is wrong) is opened again; 0:
	// never.
	Retry time.Duration

	// Streams is how many bodies are sent at once: each has one buffer of Chunk bytes until it has been sent.
	Streams int
	// Chunk is how many bytes are decoded and sent in one piece; even.
	Chunk int
	// Decodes is how many pieces are decoded at once, by one thread each. Slow clients do not hold one of these.
	Decodes int
	// Waiting is how many requests may wait for one of the Streams, and Wait for how long. Others get 503.
	Waiting int
	Wait    time.Duration

	// Hosts are the names by which clients on this machine may call the service, beside localhost and addresses; "*" is
	// any. See Server.hostAllowed.
	Hosts []string

	// Connections is how many connections there may be. When there are more, the one that has been without a request
	// for longest is closed.
	Connections int
	// HeaderTimeout is how long a client may take to send a request, IdleTimeout how long it may send none, and
	// WriteTimeout how long it may take to receive a piece of Chunk bytes.
	HeaderTimeout, IdleTimeout, WriteTimeout time.Duration

	// Drain is how long requests are still accepted after the end was asked for (and /readyz says so), and Shutdown how
	// long those that run may then take.
	Drain, Shutdown time.Duration

	// Logger is told of every request and of what becomes of the model.
	Logger *slog.Logger
	// Open opens the model; Open if nil.
	Open OpenFunc
}

// Defaults are the limits that the service has if nothing is said.
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

// check says what cannot be meant.
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
