package repository

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/squad"
)

// A Control says when models are loaded and unloaded after the start.
type Control int

const (
	// ControlNone leaves the models of the start as they are.
	ControlNone Control = iota
	// ControlExplicit loads and unloads what a client asks for.
	ControlExplicit
	// ControlPoll looks at the files from time to time and follows them.
	ControlPoll
)

// ParseControl returns the control of the name that Triton's --model-control-mode has for it.
func ParseControl(name string) (Control, error) {
	i := slices.Index([]string{"none", "explicit", "poll"}, name)
	if i < 0 {
		return 0, fmt.Errorf("the control mode is none, explicit or poll, not %q", name)
	}
	return Control(i), nil
}

// Options are how models are loaded and served.
type Options struct {
	Load         Loader
	Control      Control
	PollInterval time.Duration // 0 is 15 s

	// Batching is what a model's config.pbtxt does not say.
	Batching batch.Options
	Limits   Limits
	Decoder  squad.Decoder // of questions that do not say

	Logger *slog.Logger // nil: none
}

// A Repository keeps models. It may be used by many goroutines at once.
type Repository struct {
	opts  Options
	files files
	stop  context.CancelFunc
	work  sync.WaitGroup

	observe func(*Model, batch.Batch)

	mu      sync.Mutex
	entries map[string]*entry
	started bool
	closed  bool
}

// An entry is a model with its versions.
type entry struct {
	loading  sync.Mutex // one load at a time
	required bool       // by the start; guarded by the repository's mutex
	closing  sync.WaitGroup
	print    string // of the files that were loaded last; guarded by loading
	versions map[int64]*served
}

func newRepository(f files, opts Options) (*Repository, error) {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	opts.PollInterval = cmp.Or(opts.PollInterval, 15*time.Second)
	opts.Limits = opts.Limits.withDefaults()
	return &Repository{opts: opts, files: f, entries: map[string]*entry{}}, nil
}

// Observe makes f hear of each batch of each model, from several goroutines at once. Call it before Start.
func (r *Repository) Observe(f func(*Model, batch.Batch)) { r.observe = f }

