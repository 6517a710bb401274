package tfbert

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/tfbert/go/checkpoint"
	"github.com/tfbert/go/internal/archive"
	"github.com/tfbert/go/internal/file"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tf"
	"github.com/tfbert/go/wordpiece"
)

// Cached returns the folder of a checkpoint's SavedModel in the user's cache, where the first call
// exports it. The report is nil if the model was there. The checkpoint is named as for Export.
func Cached(
	ctx context.Context, ckpt string, opts *ExportOptions,
) (dir string, exported *ExportReport, err error) {
	var own ExportOptions
	if opts != nil {
		own = *opts
	}
	own.Overwrite = false // the name says what the model is
	name, err := cacheName(ckpt, &own)
	if err != nil {
		return "", nil, err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", nil, err
	}
	dir = filepath.Join(cache, "tfbert", "models", name)
	if isExported(dir) {
		now := time.Now()
		_ = os.Chtimes(dir, now, now) // says when it was last used; a cache may be one that cannot be written
		return dir, nil, nil
	}
	report, err := Export(ctx, ckpt, dir, &own)
	if _, ok := errors.AsType[*ExistsError](err); ok && !isExported(dir) {
		// An export appears whole, so that somebody has removed a part of this one.
		if err := os.RemoveAll(dir); err != nil {
			return "", nil, err
		}
		report, err = Export(ctx, ckpt, dir, &own)
	}
	if err != nil && !isExported(dir) {
		return "", nil, err
	}
	return dir, report, nil // report is nil if another process was faster
}

// cacheName returns the name of a model: the name of the checkpoint's folder or archive and a digest of all that the
// model depends on.
func cacheName(path string, opts *ExportOptions) (string, error) {
	digest := sha256.New()
	var name string
	var err error
	if packed, inside, ok := archive.Split(path); ok {
		name, err = archive.Base(packed), cacheArchive(digest, packed, inside, opts)
	} else {
		name, err = cacheFiles(digest, path, opts)
	}
	if err != nil {
		return "", err
	}
	// Models of the default options keep the names that they had before other options counted.
	const format = "%q %d %q %t %d"
	more := fmt.Sprintf(format, opts.Device, opts.MaxSeqLength, opts.Head, opts.Cased, opts.Profile)
	if more != fmt.Sprintf(format, "", 0, "", false, wordpiece.Profile(0)) {
		fmt.Fprint(digest, more)
	}
	if opts.Precision == savedmodel.INT8 {
		if err := cacheInt8(digest, opts.Calibrate); err != nil {
			return "", err
		}
	}
	name += fmt.Sprintf("-%x", digest.Sum(nil)[:6])
	if opts.Graph == FusedGraph {
		name += fmt.Sprintf("-%s-%v", opts.Graph, opts.Precision)
	}
	return name, nil
}

// cacheFiles adds the index, which holds the checksums of all weights, the configuration and the vocabulary. It
// returns the name of the folder.
func cacheFiles(digest io.Writer, path string, opts *ExportOptions) (name string, err error) {
	if weights := findSafetensors(path); weights != "" {
		return cachePyTorch(digest, weights, opts)
	}
	r, err := checkpoint.Open(path)
	if err != nil {
		return "", err
	}
	defer r.Close()
	prefix, err := filepath.Abs(r.Prefix())
	if err != nil {
		return "", err
	}
	folder := filepath.Dir(prefix)
	for _, file := range []string{
		prefix + ".index",
		cmp.Or(opts.ConfigFile, filepath.Join(folder, configFile)),
		cmp.Or(opts.VocabFile, filepath.Join(folder, vocabFile)),
	} {
		if err := cacheFile(digest, file); err != nil {
			return "", err
		}
	}
	return filepath.Base(folder), nil
}

// cachePyTorch adds all weights of a model of transformers, which have no checksum, and the files beside them.
func cachePyTorch(digest io.Writer, weights string, opts *ExportOptions) (name string, err error) {
	weights, err = filepath.Abs(weights)
	if err != nil {
		return "", err
	}
	if err := cacheContent(digest, weights); err != nil {
		return "", err
	}
	folder := filepath.Dir(weights)
	for _, file := range []string{
		cmp.Or(opts.ConfigFile, filepath.Join(folder, huggingFaceConfig)),
		cmp.Or(opts.VocabFile, filepath.Join(folder, vocabFile)),
	} {
		if err := cacheFile(digest, file); err != nil {
			return "", err
		}
	}
	return filepath.Base(folder), nil
}

// cacheContent adds all of a file, which may be large.
func cacheContent(digest io.Writer, path string) error {
	f, _, err := file.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = io.Copy(digest, f)
	return err
}

// cacheArchive adds all of an archive, the path in it, and the files that replace its own.
func cacheArchive(digest io.Writer, packed, inside string, opts *ExportOptions) error {
	if err := cacheContent(digest, packed); err != nil {
		return err
	}
	fmt.Fprintf(digest, "\n%s\n", inside)
	for _, file := range []string{opts.ConfigFile, opts.VocabFile} {
		if file == "" {
			continue
		}
		if err := cacheFile(digest, file); err != nil {
			return err
		}
	}
	return nil
}

// cacheInt8 adds what an export in int8 depends on: this machine, since others may share the cache, and the file that
// it is calibrated by.
func cacheInt8(digest io.Writer, calibrate string) error {
	if err := tf.Load(""); err != nil {
		return err
	}
	s, err := chooseInt8()
	if err != nil {
		return err
	}
	fmt.Fprintf(digest, "%d %v", s.WeightBits, s.Attention)
	if calibrate == "" {
		return nil
	}
	return cacheFile(digest, calibrate)
}

func cacheFile(digest io.Writer, path string) error {
	b, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) { // the export reports what is missing
		return err
	}
	fmt.Fprintf(digest, "%d\n%s", len(b), b)
	return nil
}

func isExported(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, savedmodel.GraphFile))
	return err == nil
}
