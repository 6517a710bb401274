//go:build linux && (amd64 || arm64)

package install

import (
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/fetch"
)

// withoutPip hides pip's settings and every Python of this machine. It returns the folder that is the home now.
func withoutPip(t *testing.T) string {
	t.Helper()
	for _, variable := range os.Environ() {
		if name, _, _ := strings.Cut(variable, "="); strings.HasPrefix(name, "PIP_") {
			t.Setenv(name, "")
		}
	}
	home := t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("PATH", filepath.Join(home, "bin"))
	for name, value := range map[string]string{
		"XDG_CONFIG_HOME": filepath.Join(home, ".config"), "XDG_CONFIG_DIRS": filepath.Join(home, "etc"),
		"VIRTUAL_ENV": "", "REQUESTS_CA_BUNDLE": "", "CURL_CA_BUNDLE": "", "PIP_RETRIES": "1",
	} {
		t.Setenv(name, value)
	}
	return home
}

// webIndex serves the wheels of an index by the simple API.
type webIndex struct {
	*index
	form     string // "json", "html" or something else
	password string // "": none is needed
	sum      string // in place of that of each wheel
	broken   int    // downloads that end in the middle
	asked    []string
}

func (x *webIndex) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x.asked = append(x.asked, r.URL.Path)
	if _, password, _ := r.BasicAuth(); password != x.password {
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if wheel, ok := strings.CutPrefix(r.URL.Path, "/files/"); ok {
		if x.broken > 0 {
			x.broken--
			info, _ := os.Stat(x.path(wheel))
			w.Header().Set("Content-Length", fmt.Sprint(info.Size()))
			_, _ = w.Write([]byte("PK"))
			return
		}
		http.ServeFile(w, r, x.path(wheel))
		return
	}
	project := strings.Trim(strings.TrimPrefix(r.URL.Path, "/simple/"), "/")
	var files []indexFile
	for _, pins := range x.pins {
		for _, p := range pins {
			if name, _, _ := strings.Cut(p.Wheel, "-"); strings.ReplaceAll(name, "_", "-") == project {
				sum := p.SHA256
				if x.sum != "" {
					sum = x.sum
				}
				files = append(files, indexFile{p.Wheel, "../../files/" + p.Wheel, map[string]string{"sha256": sum}})
			}
		}
	}
	switch {
	case len(files) == 0:
		http.NotFound(w, r)
	case x.form == "json":
		w.Header().Set("Content-Type", "application/vnd.pypi.simple.v1+json")
		_ = json.NewEncoder(w).Encode(map[string]any{"meta": map[string]string{"api-version": "1.1"}, "files": files})
	case x.form == "html":
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		fmt.Fprint(w, `<!DOCTYPE html><base href="/files/"><a>none</a><a href="other-1.0.whl#md5=0">other</a>`)
		for _, f := range files {
			fmt.Fprintf(w, `<a href="%s#sha256=%s">%s</a>`, f.Name, f.Hashes["sha256"], f.Name)
		}
	default:
		w.Header().Set("Content-Type", x.form)
	}
}

// newWebIndex serves TensorFlow for the CPU. pip has no settings but the address of this index.
func newWebIndex(t *testing.T, form string) (*webIndex, *httptest.Server, *installer) {
	t.Helper()
	withoutPip(t)
	x := &webIndex{index: cpuIndex(t), form: form}
	server := httptest.NewServer(x)
	t.Cleanup(server.Close)
	t.Setenv("PIP_INDEX_URL", server.URL+"/simple/")
	i := x.installer()
	i.Python = ""
	return x, server, i
}

