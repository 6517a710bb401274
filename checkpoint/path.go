package checkpoint

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/tfbert/go/internal/file"
)

const (
	indexSuffix = ".index"
	stateFile   = "checkpoint" // names the checkpoints of a training
)

func shardPath(prefix string, shard, shards int32) string {
	return fmt.Sprintf("%s.data-%05d-of-%05d", prefix, shard, shards)
}

var (
	partSuffix = regexp.MustCompile(`\.(index|meta|data-\d{5}-of-\d{5})$`)
	dataSuffix = regexp.MustCompile(`\.data-\d{5}-of-\d{5}$`)
	modelPath  = regexp.MustCompile(`(?m)^\s*model_checkpoint_path\s*:\s*("(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')`)
)

// findPrefix returns the prefix of the checkpoint that a user names.
func findPrefix(path string) (string, error) {
	if err := file.CheckLocal(path); err != nil {
		return "", err
	}
	info, err := os.Stat(path)
	prefix := partSuffix.ReplaceAllString(path, "")
	switch {
	case err == nil && info.IsDir():
		return findInDir(path)
	case prefix != path && exists(prefix+indexSuffix), exists(path + indexSuffix):
		if !exists(prefix + indexSuffix) {
			prefix = path // which ends like one of the files of a checkpoint
		}
		return prefix, nil
	case err == nil && prefix == path:
		return findByFile(path)
	}
	// What completing a name in a shell leaves at its end.
	if trimmed := strings.TrimRight(path, "./"); trimmed != "" && exists(trimmed+indexSuffix) {
		return trimmed, nil
	}
	return "", notHere(prefix)
}

// findByFile returns the checkpoint that a state file names. Any other file is an error that says what it is.
func findByFile(path string) (string, error) {
	dir := filepath.Dir(path)
	if state, err := file.Read(path, maxState); err == nil && modelPath.Match(state) {
		return findFromState(path, state, dir)
	}
	kind := file.KindOfPath(path)
	switch {
	case file.IsPartial(path):
		return "", fmt.Errorf("%s is a download that has not finished", path)
	case kind == file.Index:
		return "", fmt.Errorf("%s is the .index of a checkpoint under another name: give it its own name, "+
			"and the .data files beside it", path)
	case kind != "":
		return "", &file.KindError{Path: path, Kind: kind}
	}
	return "", fmt.Errorf("%s is not a checkpoint of version 2: there is no %s%s; name the prefix of the .index and .data files"+
		"%s", path, path, indexSuffix, look(dir).others())
}

// notHere returns the error of a prefix that has no index, with what there is in its place.
func notHere(prefix string) error {
	dir, name := filepath.Split(prefix)
	l := look(dir)
	if i := slices.IndexFunc(l.data, func(data string) bool { return strings.HasPrefix(data, name+".data-") }); i >= 0 {
		return fmt.Errorf("found %s but not %s%s: copy it", l.data[i], name, indexSuffix)
	}
	if slashed := strings.ReplaceAll(prefix, `\`, "/"); exists(slashed + indexSuffix) {
		return fmt.Errorf("no checkpoint here: %s%s does not exist; there is %s", prefix, indexSuffix, slashed)
	}
	return fmt.Errorf("no checkpoint here: %s%s does not exist%s", prefix, indexSuffix, l.others())
}

// maxState is more bytes than a "checkpoint" file has, which names the checkpoints of a training.
const maxState = 1 << 20

// findInDir returns the checkpoint that the "checkpoint" file of dir names, or else the only one there. It is
// always in dir or below it.
func findInDir(dir string) (string, error) {
	path := filepath.Join(dir, stateFile)
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return findFromState(path, nil, dir)
	}
	state, err := file.Read(path, maxState)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	return findFromState(path, state, dir)
}

// findFromState returns the checkpoint in dir that a state file names, or else the only one there.
func findFromState(path string, state []byte, dir string) (string, error) {
	if m := modelPath.FindSubmatch([]byte(strings.TrimPrefix(string(state), "\ufeff"))); m != nil {
		name, err := unquote(string(m[1]))
		if err != nil {
			return "", fmt.Errorf("%s: cannot read model_checkpoint_path %.200s", path, m[1])
		}
		if prefix, ok := within(dir, name); ok {
			return prefix, nil
		}
	}
	if _, err := os.ReadDir(dir); err != nil {
		return "", err
	}
	l := look(dir)
	switch len(l.prefixes) {
	case 0:
		return "", l.noCheckpoint()
	case 1:
		return filepath.Join(dir, l.prefixes[0]), nil
	}
	return "", fmt.Errorf("several checkpoints in this folder; name one of %s", shortList(l.prefixes))
}

// unquote reads a string of a text-form protocol buffer.
func unquote(s string) (string, error) {
	if inside, ok := strings.CutPrefix(s, "'"); ok {
		inside = strings.ReplaceAll(strings.TrimSuffix(inside, "'"), `\'`, "'")
		s = `"` + strings.ReplaceAll(inside, `"`, `\"`) + `"`
	}
	return strconv.Unquote(s)
}

