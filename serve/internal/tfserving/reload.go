package tfserving

import (
	"context"

	"google.golang.org/protobuf/proto"

	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/serve/repository"
)

// HandleReloadConfigRequest serves the models of another configuration.
func (s *Service) HandleReloadConfigRequest(
	ctx context.Context, r *pb.ReloadConfigRequest,
) (*pb.ReloadConfigResponse, error) {
	if err := s.host.AdminCall(ctx); err != nil {
		return nil, err
	}
	if r.GetConfig().GetModelConfigList() == nil {
		return nil, repository.Invalidf(
			"the configuration does not have a model_config_list, the only form that is served")
	}
	config, err := proto.Marshal(r.GetConfig())
	if err != nil {
		return nil, err
	}
	if err := s.host.Models.Configure(ctx, config); err != nil {
		return nil, err
	}
	response := &pb.ReloadConfigResponse{Status: &pb.StatusProto{}}
	for _, name := range r.GetMetricNames() { // as of a metric that TensorFlow Serving does not have
		response.Metric = append(response.Metric, &pb.Metric{
			Name: name, ValueIncrease: &pb.Metric_Int64ValueIncrease{},
		})
	}
	return response, nil
}