func TestIndex(t *testing.T) {
	for _, form := range []string{"json", "html"} {
		t.Run(form, func(t *testing.T) {
			x, _, i := newWebIndex(t, form)
			var last Progress
			i.Progress = func(p Progress) {
				if p.Stage == "download" {
					last = p
				}
			}
			inst, err := i.install(t.Context())
			require.NoError(t, err)
			assert.FileExists(t, inst.Library())
			assert.True(t, inst.Wheels[0].Pinned)
			size := x.pins[cpuName][0].Size
			assert.Equal(t, Progress{"download", cpuWheel, size, size}, last)
			project := strings.ReplaceAll(cpuProject, "_", "-")
			assert.Equal(t, []string{"/simple/" + project + "/", "/files/" + cpuWheel}, x.asked)
			assert.Empty(t, x.calls(), "no pip")
		})
	}
	t.Run("broken connection", func(t *testing.T) {
		x, _, i := newWebIndex(t, "json")
		x.broken = 1
		_, err := i.install(t.Context())
		require.NoError(t, err)
		assert.Len(t, x.asked, 3)
	})
	t.Run("extra index", func(t *testing.T) {
		_, server, i := newWebIndex(t, "json")
		empty := httptest.NewServer(http.NotFoundHandler())
		defer empty.Close()
		t.Setenv("PIP_INDEX_URL", empty.URL)
		t.Setenv("PIP_EXTRA_INDEX_URL", empty.URL+"/more "+server.URL+"/simple")
		_, err := i.install(t.Context())
		require.NoError(t, err)
	})
	t.Run("password", func(t *testing.T) {
		x, server, i := newWebIndex(t, "json")
		x.password = "secret"
		t.Setenv("PIP_INDEX_URL", strings.Replace(server.URL, "//", "//user:secret@", 1)+"/simple")
		_, err := i.install(t.Context())
		require.NoError(t, err)
	})
	t.Run("proxy", func(t *testing.T) {
		x, _, i := newWebIndex(t, "json")
		proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			assert.Equal(t, "index.example", r.URL.Host)
			x.ServeHTTP(w, r)
		}))
		defer proxy.Close()
		t.Setenv("PIP_PROXY", strings.TrimPrefix(proxy.URL, "http://"))
		t.Setenv("PIP_INDEX_URL", "http://index.example/simple")
		_, err := i.install(t.Context())
		require.ErrorContains(t, err, "http://index.example/simple is not an address of https")
		t.Setenv("PIP_TRUSTED_HOST", "other.example index.example")
		_, err = i.install(t.Context())
		require.NoError(t, err)
	})
	t.Run("certificates", func(t *testing.T) {
		x, _, i := newWebIndex(t, "json")
		secure := httptest.NewTLSServer(x)
		defer secure.Close()
		t.Setenv("PIP_INDEX_URL", secure.URL+"/simple")
		file := filepath.Join(t.TempDir(), "ca.pem")
		certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
		require.NoError(t, os.WriteFile(file, certificate, 0o600))
		t.Setenv("PIP_CERT", file)
		_, err := i.install(t.Context())
		require.NoError(t, err)
	})
	t.Run("folder of wheels", func(t *testing.T) {
		x, _, i := newWebIndex(t, "json")
		t.Setenv("PIP_FIND_LINKS", "/nowhere "+x.dir)
		t.Setenv("PIP_NO_INDEX", "1")
		_, err := i.install(t.Context())
		require.NoError(t, err)
		assert.Empty(t, x.asked)
		assert.FileExists(t, x.path(cpuWheel), "the user's file stays")
	})
}

