package repository

import (
	"cmp"
	"slices"
	"strings"

	"google.golang.org/grpc/codes"
)

// textSuffix at the end of a model's name makes it the name of its text model.
const textSuffix = "_qa"

// Acquire returns a model or a text model, to be released after use. Version 0 is the newest available.
func (r *Repository) Acquire(name string, version int64) (*Servable, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, errClosed
	}
	e, of := r.lookup(name)
	if e == nil {
		return nil, Errorf(codes.NotFound, "there is no model %q", name)
	}
	var found *served
	for n, v := range e.versions {
		if v.model != nil && (n == version || version == 0 && (found == nil || n > found.model.version)) {
			found = v
		}
	}
	if found == nil || !found.model.acquire() {
		return nil, unavailable(name, version, e)
	}
	return of(found.model), nil
}

// lookup returns the entry of a name, or nil, and which servable of its models the name stands for. The
// repository's mutex is held.
func (r *Repository) lookup(name string) (e *entry, of func(*Model) *Servable) {
	if e := r.entries[name]; e != nil {
		return e, func(m *Model) *Servable { return m.tensors }
	}
	base, ok := strings.CutSuffix(name, textSuffix)
	if !ok {
		return nil, nil
	}
	return r.entries[base], func(m *Model) *Servable { return m.text }
}

// base returns the name of the model to which a text model belongs, and any other name as it is. The
// model need not be loaded.
func (r *Repository) base(name string) string {
	r.mu.Lock()
	known := r.entries[name] != nil
	r.mu.Unlock()
	if base, ok := strings.CutSuffix(name, textSuffix); ok && !known && !r.files.has(name) {
		return base
	}
	return name
}

// unavailable returns the error of a version that is not available in an entry.
func unavailable(name string, version int64, e *entry) error {
	loading, reason := false, ""
	for n, v := range e.versions {
		if version != 0 && n != version {
			continue
		}
		loading = loading || v.state == Loading
		reason = cmp.Or(v.why(), reason)
	}
	switch {
	case loading:
		return unavailablef("model %q is being loaded", name)
	case reason != "":
		return Errorf(codes.Unavailable, "model %q is not available: %s", name, reason)
	}
	return Errorf(codes.NotFound, "model %q has no version %d", name, version)
}

// Default returns the name of the only model, for requests that name none.
func (r *Repository) Default() (string, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return "", errClosed
	}
	var names []string
	for name, e := range r.entries {
		for _, v := range e.versions {
			if v.state != Unloaded {
				names = append(names, name)
				break
			}
		}
	}
	switch len(names) {
	case 0:
		return "", unavailablef("no model is loaded")
	case 1:
		return names[0], nil
	}
	slices.Sort(names)
	return "", Invalidf("name one of the models: %s", strings.Join(names, ", "))
}

// Index lists the versions of all models by name and version. The text model follows each that is
// available. A model whose files have not been loaded has version 0.
func (r *Repository) Index() ([]Status, error) {
	names, err := r.files.names()
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	var models []Status
	for name, e := range r.entries {
		for version, v := range e.versions {
			models = append(models, v.status(name, version))
		}
	}
	for _, name := range names {
		if e := r.entries[name]; e == nil || len(e.versions) == 0 {
			models = append(models, Status{Name: name})
		}
	}
	slices.SortFunc(models, func(a, b Status) int {
		return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version))
	})
	var list []Status
	for _, s := range models {
		list = append(list, s)
		if s.State == Available {
			s.Name += textSuffix
			list = append(list, s)
		}
	}
	return list, nil
}

// Versions lists the versions of a model, the newest first.
func (r *Repository) Versions(name string) []Status {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []Status
	if e, _ := r.lookup(name); e != nil {
		for version, v := range e.versions {
			list = append(list, v.status(name, version))
		}
	}
	slices.SortFunc(list, func(a, b Status) int { return cmp.Compare(b.Version, a.Version) })
	return list
}

// Models returns all available models, each to be released after use.
func (r *Repository) Models() []*Model {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []*Model
	for _, e := range r.entries {
		for _, v := range e.versions {
			if v.model != nil && v.model.acquire() {
				list = append(list, v.model)
			}
		}
	}
	slices.SortFunc(list, func(a, b *Model) int {
		return cmp.Or(cmp.Compare(a.name, b.name), cmp.Compare(a.version, b.version))
	})
	return list
}

// Ready returns an error until Start has loaded the models, and unless each of them has a version that is available,
// or was unloaded on request and has not failed to load since. Without ControlExplicit, where clients cannot load
// any, it also returns an error if no model is available.
func (r *Repository) Ready() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.started {
		return unavailablef("the models are being loaded")
	}
	if r.closed {
		return errClosed
	}
	some := r.opts.Control == ControlExplicit
	for name, e := range r.entries {
		available, unloaded, failed := e.has(Available), e.has(Unloaded), e.has(Failed)
		some = some || available
		if e.required && !available && (!unloaded || failed) { // others do not matter to those of the start
			return unavailable(name, 0, e)
		}
	}
	if !some {
		return unavailablef("no model is loaded")
	}
	return nil
}
