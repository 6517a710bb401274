package repository

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"time"

	"google.golang.org/grpc/codes"

	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/wordpiece"
)

// A Loader brings a model into memory.
type Loader func(ctx context.Context, s Source) (*Backend, error)

// A Source is what a Loader loads.
type Source struct {
	Name     string
	Version  int64
	Dir      string // of the SavedModel
	ModelDir string // of the model with all its versions; "" if the model is not in a folder of models

	MixedPrecision bool // the model's configuration asks for TensorFlow's mixed-precision rewrite

	// Device is where this instance of the model runs, such as "/GPU:1" or "/CPU:1"; "" is the loader's choice. A model
	// whose configuration has several instances is loaded once for each.
	Device string
}

// A Backend is a model in memory.
type Backend struct {
	Predictor squad.Predictor
	Tokenizer *wordpiece.Tokenizer
	SeqLength int // of windows, where a question does not set it
	// CheckLength returns an error, in words for clients, if the model does not take sequences of a length.
	CheckLength func(int) error
	Segments    int   // rows of its segment embedding; 0 if unknown
	Bytes       int64 // of the model's files; 0 if unknown

	Inputs, Outputs []TensorInfo // of its signature

	Description string // the graph and its precision, for the log
	Close       func() error
}

// load loads a model, with a configuration in place of that of its files if it is not nil. One that has waited for
// another load of the same files has the other's outcome.
func (r *Repository) load(ctx context.Context, name string, config *pb.ModelConfig) (err error) {
	if !r.files.has(name) {
		return Errorf(codes.NotFound, "there is no model %q in the repository", name)
	}
	e := r.entry(name)
	before := r.ended(e)
	e.loading.Lock()
	defer e.loading.Unlock()
	if r.isClosed() {
		return r.loadError(name, errClosed)
	}
	overridden := e.overridden
	if e.overridden = config != nil; !overridden && config == nil && r.ended(e) != before {
		if f, err := r.files.fingerprint(name); err == nil && f == e.fingerprint {
			return e.loadErr
		}
	}
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		e.loads++
		e.loadErr = err
	}()
	e.closing.Wait() // so that there are never three in memory
	began := time.Now()
	defer func() {
		if r.observeLoad != nil {
			r.observeLoad(name, time.Since(began), err)
		}
	}()
	// Before the files are read: what changes while they are is seen at the next look.
	e.fingerprint, _ = r.files.fingerprint(name)
	config, sources, err := r.files.sources(name, config)
	var labels map[string]int64
	if err == nil {
		labels, err = r.labels(name, func(version int64) bool {
			return slices.ContainsFunc(sources, func(s Source) bool { return s.Version == version })
		})
	}
	if err != nil {
		r.markFailed(e, 0, err)
		return r.loadError(name, err)
	}
	for _, field := range ignoredFields(config) {
		r.opts.Logger.Warn(configFile+" has a field that is not followed", "model", name, "field", field)
	}
	models := make(map[int64]*Model)
	for _, s := range sources {
		r.mark(e, s.Version, Loading)
		m, err := r.loadVersion(ctx, s, config)
		if err != nil {
			for _, m := range models {
				err = errors.Join(err, m.close())
			}
			for _, s := range sources {
				r.markFailed(e, s.Version, err)
			}
			return r.loadError(name, err)
		}
		models[s.Version] = m
	}
	if err := r.swap(e, models, labels); err != nil {
		return r.loadError(name, err)
	}
	for _, v := range slices.Sorted(maps.Keys(models)) {
		r.opts.Logger.Info("model is ready", "model", name, "version", v, "what", models[v].backend.Description,
			"took", time.Since(began).Round(time.Millisecond))
	}
	return nil
}

// ended returns the number of an entry's loads that have ended.
func (r *Repository) ended(e *entry) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return e.loads
}

// loadError logs why a model cannot be loaded and returns the error for the client that asked for it.
func (r *Repository) loadError(name string, err error) error {
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

// loadReason returns why a load failed, in words for clients. An error of a loader or of the file system
// may name the server's files, and stays in the log.
func loadReason(err error) string {
	var known *Error
	if errors.As(err, &known) {
		return known.Message
	}
	return "the server's log says why"
}

// loadVersion loads one version and runs it once.
func (r *Repository) loadVersion(ctx context.Context, s Source, config *pb.ModelConfig) (_ *Model, err error) {
	began := time.Now()
	s.MixedPrecision = mixedPrecision(config)
	instances := &instances{log: r.opts.Logger.With("model", s.Name, "version", s.Version)}
	defer func() {
		if v := recover(); v != nil { // a load must not end the server, which has other models
			r.opts.Logger.Error("a load panicked", "model", s.Name, "panic", v,
				"stack", string(debug.Stack()))
			err = fmt.Errorf("the load panicked: %v", v)
		}
		if err != nil {
			err = errors.Join(err, instances.close())
		}
	}()
	place, err := placementOf(config)
	if err != nil {
		return nil, err
	}
	if err := instances.load(ctx, r.opts.Load, s, place.devices); err != nil {
		return nil, err
	}
	m := &Model{
		name: s.Name, version: s.Version, backend: instances.backend(), instances: instances,
		limits: r.opts.Limits, defaults: r.opts.Decoder, number: modelNumbers.Add(1),
	}
	asked := config.GetResponseCache().GetEnable()
	if config == nil || asked {
		m.cache = r.cache
	}
	if asked && r.cache == nil {
		instances.log.Warn("the configuration asks for the response cache, which the server does not have")
	}
	options := r.opts.Batching
	options.OnBatch = func(b batch.Batch) {
		m.text.statistics.countBatch(b.Windows, b.Compute)
		m.tensors.statistics.countBatch(b.Windows, b.Compute)
		if r.observe != nil {
			r.observe(m, b)
		}
	}
	if err := m.addServables(config, &options); err != nil {
		return nil, err
	}
	if m.batcher, err = batch.New(m.backend.Predictor, options); err != nil {
		return nil, badConfig("%v", err)
	}
	if err := m.warmUp(ctx); err != nil {
		return nil, err
	}
	m.loadTime = time.Since(began)
	if r.warmUp != nil {
		if err := r.warmUp(ctx, s, m); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// mark sets the state of a version, unless it is available.
func (r *Repository) mark(e *entry, version int64, s State) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if v := e.versions[version]; v == nil || v.model == nil {
		e.versions[version] = &served{state: s}
	}
}

// markFailed records why a version could not be loaded; version 0 stands for all of a model.
func (r *Repository) markFailed(e *entry, version int64, err error) {
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

// swap puts models in the place of those that an entry serves.
func (r *Repository) swap(e *entry, models map[int64]*Model, labels map[string]int64) error {
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
	e.labels = labels
	return nil
}
