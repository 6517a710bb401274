package tf

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/tfbert/go/internal/tfproto"
)

// SessionOptions configure a session. nil stands for TensorFlow's defaults.
type SessionOptions struct {
	Target string // "": this process
	Config []byte // a serialized ConfigProto; package savedmodel builds one
	// MaxRuns bounds the runs that are in TensorFlow at once; 0 is DefaultMaxRuns. Each holds a thread
	// of the operating system. The others wait in Go.
	MaxRuns int
	// OwnGraph makes Close close the graph as well.
	OwnGraph bool
}

// DefaultMaxRuns is more than any machine computes at once, and not many threads.
const DefaultMaxRuns = 64

// Session runs operations of a graph and holds the values of its variables.
type Session struct {
	users     users // the callers
	runs      users // the runs in TensorFlow, some of which may have outlived their callers
	ptr       sessionPtr
	cleanup   runtime.Cleanup
	graph     *Graph
	ownsGraph bool          // graph
	slots     chan struct{} // one in it for each run in TensorFlow
	closeOnce sync.Once
	signals   sync.Once
	closing   chan struct{} // closed by Close
	freed     chan struct{} // closed when the C object is gone
	err       error         // of freeing it
}

// NewSession makes a session over a graph.
func NewSession(g *Graph, opts *SessionOptions) (*Session, error) {
	if opts == nil {
		opts = &SessionOptions{}
	}
	if err := opts.check(); err != nil {
		return nil, fmt.Errorf("new session: %w", err)
	}
	if err := g.users.enter(); err != nil {
		return nil, err
	}
	defer g.leave()
	ptr, err := capiSessionNew(g.ptr, opts.Target, opts.Config)
	if err != nil {
		return nil, err
	}
	return newSession(ptr, g, opts.OwnGraph, opts), nil
}

// LoadSession loads the meta graph of a SavedModel that has exactly the given tags, and its variables. The
// session owns its graph: Close closes both.
func LoadSession(dir string, tags []string, opts *SessionOptions) (*Session, error) {
	if opts == nil {
		opts = &SessionOptions{}
	}
	if err := opts.check(); err != nil {
		return nil, fmt.Errorf("load %s: %w", dir, err)
	}
	if strings.ContainsRune(dir+strings.Join(tags, ""), 0) {
		return nil, fmt.Errorf("load %q: the path or a tag contains NUL", dir)
	}
	g, err := NewGraph()
	if err != nil {
		return nil, err
	}
	ptr, err := capiSessionLoad(g.ptr, dir, tags, opts.Target, opts.Config)
	if err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return newSession(ptr, g, true, opts), nil
}

func (o *SessionOptions) check() error {
	switch {
	case o.MaxRuns < 0:
		return fmt.Errorf("MaxRuns is %d: it must not be negative", o.MaxRuns)
	case strings.ContainsRune(o.Target, 0):
		return errors.New("the target contains NUL")
	}
	return nil
}

func newSession(ptr sessionPtr, g *Graph, ownsGraph bool, opts *SessionOptions) *Session {
	s := &Session{
		ptr: ptr, graph: g, ownsGraph: ownsGraph,
		slots:   make(chan struct{}, cmp.Or(opts.MaxRuns, DefaultMaxRuns)),
		closing: make(chan struct{}), freed: make(chan struct{}),
	}
	alive.sessions.Add(1)
	s.cleanup = runtime.AddCleanup(s, func(ptr sessionPtr) {
		_ = capiSessionClose(ptr) // nobody is left to tell
		_ = deleteSession(ptr)
	}, ptr)
	return s
}

func deleteSession(ptr sessionPtr) error {
	defer alive.sessions.Add(-1)
	return capiSessionDelete(ptr)
}

// Close lets no more runs begin, waits for those under way and releases the session, and its graph if
// it owns it. Calls of Run that wait for their turn return ErrClosed. Close cancels the runs that
// have outlived their callers, which ends those that wait in a queue. A second Close also waits, and
// returns the same error.
func (s *Session) Close() error {
	if s == nil {
		return nil
	}
	s.closeOnce.Do(func() { close(s.closing) })
	if s.users.close() {
		s.cancel()
	}
	<-s.freed
	return s.err
}

