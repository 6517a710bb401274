package oip

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"

	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/serve/internal/transport"
	"github.com/tfbert/go/serve/repository"
)

// mostAtOnce is how many requests of a stream are answered at once.
const mostAtOnce = 32

// ModelStreamInfer answers the requests of a stream in their order. Some run at once: a client that sends
// many without waiting is not kept to one at a time.
func (s *Service) ModelStreamInfer(
	stream grpc.BidiStreamingServer[pb.ModelInferRequest, pb.ModelStreamInferResponse],
) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	pending := make(chan chan *pb.ModelStreamInferResponse, mostAtOnce)
	received := make(chan error, 1)
	go func() {
		defer close(pending)
		for {
			r, err := stream.Recv()
			if err == nil && s.host.Draining.Err() != nil {
				err = transport.ErrDraining
			}
			if err != nil {
				received <- err
				return
			}
			answer := make(chan *pb.ModelStreamInferResponse, 1)
			select {
			case pending <- answer:
			case <-ctx.Done():
				received <- ctx.Err()
				return
			}
			go func() { answer <- s.streamed(ctx, r) }()
		}
	}()
	for {
		var answer chan *pb.ModelStreamInferResponse
		ok := true
		select {
		case answer, ok = <-pending:
		default:
			select {
			case answer, ok = <-pending:
			case <-s.host.Draining.Done():
				return transport.ErrDraining // a client that sends nothing would keep the server from ending
			}
		}
		if !ok {
			break
		}
		if err := stream.Send(<-answer); err != nil {
			return err
		}
	}
	if err := <-received; !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

// streamed answers one request of a stream. An error of it does not end the stream.
func (s *Service) streamed(ctx context.Context, r *pb.ModelInferRequest) *pb.ModelStreamInferResponse {
	var response *pb.ModelInferResponse
	err := s.host.Part(ctx, "/inference.GRPCInferenceService/ModelStreamInfer", func(ctx context.Context) (err error) {
		response, err = s.ModelInfer(ctx, r)
		return err
	})
	if err != nil {
		return &pb.ModelStreamInferResponse{
			ErrorMessage: repository.AsError(err).Message,
			InferResponse: &pb.ModelInferResponse{
				ModelName: r.GetModelName(), ModelVersion: r.GetModelVersion(), Id: r.GetId(),
			},
		}
	}
	return &pb.ModelStreamInferResponse{InferResponse: response}
}
