package repository_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/tfbert/go/internal/fakemodel"
	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/serve/repository"
	"github.com/tfbert/go/squad"
)

// writeVersion writes a version of a model, whose file has a content.
func writeVersion(t testing.TB, root, name string, version int, content string) {
	t.Helper()
	dir := filepath.Join(root, name, strconv.Itoa(version), "model.savedmodel")
	require.NoError(t, os.MkdirAll(dir, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "saved_model.pb"), []byte(content), 0o600))
}

func writeConfig(t testing.TB, root, name, text string) {
	t.Helper()
	require.NoError(t, os.MkdirAll(filepath.Join(root, name), 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(root, name, "config.pbtxt"), []byte(text), 0o600))
}

// openRepository opens a repository. At the test's end it closes it and checks what became of the models.
func openRepository(
	t testing.TB, root string, models *fakemodel.Models, opts repository.Options,
) *repository.Repository {
	t.Helper()
	opts.Load = models.Load
	r, err := repository.OpenDir(root, opts)
	require.NoError(t, err)
	t.Cleanup(func() {
		r.Close()
		models.Check(t)
	})
	return r
}

// startModel starts a repository of one model, "bert", and returns the model.
func startModel(t testing.TB, models *fakemodel.Models, opts repository.Options) *repository.Servable {
	t.Helper()
	root := t.TempDir()
	writeVersion(t, root, "bert", 1, "")
	r := openRepository(t, root, models, opts)
	require.NoError(t, r.Start(t.Context()))
	m, err := r.Acquire("bert", 0)
	require.NoError(t, err)
	t.Cleanup(m.Release)
	return m
}

// unknownReason is the state and reason, in the index, of a version whose failure is for the log alone.
const unknownReason = "failed the server's log says why"

// indexLines returns the repository's index as lines, without the text models.
func indexLines(t testing.TB, r *repository.Repository) (lines []string) {
	t.Helper()
	list, err := r.Index()
	require.NoError(t, err)
	for i, s := range list {
		if i > 0 && s.State == repository.Available && s.Name == list[i-1].Name+"_qa" &&
			s.Version == list[i-1].Version {
			continue
		}
		lines = append(lines, strings.TrimSpace(fmt.Sprintf("%s %d %v %s", s.Name, s.Version, s.State, s.Reason)))
	}
	return lines
}

// acquiredVersion returns the version of the model that Acquire returns.
func acquiredVersion(t testing.TB, r *repository.Repository, name string, version int64) int64 {
	t.Helper()
	m, err := r.Acquire(name, version)
	require.NoError(t, err)
	defer m.Release()
	return m.Version()
}

func errorCode(err error) codes.Code { return repository.AsError(err).Code }

func TestVersions(t *testing.T) {
	root := t.TempDir()
	for _, v := range []int{1, 2, 10} {
		writeVersion(t, root, "bert", v, "")
	}
	for _, name := range []string{"0", "-1", "notes", "1.5", "99999999999999999999"} {
		require.NoError(t, os.MkdirAll(filepath.Join(root, "bert", name), 0o755))
	}
	require.NoError(t, os.WriteFile(filepath.Join(root, "bert", "77"), nil, 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(root, "README"), nil, 0o600))
	require.NoError(t, os.Mkdir(filepath.Join(root, ".git"), 0o755))
	writeConfig(t, root, "bert", `version_policy { specific { versions: [1, 10] } }`)
	var dirs []string
	models := &fakemodel.Models{OnLoad: func(_ context.Context, s repository.Source) error {
		dirs = append(dirs, s.Dir)
		return nil
	}}
	r := openRepository(t, root, models, repository.Options{})
	require.Error(t, r.Ready(), "before the start")
	require.NoError(t, r.Start(t.Context()))
	require.NoError(t, r.Ready())
	assert.Equal(t, []string{
		filepath.Join(root, "bert/1/model.savedmodel"), filepath.Join(root, "bert/10/model.savedmodel"),
	}, dirs)
	assert.Equal(t, []string{"bert 1 available", "bert 10 available"}, indexLines(t, r))
	assert.EqualValues(t, 10, acquiredVersion(t, r, "bert", 0))
	assert.EqualValues(t, 1, acquiredVersion(t, r, "bert", 1))
	assert.EqualValues(t, 10, acquiredVersion(t, r, "bert_qa", 0))
	_, err := r.Acquire("bert", 2)
	assert.Equal(t, codes.NotFound, errorCode(err))
	for _, name := range []string{
		"", "other", "..", "bert/1", "../" + filepath.Base(root) + "/bert", "BERT", "bert_qa_qa",
	} {
		_, err := r.Acquire(name, 0)
		assert.Equal(t, codes.NotFound, errorCode(err), name)
	}
	list := r.Versions("bert_qa")
	require.Len(t, list, 2)
	assert.EqualValues(t, 10, list[0].Version)
	all := r.Models()
	assert.Len(t, all, 2)
	for _, m := range all {
		m.Release()
	}
	name, err := r.Default()
	require.NoError(t, err)
	assert.Equal(t, "bert", name)
}

