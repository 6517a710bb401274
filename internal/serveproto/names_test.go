package serveproto

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/reflection"
	reflectionpb "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/internal/tfproto"
)

// services are the official ones, with the methods that we have.
var services = map[string][]string{
	"inference.GRPCInferenceService": {
		"CudaSharedMemoryRegister", "CudaSharedMemoryStatus", "CudaSharedMemoryUnregister", "LogSettings",
		"ModelConfig", "ModelInfer", "ModelMetadata", "ModelReady", "ModelStatistics", "ModelStreamInfer", "RepositoryIndex",
		"RepositoryModelLoad", "RepositoryModelUnload", "ServerLive", "ServerMetadata", "ServerReady",
		"SystemSharedMemoryRegister", "SystemSharedMemoryStatus", "SystemSharedMemoryUnregister", "TraceSetting",
	},
	"tensorflow.serving.PredictionService": {"GetModelMetadata", "Predict"},
	"tensorflow.serving.ModelService":      {"GetModelStatus", "HandleReloadConfigRequest"},
}

// inference, prediction and models implement a few methods each.
type inference struct {
	UnimplementedGRPCInferenceServiceServer
}

func (inference) ServerMetadata(ctx context.Context, _ *ServerMetadataRequest) (*ServerMetadataResponse, error) {
	method, _ := grpc.Method(ctx)
	return &ServerMetadataResponse{Name: "stub", Extensions: []string{method}}, nil
}

func (inference) ModelInfer(_ context.Context, r *ModelInferRequest) (*ModelInferResponse, error) {
	return &ModelInferResponse{Id: r.GetId(), RawOutputContents: r.GetRawInputContents()}, nil
}

func (inference) ModelStreamInfer(stream grpc.BidiStreamingServer[ModelInferRequest, ModelStreamInferResponse]) error {
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := stream.Send(&ModelStreamInferResponse{InferResponse: &ModelInferResponse{Id: r.GetId()}}); err != nil {
			return err
		}
	}
}

type prediction struct {
	UnimplementedPredictionServiceServer
}

func (prediction) GetModelMetadata(context.Context, *GetModelMetadataRequest) (*GetModelMetadataResponse, error) {
	value, err := proto.Marshal(&SignatureDefMap{
		SignatureDef: map[string]*tfproto.SignatureDef{"serving_default": {MethodName: "m"}},
	})
	if err != nil {
		return nil, err
	}
	return &GetModelMetadataResponse{Metadata: map[string]*anypb.Any{
		"signature_def": {TypeUrl: "type.googleapis.com/tensorflow.serving.SignatureDefMap", Value: value},
	}}, nil
}

type models struct {
	UnimplementedModelServiceServer
}

// A server has the three services and reflection.
type server struct {
	*grpc.Server
	mu   sync.Mutex
	seen []string // the methods that its interceptors saw
}

func (s *server) addSeen(method string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.seen = append(s.seen, method)
}

// startServer starts a server that serves at l until the test's end.
func startServer(t *testing.T, l net.Listener) *server {
	t.Helper()
	s := &server{}
	s.Server = grpc.NewServer(
		grpc.UnaryInterceptor(func(
			ctx context.Context, r any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler,
		) (any, error) {
			s.addSeen(info.FullMethod)
			return h(ctx, r)
		}),
		grpc.StreamInterceptor(func(
			srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, h grpc.StreamHandler,
		) error {
			s.addSeen(info.FullMethod)
			return h(srv, stream)
		}),
	)
	RegisterInference(s, inference{})
	RegisterPrediction(s, prediction{})
	RegisterModelService(s, models{})
	healthpb.RegisterHealthServer(s, health.NewServer())
	resolver, err := NewResolver()
	require.NoError(t, err)
	options := reflection.ServerOptions{Services: s, DescriptorResolver: resolver}
	reflectionpb.RegisterServerReflectionServer(s, reflection.NewServerV1(options))
	reflectionv1alpha.RegisterServerReflectionServer(s, reflection.NewServer(options))
	go s.Serve(l)
	t.Cleanup(s.Stop)
	return s
}

