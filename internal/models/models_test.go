package models

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
	modzip "golang.org/x/mod/zip"

	"github.com/tfbert/go/checkpoint"
	"github.com/tfbert/go/internal/fetch"
	"github.com/tfbert/go/internal/testenv"
)

// quick does not wait between attempts.
var quick = &fetch.Client{Pause: time.Nanosecond}

// goProxyServer is a proxy of Go modules that holds one version of a module.
type goProxyServer struct {
	*httptest.Server
	asked []string
	zip   []byte
}

// newProxy serves a module with the files of a small model, and returns the Module by which it is known.
func newProxy(t *testing.T) (*goProxyServer, *Module) {
	t.Helper()
	dir := t.TempDir()
	writeModel(t, filepath.Join(dir, "tiny"))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "go.mod"), []byte("module example.com/Org/models\n"), 0o600))
	m := &Module{
		Name: "tiny", Version: module.Version{Path: "example.com/Org/models", Version: "v1.2.3"}, Most: 8 << 20,
	}
	var packed bytes.Buffer
	require.NoError(t, modzip.CreateFromDir(&packed, m.Version, dir))
	p := &goProxyServer{zip: packed.Bytes()}
	path := filepath.Join(t.TempDir(), "m.zip")
	require.NoError(t, os.WriteFile(path, p.zip, 0o600))
	var err error
	m.Sum, err = dirhash.HashZip(path, dirhash.Hash1)
	require.NoError(t, err)
	p.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p.asked = append(p.asked, r.URL.Path)
		if r.URL.Path != "/example.com/!org/models/@v/v1.2.3.zip" {
			http.NotFound(w, r)
			return
		}
		http.ServeContent(w, r, "m.zip", time.Time{}, bytes.NewReader(p.zip))
	}))
	t.Cleanup(p.Close)
	return p, m
}

// checkpointFiles are the files of testCheckpoint.
var checkpointFiles = []string{
	"bert_config.json", "model.ckpt.data-00000-of-00001", "model.ckpt.index", "vocab.txt",
}

// testCheckpoint returns the folder of a checkpoint of one variable.
func testCheckpoint(t *testing.T) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "ckpt")
	writeModel(t, dir)
	return dir
}

func writeModel(t *testing.T, dir string) {
	t.Helper()
	require.NoError(t, os.Mkdir(dir, 0o700))
	for _, name := range []string{"bert_config.json", "vocab.txt"} {
		require.NoError(t, os.WriteFile(filepath.Join(dir, name), bytes.Repeat([]byte("[CLS]\n"), 1000), 0o600))
	}
	w, err := checkpoint.Create(filepath.Join(dir, "model.ckpt"))
	require.NoError(t, err)
	require.NoError(t, w.AddFloat32s("w", []int64{2}, []float32{1, 2}))
	require.NoError(t, w.Close())
}

func newStore(t *testing.T) *Store { return &Store{filepath.Join(t.TempDir(), "tfbert")} }

// assertOnly asserts that the store holds these models and nothing that a pull left.
func assertOnly(t *testing.T, s *Store, names ...string) {
	t.Helper()
	entries, _ := os.ReadDir(filepath.Join(s.dir, pulledFolder))
	have := []string{}
	for _, e := range entries {
		if e.Name() != ".lock" {
			have = append(have, e.Name())
		}
	}
	assert.ElementsMatch(t, names, have)
}

