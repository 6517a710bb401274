package models

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/url"
	"os"
	"path"
	"path/filepath"
	"strings"
	"time"

	"github.com/tfbert/go/checkpoint"
	"github.com/tfbert/go/internal/archive"
	"github.com/tfbert/go/internal/fetch"
	"github.com/tfbert/go/internal/file"
	"github.com/tfbert/go/savedmodel"
)

// maxArchive is more than any archive of a BERT: that of BERT-Large with all of its optimizer's state has 4 GB.
const maxArchive = 16 << 30

// Progress is called with the bytes that were downloaded so far, and with those that there are, 0 if that is not known.
type Progress func(done, total int64)

// PullOptions say what to pull.
type PullOptions struct {
	Name      string // "": that of the source
	SHA256    string // of the archive, in hexadecimal; required for an address
	Overwrite bool   // replace a model of this name

	Client   *fetch.Client // nil: one with the proxies of the environment
	Progress Progress      // nil: none
}

// PullModule puts a module's model into the store, unless it is there. An interrupted pull leaves nothing that counts,
// and the next one removes what it left.
func (s *Store) PullModule(ctx context.Context, m *Module, opts *PullOptions) (*Model, error) {
	if have, err := s.Find(m.Name); err == nil && have.Sum == m.Sum {
		return have, nil
	}
	own := *opts
	own.Overwrite = true // an older version of it; a model of the user's has another source
	if have, err := s.Find(m.Name); err == nil && !strings.HasPrefix(have.Source, m.Path+"@") && !opts.Overwrite {
		return nil, &ExistsError{have.Name, have.Source}
	}
	model := Model{Name: m.Name, Source: m.String(), Sum: m.Sum}
	return s.pull(ctx, model, &own, func(stage, dir string) (string, error) {
		path, err := m.download(ctx, opts.client(), stage, opts.Progress)
		if err != nil {
			return "", err
		}
		if err := m.unpack(path, dir); err != nil {
			return "", err
		}
		return formOf(filepath.Join(dir, m.Name))
	})
}

// Pull puts a model into the store: that of a local folder or archive, or of an archive at an address of HTTPS.
func (s *Store) Pull(ctx context.Context, source string, opts *PullOptions) (*Model, error) {
	u, err := url.Parse(source)
	remote := err == nil && u.Scheme != "" && strings.Contains(source, "://")
	model := Model{Name: opts.Name, Source: source}
	switch {
	case remote && u.Scheme != "https":
		return nil, fmt.Errorf("%s: only addresses of https are taken", fetch.Redacted(source))
	case remote && opts.SHA256 == "":
		return nil, &NoDigestError{fetch.Redacted(source)}
	case remote:
		model.Source = fetch.Redacted(source)
	default:
		if model.Source, err = filepath.Abs(source); err != nil {
			return nil, err
		}
	}
	if opts.SHA256 != "" {
		if b, err := hex.DecodeString(opts.SHA256); err != nil || len(b) != sha256.Size {
			return nil, fmt.Errorf("%q is not a SHA-256: it has 64 hexadecimal digits", opts.SHA256)
		}
		model.Sum = "sha256:" + strings.ToLower(opts.SHA256)
	}
	if model.Name == "" {
		if model.Name = nameOf(model.Source, remote); !IsName(model.Name) {
			return nil, &NameError{model.Name, model.Source}
		}
	}
	if !IsName(model.Name) {
		return nil, &NameError{model.Name, model.Source}
	}
	return s.pull(ctx, model, opts, func(stage, dir string) (string, error) {
		packed, to := source, filepath.Join(dir, model.Name)
		if remote {
			packed = filepath.Join(stage, "archive")
			if err := downloadArchive(ctx, source, packed, opts); err != nil {
				return "", err
			}
		}
		return take(ctx, packed, remote, model.Sum, to)
	})
}

// A NoDigestError reports an address whose content nobody could verify.
type NoDigestError struct{ Source string }

// Error implements error.
func (e *NoDigestError) Error() string {
	return e.Source + ": no SHA-256 is known for what is there"
}

// A NameError reports what cannot be the name of a model.
type NameError struct{ Name, Source string }

// Error implements error.
func (e *NameError) Error() string {
	return fmt.Sprintf("%q cannot be the name of the model of %s: "+
		"a name has letters, digits, dots, dashes and underscores", e.Name, e.Source)
}