// within finds the checkpoint in dir that name, a path relative to dir or an absolute one, means. A
// path that leads elsewhere is that of the machine the training ran on, or a trap: of it the last
// element alone counts, after a backslash too, which Windows writes.
func within(dir, name string) (prefix string, ok bool) {
	if abs, err := filepath.Abs(dir); err == nil && filepath.IsAbs(name) {
		if rel, err := filepath.Rel(abs, name); err == nil {
			name = rel
		}
	}
	slashed := strings.ReplaceAll(name, `\`, "/")
	for _, name := range []string{filepath.Clean(name), filepath.Clean(slashed), filepath.Base(slashed)} {
		prefix := filepath.Join(dir, name)
		if name != "." && filepath.IsLocal(name) && exists(prefix+indexSuffix) {
			return prefix, true
		}
	}
	return "", false
}

// listing is what a folder has for a person who looks for a checkpoint in it.
type listing struct {
	dir      string
	prefixes []string // of checkpoints
	data     []string // files of checkpoints
	files    []string // all others
	folders  []string
}

// look lists a folder, without what is hidden. What cannot be listed has nothing.
func look(dir string) listing {
	l := listing{dir: dir}
	if dir == "" {
		dir = "."
	}
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		name := e.Name()
		info, err := os.Stat(filepath.Join(dir, name)) // follows a link
		if err != nil || file.IsHidden(name) {
			continue
		}
		prefix, isIndex := strings.CutSuffix(name, indexSuffix)
		switch {
		case info.IsDir():
			l.folders = append(l.folders, name)
		case isIndex:
			l.prefixes = append(l.prefixes, prefix)
		case dataSuffix.MatchString(name):
			l.data = append(l.data, name)
		case info.Mode().IsRegular():
			l.files = append(l.files, name)
		}
	}
	return l
}

// others names the checkpoints of the folder, for the end of a sentence.
func (l listing) others() string {
	switch len(l.prefixes) {
	case 0:
		return ""
	case 1:
		return fmt.Sprintf("; there is %s in that folder", l.prefixes[0])
	}
	return fmt.Sprintf("; there are %s in that folder", shortList(l.prefixes))
}

// maxLooked bounds the files whose kind is looked at, and the folders below, for an error.
const maxLooked = 100

// noCheckpoint returns the error of a folder without an index, with what people have there in its place.
func (l listing) noCheckpoint() error {
	if len(l.data) > 0 {
		return fmt.Errorf("found %s but not its %s: copy it", l.data[0], indexSuffix)
	}
	var found []string
	for _, name := range l.files[:min(len(l.files), maxLooked)] {
		path := filepath.Join(l.dir, name)
		if file.IsPartial(path) {
			found = append(found, name+" is a download that has not finished")
		} else if kind := file.KindOfPath(path); kind != "" && kind != file.Empty {
			found = append(found, name+" is "+string(kind))
		}
	}
	for _, name := range l.folders[:min(len(l.folders), maxLooked)] {
		for _, prefix := range look(filepath.Join(l.dir, name)).prefixes {
			found = append(found, "there is "+filepath.Join(name, prefix)+" below it")
		}
	}
	err := fmt.Errorf("no checkpoint in this folder: it has no *%s file", indexSuffix)
	if len(found) > 0 {
		return fmt.Errorf("%w; %s", err, strings.Join(found[:min(len(found), 4)], "; "))
	}
	return err
}

// shortList joins names, of which there may be many, for a line.
func shortList(names []string) string {
	const most = 12
	if n := len(names); n > most {
		names = append(slices.Clone(names[:most]), fmt.Sprintf("and %d more", n-most))
	}
	return strings.Join(names, ", ")
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}
