package oip

import (
	"context"
	"errors"
	"io"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/serve/internal/transport"
	"github.com/tfbert/go/serve/repository"
)

// mostAtOnce is the number of requests of a stream that are answered at once.
const mostAtOnce = 32

// ModelStreamInfer answers the requests of a stream in their order. Where a client sends several without
// waiting, they run at once.
func (s *Service) ModelStreamInfer(
	stream grpc.BidiStreamingServer[pb.ModelInferRequest, pb.ModelStreamInferResponse],
) error {
	ctx, cancel := s.host.Within(stream.Context())
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
			go func() { answer <- s.answerPart(ctx, r) }()
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
				return transport.ErrDraining // an idle client must not keep the server from ending
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

func codeOf(err error) codes.Code {
	if err == nil {
		return codes.OK
	}
	return repository.AsError(err).Code
}

// final marks the only response to a request of a stream, as Triton does. A client that asks for an empty final
// response (triton_enable_empty_final_response) gets none: models that have several responses to a request do.
func final(r *pb.ModelInferResponse) *pb.ModelInferResponse {
	if r.Parameters == nil {
		r.Parameters = map[string]*pb.InferParameter{}
	}
	r.Parameters["triton_final_response"] = &pb.InferParameter{
		ParameterChoice: &pb.InferParameter_BoolParam{BoolParam: true},
	}
	return r
}

// answerPart answers one request of a stream, which is counted and takes a slot as a call does. Its error does not
// end the stream.
func (s *Service) answerPart(ctx context.Context, r *pb.ModelInferRequest) *pb.ModelStreamInferResponse {
	var response *pb.ModelInferResponse
	const verb = "/inference.GRPCInferenceService/ModelStreamInfer"
	began := time.Now()
	err := s.host.Part(ctx, verb, func(ctx context.Context) error {
		if err := s.host.Count(ctx); err != nil {
			return err
		}
		leave, err := s.host.Questions.Enter()
		if err != nil {
			return err
		}
		defer leave()
		response, err = s.ModelInfer(ctx, r)
		return err
	})
	s.host.Ended(ctx, verb, codeOf(err).String(), time.Since(began))
	if err != nil {
		return &pb.ModelStreamInferResponse{
			ErrorMessage: repository.AsError(err).Message,
			InferResponse: final(&pb.ModelInferResponse{
				ModelName: r.GetModelName(), ModelVersion: r.GetModelVersion(), Id: r.GetId(),
			}),
		}
	}
	return &pb.ModelStreamInferResponse{InferResponse: final(response)}
}