func (o *PullOptions) client() *fetch.Client {
	if o.Client == nil {
		return &fetch.Client{}
	}
	return o.Client
}

// nameOf returns the name of a model by its path or address. NGC's end in NAME/versions/VERSION/zip.
func nameOf(source string, remote bool) string {
	if !remote {
		return archive.Base(filepath.Clean(source))
	}
	u, err := url.Parse(source)
	if err != nil {
		return ""
	}
	parts := strings.Split(path.Clean(u.Path), "/")
	for i, part := range parts {
		if part == "versions" && i > 0 {
			return parts[i-1]
		}
	}
	return archive.Base(u.Path)
}

func downloadArchive(ctx context.Context, source, to string, opts *PullOptions) (err error) {
	f, err := os.Create(to)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return opts.client().File(ctx, source, f, maxArchive, opts.Progress)
}

// take unpacks or copies a model to the folder dir, and returns its form.
func take(ctx context.Context, source string, remote bool, sum, dir string) (string, error) {
	packed, inside, ok := archive.Split(source)
	switch {
	case sum != "":
		// What is verified is read twice, so that nothing is unpacked before all of it is known to be right.
		if !ok && !remote {
			return "", fmt.Errorf("%s is not an archive: a SHA-256 is that of one", source)
		}
		if !ok {
			packed = source
		}
		if err := verify(ctx, packed, sum); err != nil {
			return "", err
		}
		if !ok {
			return "", fmt.Errorf("what was downloaded is %s", file.KindOfPath(packed))
		}
	case !ok:
		return copyModel(ctx, source, dir)
	}
	if _, err := archive.Unpack(ctx, packed, inside, true, dir); err != nil {
		return "", err
	}
	return formOf(dir)
}

func verify(ctx context.Context, path, sum string) error {
	f, _, err := file.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	digest := sha256.New()
	if _, err := io.Copy(digest, &reader{ctx, f}); err != nil {
		return err
	}
	if got := "sha256:" + hex.EncodeToString(digest.Sum(nil)); got != sum {
		return fmt.Errorf("the archive has the SHA-256 %s, not %s: it is damaged or another one",
			strings.TrimPrefix(got, "sha256:"), strings.TrimPrefix(sum, "sha256:"))
	}
	return nil
}

// formOf returns the form of the model in a folder.
func formOf(dir string) (string, error) {
	if _, err := os.Stat(filepath.Join(dir, savedmodel.GraphFile)); err == nil {
		return FormSavedModel, nil
	}
	if file.KindOfPath(filepath.Join(dir, safetensorsFile)) == file.Safetensors {
		return FormSafetensors, nil
	}
	r, err := checkpoint.Open(dir)
	if err != nil {
		return "", err
	}
	return FormCheckpoint, r.Close()
}

// The files of checkpoints.
const (
	safetensorsFile   = "model.safetensors"
	huggingFaceConfig = "config.json"
	configFile        = "bert_config.json"
	vocabFile         = "vocab.txt"
)

// copyModel copies the files of the model that a path leads to, and no others.
func copyModel(ctx context.Context, source, dir string) (string, error) {
	if saved, _, err := savedmodel.Find(source); err == nil {
		return FormSavedModel, copySavedModel(ctx, saved, dir)
	}
	weights := source
	if info, err := os.Stat(source); err == nil && info.IsDir() {
		weights = filepath.Join(source, safetensorsFile)
	}
	if file.KindOfPath(weights) == file.Safetensors {
		from := filepath.Dir(weights)
		return FormSafetensors, copyFiles(ctx, from, dir, map[string]string{
			filepath.Base(weights): safetensorsFile, huggingFaceConfig: huggingFaceConfig, vocabFile: vocabFile,
		})
	}
	r, err := checkpoint.Open(source)
	if err != nil {
		return "", err
	}
	prefix := r.Prefix()
	if err := r.Close(); err != nil {
		return "", err
	}
	parts, err := filepath.Glob(globQuoted(prefix) + ".data-*")
	if err != nil {
		return "", err
	}
	files := map[string]string{configFile: configFile, vocabFile: vocabFile}
	for _, part := range append(parts, prefix+".index") {
		files[filepath.Base(part)] = filepath.Base(part)
	}
	return FormCheckpoint, copyFiles(ctx, filepath.Dir(prefix), dir, files)
}

