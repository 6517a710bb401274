// Package page is the server's web page: paste a passage, ask a question, see the answer marked in it. The
// page is embedded in the binary, and is only a client of the server's own HTTP API.
package page

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"fmt"
	"net/http"
	"time"
)

//go:embed index.html page.css page.js favicon.svg
var files embed.FS

// policy allows the page only its own files and its own server: markup in a passage can do no harm, and no
// data goes anywhere else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// A file is an embedded file, ready to be sent.
type file struct {
	contentType, etag string
	content           []byte
}

func load(name, contentType string) file {
	content, err := files.ReadFile(name)
	if err != nil {
		panic(err) // it is embedded
	}
	return file{contentType, fmt.Sprintf(`"%x"`, sha256.Sum256(content)), content}
}

// Handler returns the handler of "/", "/page.css", "/page.js" and "/favicon.svg", and of no other path.
// Browsers keep the files but ask whether they have changed, so that a new binary shows its page at once.
func Handler() http.Handler {
	served := map[string]file{
		"/":            load("index.html", "text/html; charset=utf-8"),
		"/page.css":    load("page.css", "text/css; charset=utf-8"),
		"/page.js":     load("page.js", "text/javascript; charset=utf-8"),
		"/favicon.svg": load("favicon.svg", "image/svg+xml"),
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		f, ok := served[r.URL.Path]
		if !ok {
			http.NotFound(w, r)
			return
		}
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			h.Set("Allow", "GET, HEAD")
			http.Error(w, "only GET and HEAD are served here", http.StatusMethodNotAllowed)
			return
		}
		h.Set("Content-Type", f.contentType)
		h.Set("Cache-Control", "no-cache")
		h.Set("ETag", f.etag)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.content))
	})
}
