package repository

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/squad"
)

// A Control decides when models are loaded and unloaded after the start.
type Control int

const (
	ControlNone     Control = iota // never
	ControlExplicit                // when a client asks for it
	ControlPoll                    // when their files change
)

// ParseControl returns the Control of a name of Triton's: none, explicit or poll.
func ParseControl(name string) (Control, error) {
	i := slices.Index([]string{"none", "explicit", "poll"}, name)
	if i < 0 {
		return 0, fmt.Errorf("%q is not a valid control mode: use none, explicit or poll", name)
	}
	return Control(i), nil
}

// Options set how models are loaded and served.
type Options struct {
	Load         Loader
	Control      Control
	PollInterval time.Duration // 0 is 15 s

	Batching batch.Options // where a model's config.pbtxt does not set it
	Limits   Limits
	Decoder  squad.Decoder // where a question does not set it

	// CacheBytes is the memory of the response cache, which keeps the results of windows for all models without a
	// config.pbtxt, and for those whose config.pbtxt enables response_cache; 0 is no cache.
	CacheBytes int64

	Logger *slog.Logger // nil logs nothing
}

// A Repository keeps models. Its methods may be called by many goroutines at once.
type Repository struct {
	opts  Options
	files files
	cache *cache // nil if there is none
	stop  context.CancelFunc
	work  sync.WaitGroup

	observe     func(*Model, batch.Batch)
	observeLoad func(name string, took time.Duration, err error)
	warmUp      func(context.Context, Source, *Model) error

	configuring sync.Mutex // one Configure at a time

	mu      sync.Mutex
	entries map[string]*entry
	started bool
	closed  bool
}

// An entry is a model with its versions.
type entry struct {
	loading     sync.Mutex // one load at a time
	required    bool       // by the start; guarded by the repository's mutex
	closing     sync.WaitGroup
	fingerprint string // of the files that were loaded last; guarded by loading
	loads       int    // that have ended; guarded by the repository's mutex
	loadErr     error  // of the last one; guarded by loading
	overridden  bool   // the last one had a configuration of its own; guarded by loading
	versions    map[int64]*served
	labels      map[string]int64 // of versions; guarded by the repository's mutex
}

// has reports whether any version has a state. The repository's mutex is held.
func (e *entry) has(s State) bool {
	for _, v := range e.versions {
		if v.state == s {
			return true
		}
	}
	return false
}

func newRepository(f files, opts Options) *Repository {
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	opts.PollInterval = cmp.Or(opts.PollInterval, 15*time.Second)
	opts.Limits = opts.Limits.withDefaults()
	r := &Repository{opts: opts, files: f, entries: map[string]*entry{}}
	if opts.CacheBytes > 0 {
		r.cache = newCache(opts.CacheBytes)
	}
	return r
}

// Observe registers f to be called with each batch of each model, by several goroutines at once. Call it
// before Start.
func (r *Repository) Observe(f func(*Model, batch.Batch)) { r.observe = f }

// ObserveLoads registers f to be called with each load of a model that is in the repository, by several goroutines at
// once. Call it before Start.
func (r *Repository) ObserveLoads(f func(name string, took time.Duration, err error)) {
	r.observeLoad = f
}

// Start loads the models, or with ControlExplicit those that are named. It returns the errors of those
// that cannot be loaded; the others are available. With ControlPoll the repository follows the files
// from then on until Close.
func (r *Repository) Start(ctx context.Context, names ...string) error {
	_, all := r.files.(*configured)
	if r.opts.Control != ControlExplicit || all && len(names) == 0 {
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
		if err := r.load(ctx, name, nil); err != nil {
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
		r.Refresh(ctx)
	}
}

// Refresh loads the models whose files have changed, and unloads those whose files are gone. With ControlExplicit it
// loads only models that are loaded. It logs what it cannot load.
func (r *Repository) Refresh(ctx context.Context) {
	names, err := r.files.names()
	if err != nil {
		r.opts.Logger.Error("cannot look at the models", "error", err)
		return
	}
	for _, name := range names {
		if r.opts.Control == ControlExplicit && !r.serves(name) {
			continue
		}
		if err := r.follow(ctx, name, false); err != nil { // a load logs its own
			r.opts.Logger.Debug("cannot follow the files", "model", name, "error", err)
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

// serves reports whether a model has a version that is available.
func (r *Repository) serves(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	e := r.entries[name]
	return e != nil && e.has(Available)
}

// changed reports whether a model's files differ from those that were looked at last.
func (r *Repository) changed(name string) bool {
	e := r.entry(name)
	e.loading.Lock()
	defer e.loading.Unlock()
	f, err := r.files.fingerprint(name)
	return err == nil && f != e.fingerprint
}

// entry returns a model's entry, which it makes if need be.
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

// Load loads a model, or loads it again. The model in memory answers requests until the new one is ready,
// and stays if the load fails. A load does not end with ctx: it may take longer than its client waits.
func (r *Repository) Load(ctx context.Context, name string) error {
	if r.opts.Control != ControlExplicit {
		return errNotExplicit
	}
	return r.load(context.WithoutCancel(ctx), r.base(name), nil)
}

var errNotExplicit = Errorf(codes.FailedPrecondition,
	"models are not loaded or unloaded on request: the server's model control mode is not explicit")

// Unload makes a model unavailable at once and releases it when its requests under way have ended.
func (r *Repository) Unload(name string) error {
	if r.opts.Control != ControlExplicit {
		return errNotExplicit
	}
	return r.unload(r.base(name))
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
	e.fingerprint = ""
	r.retireAll(e)
	return nil
}

// retireAll releases all of an entry's versions. e.loading is held.
func (r *Repository) retireAll(e *entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, v := range e.versions {
		r.retire(e, v.model)
		*v = served{state: Unloaded}
	}
	e.labels = nil
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

// Close unloads all models, waits for the requests under way, and loads none from then on.
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
		r.retireAll(e)
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
