package repository

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/prototext"

	"github.com/tfbert/go/internal/file"
	pb "github.com/tfbert/go/internal/serveproto"
)

// files are what a repository is made of on disk.
type files interface {
	names() ([]string, error)
	has(name string) bool
	print(name string) (string, error) // changes with the model's files
	sources(name string) (*pb.ModelConfig, []Source, error)
}

// OpenModel makes a repository of one SavedModel, without a config.pbtxt.
func OpenModel(name string, version int64, dir string, opts Options) (*Repository, error) {
	if !plain(name) {
		return nil, fmt.Errorf("%q is not a valid name for a model", name)
	}
	return newRepository(&single{Source{Name: name, Version: version, Dir: dir}}, opts)
}

// OpenDir makes a repository of a folder of models in Triton's layout. A link that is made there, to a
// model, a version or a file, is followed: it is the will of who made it. No name in a request or in a
// file leads out of the folder.
func OpenDir(root string, opts Options) (*Repository, error) {
	if _, err := os.ReadDir(root); err != nil {
		return nil, err
	}
	return newRepository(tree(root), opts)
}

// plain reports whether a name is that of a file and not a path.
func plain(name string) bool {
	return name != "" && !strings.HasPrefix(name, ".") && !strings.ContainsAny(name, "/\\\x00") && filepath.IsLocal(name)
}

type single struct{ source Source }

func (s *single) names() ([]string, error) { return []string{s.source.Name}, nil }
func (s *single) has(name string) bool     { return name == s.source.Name }

func (s *single) print(string) (string, error) { return print(s.source.Dir) }

func (s *single) sources(string) (*pb.ModelConfig, []Source, error) {
	return nil, []Source{s.source}, nil
}

// print identifies the state of a folder's files without reading them.
func print(dir string) (string, error) {
	dir, err := filepath.EvalSymlinks(dir) // also tells of a link that leads to another folder
	if err != nil {
		return "", err
	}
	var b strings.Builder
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := os.Stat(path) // of what a link leads to
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

const configFile = "config.pbtxt"

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

// has keeps a client from reaching what is not a model of the repository by its name.
func (t tree) has(name string) bool {
	if !plain(name) {
		return false
	}
	info, err := os.Stat(filepath.Join(string(t), name))
	return err == nil && info.IsDir()
}

func (t tree) print(name string) (string, error) { return print(filepath.Join(string(t), name)) }

func (t tree) sources(name string) (*pb.ModelConfig, []Source, error) {
	dir := filepath.Join(string(t), name)
	text, err := file.Read(filepath.Join(dir, configFile), maxConfig)
	var config *pb.ModelConfig
	var large *file.SizeError
	switch {
	case errors.As(err, &large):
		return nil, nil, badConfig("%d bytes is too large for a model configuration", large.Size)
	case err == nil:
		if config, err = parseConfig(text); err != nil {
			return nil, nil, badConfig("%v", err)
		}
		if config.Name != "" && config.Name != name {
			return nil, nil, badConfig("the name is %q, but the folder's is %q: make them the same", config.Name, name)
		}
	case !errors.Is(err, fs.ErrNotExist):
		return nil, nil, err
	}
	versions, err := t.versions(dir)
	if err != nil {
		return nil, nil, err
	}
	versions = choose(config, versions)
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

// badConfig makes an error of a model's configuration, which its clients may read.
func badConfig(format string, args ...any) *Error {
	return Errorf(codes.FailedPrecondition, configFile+": "+format, args...)
}

// maxConfig is more than a config.pbtxt has.
const maxConfig = 1 << 20

// versions lists the versions of a model, ascending. A number that begins with a zero is not a version,
// for Triton neither: each version has one name.
func (t tree) versions(dir string) ([]int64, error) {
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

// choose follows the version policy; without one the newest version is served.
func choose(c *pb.ModelConfig, versions []int64) []int64 {
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

// parseConfig reads a config.pbtxt.
func parseConfig(text []byte) (*pb.ModelConfig, error) {
	c := &pb.ModelConfig{}
	if err := prototext.Unmarshal(text, c); err != nil {
		return nil, fmt.Errorf("not a model configuration: %s", oneLine(err))
	}
	if p, b := c.GetPlatform(), c.GetBackend(); p != "" && p != platform || p == "" && b != "" && b != "tensorflow" {
		return nil, fmt.Errorf("the platform is %q and the backend %q: this server runs only %q", p, b, platform)
	}
	if n := c.GetDefaultModelFilename(); n != "" && !plain(n) {
		return nil, fmt.Errorf("default_model_filename is %q: it must be a name within the version's folder", n)
	}
	if c.GetMaxBatchSize() < 0 {
		return nil, fmt.Errorf("max_batch_size is %d: it must not be negative", c.GetMaxBatchSize())
	}
	return c, nil
}

func oneLine(err error) string { return strings.Join(strings.Fields(err.Error()), " ") }

// platform is what Triton calls a model of this kind.
const platform = "tensorflow_savedmodel"
