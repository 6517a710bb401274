package repository_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/fakemodel"
	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/serve/repository"
	"github.com/tfbert/go/squad"
)

// startInstances starts a repository of one model, "bert", with a configuration.
func startInstances(
	t *testing.T, models *fakemodel.Models, config string, opts repository.Options,
) (*repository.Servable, error) {
	t.Helper()
	root := t.TempDir()
	writeVersion(t, root, "bert", 1, "")
	writeConfig(t, root, "bert", config)
	r := openRepository(t, root, models, opts)
	if err := r.Start(t.Context()); err != nil {
		return nil, err
	}
	m, err := r.Acquire("bert", 0)
	if err == nil {
		t.Cleanup(m.Release)
	}
	return m, err
}

func TestInstanceGroups(t *testing.T) {
	for config, want := range map[string][]string{
		"":                            {""},
		"instance_group { count: 3 }": {""},
		"instance_group { count: 2 kind: KIND_GPU }":                           {""},
		"instance_group { count: 2 kind: KIND_GPU gpus: [0, 2] }":              {"/GPU:0", "/GPU:2"},
		"instance_group { count: 3 kind: KIND_CPU }":                           {"/CPU:0", "/CPU:1", "/CPU:2"},
		"instance_group [{ kind: KIND_CPU }, { count: 2 kind: KIND_CPU }]":     {"/CPU:0", "/CPU:1", "/CPU:2"},
		"instance_group [{ kind: KIND_GPU gpus: 1 }, { count: 1 }, {count:2}]": {"/GPU:1", ""},
	} {
		var devices []string
		models := &fakemodel.Models{OnLoad: func(_ context.Context, s repository.Source) error {
			devices = append(devices, s.Device)
			return nil
		}}
		m, err := startInstances(t, models, config, repository.Options{})
		require.NoError(t, err, config)
		assert.Equal(t, want, devices, config)
		all, working := m.Instances()
		assert.Equal(t, []int{len(want), len(want)}, []int{all, working}, config)
	}
}

// A server whose second device cannot be used does not start with the first alone, and keeps nothing in memory.
func TestInstanceThatCannotBeLoaded(t *testing.T) {
	models := &fakemodel.Models{OnLoad: func(_ context.Context, s repository.Source) error {
		if s.Device == "/GPU:1" {
			return errors.New("there is no device /GPU:1")
		}
		return nil
	}}
	_, err := startInstances(t, models, "instance_group { kind: KIND_GPU gpus: [0, 1] }", repository.Options{})
	require.ErrorContains(t, err, "there is no device /GPU:1")
	assert.Zero(t, models.Loaded())
}

// Four devices do four times the work of one. The time is the test's own, so the figures are exact.
func TestInstancesScale(t *testing.T) {
	elapsed := func(config string) (took time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			models := &fakemodel.Models{OnBatch: func(context.Context, repository.Source, []squad.Feature) error {
				time.Sleep(time.Second)
				return nil
			}}
			m, err := startInstances(t, models, config, repository.Options{Batching: batch.Options{MaxSize: 1, Concurrency: 1}})
			require.NoError(t, err)
			began := time.Now()
			var group sync.WaitGroup
			for n := range 40 {
				group.Go(func() {
					a, err := m.Answer(t.Context(), find(fakemodel.Key(n), fakemodel.Key(n)))
					if assert.NoError(t, err) {
						assert.Equal(t, fakemodel.Key(n), a.NBest[a.Best].Text)
					}
				})
			}
			group.Wait()
			took = time.Since(began)
		})
		return took
	}
	assert.Equal(t, 40*time.Second, elapsed("max_batch_size: 1 instance_group { kind: KIND_GPU gpus: [0] }"))
	assert.Equal(t, 10*time.Second, elapsed("max_batch_size: 1 instance_group { kind: KIND_GPU gpus: [0, 1, 2, 3] }"))
	assert.Equal(t, 5*time.Second, elapsed("max_batch_size: 1 instance_group { count: 2 kind: KIND_GPU gpus: [0, 1, 2, 3] }"))
}

// Clients do not see that a device fails or panics while another one works, and it is taken out.
func TestInstanceThatFails(t *testing.T) {
	for name, fail := range map[string]func() error{
		"error": func() error { return errors.New("out of memory") },
		"panic": func() error { panic("the device fell off the bus") },
	} {
		t.Run(name, func(t *testing.T) {
			var broken atomic.Bool
			var runs atomic.Int64
			models := &fakemodel.Models{OnBatch: func(_ context.Context, s repository.Source, _ []squad.Feature) error {
				if broken.Load() && s.Device == "/GPU:0" {
					runs.Add(1)
					return fail()
				}
				return nil
			}}
			var log bytes.Buffer
			m, err := startInstances(t, models, "instance_group { kind: KIND_GPU gpus: [0, 1] }",
				repository.Options{Logger: slog.New(slog.NewTextHandler(&log, nil))})
			require.NoError(t, err)
			broken.Store(true)
			for n := range 20 {
				a, err := m.Answer(t.Context(), find(fakemodel.Key(n), fakemodel.Key(n)))
				require.NoError(t, err)
				assert.Equal(t, fakemodel.Key(n), a.NBest[a.Best].Text)
			}
			all, working := m.Instances()
			assert.Equal(t, []int{2, 1}, []int{all, working})
			assert.EqualValues(t, 3, runs.Load(), "it is left alone then")
			assert.Contains(t, log.String(), "is taken out until the model is loaded again")
			assert.Contains(t, log.String(), "device=/GPU:0")
		})
	}
}

// A question at which every instance fails is the question's fault, and the last instance is never taken out.
func TestInstancesAreNotBlamed(t *testing.T) {
	m, err := startInstances(t, &fakemodel.Models{}, "instance_group { kind: KIND_GPU gpus: [0, 1] }", repository.Options{})
	require.NoError(t, err)
	for range 10 {
		_, err := m.Answer(t.Context(), find("w1", fakemodel.Fail))
		require.ErrorIs(t, err, fakemodel.ErrFail)
		_, err = m.Answer(t.Context(), find("w1", fakemodel.Crash))
		require.ErrorContains(t, err, "panicked")
	}
	_, working := m.Instances()
	assert.Equal(t, 2, working)
}
