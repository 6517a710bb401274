package fetch

import (
	"bytes"
	"context"
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
)

// quick does not wait between attempts.
var quick = Client{Pause: time.Nanosecond}

func create(t *testing.T) *os.File {
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	return f
}

func content(t *testing.T, f *os.File) []byte {
	b, err := os.ReadFile(f.Name())
	require.NoError(t, err)
	return b
}

func TestPage(t *testing.T) {
	busy := 2
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/busy":
			if busy--; busy >= 0 {
				w.WriteHeader(http.StatusServiceUnavailable)
			}
		case "/moved":
			http.Redirect(w, r, "/there", http.StatusFound)
		case "/there":
			w.Header().Set("Content-Type", r.Header.Get("Accept"))
			fmt.Fprint(w, "text")
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()

	page, err := quick.Page(t.Context(), server.URL+"/moved", http.Header{"Accept": {"text/special"}}, 4)
	require.NoError(t, err)
	assert.Equal(t, "text", string(page.Body))
	assert.Equal(t, "text/special", page.Type)
	assert.Equal(t, "/there", page.URL.Path)

	_, err = quick.Page(t.Context(), server.URL+"/there", nil, 3)
	assert.ErrorAs(t, err, new(*SizeError))
	_, err = quick.Page(t.Context(), server.URL+"/busy", nil, 3)
	assert.NoError(t, err)

	address := strings.Replace(server.URL, "http://", "http://user:secret@", 1) + "/none?signature=secret"
	_, err = quick.Page(t.Context(), address, nil, 3)
	require.ErrorAs(t, err, new(*StatusError))
	assert.ErrorContains(t, err, "/none: the server answers 404 Not Found")
	assert.NotContains(t, err.Error(), "secret")
	server.Close()
	_, err = quick.Page(t.Context(), address, nil, 3)
	assert.ErrorContains(t, err, "refused")
	assert.NotContains(t, err.Error(), "secret")
}

// flaky serves a file and breaks the connection after every step bytes.
type flaky struct {
	body   []byte
	step   int
	ranges bool     // honoured
	tag    string   // "": none
	asked  []string // the ranges
}

func (s *flaky) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.asked = append(s.asked, r.Header.Get("Range"))
	var from int
	_, _ = fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &from)
	if !s.ranges || s.tag != "" && r.Header.Get("If-Range") != s.tag {
		from = 0
	}
	if s.tag != "" {
		w.Header().Set("ETag", s.tag)
	}
	w.Header().Set("Content-Length", fmt.Sprint(len(s.body)-from))
	if from > 0 {
		w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", from, len(s.body)-1, len(s.body)))
		w.WriteHeader(http.StatusPartialContent)
	}
	_, _ = w.Write(s.body[from:min(from+s.step, len(s.body))]) // less than the length: the connection is closed
}

func TestFileResumes(t *testing.T) {
	body := bytes.Repeat([]byte("0123456789"), 1000)
	for name, s := range map[string]*flaky{
		"ranges":             {body: body, step: 4000, ranges: true},
		"ranges with a tag":  {body: body, step: 4000, ranges: true, tag: `"v1"`},
		"all at once":        {body: body, step: len(body)},
		"exactly the length": {body: body, step: 5000, ranges: true},
	} {
		t.Run(name, func(t *testing.T) {
			server := httptest.NewServer(s)
			defer server.Close()
			f := create(t)
			var last, total int64
			err := quick.File(t.Context(), server.URL, f, int64(len(body)), func(d, n int64) { last, total = d, n })
			require.NoError(t, err)
			assert.Equal(t, body, content(t, f))
			assert.Equal(t, []int64{10000, 10000}, []int64{last, total})
			if s.step == 4000 {
				assert.Equal(t, []string{"", "bytes=4000-", "bytes=8000-"}, s.asked)
			}
		})
	}

	t.Run("server without ranges", func(t *testing.T) {
		s := &flaky{body: body, step: 4000}
		server := httptest.NewServer(s)
		defer server.Close()
		err := quick.File(t.Context(), server.URL, create(t), int64(len(body)), nil)
		require.ErrorContains(t, err, "unexpected EOF")
		assert.Len(t, s.asked, 5, "four more attempts")
	})
	t.Run("another file by now", func(t *testing.T) {
		s := &flaky{body: body, step: 4000, ranges: true, tag: `"v1"`}
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if len(s.asked) == 1 {
				s.body, s.tag, s.step = []byte("new"), `"v2"`, 100
			}
			s.ServeHTTP(w, r)
		}))
		defer server.Close()
		f := create(t)
		require.NoError(t, quick.File(t.Context(), server.URL, f, int64(len(body)), nil))
		assert.Equal(t, "new", string(content(t, f)))
	})
}

func TestFileIsBounded(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/chunked" {
			w.(http.Flusher).Flush() // no length
		}
		_, _ = w.Write(make([]byte, 1000))
	}))
	defer server.Close()
	for _, path := range []string{"/length", "/chunked"} {
		err := quick.File(t.Context(), server.URL+path, create(t), 999, nil)
		assert.ErrorAs(t, err, new(*SizeError), path)
		f := create(t)
		assert.NoError(t, quick.File(t.Context(), server.URL+path, f, 1000, nil), path)
		assert.Len(t, content(t, f), 1000)
	}
}

func TestFileEnds(t *testing.T) {
	started := make(chan struct{}, 10)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "10")
		_, _ = w.Write([]byte("x"))
		w.(http.Flusher).Flush()
		started <- struct{}{}
		<-r.Context().Done()
	}))
	defer server.Close()

	t.Run("silence", func(t *testing.T) {
		c := Client{Retries: -1, Stall: 50 * time.Millisecond}
		err := c.File(t.Context(), server.URL, create(t), 10, nil)
		assert.ErrorContains(t, err, "nothing came for 50ms")
	})
	t.Run("cancel", func(t *testing.T) {
		for len(started) > 0 {
			<-started
		}
		ctx, cancel := context.WithCancel(t.Context())
		go func() { <-started; cancel() }()
		assert.ErrorIs(t, quick.File(ctx, server.URL, create(t), 10, nil), context.Canceled)
	})
}
