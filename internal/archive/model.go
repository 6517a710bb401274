package archive

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// The names of a model's files.
const (
	configFile    = "bert_config.json"
	vocabFile     = "vocab.txt"
	stateFile     = "checkpoint"
	indexSuffix   = ".index"
	dataPart      = ".data-"
	graphFile     = "saved_model.pb"
	textGraphFile = "saved_model.pbtxt"

	weightsFile       = "model.safetensors" // of a model of transformers
	huggingFaceConfig = "config.json"       // beside it
)

var partSuffix = regexp.MustCompile(`\.(index|meta|data-\d{5}-of-\d{5})$`)

// A Model is a model in an archive: the checkpoints of one of its folders, the model of transformers in one, or a
// SavedModel.
type Model struct {
	archive *Archive
	folder  string // in the archive
	prefix  string // of the one checkpoint that was asked for, or ""

	SavedModel bool
}

// Name returns the model's path, as Choose takes it after the archive's own.
func (m *Model) Name() string { return filepath.Join(m.archive.name, m.folder, m.prefix) }

// Choose returns the model that an archive holds at a path in it, or the only one if the path is "". A person who
// names a path may choose a SavedModel; savedModels says whether one is looked for without.
func (a *Archive) Choose(inside string, savedModels bool) (*Model, error) {
	var found, others []Model
	for _, m := range a.models() {
		switch {
		case m.SavedModel && !savedModels:
			others = append(others, m)
		case m.at(inside):
			found = append(found, m)
		}
	}
	if len(found) > 1 { // a path may be that of one of them, with others below
		if i := slices.IndexFunc(found, func(m Model) bool { return inside != "" && m.folder == inside }); i >= 0 {
			found = found[i : i+1]
		}
	}
	switch len(found) {
	case 1:
		return &found[0], nil
	case 0:
		return nil, a.none(inside, savedModels, others)
	}
	names := a.names(found)
	return nil, fmt.Errorf("%s holds several models: %s; name one, as in %s",
		a.name, shortList(names), filepath.Join(a.name, filepath.FromSlash(names[0])))
}

// none returns the error of an archive without a model where one is looked for.
func (a *Archive) none(inside string, savedModels bool, others []Model) error {
	if all := a.models(); inside != "" && len(all) > len(others) {
		return fmt.Errorf("%s holds no model %s; it holds %s", a.name, inside, shortList(a.names(all)))
	}
	text := "no checkpoint in this archive: it has no *.index file"
	if savedModels {
		text = "no model in this archive: it has no *.index file and no " + graphFile
	}
	for _, m := range others {
		text += fmt.Sprintf("; %s is a SavedModel, which needs no export: unpack it", cmp.Or(m.folder, "it"))
	}
	for _, name := range a.foreign {
		text += "; it holds " + name
	}
	for _, m := range a.members {
		if len(others) == 0 && strings.Contains(path.Base(m.path), dataPart) {
			text += fmt.Sprintf("; found %s but not its .index", m.path)
			break
		}
	}
	return fmt.Errorf("%s: %w", a.name, errors.New(text))
}

// models returns the models in the order in which they are in the archive.
func (a *Archive) models() (all []Model) {
	add := func(folder string, saved bool) {
		m := Model{archive: a, folder: folder, SavedModel: saved}
		if !slices.Contains(all, m) {
			all = append(all, m)
		}
	}
	for _, m := range a.members {
		if name := path.Base(m.path); name == graphFile || name == textGraphFile {
			add(dirOf(m.path), true)
		}
	}
	saved := slices.Clone(all)
	for _, m := range a.members {
		name, dir := path.Base(m.path), dirOf(m.path)
		if name == weightsFile {
			add(dir, false)
			continue
		}
		if !strings.HasSuffix(name, indexSuffix) || name == indexSuffix {
			continue
		}
		part := slices.ContainsFunc(saved, func(s Model) bool { return path.Join(s.folder, "variables") == dir })
		if !part {
			add(dir, false)
		}
	}
	return all
}

// dirOf returns the folder of a member, "" for that of the archive.
func dirOf(p string) string {
	if dir := path.Dir(p); dir != "." {
		return dir
	}
	return ""
}

// at reports whether a path in the archive leads to the model. It may name one of its checkpoints, which is noted.
func (m *Model) at(inside string) bool {
	if inside == "" || m.folder == inside || strings.HasPrefix(m.folder, inside+"/") {
		return true
	}
	if dirOf(inside) != m.folder {
		return false
	}
	name := partSuffix.ReplaceAllString(path.Base(inside), "")
	if m.SavedModel {
		return name == graphFile
	}
	if name == stateFile || name == weightsFile && m.hasWeights() {
		return true
	}
	for _, prefix := range m.prefixes() {
		if prefix == name {
			m.prefix = name
			return true
		}
	}
	return false
}

// hasWeights reports whether the folder holds a model of transformers.
func (m *Model) hasWeights() bool {
	return slices.ContainsFunc(m.archive.members, func(f member) bool {
		return f.path == path.Join(m.folder, weightsFile)
	})
}