// dial starts a server and returns a client of it.
func dial(t *testing.T) (*server, *grpc.ClientConn) {
	t.Helper()
	l := bufconn.Listen(1 << 16)
	s := startServer(t, l)
	conn, err := grpc.NewClient("passthrough:///bufconn", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return l.DialContext(ctx) }))
	require.NoError(t, err)
	t.Cleanup(func() { conn.Close() })
	return s, conn
}

func TestOfficialNames(t *testing.T) {
	s, conn := dial(t)
	var want []string
	for service, methods := range services {
		var have []string
		for _, m := range s.GetServiceInfo()[service].Methods {
			have = append(have, m.Name)
		}
		slices.Sort(have)
		assert.Equal(t, methods, have, service)
		for _, m := range methods {
			want = append(want, "/"+service+"/"+m)
		}
	}

	// Every method of every client is called with an empty request. A server that does not have the method
	// answers "unknown"; one that has it answers, or "not implemented".
	for _, client := range []any{NewInferenceClient(conn), NewPredictionClient(conn), NewModelClient(conn)} {
		v := reflect.ValueOf(client)
		for i := range v.NumMethod() {
			name := v.Type().Method(i).Name
			in := []reflect.Value{reflect.ValueOf(t.Context())}
			if m := v.Method(i).Type(); !m.IsVariadic() || m.NumIn() == 3 {
				in = append(in, reflect.New(m.In(1).Elem()))
			}
			out := v.Method(i).Call(in)
			err, _ := out[1].Interface().(error)
			type streamClient = grpc.BidiStreamingClient[ModelInferRequest, ModelStreamInferResponse]
			if stream, ok := out[0].Interface().(streamClient); ok && err == nil {
				require.NoError(t, stream.Send(&ModelInferRequest{Id: "7"}))
				r, err := stream.Recv()
				require.NoError(t, err)
				assert.Equal(t, "7", r.GetInferResponse().GetId())
				require.NoError(t, stream.CloseSend())
				_, err = stream.Recv()
				require.ErrorIs(t, err, io.EOF)
			}
			if err != nil {
				assert.Equal(t, codes.Unimplemented, status.Code(err), "%v", err)
				assert.Equal(t, "method "+name+" not implemented", status.Convert(err).Message())
			}
		}
	}
	assert.ElementsMatch(t, want, s.seen)

	r, err := NewInferenceClient(conn).ServerMetadata(t.Context(), &ServerMetadataRequest{})
	require.NoError(t, err)
	assert.Equal(t, []string{"/inference.GRPCInferenceService/ServerMetadata"}, r.GetExtensions())
}

func TestUnknownMethods(t *testing.T) {
	_, conn := dial(t)
	for _, method := range []string{
		"/inference.GRPCInferenceService/Generate",
		"/tensorflow.serving.PredictionService/Classify",
		"/tensorflow.serving.ModelService/None",
		"/tfbert.internal.inference.GRPCInferenceService/ServerLive", // our own name is not for clients
	} {
		err := conn.Invoke(t.Context(), method, &ServerLiveRequest{}, &ServerLiveResponse{})
		assert.Equal(t, codes.Unimplemented, status.Code(err), "%s: %v", method, err)
	}
}

