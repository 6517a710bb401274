package main

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tfbert"
)

// bundledName is the checkpoint that comes with the source; demoFile the questions beside it.
const (
	bundledName = "minilm-squad"
	demoFile    = "demo.json"
)

// bundledDir finds the folder of bundled models: in the clone that the program was built in, or in
// the one that it runs in. A module fetched by `go get` has none.
func bundledDir() (string, error) {
	var starts []string
	if exe, err := os.Executable(); err == nil {
		starts = append(starts, filepath.Dir(exe))
	}
	if wd, err := os.Getwd(); err == nil {
		starts = append(starts, wd)
	}
	for _, dir := range starts {
		for {
			models := filepath.Join(dir, "testdata", "models")
			if _, err := os.Stat(filepath.Join(models, bundledName)); err == nil {
				return models, nil
			}
			parent := filepath.Dir(dir)
			if parent == dir {
				break
			}
			dir = parent
		}
	}
	return "", errors.New("the bundled model is not here: run in a clone of the repository, or name a model with --model")
}

// bundledModel gives the bundled model as a SavedModel, which it exports into the user's cache the
// first time.
func bundledModel(cmd *cobra.Command) (string, error) {
	models, err := bundledDir()
	if err != nil {
		return "", err
	}
	checkpoint := filepath.Join(models, bundledName)
	index, err := os.ReadFile(filepath.Join(checkpoint, "model.ckpt.index"))
	if err != nil {
		return "", err
	}
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", err
	}
	// The index holds the checksums of all weights, so its digest names the model.
	dir := filepath.Join(cache, "tfbert", "models", fmt.Sprintf("%s-%x", bundledName, sha256.Sum256(index))[:len(bundledName)+13])
	if exported(dir) {
		return dir, nil
	}
	if err := export(cmd, checkpoint, dir, &tfbert.ExportOptions{}, false); err != nil && !exported(dir) {
		return "", err // where it is exported all the same, another process was faster
	}
	return dir, nil
}

func exported(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, savedmodel.GraphFile))
	return err == nil
}