func TestModelFilename(t *testing.T) {
	root := t.TempDir()
	writeConfig(t, root, "bert", `default_model_filename: "graph"`)
	require.NoError(t, os.MkdirAll(filepath.Join(root, "bert/1/graph"), 0o755))
	models := &fakemodel.Models{OnLoad: func(_ context.Context, s repository.Source) error {
		assert.Equal(t, filepath.Join(root, "bert/1/graph"), s.Dir)
		return nil
	}}
	require.NoError(t, openRepository(t, root, models, repository.Options{}).Start(t.Context()))
}

func TestBadModels(t *testing.T) {
	for _, tt := range []struct{ name, config, want string }{
		{"renamed", `name: "other"`, `the name is "other", but the folder's is "renamed": make them the same`},
		{"foreign", `platform: "onnxruntime_onnx"`, "this server runs"},
		{"escaping", `default_model_filename: "../2"`, "default_model_filename"},
		{"misspelt", `nmae: "x"`, "nmae"},
		{"unfit", `max_batch_size: 8 input { name: "input_ids" data_type: TYPE_INT32 dims: [ 1, 384 ] }`,
			"the model has [-1 -1]"},
		{"preferring", `max_batch_size: 8 dynamic_batching { preferred_batch_size: 16 }`, "16"},
		{"hasty", `dynamic_batching { max_queue_delay_microseconds: 9 ` +
			`default_queue_policy { default_timeout_microseconds: 5 } }`, "MaxWait"},
		{"specific", `version_policy { specific { versions: 7 } }`, "has no version to serve"},
		{"empty", "", "has no version to serve"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			root := t.TempDir()
			writeConfig(t, root, tt.name, tt.config)
			if tt.name != "empty" {
				writeVersion(t, root, tt.name, 1, "")
			}
			models := &fakemodel.Models{}
			r := openRepository(t, root, models, repository.Options{})
			err := r.Start(t.Context())
			require.ErrorContains(t, err, tt.want)
			assert.NotContains(t, err.Error(), "\n")
			assert.Contains(t, strings.Join(indexLines(t, r), "\n"), tt.want)
			require.ErrorContains(t, r.Ready(), tt.want)
			_, err = r.Acquire(tt.name, 0)
			require.ErrorContains(t, err, tt.want)
			assert.Equal(t, codes.Unavailable, errorCode(err))
			assert.Zero(t, models.Loaded())
		})
	}
}

// A model that cannot be loaded does not keep the others from answering.
func TestOthersAreServed(t *testing.T) {
	root := t.TempDir()
	writeVersion(t, root, "good", 1, "")
	writeVersion(t, root, "bad", 1, "")
	models := &fakemodel.Models{OnLoad: func(_ context.Context, s repository.Source) error {
		if s.Name == "bad" {
			return errors.New("no such\nthing")
		}
		return nil
	}}
	r := openRepository(t, root, models, repository.Options{})
	require.ErrorContains(t, r.Start(t.Context()), "no such")
	assert.Equal(t, []string{"bad 1 failed the server's log says why", "good 1 available"}, indexLines(t, r))
	assert.EqualValues(t, 1, acquiredVersion(t, r, "good", 0))
	require.ErrorContains(t, r.Ready(), "bad")
	_, err := r.Default()
	require.ErrorContains(t, err, "bad, good")
}