var globSpecial = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

func globQuoted(path string) string { return globSpecial.Replace(path) }

// copyFiles copies files to other names. Of those that a model needs none may be missing.
func copyFiles(ctx context.Context, from, to string, names map[string]string) error {
	if err := os.MkdirAll(to, 0o777); err != nil {
		return err
	}
	for name, other := range names {
		if err := copyTo(ctx, filepath.Join(from, name), filepath.Join(to, other)); err != nil {
			return err
		}
	}
	return nil
}

// copySavedModel copies a SavedModel, with the vocabulary and configuration that stand beside or above it.
func copySavedModel(ctx context.Context, from, to string) error {
	err := filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(from, path)
		switch {
		case err != nil:
			return err
		case d.IsDir() && file.IsHidden(d.Name()) && rel != ".":
			return fs.SkipDir
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, rel), 0o777)
		case file.IsHidden(d.Name()):
			return nil
		}
		return copyTo(ctx, path, filepath.Join(to, rel))
	})
	if err != nil {
		return err
	}
	folders := []string{from, filepath.Dir(from)}
	if filepath.Base(from) == "model.savedmodel" { // Triton's layout: NAME/1/model.savedmodel
		folders = append(folders, filepath.Dir(folders[1]))
	}
	for _, name := range []string{vocabFile, configFile} {
		for _, folder := range folders {
			err := copyTo(ctx, filepath.Join(folder, name), filepath.Join(to, name))
			if err == nil || errors.Is(err, fs.ErrExist) {
				break
			}
			if !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// copyTo copies a file, which may be reached through a link, to one that does not exist.
func copyTo(ctx context.Context, from, to string) (err error) {
	in, size, err := file.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, &reader{ctx, io.LimitReader(in, size)})
	return errors.Join(err, out.Close())
}

// copyFile copies the file at a path into another, at most most bytes.
func copyFile(ctx context.Context, to *os.File, path string, most int64) error {
	in, size, err := file.Open(path)
	if err != nil {
		return err
	}
	defer in.Close()
	if size > most {
		return &file.SizeError{Path: path, Size: size, Most: most}
	}
	_, err = io.Copy(to, &reader{ctx, io.LimitReader(in, most)})
	return err
}

// reader reads until its context ends.
type reader struct {
	ctx context.Context
	io.Reader
}

// Read implements io.Reader.
func (r *reader) Read(p []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// pull puts a model in its place once get has made it below dir and has returned its form. stage is for what is not
// kept.
func (s *Store) pull(
	ctx context.Context, model Model, opts *PullOptions, get func(stage, dir string) (form string, err error),
) (_ *Model, err error) {
	unlock, err := s.lock(ctx)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, unlock()) }()
	have, err := s.Find(model.Name)
	switch {
	case err == nil && have.Sum == model.Sum && have.Sum != "" && have.Source == model.Source:
		return have, nil // perhaps another process was faster
	case err == nil && !opts.Overwrite:
		return nil, &ExistsError{have.Name, have.Source}
	}
	root := filepath.Join(s.dir, pulledFolder)
	stale, err := filepath.Glob(filepath.Join(globQuoted(root), stagePrefix+"*"))
	if err != nil {
		return nil, err
	}
	for _, dir := range stale { // whoever made it held the lock, and is gone
		if err := os.RemoveAll(dir); err != nil {
			return nil, err
		}
	}
	stage, err := os.MkdirTemp(root, stagePrefix)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(stage)) }()

	dir := filepath.Join(stage, "model")
	if err := os.Mkdir(dir, 0o777); err != nil {
		return nil, err
	}
	if model.Form, err = get(stage, dir); err != nil {
		return nil, fmt.Errorf("pull %s: %w", model.Name, err)
	}
	model.Time = time.Now().UTC().Truncate(time.Second)
	text, err := json.MarshalIndent(model, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := os.WriteFile(filepath.Join(dir, manifestFile), append(text, '\n'), 0o666); err != nil {
		return nil, err
	}
	target := filepath.Join(root, model.Name)
	if err := os.RemoveAll(target); err != nil { // the one that is replaced, or a part of one
		return nil, err
	}
	if err := os.Rename(dir, target); err != nil {
		return nil, err
	}
	return s.readPulled(model.Name)
}
