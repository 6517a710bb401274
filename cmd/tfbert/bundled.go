package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/tfbert/go/internal/models"
)

// bundledName is the checkpoint that comes with the source; demoFile the questions beside it.
const (
	bundledName = "minilm-squad"
	demoFile    = "demo.json"
)

// bundledDir finds the folder of bundled models: in the user's cache, in the clone that the program was built in, or in
// the one that it runs in. A program that is in none of them downloads it, once: its hash is known.
func bundledDir(ctx context.Context) (string, error) {
	store, err := models.Open()
	if err == nil {
		if m, err := store.Find(bundledName); err == nil && m.Sum == models.Bundled.Sum {
			return filepath.Dir(m.Path), nil
		}
	}
	if dir, ok := cloneDir(); ok {
		return dir, nil
	}
	if err != nil {
		return "", err
	}
	m, err := pullBundled(ctx, store, &models.PullOptions{})
	if err != nil {
		return "", fmt.Errorf("the bundled model is not here: %w", err)
	}
	return filepath.Dir(m.Path), nil
}

// cloneDir finds the folder of bundled models in a clone of the repository.
func cloneDir() (string, bool) {
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
				return models, true
			}
			parent := filepath.Dir(dir)
			if parent == dir {
				break
			}
			dir = parent
		}
	}
	return "", false
}

// bundledCheckpoint returns the bundled model's checkpoint.
func bundledCheckpoint(ctx context.Context) (string, error) {
	models, err := bundledDir(ctx)
	return filepath.Join(models, bundledName), err
}

// named settles what --model stands for if it is not a path: a model that was pulled, by its name. One of them that is
// not a SavedModel takes the place of --init_checkpoint.
func (f *modelFlags) named(ctx context.Context) error {
	saved, checkpoint, err := findNamed(ctx, f.model)
	if err == nil && checkpoint != "" {
		f.initCheckpoint = checkpoint
	}
	f.model = saved
	return err
}

// findNamed returns the path of the model that a name or path stands for, as a SavedModel or as a checkpoint.
func findNamed(ctx context.Context, model string) (saved, checkpoint string, err error) {
	if !models.IsName(model) {
		return model, "", nil
	}
	if _, err := os.Lstat(model); err == nil {
		return model, "", nil // what is in the working directory comes first, as in a shell
	}
	store, err := models.Open()
	if err != nil {
		return "", "", err
	}
	m, err := store.Find(model)
	if _, none := errors.AsType[*models.NotFoundError](err); none && model == bundledName {
		checkpoint, err = bundledCheckpoint(ctx)
		return "", checkpoint, err
	}
	switch {
	case err != nil:
		return "", "", fmt.Errorf("open %s: no such file or directory, and %w", model, err)
	case m.Form == models.FormSavedModel:
		return m.Path, "", nil
	}
	return "", m.Path, nil
}