func TestExplicit(t *testing.T) {
	root := t.TempDir()
	writeVersion(t, root, "a", 1, "")
	writeVersion(t, root, "b", 1, "")
	writeVersion(t, root, "b_qa", 1, "")
	models := &fakemodel.Models{}
	r := openRepository(t, root, models, repository.Options{Control: repository.ControlExplicit})
	require.NoError(t, r.Start(t.Context(), "a"))
	assert.Equal(t, []string{"a 1 available", "b 0 unknown", "b_qa 0 unknown"}, indexLines(t, r))
	for _, name := range []string{"", ".", "..", "../a", "a/1", root, "a\x00", "c", "c_qa"} {
		assert.Equal(t, codes.NotFound, errorCode(r.Load(t.Context(), name)), "%q", name)
		assert.Equal(t, codes.NotFound, errorCode(r.Unload(name)), "%q", name)
	}
	require.NoError(t, r.Load(t.Context(), "b_qa"), "a model's own name comes before that of a text model")
	assert.Equal(t, []string{"a 1 available", "b 0 unknown", "b_qa 1 available"}, indexLines(t, r))
	_, err := r.Default()
	require.ErrorContains(t, err, "name one of the models: a, b_qa")
	require.NoError(t, r.Unload("b_qa"))
	require.NoError(t, r.Unload("b_qa"), "for the second time")
	assert.Equal(t, []string{"a 1 available", "b 0 unknown", "b_qa 1 unloaded unloaded"}, indexLines(t, r))
	name, err := r.Default()
	require.NoError(t, err)
	assert.Equal(t, "a", name)
	require.NoError(t, r.Ready(), "a model that was unloaded on request does not matter")
	_, err = r.Acquire("b_qa", 0)
	assert.Equal(t, codes.Unavailable, errorCode(err))

	require.NoError(t, r.Load(t.Context(), "a_qa"), "by the name of its text model")
	assert.EqualValues(t, 3, models.Loads.Load())
	require.NoError(t, r.Unload("a_qa"))
	_, err = r.Default()
	assert.Equal(t, codes.Unavailable, errorCode(err))
	require.NoError(t, r.Load(t.Context(), "a"))
	require.Eventually(t, func() bool { return models.Loaded() == 1 }, 10*time.Second, time.Millisecond,
		"an unloaded model is released")

	require.NoError(t, r.Unload("a"))
	require.NoError(t, r.Ready(), "it was unloaded on request")
	require.NoError(t, os.RemoveAll(filepath.Join(root, "a", "1")))
	require.Error(t, r.Load(t.Context(), "a"))
	require.ErrorContains(t, r.Ready(), "it has no version to serve", "it has failed to load since")

	r.Close()
	assert.Equal(t, codes.Unavailable, errorCode(r.Load(t.Context(), "a")))
	_, err = r.Acquire("a", 0)
	assert.Equal(t, codes.Unavailable, errorCode(err))
	require.Error(t, r.Ready())
	r.Close()
}

func TestNotExplicit(t *testing.T) {
	root := t.TempDir()
	writeVersion(t, root, "a", 1, "")
	r := openRepository(t, root, &fakemodel.Models{}, repository.Options{})
	require.NoError(t, r.Start(t.Context()))
	assert.Equal(t, codes.FailedPrecondition, errorCode(r.Load(t.Context(), "a")))
	assert.Equal(t, codes.FailedPrecondition, errorCode(r.Unload("a")))
}

