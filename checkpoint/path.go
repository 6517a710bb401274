package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/tfbert/go/internal/file"
)

const indexSuffix = ".index"

func shardPath(prefix string, shard, shards int32) string {
	return fmt.Sprintf("%s.data-%05d-of-%05d", prefix, shard, shards)
}

var (
	partSuffix = regexp.MustCompile(`\.(index|meta|data-\d{5}-of-\d{5})$`)
	modelPath  = regexp.MustCompile(`(?m)^\s*model_checkpoint_path\s*:\s*("(?:[^"\\]|\\.)*")`)
)

// findPrefix returns the prefix of the checkpoint that a user names.
func findPrefix(path string) (string, error) {
	info, err := os.Stat(path)
	switch {
	case err == nil && info.IsDir():
		return findInDir(path)
	case partSuffix.MatchString(path):
		return partSuffix.ReplaceAllString(path, ""), nil
	case exists(path + indexSuffix):
		return path, nil
	case err == nil:
		return "", fmt.Errorf("%s is not a checkpoint of version 2: there is no %s%s; "+
			"name the prefix of the .index and .data files", path, path, indexSuffix)
	}
	return "", fmt.Errorf("no checkpoint here: %s%s does not exist", path, indexSuffix)
}

// maxState is more bytes than a "checkpoint" file has, which names the checkpoints of a training.
const maxState = 1 << 20

// findInDir returns the checkpoint that the "checkpoint" file of dir names, or else the only one there. It is
// always in dir or below it.
func findInDir(dir string) (string, error) {
	path := filepath.Join(dir, "checkpoint")
	state, err := file.Read(path, maxState)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	if m := modelPath.FindSubmatch(state); m != nil {
		name, err := strconv.Unquote(string(m[1]))
		if err != nil {
			return "", fmt.Errorf("%s: cannot read model_checkpoint_path %.200s", path, m[1])
		}
		if prefix, ok := within(dir, name); ok {
			return prefix, nil
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return "", err
	}
	var prefixes []string
	for _, e := range entries {
		if prefix, ok := strings.CutSuffix(e.Name(), indexSuffix); ok && prefix != "" && !e.IsDir() {
			prefixes = append(prefixes, prefix)
		}
	}
	switch len(prefixes) {
	case 0:
		return "", fmt.Errorf("no checkpoint in this folder: it has no *%s file", indexSuffix)
	case 1:
		return filepath.Join(dir, prefixes[0]), nil
	}
	return "", fmt.Errorf("several checkpoints in this folder; name one of %s", strings.Join(prefixes, ", "))
}

// within returns the checkpoint in dir that name means, a path relative to dir or an absolute one. A path that
// leads elsewhere is a path on the machine of the training, or a trap: only its last element counts.
func within(dir, name string) (prefix string, ok bool) {
	if abs, err := filepath.Abs(dir); err == nil && filepath.IsAbs(name) {
		if rel, err := filepath.Rel(abs, name); err == nil {
			name = rel
		}
	}
	for _, name := range []string{filepath.Clean(name), filepath.Base(name)} {
		prefix := filepath.Join(dir, name)
		if name != "." && filepath.IsLocal(name) && exists(prefix+indexSuffix) {
			return prefix, true
		}
	}
	return "", false
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
