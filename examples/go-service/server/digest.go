package server

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"hash"
	"io"
	"io/fs"
	"log/slog"
	"sync"
	"time"

	df11 "github.com/libdf11/libdf11/bindings/go"
)

// sum is a SHA-256.
type sum = [sha256.Size]byte

// extent is a range of bytes in a file of the model.
type extent struct {
	file          string
	offset, bytes uint64
}

// digests holds the hashes of a model's contents, from which entity tags are made. Nothing is decoded for them. The
// bytes of a group's six parts determine its tensors, so one hash of the parts serves all of them: a tensor's tag is
// made from that hash and the tensor's place in the group. Names, paths and times are not part of it, so the same bytes
// have the same tag on every machine and after every start. Two files may compress the same weights differently. Their
// tags then differ, which costs a transfer and is never wrong.
//
// Each hash is computed once, when it is first needed, one at a time. A request that goes away leaves the work to the
// next one. All hashes together need one pass over the model's files.
type digests struct {
	model Model
	files files
	log   *slog.Logger
	// stop ends the work. running counts unfinished work, and closed says that no work may begin any more. Work begins
	// with lock held, so that none begins while close waits for the last.
	stop    context.Context
	lock    sync.Mutex
	closed  bool
	running sync.WaitGroup
	turn    chan struct{}
	buffer  []byte // used by the computation that runs

	groups  []cell
	tensors []cell // of plain tensors; those in groups stay empty
	metrics *metrics
}

// cell is one digest, which may not be known yet.
type cell struct {
	lock    sync.Mutex
	known   bool
	sum     sum
	attempt *attempt // the one that runs, or nil
}

// attempt is a computation for which requests may wait. Its err is read after done is closed.
type attempt struct {
	done chan struct{}
	err  error
}

func newDigests(stop context.Context, m Model, f files, log *slog.Logger, metrics *metrics) *digests {
	return &digests{
		model: m, files: f, log: log, stop: stop, metrics: metrics,
		turn: make(chan struct{}, 1), buffer: make([]byte, 256<<10),
		groups: make([]cell, len(m.Groups())), tensors: make([]cell, len(m.Tensors())),
	}
}

// etag returns the strong entity tag of a tensor's bytes. It fails if ctx ends, or if the files cannot be read or have
// changed.
func (d *digests) etag(ctx context.Context, t *df11.TensorInfo) (string, error) {
	if t.Runs > 1 {
		return d.ofRuns(ctx, t)
	}
	var content sum
	var err error
	if t.Group < 0 {
		content, err = d.get(ctx, &d.tensors[t.Index], func() (sum, error) { return d.plain(t, nil) })
	} else {
		content, err = d.get(ctx, &d.groups[t.Group], func() (sum, error) { return d.group(t.Group, nil) })
	}
	if err != nil {
		return "", err
	}
	h := sha256.New()
	if t.Group < 0 {
		h.Write([]byte("df11 plain tensor 1\x00"))
	} else {
		h.Write([]byte("df11 tensor of a group 1\x00"))
	}
	h.Write(content[:])
	number(h, 2*t.GroupOffset)
	number(h, t.DataBytes)
	return `"` + base64.RawURLEncoding.EncodeToString(h.Sum(nil)) + `"`, nil
}

// ofRuns returns the entity tag of a tensor that is in several groups.
func (d *digests) ofRuns(ctx context.Context, t *df11.TensorInfo) (string, error) {
	runs, err := d.model.TensorRuns(t.Index)
	if err != nil {
		return "", err
	}
	h := sha256.New()
	h.Write([]byte("df11 tensor of several groups 1\x00"))
	for _, run := range runs {
		content, err := d.get(ctx, &d.groups[run.Group], func() (sum, error) { return d.group(run.Group, nil) })
		if err != nil {
			return "", err
		}
		h.Write(content[:])
		number(h, run.GroupOffset)
		number(h, run.Elements)
	}
	return `"` + base64.RawURLEncoding.EncodeToString(h.Sum(nil)) + `"`, nil
}

