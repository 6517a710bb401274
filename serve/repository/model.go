package repository

import (
	"context"
	"strings"
	"sync"

	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/squad"
)

// A Model is one version of a model. Its methods may be called by many goroutines at once.
type Model struct {
	name     string
	version  int64
	backend  *Backend
	batcher  *batch.Batcher
	limits   Limits
	defaults squad.Decoder

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

// warmUp runs the model over a short window and over one of its full length, since TensorFlow prepares a session in its
// first run and may compile for a new length. The last run shows how fast the model is.
func (m *Model) warmUp(ctx context.Context) error {
	f := m.featurizer()
	for _, words := range []int{1, m.backend.SeqLength, m.backend.SeqLength} {
		w, err := f.WindowsOf(&squad.Example{Question: "a", Words: squad.Words(strings.Repeat("a ", words))})
		if err != nil {
			return err
		}
		if err := m.batcher.WarmUp(ctx, w.Features[:1]); err != nil {
			return err
		}
	}
	return nil
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
	return m.backend.Close()
}
