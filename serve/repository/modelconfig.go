package repository

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	"github.com/tfbert/go/internal/file"
	pb "github.com/tfbert/go/internal/serveproto"
)

// OpenConfig returns a repository of the models that a file in TensorFlow Serving's form names, a
// tensorflow.serving.ModelServerConfig as text. A relative base_path is within the file's folder. With ControlPoll the
// file is followed too.
func OpenConfig(path string, opts Options) (*Repository, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	c := &configured{path: path}
	if c.models, err = c.read(); err != nil {
		return nil, err
	}
	for _, m := range c.models {
		c.roots = append(c.roots, filepath.Dir(m.base))
	}
	return newRepository(c, opts), nil
}

// configured are the models of a configuration of TensorFlow Serving's.
type configured struct {
	path  string
	roots []string // folders in which clients may name other models

	mu      sync.Mutex
	models  map[string]configuredModel
	changed bool // by a client: the file is not read again
}

// A configuredModel is a model of such a configuration.
type configuredModel struct {
	base   string // the folder of its versions
	policy *pb.ModelVersionPolicy
	labels map[string]int64
}

// read reads the file.
func (c *configured) read() (map[string]configuredModel, error) {
	text, err := file.Read(c.path, maxConfig)
	if err != nil {
		return nil, err
	}
	message := &pb.ModelServerConfig{}
	if err := prototext.Unmarshal(text, message); err != nil {
		return nil, fmt.Errorf("read %s: not a model server configuration: %s", c.path,
			strings.Join(strings.Fields(err.Error()), " "))
	}
	models, err := c.parse(message)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", c.path, err)
	}
	return models, nil
}

// parse returns the models of a configuration.
func (c *configured) parse(message *pb.ModelServerConfig) (map[string]configuredModel, error) {
	if message.GetModelConfigList() == nil {
		return nil, Invalidf("the configuration does not have a model_config_list, the only form that is served")
	}
	models := map[string]configuredModel{}
	for _, m := range message.GetModelConfigList().GetConfig() {
		name := m.GetName()
		_, twice := models[name]
		switch {
		case !plainName(name):
			return nil, Invalidf("%.100q is not a valid name for a model", name)
		case twice:
			return nil, Invalidf("model %.100q is named twice", name)
		case m.GetBasePath() == "":
			return nil, Invalidf("model %q does not have a base_path", name)
		case strings.Contains(m.GetBasePath(), "://"):
			return nil, Invalidf("model %q has a base_path that is not a folder of this machine", name)
		case m.GetModelPlatform() != "" && m.GetModelPlatform() != "tensorflow",
			m.GetModelType() == pb.ServedModelConfig_OTHER:
			return nil, Invalidf("model %q is not for the platform tensorflow, the only one that is served", name)
		case m.GetLoggingConfig() != nil:
			return nil, Invalidf("model %q has a logging_config, which is not followed", name)
		}
		base := m.GetBasePath()
		if !filepath.IsAbs(base) {
			base = filepath.Join(filepath.Dir(c.path), base)
		}
		models[name] = configuredModel{filepath.Clean(base), policyOf(m.GetModelVersionPolicy()), m.GetVersionLabels()}
	}
	return models, nil
}

// policyOf returns a version policy of TensorFlow Serving's as Triton has it.
func policyOf(p *pb.FileSystemStoragePathSourceConfig_ServableVersionPolicy) *pb.ModelVersionPolicy {
	switch {
	case p.GetAll() != nil:
		return &pb.ModelVersionPolicy{PolicyChoice: &pb.ModelVersionPolicy_All_{All: &pb.ModelVersionPolicy_All{}}}
	case p.GetSpecific() != nil:
		return &pb.ModelVersionPolicy{PolicyChoice: &pb.ModelVersionPolicy_Specific_{
			Specific: &pb.ModelVersionPolicy_Specific{Versions: p.GetSpecific().GetVersions()},
		}}
	}
	return &pb.ModelVersionPolicy{PolicyChoice: &pb.ModelVersionPolicy_Latest_{
		Latest: &pb.ModelVersionPolicy_Latest{NumVersions: max(1, p.GetLatest().GetNumVersions())},
	}}
}

// names reads the file again, unless a client has changed the configuration since.
func (c *configured) names() ([]string, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.changed {
		models, err := c.read()
		if err != nil {
			return nil, err
		}
		c.models = models
	}
	return slices.Sorted(maps.Keys(c.models)), nil
}

func (c *configured) model(name string) (configuredModel, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	m, ok := c.models[name]
	return m, ok
}