// The handlers work without an interceptor.
func TestWithoutInterceptors(t *testing.T) {
	var desc *grpc.ServiceDesc
	RegisterInference(registrar(func(d *grpc.ServiceDesc, _ any) { desc = d }), inference{})
	i := slices.IndexFunc(desc.Methods, func(m grpc.MethodDesc) bool { return m.MethodName == "ModelInfer" })
	decode := func(r any) error {
		r.(*ModelInferRequest).Id = "7"
		return nil
	}
	r, err := desc.Methods[i].Handler(inference{}, t.Context(), decode, nil)
	require.NoError(t, err)
	assert.Equal(t, "7", r.(*ModelInferResponse).GetId())

	// The generated description is shared, and stays as it is.
	assert.Equal(t, "tfbert.internal.inference.GRPCInferenceService", GRPCInferenceService_ServiceDesc.ServiceName)
	want := reflect.ValueOf(_GRPCInferenceService_ModelInfer_Handler)
	got := reflect.ValueOf(GRPCInferenceService_ServiceDesc.Methods[i].Handler)
	assert.Equal(t, want.Pointer(), got.Pointer())
}

type registrar func(*grpc.ServiceDesc, any)

func (r registrar) RegisterService(d *grpc.ServiceDesc, impl any) { r(d, impl) }

// A program may link in other copies of the protocols, because ours does not register their names.
func TestGlobalNames(t *testing.T) {
	_, err := NewResolver()
	require.NoError(t, err)
	for _, name := range []protoreflect.FullName{
		"inference.ModelInferRequest", "tensorflow.TensorProto", "tensorflow.serving.PredictRequest",
	} {
		_, err := protoregistry.GlobalFiles.FindDescriptorByName(name)
		assert.ErrorIs(t, err, protoregistry.NotFound, "%s", name)
	}
	for _, path := range []string{
		"inference.proto", "serving.proto", "tensorflow.proto", "grpc_service.proto", "model_config.proto",
	} {
		_, err := protoregistry.GlobalFiles.FindFileByPath(path)
		assert.ErrorIs(t, err, protoregistry.NotFound, path)
	}
}

func TestResolver(t *testing.T) {
	r, err := NewResolver()
	require.NoError(t, err)
	for _, name := range []protoreflect.FullName{
		"inference.ModelInferRequest.InferInputTensor", "inference.ModelConfig", "inference.DataType",
		"inference.GRPCInferenceService.ModelInfer",
		"tensorflow.serving.PredictRequest", "tensorflow.serving.ModelVersionStatus.State",
		"tensorflow.TensorProto", "tensorflow.SignatureDef",
		"google.protobuf.Any", "google.protobuf.Int64Value",
		"grpc.health.v1.Health", "grpc.reflection.v1.ServerReflection",
	} {
		d, err := r.FindDescriptorByName(name)
		if assert.NoError(t, err, "%s", name) {
			assert.Equal(t, name, d.FullName())
			file, err := r.FindFileByPath(d.ParentFile().Path())
			require.NoError(t, err)
			assert.Same(t, d.ParentFile(), file, "%s", name)
		}
	}
	_, err = r.FindDescriptorByName("inference.None")
	require.ErrorIs(t, err, protoregistry.NotFound)
	_, err = r.FindFileByPath("none.proto")
	require.ErrorIs(t, err, protoregistry.NotFound)
}

