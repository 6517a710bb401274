package oip

import (
	"maps"
	"slices"
	"strings"

	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/grpc/codes"

	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/serve/repository"
)

// overrideOf returns the configuration that a request to load a model brings in place of the model's own; nil if it has
// none. Triton's other parameters bring files.
func overrideOf(r *pb.RepositoryModelLoadRequest) ([]byte, error) {
	var config []byte
	for _, name := range slices.Sorted(maps.Keys(r.GetParameters())) {
		p := r.GetParameters()[name]
		switch text, ok := p.GetParameterChoice().(*pb.ModelRepositoryParameter_StringParam); {
		case strings.HasPrefix(name, "file:"):
			return nil, repository.Errorf(codes.Unimplemented,
				"the parameter %.100q would replace the model's files: the server only loads those of its repository", name)
		case name != "config":
			return nil, repository.Invalidf("unknown parameter %.100q: a request to load a model may have config", name)
		case !ok:
			return nil, repository.Invalidf("the parameter config must be a string")
		default:
			config = []byte(text.StringParam)
		}
	}
	return config, nil
}

// loadParameter returns a parameter of such a request over HTTP. Of those that are not strings only the name matters.
func loadParameter(value jsontext.Value) *pb.ModelRepositoryParameter {
	text, err := jsontext.AppendUnquote(nil, value)
	if value.Kind() != '"' || err != nil {
		return &pb.ModelRepositoryParameter{}
	}
	return &pb.ModelRepositoryParameter{
		ParameterChoice: &pb.ModelRepositoryParameter_StringParam{StringParam: string(text)},
	}
}