// A load that fails leaves the model in memory, and its reason is in the index.
func TestFailedReload(t *testing.T) {
	root := t.TempDir()
	writeVersion(t, root, "bert", 1, "")
	var loadError atomic.Pointer[error]
	setLoadError := func(err error) { loadError.Store(&err) }
	setLoadError(nil)
	var log bytes.Buffer
	models := &fakemodel.Models{
		OnLoad: func(context.Context, repository.Source) error { return *loadError.Load() },
	}
	broken := false
	models.OnBatch = func(_ context.Context, s repository.Source, _ []squad.Feature) error {
		if broken && s.Version == 2 {
			panic("warm-up")
		}
		return nil
	}
	r := openRepository(t, root, models, repository.Options{
		Control: repository.ControlExplicit, Logger: slog.New(slog.NewTextHandler(&log, nil)),
	})
	require.NoError(t, r.Start(t.Context(), "bert"))

	setLoadError(errors.New("truncated"))
	require.ErrorContains(t, r.Load(t.Context(), "bert"), "truncated")
	assert.Equal(t, []string{"bert 1 available it could not be loaded again: the server's log says why"}, indexLines(t, r))
	require.NoError(t, r.Ready())
	assert.EqualValues(t, 1, acquiredVersion(t, r, "bert", 0))

	writeVersion(t, root, "bert", 2, "")
	require.Error(t, r.Load(t.Context(), "bert"))
	assert.Equal(t, "bert 2 failed the server's log says why", indexLines(t, r)[1])
	_, err := r.Acquire("bert", 2)
	require.ErrorContains(t, err, "the server's log says why")
	assert.EqualValues(t, 1, acquiredVersion(t, r, "bert", 0))

	setLoadError(nil)
	writeConfig(t, root, "bert", "nonsense")
	require.Error(t, r.Load(t.Context(), "bert"))
	assert.Contains(t, indexLines(t, r)[0], "bert 1 available it could not be loaded again")
	writeConfig(t, root, "bert", "")

	broken = true
	require.ErrorContains(t, r.Load(t.Context(), "bert"), "panicked: warm-up")
	assert.Contains(t, indexLines(t, r)[1], "failed the server's log says why")
	assert.Contains(t, log.String(), "fakemodel.go", "the stack is in the log")
	assert.EqualValues(t, 1, models.Loaded())

	broken = false
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	models.OnBatch = func(ctx context.Context, _ repository.Source, _ []squad.Feature) error { return ctx.Err() }
	require.NoError(t, r.Load(ctx, "bert"), "the load goes on when its client has gone")
	assert.Equal(t, []string{"bert 2 available"}, indexLines(t, r))
}

// With several versions, one that fails leaves none of the new ones behind.
func TestFailedVersion(t *testing.T) {
	root := t.TempDir()
	writeConfig(t, root, "bert", "version_policy { all {} }")
	for v := range 3 {
		writeVersion(t, root, "bert", v+1, "")
	}
	models := &fakemodel.Models{OnLoad: func(_ context.Context, s repository.Source) error {
		if s.Version == 3 {
			return errors.New("broken")
		}
		return nil
	}}
	r := openRepository(t, root, models, repository.Options{Control: repository.ControlExplicit})
	require.ErrorContains(t, r.Start(t.Context(), "bert"), "broken")
	assert.Zero(t, models.Loaded())
	assert.Equal(t, []string{
		"bert 1 " + unknownReason, "bert 2 " + unknownReason, "bert 3 " + unknownReason,
	}, indexLines(t, r))
	require.NoError(t, os.RemoveAll(filepath.Join(root, "bert", "3")))
	require.NoError(t, r.Load(t.Context(), "bert"))
	assert.Equal(t, []string{"bert 1 available", "bert 2 available"}, indexLines(t, r))
}

// blockedLoad returns models of which the first one to load closes loading, and loads when finish is closed.
func blockedLoad() (models *fakemodel.Models, loading, finish chan struct{}) {
	loading, finish = make(chan struct{}), make(chan struct{})
	return &fakemodel.Models{OnLoad: func(context.Context, repository.Source) error {
		close(loading)
		<-finish
		return nil
	}}, loading, finish
}

// While a model is loaded for the first time it is in the index, and clients are told to try again.
func TestLoading(t *testing.T) {
	root := t.TempDir()
	writeVersion(t, root, "bert", 1, "")
	models, loading, finish := blockedLoad()
	r := openRepository(t, root, models, repository.Options{})
	started := make(chan error)
	go func() { started <- r.Start(t.Context()) }()
	<-loading
	assert.Equal(t, []string{"bert 1 loading"}, indexLines(t, r))
	_, err := r.Acquire("bert", 0)
	require.ErrorContains(t, err, "is being loaded")
	assert.Equal(t, time.Second, repository.AsError(err).RetryAfter)
	assert.Equal(t, time.Second, repository.AsError(r.Ready()).RetryAfter)
	close(finish)
	require.NoError(t, <-started)
	require.NoError(t, r.Ready())
}

