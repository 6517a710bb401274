package serve

import (
	"context"
	"path"
	"time"

	"go.opentelemetry.io/contrib/instrumentation/google.golang.org/grpc/otelgrpc"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/reflection"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/stats"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/tap"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/tfbert/go/serve/internal/intake"
	"github.com/tfbert/go/serve/internal/transport"
	"github.com/tfbert/go/serve/repository"
)

// rpcOptions bound what a client may make the server keep.
func (s *Server) rpcOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.MaxRecvMsgSize(int(s.opts.MaxRequestBytes)),
		grpc.MaxHeaderListSize(64 << 10),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.MaxConcurrentStreams(uint32(s.opts.MaxStreams)),
		grpc.InTapHandle(s.begin),
		grpc.ConnectionTimeout(10 * time.Second),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: time.Minute, Timeout: 20 * time.Second, MaxConnectionIdle: idleTimeout,
		}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
		grpc.StatsHandler(otelgrpc.NewServerHandler(otelgrpc.WithFilter(
			func(info *stats.RPCTagInfo) bool { return !probes[info.FullMethodName] && s.host.Tracing.Sample() }))),
		grpc.UnaryInterceptor(s.unary),
		grpc.StreamInterceptor(s.stream),
	}
}

// newRPC makes a gRPC server of everything that the server speaks over gRPC.
func (s *Server) newRPC(options ...grpc.ServerOption) *grpc.Server {
	rpc := grpc.NewServer(options...)
	to := registrar{s, rpc}
	s.oip.Register(to)
	s.tfServing.Register(to)
	healthpb.RegisterHealthServer(to, &health{host: s.host})
	files := reflection.ServerOptions{Services: rpc, DescriptorResolver: s.resolver}
	reflectionv1.RegisterServerReflectionServer(to, reflection.NewServerV1(files))
	reflectionv1alpha.RegisterServerReflectionServer(to, reflection.NewServer(files))
	for service, info := range rpc.GetServiceInfo() {
		for _, m := range info.Methods {
			s.streaming["/"+service+"/"+m.Name] = m.IsClientStream || m.IsServerStream
		}
	}
	return rpc
}

// limitTime ends a unary call whose request has not come in time, which no interceptor sees.
func (s *Server) limitTime(ctx context.Context, info *tap.Info) (context.Context, error) {
	switch method := info.FullMethodName; {
	case answersDrain[method]:
		return ctx, nil
	case s.streaming[method]: // of reflection
		ctx, cancel := context.WithCancel(ctx)
		stop := context.AfterFunc(s.host.Draining, cancel)
		context.AfterFunc(ctx, func() { stop() })
		return ctx, nil
	}
	ctx, cancel := context.WithTimeout(ctx, s.opts.RequestTimeout)
	stop := context.AfterFunc(s.host.Late, cancel)
	context.AfterFunc(ctx, func() { stop(); cancel() })
	return context.WithValue(ctx, arrivedKey{}, stop), nil
}

// arrivedKey is the key, in a unary call's context, of the function to be called when its request is complete.
type arrivedKey struct{}

// arrived says that a call's request is complete, so that the call is no longer cancelled when the server drains.
func arrived(ctx context.Context) {
	if stop, ok := ctx.Value(arrivedKey{}).(func() bool); ok {
		stop()
	}
}

// answersDrain are the streams that end by themselves when the server drains.
var answersDrain = map[string]bool{
	modelStream: true, "/grpc.health.v1.Health/Watch": true,
}

const modelStream = "/inference.GRPCInferenceService/ModelStreamInfer"

// unary runs a call within the limit on its time, counts and logs it.
func (s *Server) unary(
	ctx context.Context, request any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler,
) (response any, err error) {
	began := time.Now()
	ctx, cancel := context.WithTimeout(repository.WithModel(ctx), s.opts.RequestTimeout)
	defer cancel()
	ctx, cancelCut := s.host.Within(ctx)
	defer cancelCut()
	err = s.host.Outcome(transport.Recover(func() (err error) {
		response, err = h(ctx, request)
		return err
	}))
	s.called(ctx, info.FullMethod, began, err)
	return response, statusOf(err)
}

