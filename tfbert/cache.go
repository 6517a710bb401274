package tfbert

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tfbert/go/checkpoint"
	"github.com/tfbert/go/savedmodel"
)

// Cached returns the folder of a checkpoint's SavedModel in the user's cache, where the first call
// exports it. The report is nil if the model was there. The checkpoint is a folder or a prefix, not a
// zip.
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

// cacheName returns the name of a model: the name of the checkpoint's folder and a digest of all that the
// model depends on. That is the index, which holds the checksums of all weights, the configuration, the
// vocabulary and the options.
func cacheName(path string, opts *ExportOptions) (string, error) {
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
	digest := sha256.New()
	for _, path := range []string{
		prefix + ".index",
		cmp.Or(opts.ConfigFile, filepath.Join(folder, configFile)),
		cmp.Or(opts.VocabFile, filepath.Join(folder, vocabFile)),
	} {
		b, err := os.ReadFile(path)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // the export reports what is missing
			return "", err
		}
		fmt.Fprintf(digest, "%d\n%s", len(b), b)
	}
	// Models of the default options keep the names that they had before other options counted.
	more := ExportOptions{
		Device: opts.Device, MaxSeqLength: opts.MaxSeqLength, Head: opts.Head, Cased: opts.Cased, Profile: opts.Profile,
	}
	if more != (ExportOptions{}) {
		fmt.Fprintf(digest, "%q %d %q %t %d", more.Device, more.MaxSeqLength, more.Head, more.Cased, more.Profile)
	}
	name := fmt.Sprintf("%s-%x", filepath.Base(folder), digest.Sum(nil)[:6])
	if opts.Graph == FusedGraph {
		name += fmt.Sprintf("-%s-%v", opts.Graph, opts.Precision)
	}
	return name, nil
}

func isExported(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, savedmodel.GraphFile))
	return err == nil
}