// Close waits for a load under way and releases the model that it loads.
func TestCloseWhileLoading(t *testing.T) {
	root := t.TempDir()
	writeVersion(t, root, "bert", 1, "")
	writeVersion(t, root, "late", 1, "")
	models, loading, finish := blockedLoad()
	r := openRepository(t, root, models, repository.Options{Control: repository.ControlPoll})
	started, closed := make(chan error, 1), make(chan struct{})
	go func() { started <- r.Start(t.Context()) }()
	<-loading
	go func() {
		r.Close()
		close(closed)
	}()
	require.Eventually(t, func() bool {
		_, err := r.Acquire("late", 0)
		return errorCode(err) == codes.Unavailable
	}, 10*time.Second, time.Millisecond)
	select {
	case <-closed:
		t.Error("Close did not wait for the load")
	default:
	}
	close(finish)
	<-closed
	assert.EqualValues(t, 1, models.Loads.Load(), "no other model is loaded")
	assert.Zero(t, models.Loaded())
	require.ErrorContains(t, <-started, "shutting down")
}

// Loads of a model that come at once are one, unless its files have changed.
func TestLoadsAtOnce(t *testing.T) {
	root := t.TempDir()
	writeVersion(t, root, "bert", 1, "")
	const n = 10
	var asked, tries atomic.Int64
	var fails, changes atomic.Bool
	models := &fakemodel.Models{OnLoad: func(context.Context, repository.Source) error {
		tries.Add(1)
		for asked.Load()%n != 0 {
			time.Sleep(time.Millisecond)
		}
		time.Sleep(200 * time.Millisecond) // so that they all wait
		if changes.Swap(false) {
			writeVersion(t, root, "bert", 2, "")
		}
		if fails.Load() {
			return assert.AnError
		}
		return nil
	}}
	r := openRepository(t, root, models, repository.Options{Control: repository.ControlExplicit})
	require.NoError(t, r.Start(t.Context()))
	load := func() (loads int64, failed int) {
		before := tries.Load()
		errs := make(chan error, n)
		for range n {
			go func() {
				asked.Add(1)
				errs <- r.Load(t.Context(), "bert")
			}()
		}
		for range n {
			if <-errs != nil {
				failed++
			}
		}
		return tries.Load() - before, failed
	}
	loads, failed := load()
	assert.Zero(t, failed)
	assert.LessOrEqual(t, loads, int64(3), "1 unless the machine is busy")
	assert.Positive(t, loads)
	fails.Store(true)
	loads, failed = load()
	assert.Equal(t, n, failed)
	assert.LessOrEqual(t, loads, int64(3))
	assert.Positive(t, loads, "loads that come later are others")
	fails.Store(false)
	changes.Store(true)
	loads, failed = load()
	assert.Zero(t, failed)
	assert.Greater(t, loads, int64(1), "the files have changed meanwhile")
	assert.EqualValues(t, 2, acquiredVersion(t, r, "bert", 0))
	r.Close()
	models.Check(t)
}

// A model in use is released by the last of its users.
func TestUnloadWaitsForUsers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := t.TempDir()
		writeVersion(t, root, "bert", 1, "")
		models := &fakemodel.Models{Delay: time.Hour}
		r := openRepository(t, root, models, repository.Options{Control: repository.ControlExplicit})
		require.NoError(t, r.Start(t.Context(), "bert"))
		answered := make(chan error)
		m, err := r.Acquire("bert", 0)
		require.NoError(t, err)
		go func() {
			defer m.Release()
			_, err := m.Answer(t.Context(), find("slow", "slow"))
			answered <- err
		}()
		synctest.Wait()
		require.NoError(t, r.Unload("bert"))
		_, err = r.Acquire("bert", 0)
		require.Error(t, err)
		assert.EqualValues(t, 1, models.Loaded())
		require.NoError(t, <-answered)
		synctest.Wait()
		assert.Zero(t, models.Loaded())
	})
}

