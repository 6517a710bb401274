package repository

import (
	"cmp"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"

	pb "github.com/tfbert/go/internal/serveproto"
)

// files are the models of a repository on disk.
type files interface {
	names() ([]string, error)
	has(name string) bool
	fingerprint(name string) (string, error) // changes with the model's files
	// sources returns a model's configuration and versions. A configuration that is not nil replaces that of the files.
	sources(name string, config *pb.ModelConfig) (*pb.ModelConfig, []Source, error)
}

// OpenModel returns a repository of one SavedModel, which does not have a config.pbtxt.
func OpenModel(name string, version int64, dir string, opts Options) (*Repository, error) {
	if !plainName(name) {
		return nil, fmt.Errorf("%q is not a valid name for a model", name)
	}
	return newRepository(&single{Source{Name: name, Version: version, Dir: dir}}, opts), nil
}

// OpenDir returns a repository of a folder of models in Triton's layout. It follows links to models,
// versions and files, which its owner has made. No name in a request or in a file leads out of it.
func OpenDir(root string, opts Options) (*Repository, error) {
	if _, err := os.ReadDir(root); err != nil {
		return nil, err
	}
	return newRepository(tree(root), opts), nil
}

// plainName reports whether a name is that of a file and not a path.
func plainName(name string) bool {
	return name != "" && !strings.HasPrefix(name, ".") && !strings.ContainsAny(name, "/\\\x00") &&
		filepath.IsLocal(name)
}

// single is one SavedModel.
type single struct{ source Source }

func (s *single) names() ([]string, error) { return []string{s.source.Name}, nil }
func (s *single) has(name string) bool     { return name == s.source.Name }

func (s *single) fingerprint(string) (string, error) { return fingerprint(s.source.Dir) }

func (s *single) sources(_ string, config *pb.ModelConfig) (*pb.ModelConfig, []Source, error) {
	return config, []Source{s.source}, nil
}

// fingerprint identifies the state of a folder's files without reading them.
func fingerprint(dir string) (string, error) {
	dir, err := filepath.EvalSymlinks(dir) // which changes when a link leads to another folder
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := os.Stat(path) // follows a link
		if err != nil {
			return err
		}
		fmt.Fprintln(&b, path, info.Size(), info.ModTime().UnixNano())
		return nil
	})
	return b.String(), err
}

// tree is a folder in Triton's layout.
type tree string

func (t tree) names() ([]string, error) {
	entries, err := os.ReadDir(string(t))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if t.has(e.Name()) {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// has reports whether a name is that of a model. A client reaches nothing else by a name.
func (t tree) has(name string) bool {
	if !plainName(name) {
		return false
	}
	info, err := os.Stat(filepath.Join(string(t), name))
	return err == nil && info.IsDir()
}

func (t tree) fingerprint(name string) (string, error) {
	return fingerprint(filepath.Join(string(t), name))
}

func (t tree) sources(name string, config *pb.ModelConfig) (_ *pb.ModelConfig, _ []Source, err error) {
	dir := filepath.Join(string(t), name)
	if config == nil {
		if config, err = readConfig(dir, name); err != nil {
			return nil, nil, err
		}
	}
	versions, err := versionsIn(dir)
	if err != nil {
		return nil, nil, err
	}
	versions = chooseVersions(config, versions)
	if len(versions) == 0 {
		return nil, nil, Errorf(codes.FailedPrecondition,
			"it has no version to serve: its folder should hold folders such as 1/model.savedmodel")
	}
	model := cmp.Or(config.GetDefaultModelFilename(), "model.savedmodel")
	var sources []Source
	for _, v := range versions {
		sources = append(sources, Source{
			Name: name, Version: v, ModelDir: dir, Dir: filepath.Join(dir, strconv.FormatInt(v, 10), model),
		})
	}
	return config, sources, nil
}

// versionsIn lists the versions of a model by its folder, ascending. A number that begins with a zero is not a version,
// as in Triton: each version has one name.
func versionsIn(dir string) ([]int64, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var versions []int64
	for _, e := range entries {
		v, err := strconv.ParseInt(e.Name(), 10, 64)
		if err != nil || v <= 0 || strconv.FormatInt(v, 10) != e.Name() {
			continue
		}
		if info, err := os.Stat(filepath.Join(dir, e.Name())); err == nil && info.IsDir() {
			versions = append(versions, v)
		}
	}
	slices.Sort(versions)
	return versions, nil
}

// chooseVersions returns the versions that the version policy selects; without one that is the newest.
func chooseVersions(c *pb.ModelConfig, versions []int64) []int64 {
	policy := c.GetVersionPolicy()
	switch {
	case policy.GetAll() != nil:
		return versions
	case policy.GetSpecific() != nil:
		chosen := policy.GetSpecific().GetVersions()
		return slices.DeleteFunc(versions, func(v int64) bool { return !slices.Contains(chosen, v) })
	}
	n := max(1, int(policy.GetLatest().GetNumVersions()))
	return versions[max(0, len(versions)-n):]
}
