package repository

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/squad"
)

// A Model is one version of a model. Its methods may be called by many goroutines at once.
type Model struct {
	name      string
	version   int64
	backend   *Backend
	instances *instances // that the backend stands for
	batcher   *batch.Batcher
	cache     *cache // nil if it does not use one
	number    uint64 // of all that were loaded
	limits    Limits
	defaults  squad.Decoder
	loadTime  time.Duration

	tensors, text *Servable

	tokenizing sync.Mutex // of a question with long documents

	mu      sync.Mutex
	users   int
	retired chan struct{} // not nil: no more users; closed by the last one
}

// Name returns the name of the model, also where its text model is meant.
func (m *Model) Name() string { return m.name }

// Version returns the number of the version.
func (m *Model) Version() int64 { return m.version }

// Servables returns the model and its text model, as clients call them.
func (m *Model) Servables() []*Servable { return []*Servable{m.tensors, m.text} }

// Backend returns the model underneath.
func (m *Model) Backend() *Backend { return m.backend }

// Decoder returns the settings for questions that have none of their own.
func (m *Model) Decoder() squad.Decoder { return m.defaults }

// Batcher returns the batcher that the model's windows go through.
func (m *Model) Batcher() *batch.Batcher { return m.batcher }

// LoadTime returns the time that the model took to load and to run for the first time.
func (m *Model) LoadTime() time.Duration { return m.loadTime }

// Instances returns the number of the model's instances, and of those among them that have not been taken out because
// they failed.
func (m *Model) Instances() (all, working int) { return len(m.instances.list), m.instances.working() }

// warmUp runs each instance over a short window and over one of its full length, since TensorFlow prepares a session in
// its first run and may compile for a new length. The last run shows how fast the model is.
func (m *Model) warmUp(ctx context.Context) error {
	f := m.featurizer()
	var full []squad.Feature
	for _, words := range []int{1, m.backend.SeqLength} {
		w, err := f.WindowsOf(&squad.Example{Question: "a", Words: squad.Words(strings.Repeat("a ", words))})
		if err != nil {
			return err
		}
		full = w.Features[:1]
		for _, i := range m.instances.list {
			if _, err := i.backend.Predictor.Predict(ctx, full); err != nil {
				return err
			}
		}
	}
	return m.batcher.WarmUp(ctx, full)
}

// acquire adds a user, unless the model is retired.
func (m *Model) acquire() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.retired != nil {
		return false
	}
	m.users++
	return true
}

// Release ends the use of a model that Acquire or Models returned.
func (m *Model) Release() {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.users--; m.users == 0 && m.retired != nil {
		close(m.retired)
	}
}

// close waits for the requests under way to end and releases the model.
func (m *Model) close() error {
	m.mu.Lock()
	m.retired = make(chan struct{})
	if m.users == 0 {
		close(m.retired)
	}
	m.mu.Unlock()
	<-m.retired
	if err := m.batcher.Close(); err != nil {
		return err
	}
	if m.cache != nil {
		m.cache.drop(m.number)
	}
	return m.backend.Close()
}