func TestIndexFails(t *testing.T) {
	for name, tt := range map[string]struct {
		setUp func(t *testing.T, x *webIndex, server *httptest.Server)
		want  []string
	}{
		"no such wheel": {func(_ *testing.T, x *webIndex, _ *httptest.Server) {
			x.pins = map[string][]pin{}
		}, []string{"the package index has no " + cpuWheel, "pip config list"}},
		"other wheel": {func(_ *testing.T, x *webIndex, _ *httptest.Server) {
			x.sum = strings.Repeat("0", 64)
		}, []string{cpuWheel, "has the SHA-256 0000", "but PyPI's has"}},
		"damaged wheel": {func(t *testing.T, x *webIndex, _ *httptest.Server) {
			size := x.pins[cpuName][0].Size
			require.NoError(t, os.WriteFile(x.path(cpuWheel), make([]byte, size), 0o600))
		}, []string{"it is damaged or another one"}},
		"larger wheel": {func(t *testing.T, x *webIndex, _ *httptest.Server) {
			require.NoError(t, os.WriteFile(x.path(cpuWheel), make([]byte, 1e6), 0o600))
		}, []string{"more than the"}},
		"no server": {func(_ *testing.T, _ *webIndex, s *httptest.Server) { s.Close() }, []string{"connection refused"}},
		"not JSON": {func(_ *testing.T, x *webIndex, _ *httptest.Server) { x.form = "application/json" }, []string{
			"is application/json, which is not a page of a package index; by pip: no python3 in PATH",
		}},
		"no index": {func(t *testing.T, _ *webIndex, _ *httptest.Server) { t.Setenv("PIP_NO_INDEX", "true") }, []string{
			"the package index has no",
		}},
		"a folder": {func(t *testing.T, _ *webIndex, _ *httptest.Server) {
			t.Setenv("PIP_INDEX_URL", "file:///srv/pypi")
		}, []string{"file:///srv/pypi is not an address of the web; by pip: no python3 in PATH", "apt install python3-pip"}},
		"a password": {func(_ *testing.T, x *webIndex, _ *httptest.Server) { x.password = "x" }, []string{
			"401 Unauthorized; by pip: no python3 in PATH",
		}},
		"certificate": {func(t *testing.T, x *webIndex, _ *httptest.Server) {
			secure := httptest.NewTLSServer(x)
			secure.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
			t.Cleanup(secure.Close)
			t.Setenv("PIP_INDEX_URL", strings.Replace(secure.URL, "//", "//user:secret@", 1)+"/simple")
		}, []string{"certificate", "by pip: no python3"}},
		"no certificates": {func(t *testing.T, _ *webIndex, _ *httptest.Server) { t.Setenv("PIP_CERT", "/nowhere") },
			[]string{"the certificates of /nowhere are not a PEM file; by pip: no python3"}},
		"no client certificate": {func(t *testing.T, _ *webIndex, _ *httptest.Server) {
			t.Setenv("PIP_CLIENT_CERT", "/nowhere")
		}, []string{"the client certificate /nowhere is not a PEM file with its key; by pip: no python3"}},
	} {
		t.Run(name, func(t *testing.T) {
			x, server, i := newWebIndex(t, "json")
			i.pins = map[string][]pin{cpuName: slices.Clone(x.pins[cpuName])}
			tt.setUp(t, x, server)
			_, err := i.install(t.Context())
			require.Error(t, err)
			for _, want := range tt.want {
				assert.ErrorContains(t, err, want)
			}
			assert.NotContains(t, err.Error(), "secret")
			assertNothing(t, i.Dir)
		})
	}
}

// An index that needs pip gets it, and the log says why.
func TestIndexNeedsPip(t *testing.T) {
	x, _, i := newWebIndex(t, "json")
	x.password = "in the keyring"
	bin := filepath.Join(t.TempDir(), "bin")
	require.NoError(t, os.Mkdir(bin, 0o700))
	require.NoError(t, os.Symlink(x.path("python"), filepath.Join(bin, "python3")))
	t.Setenv("PATH", bin+":/usr/bin:/bin")
	script := strings.Replace(fakePython, `"$(dirname "$0")"`, x.dir, 1)
	require.NoError(t, os.WriteFile(x.path("python"), []byte(script), 0o755))
	var log strings.Builder
	i.Log = slog.New(slog.NewTextHandler(&log, nil))
	inst, err := i.install(t.Context())
	require.NoError(t, err)
	assert.FileExists(t, inst.Library())
	assert.Len(t, x.calls(), 1)
	assert.Contains(t, log.String(), "level=WARN")
	assert.Contains(t, log.String(), "401 Unauthorized")
}