// slots returns those of which a unary call needs one. Health, metadata and statistics need none: a busy server
// is not a sick one.
func (s *Server) slots(method string) *intake.Slots {
	switch path.Base(method) {
	case "ModelInfer", "Predict":
		return &s.questions
	case "RepositoryIndex", "RepositoryModelLoad", "RepositoryModelUnload", "HandleReloadConfigRequest",
		"TraceSetting", "LogSettings", "SystemSharedMemoryRegister", "SystemSharedMemoryUnregister":
		return &s.admins
	}
	return nil
}

// stream is unary for streams, which may last.
func (s *Server) stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler) error {
	began := time.Now()
	traceID(stream.Context())
	if err := stream.SetHeader(idHeader(stream.Context())); err != nil {
		return err
	}
	counted := &countedStream{ServerStream: stream, server: s}
	defer counted.end()
	err := s.host.Outcome(transport.Recover(func() error { return h(srv, counted) }))
	if code := status.Code(statusOf(err)); info.FullMethod == modelStream { // its requests have been counted
		s.host.LogRequest(stream.Context(), info.FullMethod, code.String(), began, err)
	} else {
		s.called(stream.Context(), info.FullMethod, began, err)
	}
	return statusOf(err)
}

// idHeader returns the header with the id of a call.
func idHeader(ctx context.Context) metadata.MD {
	return metadata.Pairs(transport.RequestID, transport.RequestIDOf(ctx))
}

func (s *Server) called(ctx context.Context, method string, began time.Time, err error) {
	code := status.Code(statusOf(err))
	if _, known := s.streaming[method]; !known {
		method = "unknown" // clients must not make names of metrics
	}
	s.metrics.request(ctx, method, code.String(), time.Since(began), err)
	s.host.LogRequest(ctx, method, code.String(), began, err)
}

// statusOf returns an error as a status. One after which it helps to try again says when.
func statusOf(err error) error {
	if err == nil {
		return nil
	}
	e := repository.AsError(err)
	st := e.GRPCStatus()
	if e.RetryAfter > 0 {
		retry := &errdetails.RetryInfo{RetryDelay: durationpb.New(e.RetryAfter)}
		if with, err := st.WithDetails(retry); err == nil {
			st = with
		}
	}
	return st.Err()
}

// health is gRPC's health protocol. A service is the server itself, "", one of its services, or a model.
type health struct {
	healthpb.UnimplementedHealthServer
	host *transport.Host
}

func (h *health) Check(_ context.Context, r *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	state, known := h.state(r.GetService())
	if !known {
		return nil, repository.Errorf(codes.NotFound, "unknown service %q", r.GetService())
	}
	return &healthpb.HealthCheckResponse{Status: state}, nil
}

func (h *health) state(service string) (state healthpb.HealthCheckResponse_ServingStatus, known bool) {
	switch service {
	case "", "inference.GRPCInferenceService", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService":
		if h.host.Ready() != nil {
			return healthpb.HealthCheckResponse_NOT_SERVING, true
		}
		return healthpb.HealthCheckResponse_SERVING, true
	}
	if len(h.host.Models.Versions(service)) == 0 {
		return healthpb.HealthCheckResponse_SERVICE_UNKNOWN, false
	}
	m, err := h.host.Models.Acquire(service, 0)
	if err != nil || h.host.Leaving.Err() != nil {
		return healthpb.HealthCheckResponse_NOT_SERVING, true
	}
	m.Release()
	return healthpb.HealthCheckResponse_SERVING, true
}

// Watch looks at the state once a second: it is one of several parts, none of which tells of a change.
func (h *health) Watch(
	r *healthpb.HealthCheckRequest, stream grpc.ServerStreamingServer[healthpb.HealthCheckResponse],
) error {
	last := healthpb.HealthCheckResponse_ServingStatus(-1)
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		if state, _ := h.state(r.GetService()); state != last {
			last = state
			if err := stream.Send(&healthpb.HealthCheckResponse{Status: state}); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-h.host.Draining.Done():
			if state, known := h.state(r.GetService()); known && state != last {
				_ = stream.Send(&healthpb.HealthCheckResponse{Status: state}) // the last word, if anyone hears it
			}
			return transport.ErrDraining
		case <-stream.Context().Done():
			return stream.Context().Err()
		}
	}
}