// cancel begins the end of the session, which no caller is using any more.
func (s *Session) cancel() {
	s.cleanup.Stop()
	s.err = capiSessionClose(s.ptr)
	if s.runs.close() {
		s.free()
	}
}

func (s *Session) free() {
	s.err = errors.Join(s.err, deleteSession(s.ptr))
	if s.ownsGraph {
		s.err = errors.Join(s.err, s.graph.Close())
	}
	close(s.freed)
}

func (s *Session) leave() {
	if s.users.leave() {
		s.cancel()
	}
}

// Graph returns the session's graph.
func (s *Session) Graph() *Graph { return s.graph }

// Feed replaces the value of an output during a run.
type Feed struct {
	Output Output
	Tensor *Tensor
}

// RunOptions are the options of one run.
type RunOptions struct {
	Trace           bool         // measure every operation, for RunMetadata.Nodes
	PartitionGraphs bool         // keep the graphs that really ran, for RunMetadata.PartitionGraphs
	Targets         []*Operation // run for their effect
}

// encode returns no bytes for no options and no timeout, as most runs have.
func (o *RunOptions) encode(timeout time.Duration) ([]byte, error) {
	if timeout <= 0 && !o.Trace && !o.PartitionGraphs {
		return nil, nil
	}
	p := &tfproto.RunOptions{OutputPartitionGraphs: o.PartitionGraphs}
	if timeout > 0 {
		p.TimeoutInMs = max(1, timeout.Milliseconds())
	}
	if o.Trace {
		p.TraceLevel = tfproto.RunOptions_FULL_TRACE
	}
	return proto.Marshal(p)
}

// Run feeds, runs and fetches. Keep feeds and fetches in one order, because TensorFlow keeps an executor
// for each order that it has seen. The metadata is nil unless an option asks for it.
//
// When the context ends, Run returns its error at once. The run itself goes on, because TensorFlow cannot
// interrupt a computation, and its results are dropped. The tensors that it was fed may be closed
// meanwhile, and are released after it.
func (s *Session) Run(
	ctx context.Context, feeds []Feed, fetches []Output, opts *RunOptions,
) ([]*Tensor, *RunMetadata, error) {
	if opts == nil {
		opts = &RunOptions{}
	}
	r := &run{s: s, opts: *opts}
	if err := r.bind(feeds, fetches); err != nil {
		return nil, nil, fmt.Errorf("run session: %w", err)
	}
	if err := s.enter(ctx); err != nil {
		return nil, nil, err
	}
	defer s.leave()
	if err := r.begin(ctx, feeds); err != nil {
		s.exit()
		return nil, nil, err
	}
	if ctx.Done() == nil {
		defer s.exit()
		r.call()
		return r.results, r.metadata, r.err
	}
	done, gone := make(chan struct{}), make(chan struct{})
	go func() {
		defer s.exit()
		r.call()
		select {
		case done <- struct{}{}:
		case <-gone:
			CloseAll(r.results)
		}
	}()
	select {
	case <-done:
		return r.results, r.metadata, r.error(ctx)
	case <-ctx.Done():
		close(gone)
		return nil, nil, ctx.Err()
	}
}

// enter waits for the caller's turn to be in TensorFlow. The run calls exit after it, and the caller leave.
func (s *Session) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case s.slots <- struct{}{}:
	default:
		select {
		case s.slots <- struct{}{}:
		case <-s.closing:
			return ErrClosed
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	if err := s.users.enter(); err != nil {
		<-s.slots
		return err
	}
	return s.runs.enter() // open, because it is closed after the last user
}

func (s *Session) exit() {
	<-s.slots
	if s.runs.leave() {
		s.free()
	}
}

