package install

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"golang.org/x/net/html"

	"github.com/tfbert/go/internal/fetch"
)

// A needsPipError reports an index that asks for what only pip knows.
type needsPipError struct{ reason string }

// Error implements error.
func (e *needsPipError) Error() string { return e.reason }

// maxPage is more than the page of a project takes: TensorFlow's has 2 MB.
const maxPage = 64 << 20

// A packageIndex downloads wheels from the indexes that pip would ask, by the simple API of Python's package indexes.
type packageIndex struct {
	settings settings
	client   *fetch.Client
	progress func(done, total int64)
}

// download gets a pinned wheel into dir and returns its path. The caller compares its digest.
func (x *packageIndex) download(ctx context.Context, dir string, p pin) (_ string, err error) {
	if local := x.findLink(p.Wheel); local != "" {
		return local, nil
	}
	address, err := x.find(ctx, p)
	if err != nil {
		return "", err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	to := filepath.Join(dir, p.Wheel)
	f, err := os.Create(to)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return to, needsPip(x.client.File(ctx, address, f, p.Size, x.progress))
}

// findLink returns the wheel in a local folder of find-links, or "".
func (x *packageIndex) findLink(wheel string) string {
	for _, place := range x.settings.list("find-links") {
		file := filepath.Join(strings.TrimPrefix(place, "file://"), wheel)
		if info, err := os.Stat(file); err == nil && info.Mode().IsRegular() {
			return file
		}
	}
	return ""
}

// find returns the address of a wheel in the first index that has it.
func (x *packageIndex) find(ctx context.Context, p pin) (string, error) {
	var failed, other error
	for _, index := range x.settings.indexes() {
		address, err := x.findIn(ctx, index, p)
		switch {
		case err == nil:
			return address, nil
		case ctx.Err() != nil:
			return "", err
		case errors.As(err, new(*otherWheelError)):
			other = err
		case failed == nil && !errors.As(err, new(*noWheelError)):
			failed = err
		}
	}
	remote := false
	for _, place := range x.settings.list("find-links") {
		u, err := url.Parse(place)
		remote = remote || err == nil && strings.HasPrefix(u.Scheme, "http")
	}
	switch {
	case failed != nil:
		return "", failed
	case remote:
		return "", &needsPipError{"pip's setting find-links names a page"}
	case other != nil:
		return "", other
	}
	return "", &noWheelError{p.Wheel}
}

// A noWheelError reports a wheel that the indexes do not have.
type noWheelError struct{ wheel string }

// Error implements error.
func (e *noWheelError) Error() string {
	return fmt.Sprintf("the package index has no %s: look up the versions at "+
		"https://pypi.org/project/tensorflow-cpu/#history, and check pip's own settings (pip config list)", e.wheel)
}

// An otherWheelError reports a wheel of the right name with another content.
type otherWheelError struct{ index, wheel, sum, want string }

// Error implements error.
func (e *otherWheelError) Error() string {
	return fmt.Sprintf("the %s of %s has the SHA-256 %s, but PyPI's has %s: check pip's own settings (pip config list)",
		e.wheel, e.index, e.sum, e.want)
}

var separators = regexp.MustCompile(`[-_.]+`)

// findIn returns the address of a wheel in an index.
func (x *packageIndex) findIn(ctx context.Context, index string, p pin) (string, error) {
	if err := x.settings.check(index); err != nil {
		return "", err
	}
	name, _, _ := strings.Cut(p.Wheel, "-")
	project := separators.ReplaceAllString(strings.ToLower(name), "-")
	page, err := x.client.Page(ctx, strings.TrimSuffix(index, "/")+"/"+project+"/", http.Header{
		"Accept": {"application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html; q=0.1, text/html; q=0.01"},
	}, maxPage)
	if status, ok := errors.AsType[*fetch.StatusError](err); ok && status.Code == http.StatusNotFound {
		return "", &noWheelError{p.Wheel}
	}
	if err != nil {
		return "", needsPip(err)
	}
	files, err := readPage(page)
	if err != nil {
		return "", err
	}
	for _, f := range files {
		if f.Name != p.Wheel {
			continue
		}
		if sum := f.Hashes["sha256"]; sum != "" && !strings.EqualFold(sum, p.SHA256) {
			return "", &otherWheelError{fetch.Redacted(index), p.Wheel, sum, p.SHA256}
		}
		return x.resolve(index, page.URL, f.URL)
	}
	return "", &noWheelError{p.Wheel}
}

// resolve returns the address of a file on a page. The password of the index is also that of its files.
func (x *packageIndex) resolve(index string, page *url.URL, file string) (string, error) {
	u, err := page.Parse(file)
	if err != nil {
		return "", fmt.Errorf("%s: not an address of a file", fetch.Redacted(page.String()))
	}
	if own, err := url.Parse(index); err == nil && u.User == nil && u.Host == own.Host && u.Scheme == own.Scheme {
		u.User = own.User
	}
	u.Fragment = ""
	return u.String(), x.settings.check(u.String())
}

// An indexFile is a file on the page of a project.
type indexFile struct {
	Name   string            `json:"filename"`
	URL    string            `json:"url"`
	Hashes map[string]string `json:"hashes"`
}

// readPage reads the page of a project, in JSON (PEP 691) or HTML (PEP 503).
func readPage(page *fetch.Page) ([]indexFile, error) {
	shown := fetch.Redacted(page.URL.String())
	kind, _, err := mime.ParseMediaType(page.Type)
	if err != nil {
		return nil, &needsPipError{fmt.Sprintf("%s does not say what it is", shown)}
	}
	switch kind {
	case "application/vnd.pypi.simple.v1+json":
		var project struct {
			Files []indexFile `json:"files"`
		}
		if err := json.Unmarshal(page.Body, &project); err != nil {
			return nil, fmt.Errorf("%s: %w", shown, err)
		}
		return project.Files, nil
	case "application/vnd.pypi.simple.v1+html", "text/html":
		return readLinks(page)
	}
	return nil, &needsPipError{fmt.Sprintf("%s is %s, which is not a page of a package index", shown, kind)}
}

// readLinks reads the links of an HTML page. The fragment of each holds the digest.
func readLinks(page *fetch.Page) (files []indexFile, err error) {
	base := page.URL
	for tokens := html.NewTokenizer(bytes.NewReader(page.Body)); ; {
		kind := tokens.Next()
		if kind == html.ErrorToken {
			return files, nil // the end of the page
		}
		if kind != html.StartTagToken && kind != html.SelfClosingTagToken {
			continue
		}
		token := tokens.Token()
		for _, a := range token.Attr {
			if a.Key != "href" {
				continue
			}
			u, err := base.Parse(a.Val)
			if err != nil {
				continue
			}
			switch token.Data {
			case "base":
				base = u
			case "a":
				algorithm, sum, _ := strings.Cut(u.Fragment, "=")
				files = append(files, indexFile{path.Base(u.Path), u.String(), map[string]string{algorithm: sum}})
			}
		}
	}
}

// needsPip returns a *needsPipError for a refusal that pip may know how to avoid: it finds passwords in more places.
func needsPip(err error) error {
	if status, ok := errors.AsType[*fetch.StatusError](err); ok {
		switch status.Code {
		case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
			return &needsPipError{err.Error()}
		}
	}
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return &needsPipError{err.Error()}
	}
	return err
}