func TestSettings(t *testing.T) {
	home := withoutPip(t)
	t.Setenv("PIP_RETRIES", "")
	assert.Equal(t, []string{defaultIndex}, readSettings().indexes())

	write := func(name, text string) string {
		path := filepath.Join(home, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o700))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		return path
	}
	index := func() string { return readSettings().indexes()[0] }
	write("etc/pip/pip.conf", "# the system's\n[global]\nIndex_URL: https://system\ntimeout = 7\n[install]\nretries = 9\n")
	assert.Equal(t, "https://system", index())
	write(".pip/pip.conf", "[global]\nindex-url = https://old\n")
	assert.Equal(t, "https://old", index())
	user := write(".config/pip/pip.conf",
		"[global]\nindex-url = https://user\nextra-index-url =\n    https://a\n    https://b\n\n; more\n"+
			"[download]\nretries = 3\n")
	s := readSettings()
	assert.Equal(t, []string{"https://user", "https://a", "https://b"}, s.indexes())
	client, err := s.client()
	require.NoError(t, err)
	assert.Equal(t, 3, client.Retries)
	assert.Equal(t, 7*time.Second, client.Stall)

	venv := write("venv/pip.conf", "[global]\nindex-url = https://venv\n")
	t.Setenv("VIRTUAL_ENV", filepath.Dir(venv))
	assert.Equal(t, "https://venv", index())
	t.Setenv("PIP_CONFIG_FILE", write("named.conf", "[global]\nindex-url = https://named\n"))
	assert.Equal(t, "https://named", index())
	require.NoError(t, os.WriteFile(user, []byte("[download]\nindex-url = https://user\n"), 0o600))
	assert.Equal(t, "https://named", index(), "the user's own file is not read then")
	t.Setenv("PIP_INDEX_URL", "https://variable")
	t.Setenv("PIP_RETRIES", "0")
	assert.Equal(t, "https://variable", index())
	client, err = readSettings().client()
	require.NoError(t, err)
	assert.Equal(t, -1, client.Retries)
	t.Setenv("PIP_INDEX_URL", "")
	t.Setenv("PIP_CONFIG_FILE", os.DevNull)
	assert.Equal(t, defaultIndex, index())
}

// Pip would not ask these, or knows more of them.
func TestCheckIndex(t *testing.T) {
	s := settings{"trusted-host": "plain.example:8080\ntrusted.example"}
	for index, want := range map[string]string{
		"https://a.example/simple":       "",
		"http://localhost:3141/root":     "",
		"http://127.0.0.1/":              "",
		"http://plain.example:8080/":     "",
		"http://u:secret@plain.example/": "is not an address of https",
		"https://trusted.example/":       "without its certificate",
		"git+ssh://a.example/":           "is not an address of the web",
		"https://a.example/%zz":          "is not the address of a package index",
	} {
		err := s.check(index)
		if want == "" {
			assert.NoError(t, err, index)
			continue
		}
		assert.ErrorContains(t, err, want, index)
		assert.NotContains(t, err.Error(), "secret")
	}
}

// Whatever a page holds, it is read or refused.
func FuzzReadPage(f *testing.F) {
	const json, html = "application/vnd.pypi.simple.v1+json", "text/html; charset=utf-8"
	f.Add(json, `{"files": [{"filename": "a.whl", "url": "../a.whl", "hashes": {"sha256": "00"}}]}`)
	f.Add(json, `{"files": [{"url": 1}]}`)
	f.Add(html, `<base href="//other/"><a href="a.whl#sha256=00">a</a><a href="%zz">b</a><A HREF=c.whl>`)
	f.Add(html, `<a href='`)
	f.Add("image/png", "x")
	f.Add("", "")
	f.Fuzz(func(t *testing.T, kind, body string) {
		at := &url.URL{Scheme: "https", Host: "index.example", Path: "/simple/a/"}
		page := &fetch.Page{URL: at, Type: kind, Body: []byte(body)}
		files, err := readPage(page)
		if err != nil {
			assert.NotContains(t, err.Error(), "\n")
			return
		}
		x := packageIndex{settings: settings{}}
		for _, file := range files {
			if address, err := x.resolve("https://index.example/simple", page.URL, file.URL); err == nil {
				assert.True(t, strings.HasPrefix(address, "https://") || strings.HasPrefix(address, "http://"), address)
			}
		}
	})
}
