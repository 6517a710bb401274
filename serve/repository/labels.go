package repository

import (
	"maps"
	"slices"

	"google.golang.org/grpc/codes"
)

// labels returns the labels that a model's configuration has, which must be of versions that are served.
func (r *Repository) labels(name string, served func(version int64) bool) (map[string]int64, error) {
	c, ok := r.files.(*configured)
	if !ok {
		return nil, nil
	}
	m, _ := c.model(name)
	for _, label := range slices.Sorted(maps.Keys(m.labels)) {
		if !served(m.labels[label]) {
			return nil, Errorf(codes.FailedPrecondition, "the label %.100q is of version %d, which is not served",
				label, m.labels[label])
		}
	}
	return m.labels, nil
}

// Label returns the version of a model, or of its text model, that has a label.
func (r *Repository) Label(name, label string) (int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, _ := r.lookup(name)
	if e == nil {
		return 0, Errorf(codes.NotFound, "there is no model %q", name)
	}
	version, ok := e.labels[label]
	if !ok {
		return 0, Invalidf("Unrecognized servable version label: %.100s", label) // TensorFlow Serving's words
	}
	return version, nil
}

// AcquireLabel is Acquire for the version with a label.
func (r *Repository) AcquireLabel(name, label string) (*Servable, error) {
	for {
		version, err := r.Label(name, label)
		if err != nil {
			return nil, err
		}
		m, err := r.Acquire(name, version)
		if err == nil {
			return m, nil
		}
		if again, labelErr := r.Label(name, label); labelErr != nil || again == version {
			return nil, err
		}
		// The label has moved on from a version that has gone.
	}
}