// run is one run of a session. It uses the session and the tensors until the end of call, which may come after the
// caller has returned.
type run struct {
	s       *Session
	opts    RunOptions
	bounded bool // by the context's deadline

	options []byte
	feeds   []output
	fetches []output
	targets []operationPtr
	values  []tensorPtr
	release func()

	results  []*Tensor
	metadata *RunMetadata
	err      error
}

// bind checks the feeds, the fetches and the targets.
func (r *run) bind(feeds []Feed, fetches []Output) error {
	outputs := make([]output, len(feeds)+len(fetches))
	r.feeds, r.fetches = outputs[:len(feeds)], outputs[len(feeds):]
	for i, f := range feeds {
		if err := r.s.owns(f.Output); err != nil {
			return fmt.Errorf("feed %d: %w", i, err)
		}
		r.feeds[i] = f.Output.capi()
	}
	for i, o := range fetches {
		if err := r.s.owns(o); err != nil {
			return fmt.Errorf("fetch %d: %w", i, err)
		}
		r.fetches[i] = o.capi()
	}
	r.targets = make([]operationPtr, len(r.opts.Targets))
	for i, t := range r.opts.Targets {
		if t == nil || t.g != r.s.graph {
			return fmt.Errorf("target %d is nil or not of the session's graph", i)
		}
		r.targets[i] = t.ptr
	}
	return nil
}

// begin borrows the tensors and turns the context's deadline into the run's timeout.
func (r *run) begin(ctx context.Context, feeds []Feed) (err error) {
	var timeout time.Duration
	if deadline, ok := ctx.Deadline(); ok {
		if timeout = time.Until(deadline); timeout <= 0 {
			return context.DeadlineExceeded
		}
		r.bounded = true
	}
	if r.options, err = r.opts.encode(timeout); err != nil {
		return fmt.Errorf("run session: %w", err)
	}
	tensors := make([]*Tensor, len(feeds))
	for i, f := range feeds {
		tensors[i] = f.Tensor
	}
	if r.values, r.release, err = lend(tensors); err != nil {
		return fmt.Errorf("run session: %w", err)
	}
	return nil
}

// call is the run in TensorFlow.
func (r *run) call() {
	defer r.release() // which also keeps the tensors from being collected
	wantMetadata := r.opts.Trace || r.opts.PartitionGraphs
	ptrs, metadata, err := capiSessionRun(r.s.ptr, r.options, r.feeds, r.values, r.fetches, r.targets, wantMetadata)
	r.s.signals.Do(func() { fixSignals() }) // CUDA comes up with a session's first run
	if err != nil {
		r.err = err
		return
	}
	results := make([]*Tensor, len(ptrs))
	for i, ptr := range ptrs {
		if results[i], err = adopt(ptr, 0); err != nil {
			r.err = errors.Join(r.err, fmt.Errorf("run session: fetch %d: %w", i, err))
		}
	}
	if r.err != nil {
		CloseAll(results)
		return
	}
	r.results = results
	if wantMetadata {
		r.metadata = &RunMetadata{raw: metadata}
	}
}

// error returns the error of the call for a caller with a context.
func (r *run) error(ctx context.Context) error {
	cause := ctx.Err()
	if r.bounded && ErrCode(r.err) == DeadlineExceeded {
		cause = context.DeadlineExceeded // TensorFlow's clock may be ahead of the context's
	}
	if r.err != nil && cause != nil {
		return fmt.Errorf("%w: %w", cause, r.err)
	}
	return r.err
}

func (s *Session) owns(o Output) error {
	if err := o.valid(); err != nil {
		return err
	}
	if o.Op.g != s.graph {
		return fmt.Errorf("%v is not of the session's graph", o)
	}
	return nil
}

// Device is a device that a session can run operations on.
type Device struct {
	Name        string // "/job:localhost/replica:0/task:0/device:CPU:0"
	Type        string // "CPU", "GPU"
	MemoryLimit int64  // bytes
}

// Devices returns the devices that the session can use.
func (s *Session) Devices() ([]Device, error) {
	if err := s.users.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	return capiSessionDevices(s.ptr)
}
