package main

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tfbert/go/checkpoint"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tfbert"
)

// cachedModel gives a checkpoint as a SavedModel in the user's cache, exporting it the first time.
func cachedModel(cmd *cobra.Command, path string, opts *tfbert.ExportOptions) (string, error) {
	name, err := cacheName(path, opts)
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	dir := filepath.Join(cache, "tfbert", "models", name)
	if exported(dir) {
		return dir, nil
	}
	if err := export(cmd, path, dir, opts, false); err != nil && !exported(dir) {
		return "", err // where it is exported all the same, another process was faster
	}
	return dir, nil
}

// cacheName names a model by the checkpoint's folder and by the digest of what makes it: the index,
// which holds the checksums of all weights, the configuration and the vocabulary.
func cacheName(path string, opts *tfbert.ExportOptions) (string, error) {
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
		cmp.Or(opts.ConfigFile, filepath.Join(folder, "bert_config.json")),
		cmp.Or(opts.VocabFile, filepath.Join(folder, "vocab.txt")),
	} {
		b, err := os.ReadFile(file)
		if err != nil && !errors.Is(err, fs.ErrNotExist) { // the export says what is missing
			return "", err
		}
		fmt.Fprintf(digest, "%d\n%s", len(b), b)
	}
	name := fmt.Sprintf("%s-%x", filepath.Base(folder), digest.Sum(nil)[:6])
	if opts.Graph == tfbert.FusedGraph {
		name += fmt.Sprintf("-%s-%v", opts.Graph, opts.Precision)
	}
	return name, nil
}

func exported(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, savedmodel.GraphFile))
	return err == nil
}