// Start loads the models, or with ControlExplicit those that are named. An error leaves those that
// could be loaded available. With ControlPoll it goes on looking at the files until Close.
func (r *Repository) Start(ctx context.Context, names ...string) error {
	if r.opts.Control != ControlExplicit {
		var err error
		if names, err = r.files.names(); err != nil {
			return err
		}
	}
	var failed []error
	for _, name := range names {
		if r.files.has(name) {
			r.require(name)
		}
		if err := r.load(ctx, name); err != nil {
			failed = append(failed, err)
		}
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.started, r.stop = true, cancel
	if r.opts.Control == ControlPoll && !r.closed {
		r.work.Go(func() { r.poll(ctx) })
	}
	return errors.Join(failed...)
}

func (r *Repository) require(name string) {
	e := r.entry(name)
	r.mu.Lock()
	defer r.mu.Unlock()
	e.required = true
}

// poll follows the files.
func (r *Repository) poll(ctx context.Context) {
	for tick := time.NewTicker(r.opts.PollInterval); ; {
		select {
		case <-ctx.Done():
			tick.Stop()
			return
		case <-tick.C:
		}
		names, err := r.files.names()
		if err != nil {
			r.opts.Logger.Error("cannot look at the models", "error", err)
			continue
		}
		for _, name := range names {
			if r.changed(name) {
				_ = r.load(ctx, name) // logs its error
			}
		}
		r.mu.Lock()
		gone := slices.DeleteFunc(slices.Collect(maps.Keys(r.entries)), func(name string) bool {
			return slices.Contains(names, name)
		})
		r.mu.Unlock()
		for _, name := range gone {
			_ = r.unload(name)
		}
	}
}

// changed reports whether a model's files are not those that were looked at last.
func (r *Repository) changed(name string) bool {
	e := r.entry(name)
	e.loading.Lock()
	defer e.loading.Unlock()
	print, err := r.files.print(name)
	return err == nil && print != e.print
}

// entry finds a model's entry or makes it.
func (r *Repository) entry(name string) *entry {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entries[name]
	if e == nil {
		e = &entry{versions: map[int64]*served{}}
		r.entries[name] = e
	}
	return e
}

// Load loads a model, again if it is loaded already. The model that is there answers requests until the
// new one is ready, and goes on to if the load fails. A load goes on when ctx ends: a large model may take
// longer than its client waits.
func (r *Repository) Load(ctx context.Context, name string) error {
	if r.opts.Control != ControlExplicit {
		return errNotExplicit
	}
	return r.load(context.WithoutCancel(ctx), r.base(name))
}

var errNotExplicit = Errorf(codes.FailedPrecondition,
	"models are not loaded or unloaded on request: the server's model control mode is not explicit")

// Unload makes a model unavailable and releases it when the requests under way have ended.
func (r *Repository) Unload(name string) error {
	if r.opts.Control != ControlExplicit {
		return errNotExplicit
	}
	return r.unload(r.base(name))
}

func (r *Repository) load(ctx context.Context, name string) error {
	if !r.files.has(name) {
		return Errorf(codes.NotFound, "there is no model %q in the repository", name)
	}
	e := r.entry(name)
	e.loading.Lock()
	defer e.loading.Unlock()
	if r.isClosed() {
		return r.failed(name, errClosed)
	}
	e.closing.Wait() // so that there are never three in memory
	began := time.Now()
	// Before the files are read: what changes while they are is seen at the next look.
	e.print, _ = r.files.print(name)
	config, sources, err := r.files.sources(name)
	if err != nil {
		r.fail(e, 0, err)
		return r.failed(name, err)
	}
	models := make(map[int64]*Model)
	for _, s := range sources {
		r.mark(e, s.Version, Loading)
		m, err := r.bring(ctx, s, config)
		if err != nil {
			for _, m := range models {
				err = errors.Join(err, m.close())
			}
			for _, s := range sources {
				r.fail(e, s.Version, err)
			}
			return r.failed(name, err)
		}
		models[s.Version] = m
	}
	if err := r.swap(e, models); err != nil {
		return r.failed(name, err)
	}
	for _, v := range slices.Sorted(maps.Keys(models)) {
		r.opts.Logger.Info("model is ready", "model", name, "version", v, "what", models[v].backend.Description,
			"took", time.Since(began).Round(time.Millisecond))
	}
	return nil
}

// failed logs why a model cannot be loaded and returns the error for the client that asked for it.
func (r *Repository) failed(name string, err error) error {
	r.opts.Logger.Error("model cannot be loaded", "model", name, "error", err)
	if errors.Is(err, errClosed) {
		return errClosed
	}
	const cannot = "model %q cannot be loaded: "
	return &Error{
		Code: codes.Internal, Message: fmt.Sprintf(cannot+"%s", name, loadReason(err)),
		Cause: fmt.Errorf(cannot+"%w", name, err),
	}
}

// loadReason returns why a load failed in words for clients. What a loader or the file system says can
// name the server's files, and stays in the log.
func loadReason(err error) string {
	var known *Error
	if errors.As(err, &known) {
		return known.Message
	}
	return "the server's log says why"
}

// bring loads one version and runs it once.
func (r *Repository) bring(ctx context.Context, s Source, config *pb.ModelConfig) (_ *Model, err error) {
	s.MixedPrecision = mixedPrecision(config)
	backend := &Backend{Close: func() error { return nil }}
	defer func() {
		if v := recover(); v != nil { // none may end the server, which has other models
			r.opts.Logger.Error("a load panicked", "model", s.Name, "panic", v,
				"stack", string(debug.Stack()))
			err = errors.Join(fmt.Errorf("the load panicked: %v", v), backend.Close())
		}
	}()
	loaded, err := r.opts.Load(ctx, s)
	if err != nil {
		return nil, err
	}
	backend = loaded
	m := &Model{name: s.Name, version: s.Version, backend: backend, limits: r.opts.Limits, defaults: r.opts.Decoder}
	options := r.opts.Batching
	options.OnBatch = func(b batch.Batch) {
		m.text.statistics.ran(b.Windows, b.Compute)
		m.tensors.statistics.ran(b.Windows, b.Compute)
		if r.observe != nil {
			r.observe(m, b)
		}
	}
	if err = m.offer(config, &options); err == nil {
		if m.batcher, err = batch.New(backend.Predictor, options); err != nil {
			err = badConfig("%v", err)
		} else {
			err = m.warm(ctx)
		}
	}
	if err != nil {
		return nil, errors.Join(err, backend.Close())
	}
	return m, nil
}

// mark sets the state of a version that is not available.
func (r *Repository) mark(e *entry, version int64, s State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v := e.versions[version]; v == nil || v.model == nil {
		e.versions[version] = &served{state: s}
	}
}

// fail records why a version, 0 for all of a model, could not be loaded.
func (r *Repository) fail(e *entry, version int64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	kept := false
	for n, v := range e.versions {
		if v.model != nil && (version == 0 || version == n) {
			v.reason, kept = loadReason(err), true
		}
	}
	if !kept {
		e.versions[version] = &served{state: Failed, reason: loadReason(err)}
	}
}

// swap makes models those that an entry serves.
func (r *Repository) swap(e *entry, models map[int64]*Model) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		for _, m := range models {
			r.retire(e, m)
		}
		return errClosed
	}
	for _, v := range e.versions {
		r.retire(e, v.model)
	}
	clear(e.versions)
	for version, m := range models {
		e.versions[version] = &served{state: Available, model: m}
	}
	return nil
}

// retire releases a model when its requests have ended.
func (r *Repository) retire(e *entry, m *Model) {
	if m == nil {
		return
	}
	e.closing.Go(func() {
		if err := m.close(); err != nil {
			r.opts.Logger.Error("model cannot be released", "model", m.name, "version", m.version, "error", err)
			return
		}
		r.opts.Logger.Info("model is released", "model", m.name, "version", m.version)
	})
}

func (r *Repository) unload(name string) error {
	r.mu.Lock()
	e := r.entries[name]
	r.mu.Unlock()
	if e == nil {
		return Errorf(codes.NotFound, "model %q is not loaded", name)
	}
	e.loading.Lock()
	defer e.loading.Unlock()
	e.print = ""
	r.end(e)
	return nil
}

// end releases all of an entry's versions. e.loading is held.
func (r *Repository) end(e *entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, v := range e.versions {
		r.retire(e, v.model)
		*v = served{state: Unloaded}
	}
}

// Close unloads all models when the requests under way have ended. None is loaded after it.
func (r *Repository) Close() {
	r.mu.Lock()
	r.closed = true
	if r.stop != nil {
		r.stop()
	}
	entries := slices.Collect(maps.Values(r.entries))
	r.mu.Unlock()
	r.work.Wait()
	for _, e := range entries {
		e.loading.Lock() // a load under way ends first and releases what it has loaded
		r.end(e)
		e.loading.Unlock()
	}
	for _, e := range entries {
		e.loading.Lock()
		e.closing.Wait()
		e.loading.Unlock()
	}
}

var errClosed = Errorf(codes.Unavailable, "the server is shutting down")

func (r *Repository) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}
