package main

import (
	"errors"
	"os"
	"path/filepath"
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

// bundledCheckpoint returns the bundled model's checkpoint.
func bundledCheckpoint() (string, error) {
	models, err := bundledDir()
	return filepath.Join(models, bundledName), err
}
