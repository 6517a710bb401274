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
func Cached(ctx context.Context, ckpt string, opts *ExportOptions) (dir string, exported *ExportReport, err error) {
	if opts == nil {
		opts = &ExportOptions{}
	}
	name, err := cacheName(ckpt, opts)
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
	report, err := Export(ctx, ckpt, dir, opts)
	if err != nil && !isExported(dir) {
		return "", nil, err // if it is there all the same, another process was faster
	}
	return dir, report, nil
}

// cacheName names a model by the checkpoint's folder and by the digest of what makes it: the index,
// which holds the checksums of all weights, the configuration and the vocabulary.
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
	for _, file := range []string{
		prefix + ".index",
		cmp.Or(opts.ConfigFile, filepath.Join(folder, configFile)),
		cmp.Or(opts.VocabFile, filepath.Join(folder, vocabFile)),
	} {
		b, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // the export reports what is missing
			return "", err
		}
		fmt.Fprintf(digest, "%d\n%s", len(b), b)
	}
	if opts.Head != "" {
		fmt.Fprintf(digest, "head %q", opts.Head)
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
