package models

import (
	"archive/zip"
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/mod/module"
	"golang.org/x/mod/sumdb/dirhash"
	modzip "golang.org/x/mod/zip"

	"github.com/tfbert/go/internal/fetch"
)

// A Module is a model that a Go module holds, in the folder of its name. A proxy of modules delivers it as it does
// libraries. Its hash is the one that a go.sum would have.
type Module struct {
	Name string
	module.Version
	Sum  string // of the module's files; whatever has another is not taken
	Most int64  // bytes that it may unpack to
}

// Bundled is the model that the source of tfbert holds.
var Bundled = Module{
	Name:    "minilm-squad",
	Version: module.Version{Path: "github.com/tfbert/go/testdata/models", Version: "v0.1.0"},
	Sum:     "h1:YOP5SwUkJzcex+IjfD0EPka5rgvjxJFs425stAREgGA=",
	Most:    64 << 20,
}

// String returns what List shows as the source.
func (m *Module) String() string { return m.Version.String() }

// A ProxyError reports that no proxy of modules has delivered a module.
type ProxyError struct {
	Module string
	Err    error
}

// Error implements error.
func (e *ProxyError) Error() string {
	return fmt.Sprintf("download %s from the proxies of Go modules: %v", e.Module, e.Err)
}

func (e *ProxyError) Unwrap() error { return e.Err }

// defaultProxy is that of Go.
const defaultProxy = "https://proxy.golang.org,direct"

// download gets the module's zip through the proxies of GOPROXY, as Go does, and returns its path in dir.
func (m *Module) download(ctx context.Context, client *fetch.Client, dir string, progress Progress) (string, error) {
	if err := m.try(ctx, client, dir, progress); err != nil {
		if ctx.Err() != nil {
			return "", err
		}
		return "", &ProxyError{m.String(), err}
	}
	return m.zip(dir), nil
}

func (m *Module) zip(dir string) string { return filepath.Join(dir, "module.zip") }

// try asks one proxy after another. After a comma Go asks the next one if the module is not found, after a bar it does
// so after any error.
func (m *Module) try(ctx context.Context, client *fetch.Client, dir string, progress Progress) (err error) {
	path, err := module.EscapePath(m.Path)
	if err != nil {
		return err
	}
	list := goProxy()
	for list != "" {
		at := strings.IndexAny(list, ",|")
		proxy, rest, anyError := list, "", false
		if at >= 0 {
			proxy, rest, anyError = list[:at], list[at+1:], list[at] == '|'
		}
		list = rest
		switch proxy = strings.TrimSpace(proxy); proxy {
		case "":
			continue
		case "off":
			return cmp.Or(err, errors.New("GOPROXY=off forbids it"))
		case "direct": // from the repository, by git
			return cmp.Or(err, errors.New("GOPROXY has none of them: direct takes git, which is not used here"))
		}
		err = m.from(ctx, client, strings.TrimSuffix(proxy, "/")+"/"+path+"/@v/"+m.Version.Version+".zip", dir, progress)
		if err == nil || ctx.Err() != nil || !anyError && !notFound(err) {
			return err
		}
	}
	return cmp.Or(err, errors.New("GOPROXY names none"))
}

func notFound(err error) bool {
	status, ok := errors.AsType[*fetch.StatusError](err)
	return ok && (status.Code == http.StatusNotFound || status.Code == http.StatusGone) || errors.Is(err, os.ErrNotExist)
}

// from gets the zip from one proxy, which may be a folder.
func (m *Module) from(
	ctx context.Context, client *fetch.Client, address, dir string, progress Progress,
) (err error) {
	u, err := url.Parse(address)
	if err != nil {
		return errors.New("GOPROXY: not the address of a proxy")
	}
	f, err := os.Create(m.zip(dir))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if u.Scheme == "file" {
		return copyFile(ctx, f, filepath.FromSlash(u.Path), m.Most)
	}
	return client.File(ctx, address, f, m.Most, progress)
}

// unpack verifies the module's zip and writes its files below dir.
func (m *Module) unpack(zipFile, dir string) error {
	// A zip may claim more than it is good to read before its hash is known.
	if err := checkGrowth(zipFile, m.Most); err != nil {
		return err
	}
	sum, err := dirhash.HashZip(zipFile, dirhash.Hash1)
	if err != nil {
		return fmt.Errorf("%v: %w", m, err)
	}
	if sum != m.Sum {
		return fmt.Errorf("%v has the hash %s, but the one that this program knows has %s: "+
			"a proxy of GOPROXY delivers something else", m, sum, m.Sum)
	}
	return modzip.Unzip(dir, m.Version, zipFile)
}

func checkGrowth(zipFile string, most int64) error {
	r, err := zip.OpenReader(zipFile)
	if err != nil {
		return err
	}
	defer r.Close()
	left := uint64(most)
	for _, f := range r.File {
		if f.UncompressedSize64 > left {
			return fmt.Errorf("the zip of the module unpacks to more than %d bytes", most)
		}
		left -= f.UncompressedSize64
	}
	return nil
}

// goProxy returns the proxies that Go would ask: those of the environment, of `go env -w`, or Go's own.
func goProxy() string {
	if list := os.Getenv("GOPROXY"); list != "" {
		return list
	}
	path := os.Getenv("GOENV")
	if path == "" {
		if config, err := os.UserConfigDir(); err == nil {
			path = filepath.Join(config, "go", "env")
		}
	}
	if f, err := os.Open(path); err == nil && path != "off" {
		defer f.Close()
		for lines := bufio.NewScanner(f); lines.Scan(); {
			if list, ok := strings.CutPrefix(strings.TrimSpace(lines.Text()), "GOPROXY="); ok && list != "" {
				return list
			}
		}
	}
	return defaultProxy
}