func TestPullModule(t *testing.T) {
	proxy, module := newProxy(t)
	empty := httptest.NewServer(http.NotFoundHandler())
	defer empty.Close()
	failing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusForbidden)
	}))
	defer failing.Close()
	folder := t.TempDir()
	inFolder := filepath.Join(folder, "example.com", "!org", "models", "@v")
	require.NoError(t, os.MkdirAll(inFolder, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(inFolder, "v1.2.3.zip"), proxy.zip, 0o600))

	for list, want := range map[string]string{
		proxy.URL + "/":                           "",
		empty.URL + "," + proxy.URL:               "",
		failing.URL + "|" + proxy.URL:             "",
		"file://" + folder + ",off":               "",
		"file://" + t.TempDir() + "," + proxy.URL: "",
		failing.URL + "," + proxy.URL:             "the server answers 403 Forbidden",
		empty.URL + ",direct":                     "the server answers 404 Not Found",
		"off":                                     "GOPROXY=off forbids it",
		"direct":                                  "direct takes git",
		",":                                       "GOPROXY names none",
	} {
		t.Run(list, func(t *testing.T) {
			t.Setenv("GOPROXY", list)
			s := newStore(t)
			m, err := s.PullModule(t.Context(), module, &PullOptions{Client: quick})
			if want != "" {
				require.ErrorContains(t, err, want)
				assert.ErrorAs(t, err, new(*ProxyError))
				assertOnly(t, s)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, "tiny", m.Name)
			assert.Equal(t, FormCheckpoint, m.Form)
			assert.Equal(t, "example.com/Org/models@v1.2.3", m.Source)
			assert.Equal(t, module.Sum, m.Sum)
			assert.FileExists(t, filepath.Join(m.Path, "vocab.txt"))
			assert.Equal(t, "tiny", filepath.Base(m.Path))
			assert.Positive(t, m.Size)
			assertOnly(t, s, "tiny")

			asked := len(proxy.asked)
			again, err := s.PullModule(t.Context(), module, &PullOptions{Client: quick})
			require.NoError(t, err)
			assert.Equal(t, m, again)
			assert.Len(t, proxy.asked, asked, "nothing is downloaded the second time")
		})
	}
}

// What has another hash is not taken, and nothing is left.
func TestPullModuleVerifies(t *testing.T) {
	proxy, module := newProxy(t)
	t.Setenv("GOPROXY", proxy.URL)
	other := *module
	other.Sum = "h1:" + strings.Repeat("A", 43) + "="
	s := newStore(t)
	_, err := s.PullModule(t.Context(), &other, &PullOptions{Client: quick})
	require.ErrorContains(t, err, "has the hash "+module.Sum+", but the one that this program knows has "+other.Sum)
	assertOnly(t, s)

	small := *module
	small.Most = 100
	_, err = s.PullModule(t.Context(), &small, &PullOptions{Client: quick})
	require.ErrorAs(t, err, new(*fetch.SizeError))
	small.Most = int64(len(proxy.zip))
	_, err = s.PullModule(t.Context(), &small, &PullOptions{Client: quick})
	require.ErrorContains(t, err, "unpacks to more than")
	assertOnly(t, s)

	proxy.zip = proxy.zip[:len(proxy.zip)/2]
	_, err = s.PullModule(t.Context(), module, &PullOptions{Client: quick})
	require.ErrorContains(t, err, "zip: not a valid zip file")
	assertOnly(t, s)
}

// An older version is replaced; a model of the user's of the same name is not.
func TestPullModuleReplaces(t *testing.T) {
	proxy, module := newProxy(t)
	t.Setenv("GOPROXY", proxy.URL)
	s := newStore(t)
	_, err := s.PullModule(t.Context(), module, &PullOptions{Client: quick})
	require.NoError(t, err)
	manifest := filepath.Join(s.dir, pulledFolder, "tiny", manifestFile)
	text, err := os.ReadFile(manifest)
	require.NoError(t, err)
	older := strings.NewReplacer("v1.2.3", "v1.2.2", module.Sum, "h1:older=").Replace(string(text))
	require.NoError(t, os.WriteFile(manifest, []byte(older), 0o600))
	m, err := s.PullModule(t.Context(), module, &PullOptions{Client: quick})
	require.NoError(t, err)
	assert.Equal(t, module.Sum, m.Sum)

	s = newStore(t)
	_, err = s.Pull(t.Context(), testCheckpoint(t), &PullOptions{Name: "tiny"})
	require.NoError(t, err)
	_, err = s.PullModule(t.Context(), module, &PullOptions{Client: quick})
	require.ErrorAs(t, err, new(*ExistsError))
	_, err = s.PullModule(t.Context(), module, &PullOptions{Client: quick, Overwrite: true})
	require.NoError(t, err)
}

