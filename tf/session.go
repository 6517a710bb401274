package tf

import (
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"

	"github.com/tfbert/go/internal/tfproto"
)

// SessionOptions configure a session; nil is TensorFlow's defaults.
type SessionOptions struct {
	Target string // "" for this process
	Config []byte // a serialized ConfigProto; package savedmodel builds one
}

// Session runs operations of a graph and holds the values of its variables.
type Session struct {
	mu        sync.RWMutex // held for reading by calls under way, so that Close waits for them
	ptr       sessionPtr
	cleanup   runtime.Cleanup
	graph     *Graph
	ownsGraph bool // graph, which LoadSession made
}

// NewSession makes a session over a graph.
func NewSession(g *Graph, opts *SessionOptions) (*Session, error) {
	if opts == nil {
		opts = &SessionOptions{}
	}
	g.mu.RLock()
	defer g.mu.RUnlock()
	if g.ptr == nil {
		return nil, ErrClosed
	}
	ptr, err := capiSessionNew(g.ptr, opts.Target, opts.Config)
	if err != nil {
		return nil, err
	}
	return newSession(ptr, g, false), nil
}

// LoadSession loads the meta graph of a SavedModel that carries exactly the given tags, with its
// variables restored. The session owns its graph: Close closes both.
func LoadSession(dir string, tags []string, opts *SessionOptions) (*Session, error) {
	if opts == nil {
		opts = &SessionOptions{}
	}
	if strings.ContainsRune(dir, 0) {
		return nil, fmt.Errorf("tf: load %q: the path contains NUL", dir)
	}
	g, err := NewGraph()
	if err != nil {
		return nil, err
	}
	ptr, err := capiSessionLoad(g.ptr, dir, tags, opts.Target, opts.Config)
	if err != nil {
		return nil, errors.Join(err, g.Close())
	}
	return newSession(ptr, g, true), nil
}

func newSession(ptr sessionPtr, g *Graph, ownsGraph bool) *Session {
	s := &Session{ptr: ptr, graph: g, ownsGraph: ownsGraph}
	alive.sessions.Add(1)
	s.cleanup = runtime.AddCleanup(s, func(ptr sessionPtr) {
		_ = freeSession(ptr) // nobody is left to tell
	}, ptr)
	return s
}

func freeSession(ptr sessionPtr) error {
	defer alive.sessions.Add(-1)
	return capiSessionDelete(ptr)
}

// Close waits for the calls under way and releases the session, and its graph where LoadSession
// made it.
func (s *Session) Close() error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ptr == nil {
		return nil
	}
	s.cleanup.Stop()
	err := freeSession(s.ptr)
	s.ptr = nil
	if s.ownsGraph {
		err = errors.Join(err, s.graph.Close())
	}
	return err
}

// Graph gives the session's graph.
func (s *Session) Graph() *Graph { return s.graph }

// Feed gives an output a value for the length of a run.
type Feed struct {
	Output Output
	Tensor *Tensor
}

// RunOptions are the options of one run; nil is none.
type RunOptions struct {
	// Timeout ends the run with DeadlineExceeded; 0 is no limit. The kernel that runs when it
	// expires is still finished.
	Timeout time.Duration
	// Trace measures every operation, PartitionGraphs keeps the graphs that really ran, after
	// all rewriting; both are found in the RunMetadata and cost time.
	Trace, PartitionGraphs bool
	// Targets are run for their effect.
	Targets []*Operation
}

// encode gives no bytes for no options, as most runs have.
func (o *RunOptions) encode() ([]byte, error) {
	if o.Timeout <= 0 && !o.Trace && !o.PartitionGraphs {
		return nil, nil
	}
	p := &tfproto.RunOptions{OutputPartitionGraphs: o.PartitionGraphs}
	if o.Timeout > 0 {
		p.TimeoutInMs = max(1, o.Timeout.Milliseconds())
	}
	if o.Trace {
		p.TraceLevel = tfproto.RunOptions_FULL_TRACE
	}
	return proto.Marshal(p)
}

// Run feeds, runs and fetches. TensorFlow keeps an executor for each order of feeds and fetches it
// has seen: keep them in one order. The metadata is nil unless an option asks for it.
func (s *Session) Run(feeds []Feed, fetches []Output, opts *RunOptions) ([]*Tensor, *RunMetadata, error) {
	if opts == nil {
		opts = &RunOptions{}
	}
	options, err := opts.encode()
	if err != nil {
		return nil, nil, fmt.Errorf("tf: run session: %w", err)
	}
	feedOutputs := make([]output, len(feeds))
	tensors := make([]*Tensor, len(feeds))
	for i, f := range feeds {
		if err := s.owns(f.Output); err != nil {
			return nil, nil, fmt.Errorf("tf: run session: feed %d: %w", i, err)
		}
		feedOutputs[i], tensors[i] = f.Output.capi(), f.Tensor
	}
	fetchOutputs := make([]output, len(fetches))
	for i, f := range fetches {
		if err := s.owns(f); err != nil {
			return nil, nil, fmt.Errorf("tf: run session: fetch %d: %w", i, err)
		}
		fetchOutputs[i] = f.capi()
	}
	targets := make([]operationPtr, len(opts.Targets))
	for i, t := range opts.Targets {
		if t == nil || t.g != s.graph {
			return nil, nil, fmt.Errorf("tf: run session: target %d is nil or not of the session's graph", i)
		}
		targets[i] = t.ptr
	}
	values, release, err := lend(tensors)
	if err != nil {
		return nil, nil, fmt.Errorf("tf: run session: %w", err)
	}
	defer release()

	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.ptr == nil {
		return nil, nil, ErrClosed
	}
	wantMetadata := opts.Trace || opts.PartitionGraphs
	ptrs, metadata, err := capiSessionRun(s.ptr, options, feedOutputs, values, fetchOutputs, targets, wantMetadata)
	runtime.KeepAlive(feeds)
	if err != nil {
		return nil, nil, err
	}
	results := make([]*Tensor, len(ptrs))
	for i, ptr := range ptrs {
		results[i], err = adopt(ptr, 0)
		if err != nil {
			return nil, nil, errors.Join(fmt.Errorf("tf: run session: fetch %d: %w", i, err), closeAll(results))
		}
	}
	if !wantMetadata {
		return results, nil, nil
	}
	return results, &RunMetadata{raw: metadata}, nil
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

func closeAll(tensors []*Tensor) error {
	var errs []error
	for _, t := range tensors {
		errs = append(errs, t.Close())
	}
	return errors.Join(errs...)
}

// Device is a device that a session can run operations on.
type Device struct {
	Name        string // "/job:localhost/replica:0/task:0/device:CPU:0"
	Type        string // "CPU", "GPU"
	MemoryLimit int64  // bytes
}

// Devices lists the devices the session can use.
func (s *Session) Devices() ([]Device, error) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if s.ptr == nil {
		return nil, ErrClosed
	}
	return capiSessionDevices(s.ptr)
}