// prefixes returns the names of the folder's checkpoints.
func (m *Model) prefixes() (names []string) {
	for _, f := range m.archive.members {
		if prefix, ok := strings.CutSuffix(path.Base(f.path), indexSuffix); ok && dirOf(f.path) == m.folder && prefix != "" {
			names = append(names, prefix)
		}
	}
	return names
}

// names returns the paths of models for a person: of checkpoints their prefixes, or their folder if it has several.
func (a *Archive) names(models []Model) (names []string) {
	for _, m := range models {
		prefixes := m.prefixes()
		if !m.SavedModel && len(prefixes) == 0 {
			names = append(names, path.Join(m.folder, weightsFile))
			continue
		}
		if !m.SavedModel && (len(prefixes) == 1 || m.folder == "") {
			for _, prefix := range prefixes {
				names = append(names, path.Join(m.folder, prefix))
			}
			continue
		}
		names = append(names, cmp.Or(m.folder, graphFile))
	}
	return names
}

// Unpacked is a model on the disk.
type Unpacked struct {
	Path  string // of its folder, or of the one checkpoint that was asked for
	names *strings.Replacer
}

// Unpack writes the files of a model to the folder dir, which is made: of a checkpoint, its own, with the
// configuration and the vocabulary that belong to it, wherever they are in the archive.
func (m *Model) Unpack(ctx context.Context, dir string) (*Unpacked, error) {
	to := m.files()
	if err := m.archive.extract(ctx, dir, to); err != nil {
		return nil, err
	}
	var pairs []string // a file before its folder
	for from, name := range to {
		pairs = append(pairs, filepath.Join(dir, name), filepath.Join(m.archive.name, filepath.FromSlash(from)))
	}
	pairs = append(pairs, dir, filepath.Join(m.archive.name, filepath.FromSlash(m.folder)))
	return &Unpacked{Path: filepath.Join(dir, m.prefix), names: strings.NewReplacer(pairs...)}, nil
}

// files returns the members of the model, and the paths that each is unpacked to.
func (m *Model) files() map[string]string {
	to := map[string]string{}
	for _, f := range m.archive.members {
		name, dir := path.Base(f.path), dirOf(f.path)
		own := strings.HasSuffix(name, indexSuffix) || strings.Contains(name, dataPart)
		if own && m.prefix != "" {
			own = strings.HasPrefix(name, m.prefix+".")
		}
		switch {
		case m.SavedModel && m.folder == "":
			to[f.path] = filepath.FromSlash(f.path)
		case m.SavedModel:
			if rel, ok := strings.CutPrefix(f.path, m.folder+"/"); ok {
				to[f.path] = filepath.FromSlash(rel)
			}
		case dir == m.folder && (own || name == stateFile || name == weightsFile && m.prefix == ""):
			to[f.path] = name
		}
	}
	if m.SavedModel {
		return to
	}
	beside := []string{configFile, vocabFile}
	if m.hasWeights() {
		beside = append(beside, huggingFaceConfig)
	}
	for _, name := range beside {
		if from := m.besides(name); from != "" {
			to[from] = name
		}
	}
	return to
}

// Unpack unpacks the model that a path inside the archive of a name leads to, as Choose and Model.Unpack do.
func Unpack(ctx context.Context, name, inside string, savedModels bool, dir string) (_ *Unpacked, err error) {
	a, err := Open(ctx, name)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, a.Close()) }()
	m, err := a.Choose(inside, savedModels)
	if err != nil {
		return nil, err
	}
	return m.Unpack(ctx, dir)
}

// besides returns the member that is a checkpoint's file of a name: the one in its folder, or else in the nearest
// folder above, or else the only one.
func (m *Model) besides(name string) string {
	var all []string
	for _, f := range m.archive.members {
		if path.Base(f.path) == name {
			all = append(all, f.path)
		}
	}
	for dir := m.folder; ; dir = dirOf(dir) {
		if at := path.Join(dir, name); slices.Contains(all, at) {
			return at
		}
		if dir == "" {
			break
		}
	}
	if len(all) == 1 {
		return all[0]
	}
	return ""
}

// Name returns text with paths in the archive in place of those of the files on the disk. nil stands for a model
// that is in no archive.
func (u *Unpacked) Name(text string) string {
	if u == nil {
		return text
	}
	return u.names.Replace(text)
}

// NameError returns err with paths in the archive in place of those of the files on the disk.
func (u *Unpacked) NameError(err error) error {
	if u == nil || err == nil {
		return err
	}
	return &namedError{u, err}
}

type namedError struct {
	unpacked *Unpacked
	err      error
}

func (e *namedError) Error() string { return e.unpacked.Name(e.err.Error()) }
func (e *namedError) Unwrap() error { return e.err }

// shortList joins names, of which there may be many, for a line.
func shortList(names []string) string {
	const most = 12
	if n := len(names); n > most {
		names = append(slices.Clone(names[:most]), fmt.Sprintf("and %d more", n-most))
	}
	return strings.Join(names, ", ")
}