// Reflection sends whole files, from which a client builds what it needs. None of our own names is left in
// them.
func TestReflection(t *testing.T) {
	_, conn := dial(t)
	stream, err := reflectionpb.NewServerReflectionClient(conn).ServerReflectionInfo(t.Context())
	require.NoError(t, err)
	ask := func(r *reflectionpb.ServerReflectionRequest) *reflectionpb.ServerReflectionResponse {
		require.NoError(t, stream.Send(r))
		answer, err := stream.Recv()
		require.NoError(t, err)
		require.Nil(t, answer.GetErrorResponse(), "%v", answer.GetErrorResponse())
		return answer
	}
	list := ask(&reflectionpb.ServerReflectionRequest{
		MessageRequest: &reflectionpb.ServerReflectionRequest_ListServices{},
	})
	var listed []string
	for _, s := range list.GetListServicesResponse().GetService() {
		listed = append(listed, s.GetName())
	}
	assert.Subset(t, listed, []string{
		"inference.GRPCInferenceService", "tensorflow.serving.PredictionService", "tensorflow.serving.ModelService",
		"grpc.health.v1.Health",
	})
	sent := map[string]*descriptorpb.FileDescriptorProto{} // a stream sends what a file needs only once
	for _, name := range listed {
		answer := ask(&reflectionpb.ServerReflectionRequest{
			MessageRequest: &reflectionpb.ServerReflectionRequest_FileContainingSymbol{FileContainingSymbol: name},
		})
		for _, b := range answer.GetFileDescriptorResponse().GetFileDescriptorProto() {
			assert.NotContains(t, string(b), "tfbert.internal", name)
			file := &descriptorpb.FileDescriptorProto{}
			require.NoError(t, proto.Unmarshal(b, file))
			sent[file.GetName()] = file
		}
	}
	files, err := protodesc.NewFiles(&descriptorpb.FileDescriptorSet{File: slices.Collect(maps.Values(sent))})
	require.NoError(t, err)
	for _, name := range listed {
		d, err := files.FindDescriptorByName(protoreflect.FullName(name))
		require.NoError(t, err)
		methods := d.(protoreflect.ServiceDescriptor).Methods()
		for _, m := range services[name] {
			assert.NotNil(t, methods.ByName(protoreflect.Name(m)), "%s has no %s", name, m)
		}
	}
}

// grpcurl, by which people look at a gRPC server, only needs the server's address.
func TestGRPCurl(t *testing.T) {
	tool := testenv.GRPCurl(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	startServer(t, l)
	address := l.Addr().String()

	for _, test := range []struct {
		args []string
		want []string
	}{
		{[]string{address, "list"}, []string{
			"inference.GRPCInferenceService\n", "tensorflow.serving.PredictionService\n",
			"tensorflow.serving.ModelService\n", "grpc.health.v1.Health\n",
		}},
		{[]string{address, "list", "tensorflow.serving.PredictionService"},
			[]string{"tensorflow.serving.PredictionService.Predict\n"}},
		{[]string{address, "describe", "inference.GRPCInferenceService"},
			[]string{"rpc ModelInfer ( .inference.ModelInferRequest ) returns ( .inference.ModelInferResponse );"}},
		{[]string{address, "describe", "inference.ModelConfig"},
			[]string{".inference.ModelDynamicBatching dynamic_batching = 11;"}},
		{[]string{address, "describe", "tensorflow.serving.PredictRequest"},
			[]string{"map<string, .tensorflow.TensorProto> inputs = 2;", ".tensorflow.serving.ModelSpec model_spec = 1;"}},
		{[]string{address, "inference.GRPCInferenceService/ServerMetadata"}, []string{`"name": "stub"`}},
		{[]string{"-d", `{"id":"7","raw_input_contents":["AQI="]}`, address, "inference.GRPCInferenceService/ModelInfer"},
			[]string{`"id": "7"`, `"AQI="`}},
		{[]string{"-d", `{"id":"8"}`, address, "inference.GRPCInferenceService/ModelStreamInfer"}, []string{`"id": "8"`}},
		{[]string{"-d", `{"model_spec":{"name":"bert","version":3}}`, address,
			"tensorflow.serving.PredictionService/GetModelMetadata"},
			// The signatures are in an Any, which the tool reads by the name of its message.
			[]string{`"@type": "type.googleapis.com/tensorflow.serving.SignatureDefMap"`, `"methodName": "m"`}},
		{[]string{address, "grpc.health.v1.Health/Check"}, []string{`"status": "SERVING"`}},
	} {
		t.Run(strings.Join(test.args, " "), func(t *testing.T) {
			out, err := exec.CommandContext(t.Context(), tool, append([]string{"-plaintext"}, test.args...)...).CombinedOutput()
			require.NoError(t, err, "%s", out)
			for _, want := range test.want {
				assert.Contains(t, string(out), want)
			}
			assert.NotContains(t, string(out), "tfbert.internal")
		})
	}
}