func (c *configured) has(name string) bool {
	_, ok := c.model(name)
	return ok
}

func (c *configured) fingerprint(name string) (string, error) {
	m, _ := c.model(name)
	f, err := fingerprint(m.base)
	return fmt.Sprintln(m.base, m.policy) + f, err
}

// sources returns the versions of a model: base_path/1 is a SavedModel, as with TensorFlow Serving, or
// base_path/1/model.savedmodel, as with Triton.
func (c *configured) sources(name string, config *pb.ModelConfig) (*pb.ModelConfig, []Source, error) {
	m, _ := c.model(name)
	versions, err := versionsIn(m.base)
	if err != nil {
		return nil, nil, err
	}
	policy := config
	if config.GetVersionPolicy() == nil {
		policy = &pb.ModelConfig{VersionPolicy: m.policy}
	}
	versions = chooseVersions(policy, versions)
	if len(versions) == 0 {
		return nil, nil, Errorf(codes.FailedPrecondition,
			"it has no version to serve: its base_path should hold folders such as 1/saved_model.pb")
	}
	var sources []Source
	for _, v := range versions {
		dir := filepath.Join(m.base, strconv.FormatInt(v, 10))
		if info, err := os.Stat(filepath.Join(dir, "model.savedmodel")); err == nil && info.IsDir() {
			dir = filepath.Join(dir, "model.savedmodel")
		}
		sources = append(sources, Source{Name: name, Version: v, Dir: dir, ModelDir: m.base})
	}
	return config, sources, nil
}

// Configure serves the models of a configuration, a serialized tensorflow.serving.ModelServerConfig, and no others. A
// model that is not changed stays as it is. If a model cannot be loaded, Configure returns an error, and all that was
// served before still is. It may only name models beside those of the file that the repository was opened with.
func (r *Repository) Configure(ctx context.Context, config []byte) error {
	c, ok := r.files.(*configured)
	switch {
	case !ok:
		return Errorf(codes.FailedPrecondition, "the server does not serve the models of a configuration file")
	case r.opts.Control != ControlExplicit:
		return errNotExplicit
	}
	message := &pb.ModelServerConfig{}
	if err := proto.Unmarshal(config, message); err != nil {
		return Invalidf("the configuration is not a ModelServerConfig")
	}
	models, err := c.parse(message)
	if err != nil {
		return err
	}
	for name, m := range models {
		if !slices.ContainsFunc(c.roots, func(root string) bool { return filepath.Dir(m.base) == root }) {
			return Errorf(codes.PermissionDenied,
				"model %q has a base_path that is not beside those of the server's configuration file", name)
		}
	}
	r.configuring.Lock()
	defer r.configuring.Unlock()
	before := c.set(models)
	kept := maps.Clone(models)
	var failed []error
	for _, name := range slices.Sorted(maps.Keys(models)) {
		if err := r.follow(context.WithoutCancel(ctx), name, true); err != nil {
			failed = append(failed, err)
			delete(kept, name)
		}
	}
	if len(failed) > 0 {
		for name, m := range before {
			if _, ok := kept[name]; !ok {
				kept[name] = m
			}
		}
		c.set(kept)
		return errors.Join(failed...)
	}
	for name := range before {
		if _, ok := models[name]; !ok {
			_ = r.unload(name) // which fails if it was not loaded
		}
	}
	return nil
}

// set sets the models and returns those before.
func (c *configured) set(models map[string]configuredModel) map[string]configuredModel {
	c.mu.Lock()
	defer c.mu.Unlock()
	before := c.models
	c.models, c.changed = models, true
	return before
}

// follow loads a model if its files or its configuration have changed, and else sets its labels. With again it also
// loads a model that is not available.
func (r *Repository) follow(ctx context.Context, name string, again bool) error {
	e := r.entry(name)
	e.loading.Lock()
	before := e.fingerprint
	e.loading.Unlock()
	if r.changed(name) || again && !r.isAvailable(e) {
		err := r.load(ctx, name, nil)
		if err != nil && again { // the configuration before holds on
			e.loading.Lock()
			e.fingerprint = before
			e.loading.Unlock()
		}
		return err
	}
	e.loading.Lock()
	defer e.loading.Unlock()
	r.mu.Lock()
	defer r.mu.Unlock()
	labels, err := r.labels(name, func(version int64) bool {
		v := e.versions[version]
		return v != nil && v.model != nil
	})
	if err == nil {
		e.labels = labels
	}
	return err
}

func (r *Repository) isAvailable(e *entry) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, v := range e.versions {
		if v.model != nil {
			return true
		}
	}
	return false
}