// The settings of `go env -w` count where the environment has none.
func TestGoProxy(t *testing.T) {
	t.Setenv("GOPROXY", "")
	t.Setenv("GOENV", "off")
	assert.Equal(t, defaultProxy, goProxy())
	config := filepath.Join(t.TempDir(), "env")
	require.NoError(t, os.WriteFile(config, []byte("GOFLAGS=-v\nGOPROXY=https://proxy.example\n"), 0o600))
	t.Setenv("GOENV", config)
	assert.Equal(t, "https://proxy.example", goProxy())
	t.Setenv("GOPROXY", "https://other.example,direct")
	assert.Equal(t, "https://other.example,direct", goProxy())
}

// The hash of the bundled model is the one of the folder in the repository. If this fails, the model has changed: it
// needs a new version and its hash.
func TestBundledSum(t *testing.T) {
	dir := filepath.Dir(testenv.Model(t))
	sum, err := dirhash.HashDir(dir, Bundled.String(), dirhash.Hash1)
	require.NoError(t, err)
	assert.Equal(t, sum, Bundled.Sum)
	all, err := size(dir)
	require.NoError(t, err)
	assert.Less(t, all, Bundled.Most)
}

// zipped returns a zip of the model in a folder below one of a name, and its SHA-256.
func zipped(t *testing.T, folder string) (packed []byte, sum string) {
	t.Helper()
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	dir := testCheckpoint(t)
	for _, name := range checkpointFiles {
		text, err := os.ReadFile(filepath.Join(dir, name))
		require.NoError(t, err)
		w, err := z.Create(folder + "/" + name)
		require.NoError(t, err)
		_, err = w.Write(text)
		require.NoError(t, err)
	}
	require.NoError(t, z.Close())
	digest := sha256.Sum256(b.Bytes())
	return b.Bytes(), hex.EncodeToString(digest[:])
}

func TestPullAddress(t *testing.T) {
	packed, sum := zipped(t, "bert")
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "zip"):
			_, _ = w.Write(packed)
		case r.URL.Path == "/page":
			fmt.Fprint(w, "<!DOCTYPE html><html></html>")
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	opts := func(name, sum string) *PullOptions {
		return &PullOptions{Name: name, SHA256: sum, Client: &fetch.Client{HTTP: server.Client(), Pause: 1}}
	}
	s := newStore(t)
	m, err := s.Pull(t.Context(), server.URL+"/models/org/bert_base_qa/versions/19.03.1/zip?key=secret", opts("", sum))
	require.NoError(t, err)
	assert.Equal(t, "bert_base_qa", m.Name, "NGC's addresses end in the version")
	assert.Equal(t, server.URL+"/models/org/bert_base_qa/versions/19.03.1/zip", m.Source)
	assert.Equal(t, "sha256:"+sum, m.Sum)
	assert.Equal(t, FormCheckpoint, m.Form)
	m, err = s.Pull(t.Context(), server.URL+"/other.zip", opts("", strings.ToUpper(sum)))
	require.NoError(t, err)
	assert.Equal(t, "other", m.Name)
	assertOnly(t, s, "bert_base_qa", "other")

	plain := "http" + strings.TrimPrefix(server.URL, "https")
	page := sha256.Sum256([]byte("<!DOCTYPE html><html></html>"))
	for name, tc := range map[string]struct {
		source string
		opts   *PullOptions
		want   string
	}{
		"no digest":    {server.URL + "/x.zip?key=secret", opts("", ""), "/x.zip: no SHA-256 is known"},
		"no SHA-256":   {server.URL + "/x.zip", opts("", "abc"), `"abc" is not a SHA-256`},
		"other digest": {server.URL + "/x.zip", opts("", strings.Repeat("0", 64)), "has the SHA-256 " + sum},
		"not there":    {server.URL + "/x.tar", opts("", sum), "404 Not Found"},
		"not packed":   {server.URL + "/page", opts("", hex.EncodeToString(page[:])), "what was downloaded is an HTML page"},
		"not secure":   {plain + "/x.zip", opts("", sum), "only addresses of https"},
		"no name":      {server.URL + "/%20zip", opts("", sum), "cannot be the name"},
		"bad name":     {server.URL + "/x.zip", opts("a/b", sum), `"a/b" cannot be the name`},
		"other model":  {server.URL + "/x.zip", opts("other", sum), "there is a model other already"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := s.Pull(t.Context(), tc.source, tc.opts)
			require.ErrorContains(t, err, tc.want)
			assert.NotContains(t, err.Error(), "key=secret")
			assertOnly(t, s, "bert_base_qa", "other")
		})
	}
}

