package repository

import (
	"context"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"

	pb "github.com/tfbert/go/internal/serveproto"
)

// LoadConfig is Load with a configuration in place of the model's config.pbtxt, as JSON. The next load without one uses
// config.pbtxt again.
func (r *Repository) LoadConfig(ctx context.Context, name string, config []byte) error {
	if r.opts.Control != ControlExplicit {
		return errNotExplicit
	}
	if len(config) > maxConfig {
		return Invalidf("the configuration has %d bytes: it may have at most %d", len(config), maxConfig)
	}
	name = r.base(name)
	c := &pb.ModelConfig{}
	if err := protojson.Unmarshal(config, c); err != nil {
		return Invalidf("the configuration is not one of a model: %s", strings.Join(strings.Fields(err.Error()), " "))
	}
	if c.Name != "" && c.Name != name {
		return Invalidf("the configuration is of model %.100q, not of %q", c.Name, name)
	}
	if err := checkConfig(c); err != nil {
		return Invalidf("the configuration: %v", err)
	}
	return r.load(context.WithoutCancel(ctx), name, c)
}