// The files are followed: versions that appear, change, break and vanish.
func TestPoll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := t.TempDir()
		writeVersion(t, root, "bert", 1, "")
		models := &fakemodel.Models{OnLoad: func(_ context.Context, s repository.Source) error {
			b, err := os.ReadFile(filepath.Join(s.Dir, "saved_model.pb"))
			if string(b) == "half" {
				return errors.New("unexpected end")
			}
			return err
		}}
		r := openRepository(t, root, models, repository.Options{Control: repository.ControlPoll, PollInterval: time.Minute})
		require.NoError(t, r.Start(t.Context()))
		pollOnce := func() {
			time.Sleep(time.Minute + time.Second)
			synctest.Wait()
		}
		pollOnce()
		assert.EqualValues(t, 1, models.Loads.Load(), "nothing has changed")

		writeVersion(t, root, "bert", 2, "")
		pollOnce()
		assert.Equal(t, []string{"bert 2 available"}, indexLines(t, r))
		assert.EqualValues(t, 1, models.Loaded())

		writeVersion(t, root, "bert", 3, "half")
		pollOnce()
		assert.Equal(t, []string{"bert 2 available", "bert 3 " + unknownReason}, indexLines(t, r))
		assert.EqualValues(t, 2, acquiredVersion(t, r, "bert", 0))
		require.NoError(t, r.Ready())
		pollOnce()
		assert.EqualValues(t, 2, models.Loads.Load(), "a version that failed is not loaded again until it changes")
		writeVersion(t, root, "bert", 3, "whole")
		pollOnce()
		assert.Equal(t, []string{"bert 3 available"}, indexLines(t, r))

		require.NoError(t, os.RemoveAll(filepath.Join(root, "bert", "3")))
		pollOnce()
		assert.Equal(t, []string{"bert 2 available"}, indexLines(t, r))

		writeConfig(t, root, "bert", "version_policy { all {} }")
		pollOnce()
		assert.Equal(t, []string{"bert 1 available", "bert 2 available"}, indexLines(t, r))

		writeVersion(t, root, "second", 1, "")
		pollOnce()
		assert.Equal(t, "second 1 available", indexLines(t, r)[2])
		require.NoError(t, os.RemoveAll(filepath.Join(root, "bert")))
		pollOnce()
		_, err := r.Acquire("bert", 0)
		require.Error(t, err)
		name, err := r.Default()
		require.NoError(t, err)
		assert.Equal(t, "second", name)
		require.NoError(t, r.Ready())
		writeVersion(t, root, "bert", 1, "")
		pollOnce()
		assert.EqualValues(t, 1, acquiredVersion(t, r, "bert", 0), "it may come back")
		for _, name := range []string{"bert", "second"} {
			require.NoError(t, os.RemoveAll(filepath.Join(root, name)))
		}
		pollOnce()
		require.ErrorContains(t, r.Ready(), "no model is loaded")
		writeVersion(t, root, "bert", 1, "")
		pollOnce()
		require.NoError(t, r.Ready())

		require.NoError(t, os.Rename(root, root+".away"))
		pollOnce()
		assert.EqualValues(t, 1, acquiredVersion(t, r, "bert", 0), "an unreadable folder is not an empty one")
		require.NoError(t, os.Rename(root+".away", root))
		r.Close()
		models.Check(t)
	})
}

// A model's folder may be a link, which a deployment leads elsewhere.
func TestPollFollowsLinks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root, releases := t.TempDir(), t.TempDir()
		writeVersion(t, releases, "a", 1, "")
		writeVersion(t, releases, "b", 1, "")
		require.NoError(t, os.Symlink(filepath.Join(releases, "a"), filepath.Join(root, "bert")))
		models := &fakemodel.Models{}
		r := openRepository(t, root, models, repository.Options{Control: repository.ControlPoll})
		require.NoError(t, r.Start(t.Context()))
		writeVersion(t, releases, "a", 1, "changed")
		time.Sleep(16 * time.Second)
		synctest.Wait()
		assert.EqualValues(t, 2, models.Loads.Load())
		require.NoError(t, os.Symlink(filepath.Join(releases, "b"), filepath.Join(root, "next")))
		require.NoError(t, os.Rename(filepath.Join(root, "next"), filepath.Join(root, "bert")))
		time.Sleep(16 * time.Second)
		synctest.Wait()
		assert.EqualValues(t, 3, models.Loads.Load())
		r.Close()
	})
}