// A pull that ends leaves nothing, and what one that was killed left is removed by the next.
func TestPullLeavesNothing(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "1000")
		_, _ = w.Write(make([]byte, 100))
		w.(http.Flusher).Flush()
		cancel()
		<-r.Context().Done()
	}))
	defer server.Close()
	s := newStore(t)
	stale := filepath.Join(s.dir, pulledFolder, stagePrefix+"1", "model")
	require.NoError(t, os.MkdirAll(stale, 0o700))
	_, err := s.Pull(ctx, server.URL+"/x.zip", &PullOptions{
		SHA256: strings.Repeat("0", 64), Client: &fetch.Client{HTTP: server.Client()},
	})
	require.ErrorIs(t, err, context.Canceled)
	assertOnly(t, s)
}

func TestPullLocal(t *testing.T) {
	packed, sum := zipped(t, "bert")
	archive := filepath.Join(t.TempDir(), "bert.zip")
	require.NoError(t, os.WriteFile(archive, packed, 0o600))
	saved := filepath.Join(t.TempDir(), "qa", "1", "model.savedmodel")
	require.NoError(t, os.MkdirAll(filepath.Join(saved, "variables"), 0o700))
	for path, text := range map[string]string{
		saved + "/saved_model.pb":                   "\x08\x01\x12\x00",
		saved + "/variables/variables.index":        "index",
		saved + "/variables/.hidden":                "no",
		filepath.Join(saved, "../../vocab.txt"):     "[CLS]",
		filepath.Join(saved, "../config.pbtxt"):     "not part of it",
		filepath.Join(saved, "../bert_config.json"): "{}",
	} {
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	}
	pytorch := filepath.Join("..", "..", "tfbert", "testdata", "transformers")
	packedPyTorch := filepath.Join(t.TempDir(), "hf.zip")
	f, err := os.Create(packedPyTorch)
	require.NoError(t, err)
	z := zip.NewWriter(f)
	require.NoError(t, z.AddFS(os.DirFS(pytorch)))
	require.NoError(t, z.Close())
	require.NoError(t, f.Close())
	for name, tc := range map[string]struct {
		source string
		sum    string
		form   string
		files  []string
	}{
		"folder":           {source: testCheckpoint(t), form: FormCheckpoint, files: checkpointFiles},
		"archive":          {source: archive, form: FormCheckpoint, files: checkpointFiles},
		"path in one":      {source: archive + "/bert", form: FormCheckpoint, files: checkpointFiles},
		"verified archive": {source: archive, sum: sum, form: FormCheckpoint, files: checkpointFiles},
		"SavedModel": {source: filepath.Join(saved, "../.."), form: FormSavedModel, files: []string{
			"bert_config.json", "saved_model.pb", "variables/variables.index", "vocab.txt",
		}},
		"archive of transformers": {source: packedPyTorch, form: FormSafetensors, files: []string{
			"config.json", "model.safetensors", "vocab.txt",
		}},
		"transformers": {source: pytorch, form: FormSafetensors, files: []string{
			"config.json", "model.safetensors", "vocab.txt",
		}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStore(t)
			m, err := s.Pull(t.Context(), tc.source, &PullOptions{Name: "m", SHA256: tc.sum})
			require.NoError(t, err)
			assert.Equal(t, tc.form, m.Form)
			assert.True(t, filepath.IsAbs(m.Source))
			var files []string
			require.NoError(t, filepath.WalkDir(m.Path, func(path string, d os.DirEntry, err error) error {
				if err == nil && !d.IsDir() {
					rel, _ := filepath.Rel(m.Path, path)
					files = append(files, filepath.ToSlash(rel))
				}
				return err
			}))
			assert.ElementsMatch(t, tc.files, files)
			found, err := s.Find("m")
			require.NoError(t, err)
			assert.Equal(t, m, found)
		})
	}

	s := newStore(t)
	for source, want := range map[string]string{
		filepath.Join(t.TempDir(), "none"): ".index does not exist",
		t.TempDir():                        "no checkpoint in this folder",
	} {
		_, err := s.Pull(t.Context(), source, &PullOptions{Name: "m"})
		require.ErrorContains(t, err, want)
		assertOnly(t, s)
	}
	_, err = s.Pull(t.Context(), testCheckpoint(t), &PullOptions{Name: "m", SHA256: sum})
	require.ErrorContains(t, err, "is not an archive")
}