// all computes every digest, and calls report with the number of bytes that are read and the total.
func (d *digests) all(ctx context.Context, report func(done, total uint64)) error {
	var done, total uint64
	groups, tensors := d.model.Groups(), d.model.Tensors()
	for i := range groups {
		total += groups[i].PackedBytes
	}
	for i := range tensors {
		if tensors[i].Group < 0 {
			total += tensors[i].DataBytes
		}
	}
	report(0, total)
	step := func(bytes int) {
		done += uint64(bytes)
		report(done, total)
	}
	for i := range groups {
		if _, err := d.get(ctx, &d.groups[i], func() (sum, error) { return d.group(i, step) }); err != nil {
			return err
		}
	}
	for i := range tensors {
		if t := &tensors[i]; t.Group < 0 {
			if _, err := d.get(ctx, &d.tensors[i], func() (sum, error) { return d.plain(t, step) }); err != nil {
				return err
			}
		}
	}
	return nil
}

// get returns the cell's digest. If it is not known, it is computed once for all concurrent callers. After a failure
// the next caller tries again.
func (d *digests) get(ctx context.Context, c *cell, compute func() (sum, error)) (sum, error) {
	c.lock.Lock()
	if c.known {
		defer c.lock.Unlock()
		return c.sum, nil
	}
	a := c.attempt
	if a == nil {
		if !d.begin() {
			c.lock.Unlock()
			return sum{}, fs.ErrClosed
		}
		a = &attempt{done: make(chan struct{})}
		c.attempt = a
		go d.run(c, a, compute)
	}
	c.lock.Unlock()

	select {
	case <-ctx.Done():
		return sum{}, ctx.Err()
	case <-a.done:
	}
	if a.err != nil {
		return sum{}, a.err
	}
	return c.sum, nil // it is never written again
}

func (d *digests) begin() bool {
	d.lock.Lock()
	defer d.lock.Unlock()
	if !d.closed {
		d.running.Add(1)
	}
	return !d.closed
}

// close waits for the work, which must have been stopped. Digests that are not known by then stay unknown.
func (d *digests) close() {
	d.lock.Lock()
	d.closed = true
	d.lock.Unlock()
	d.running.Wait()
}

func (d *digests) run(c *cell, a *attempt, compute func() (sum, error)) {
	defer d.running.Done()
	var result sum
	select {
	case d.turn <- struct{}{}:
		start := time.Now()
		result, a.err = compute()
		d.metrics.hashed(time.Since(start))
		<-d.turn
	case <-d.stop.Done():
		a.err = d.stop.Err()
	}
	if a.err != nil && d.stop.Err() == nil {
		d.metrics.hashFailures.Add(1)
		d.log.Warn("no hash of a part of the model: its tensors are served without an ETag", "error", a.err)
	}
	c.lock.Lock()
	c.known, c.sum, c.attempt = a.err == nil, result, nil
	c.lock.Unlock()
	close(a.done)
}

// group hashes the six parts of a group as they are stored, each after its length.
func (d *digests) group(group int, step func(bytes int)) (sum, error) {
	h := sha256.New()
	h.Write([]byte("df11 group 1\x00"))
	for part := range df11.Parts {
		p, err := d.model.GroupPart(group, part)
		if err != nil {
			return sum{}, err
		}
		number(h, p.DataBytes)
		if err := d.add(h, extent{p.File, p.FileOffset, p.DataBytes}, step); err != nil {
			return sum{}, err
		}
	}
	return sum(h.Sum(nil)), nil
}

// plain hashes the values of a plain tensor as they are stored.
func (d *digests) plain(t *df11.TensorInfo, step func(bytes int)) (sum, error) {
	h := sha256.New()
	if err := d.add(h, extent{t.File, t.FileOffset, t.DataBytes}, step); err != nil {
		return sum{}, err
	}
	return sum(h.Sum(nil)), nil
}

// add hashes bytes of a file. It checks before and after reading that the file is still the model's.
func (d *digests) add(h hash.Hash, e extent, step func(bytes int)) error {
	if e.bytes == 0 {
		return nil
	}
	file, err := d.files.open(e.file)
	if err != nil {
		return err
	}
	defer file.Close()
	for e.bytes > 0 {
		if err := d.stop.Err(); err != nil {
			return err
		}
		n, err := file.ReadAt(d.buffer[:min(e.bytes, uint64(len(d.buffer)))], int64(e.offset))
		if err != nil && (err != io.EOF || n == 0) {
			return err
		}
		h.Write(d.buffer[:n])
		e.offset, e.bytes = e.offset+uint64(n), e.bytes-uint64(n)
		if step != nil {
			step(n)
		}
	}
	return d.files.same(e.file, file)
}

// number writes a number as eight bytes, low byte first.
func number(h hash.Hash, n uint64) {
	h.Write(binary.LittleEndian.AppendUint64(nil, n))
}