// While a model is reloaded many times no request fails or gets the answer of another, and every loaded
// version is closed once, after its last batch.
func TestReloadUnderLoad(t *testing.T) {
	root := t.TempDir()
	writeVersion(t, root, "bert", 1, "")
	models := &fakemodel.Models{}
	r := openRepository(t, root, models, repository.Options{Control: repository.ControlExplicit})
	require.NoError(t, r.Start(t.Context(), "bert"))
	ctx, stop := context.WithCancel(t.Context())
	var clients sync.WaitGroup
	var answers atomic.Int64
	for client := range 24 {
		clients.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				key := fakemodel.Key(client*40 + i%40)
				m, err := r.Acquire("bert", 0)
				if !assert.NoError(t, err) {
					return
				}
				a, err := m.Answer(t.Context(), find(key, "a b "+key+" c"))
				if assert.NoError(t, err) {
					assert.Equal(t, key, a.Prediction.Answer)
					assert.InDelta(t, 100+m.Version(), a.NBest[0].StartLogit, 0, "the logits are those of the version")
				}
				m.Release()
				answers.Add(1)
			}
		})
	}
	var reloads sync.WaitGroup
	for n := range 3 {
		reloads.Go(func() {
			for i := range 12 {
				writeVersion(t, root, "bert", 1+n*12+i, "")
				assert.NoError(t, r.Load(t.Context(), "bert"))
				runtime.Gosched()
			}
		})
	}
	reloads.Wait()
	stop()
	clients.Wait()
	assert.Positive(t, answers.Load())
	r.Close()
	assert.EqualValues(t, models.Loads.Load(), models.Closes.Load())
}

// Loads, unloads and requests at random end as they should.
func TestRandomControl(t *testing.T) {
	root := t.TempDir()
	names := []string{"a", "b", "c"}
	for _, name := range names {
		writeVersion(t, root, name, 1, "")
	}
	models := &fakemodel.Models{OnLoad: func(context.Context, repository.Source) error {
		if rand.IntN(4) == 0 {
			return errors.New("broken")
		}
		return nil
	}}
	r := openRepository(t, root, models, repository.Options{Control: repository.ControlExplicit})
	_ = r.Start(t.Context(), names...)
	var group sync.WaitGroup
	for range 12 {
		group.Go(func() {
			for range 100 {
				name := names[rand.IntN(len(names))]
				switch rand.IntN(6) {
				case 0:
					_ = r.Load(t.Context(), name)
				case 1:
					_ = r.Unload(name)
				case 2:
					_ = r.Ready()
					indexLines(t, r)
				default:
					m, err := r.Acquire(name, 0)
					if err != nil {
						assert.Equal(t, codes.Unavailable, errorCode(err), "%v", err)
						continue
					}
					_, err = m.Answer(t.Context(), find("w1", "w1"))
					assert.NoError(t, err)
					m.Release()
				}
			}
		})
	}
	group.Go(func() {
		time.Sleep(20 * time.Millisecond)
		if rand.IntN(2) == 0 {
			r.Close()
		}
	})
	group.Wait()
}

func TestOpenDir(t *testing.T) {
	_, err := repository.OpenDir(filepath.Join(t.TempDir(), "none"), repository.Options{})
	require.ErrorIs(t, err, os.ErrNotExist)
}

func TestOpenModel(t *testing.T) {
	models := &fakemodel.Models{}
	r, err := repository.OpenModel("bert", 3, t.TempDir(), repository.Options{
		Load: models.Load, Control: repository.ControlExplicit,
	})
	require.NoError(t, err)
	require.NoError(t, r.Start(t.Context(), "bert"))
	assert.Equal(t, codes.NotFound, errorCode(r.Load(t.Context(), "other")))
	assert.EqualValues(t, 3, acquiredVersion(t, r, "bert", 0))
	require.NoError(t, r.Load(t.Context(), "bert"))
	r.Close()
	models.Check(t)
	_, err = repository.ParseControl("sometimes")
	require.ErrorContains(t, err, "none, explicit or poll")
}

// Observe reports each batch of each model.
func TestObserve(t *testing.T) {
	var windows atomic.Int64
	root := t.TempDir()
	writeVersion(t, root, "bert", 1, "")
	r := openRepository(t, root, &fakemodel.Models{}, repository.Options{})
	r.Observe(func(m *repository.Model, b batch.Batch) {
		assert.Equal(t, "bert", m.Name())
		windows.Add(int64(b.Windows))
	})
	require.NoError(t, r.Start(t.Context()))
	m, err := r.Acquire("bert", 0)
	require.NoError(t, err)
	defer m.Release()
	_, err = m.Answer(t.Context(), find("w1", "w1"))
	require.NoError(t, err)
	assert.EqualValues(t, 1, windows.Load())
}