func TestStore(t *testing.T) {
	s := newStore(t)
	list, err := s.List()
	require.NoError(t, err)
	assert.Empty(t, list, "before there is a cache")
	_, err = s.Find("m")
	assert.EqualError(t, err, "no model m was pulled")
	left, err := s.Leftovers(0)
	require.NoError(t, err)
	assert.Empty(t, left)

	_, err = s.Pull(t.Context(), testCheckpoint(t), &PullOptions{Name: "b"})
	require.NoError(t, err)
	_, err = s.Pull(t.Context(), testCheckpoint(t), &PullOptions{Name: "a"})
	require.NoError(t, err)
	_, err = s.Find("../../m")
	assert.EqualError(t, err, "no model ../../m was pulled; there are a, b")

	// An export, one that is under way, and parts of others that nobody completes.
	export := filepath.Join(s.dir, exportFolder, "a-0123-fused-fp32")
	require.NoError(t, os.MkdirAll(filepath.Join(export, "assets.extra"), 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(export, "saved_model.pb"), []byte("pb"), 0o600))
	require.NoError(t, os.WriteFile(filepath.Join(export, "assets.extra", "tfbert.json"),
		[]byte(`{"graph": "fused", "precision": "bf16", "source": "a"}`), 0o600))
	long := time.Now().Add(-2 * time.Hour)
	for name, old := range map[string]bool{".b.tmp-1": false, ".b.tmp-2": true, "broken": true} {
		dir := filepath.Join(s.dir, exportFolder, name)
		require.NoError(t, os.MkdirAll(dir, 0o700))
		require.NoError(t, os.WriteFile(filepath.Join(dir, "part"), make([]byte, 10), 0o600))
		if old {
			require.NoError(t, os.Chtimes(filepath.Join(dir, "part"), long, long))
			require.NoError(t, os.Chtimes(dir, long, long))
		}
	}
	list, err = s.List()
	require.NoError(t, err)
	var names []string
	for _, m := range list {
		names = append(names, m.Name)
	}
	assert.Equal(t, []string{"a", "b", "a-0123-fused-fp32"}, names)
	assert.Equal(t, "fused", list[2].Graph)
	assert.Equal(t, "bf16", list[2].Precision)
	assert.Equal(t, "a", list[2].Source)
	assert.True(t, list[2].Exported)

	paths := func(unused time.Duration) (names []string) {
		left, err := s.Leftovers(unused)
		require.NoError(t, err)
		for _, l := range left {
			assert.Positive(t, l.Size)
			names = append(names, filepath.Base(l.Path))
		}
		return names
	}
	assert.ElementsMatch(t, []string{"a-0123-fused-fp32", ".b.tmp-2", "broken"}, paths(0))
	assert.ElementsMatch(t, []string{".b.tmp-2", "broken"}, paths(time.Hour), "it was used lately")
	left, err = s.Leftovers(0)
	require.NoError(t, err)
	for _, l := range left {
		require.NoError(t, s.Free(l))
	}
	assert.Empty(t, paths(0))

	removed, err := s.Remove(t.Context(), "a")
	require.NoError(t, err)
	assert.Equal(t, "a", removed.Name)
	_, err = s.Remove(t.Context(), "a")
	assert.EqualError(t, err, "no model a was pulled; there are b")
	assertOnly(t, s, "b")
}
