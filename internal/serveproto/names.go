package serveproto

import (
	"context"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protodesc"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/tfbert/go/internal/tfproto"
)

// packages are the official names of our packages.
var packages = []struct{ ours, official string }{
	{"tfbert.internal.inference", "inference"},
	{"tfbert.internal.serving", "tensorflow.serving"},
	{"tfbert.internal.tfproto", "tensorflow"},
}

// official returns the official name of a service, method or message.
func official(name string) string {
	for _, p := range packages {
		if rest, ok := strings.CutPrefix(name, p.ours+"."); ok {
			return p.official + "." + rest
		}
	}
	return name
}

func register(s grpc.ServiceRegistrar, desc grpc.ServiceDesc, impl any) {
	desc.ServiceName = official(desc.ServiceName)
	desc.Methods = append([]grpc.MethodDesc(nil), desc.Methods...)
	for i, m := range desc.Methods {
		method := "/" + desc.ServiceName + "/" + m.MethodName
		handle := m.Handler
		desc.Methods[i].Handler = func(
			srv any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor,
		) (any, error) {
			return handle(srv, ctx, decode, withMethod(method, interceptor))
		}
	}
	s.RegisterService(&desc, impl)
}

// withMethod returns an interceptor that sees a method's official name, where the generated handlers pass
// ours. It returns nil for nil.
func withMethod(method string, interceptor grpc.UnaryServerInterceptor) grpc.UnaryServerInterceptor {
	if interceptor == nil {
		return nil
	}
	return func(ctx context.Context, request any, info *grpc.UnaryServerInfo, h grpc.UnaryHandler) (any, error) {
		return interceptor(ctx, request, &grpc.UnaryServerInfo{Server: info.Server, FullMethod: method}, h)
	}
}

// RegisterInference registers inference.GRPCInferenceService.
func RegisterInference(s grpc.ServiceRegistrar, impl GRPCInferenceServiceServer) {
	register(s, GRPCInferenceService_ServiceDesc, impl)
}

// RegisterPrediction registers tensorflow.serving.PredictionService.
func RegisterPrediction(s grpc.ServiceRegistrar, impl PredictionServiceServer) {
	register(s, PredictionService_ServiceDesc, impl)
}

// RegisterModelService registers tensorflow.serving.ModelService.
func RegisterModelService(s grpc.ServiceRegistrar, impl ModelServiceServer) {
	register(s, ModelService_ServiceDesc, impl)
}

// caller calls methods by their official names.
type caller struct{ grpc.ClientConnInterface }

func (c caller) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	return c.ClientConnInterface.Invoke(ctx, "/"+official(method[1:]), args, reply, opts...)
}

func (c caller) NewStream(
	ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption,
) (grpc.ClientStream, error) {
	return c.ClientConnInterface.NewStream(ctx, desc, "/"+official(method[1:]), opts...)
}

// NewInferenceClient returns a client of inference.GRPCInferenceService.
func NewInferenceClient(c grpc.ClientConnInterface) GRPCInferenceServiceClient {
	return NewGRPCInferenceServiceClient(caller{c})
}

// NewPredictionClient returns a client of tensorflow.serving.PredictionService.
func NewPredictionClient(c grpc.ClientConnInterface) PredictionServiceClient {
	return NewPredictionServiceClient(caller{c})
}

// NewModelClient returns a client of tensorflow.serving.ModelService.
func NewModelClient(c grpc.ClientConnInterface) ModelServiceClient {
	return NewModelServiceClient(caller{c})
}

// A Resolver finds the descriptors that are linked in, ours by their official names.
type Resolver struct{ ours *protoregistry.Files }

// NewResolver returns the descriptors for gRPC's reflection. They are not registered anywhere else.
func NewResolver() (*Resolver, error) {
	r := &Resolver{new(protoregistry.Files)}
	for _, from := range []protoreflect.FileDescriptor{
		tfproto.File_tfbert_tensorflow_proto, File_tfbert_inference_proto, File_tfbert_serving_proto,
	} {
		file := protodesc.ToFileDescriptorProto(from)
		rename(file)
		descriptor, err := protodesc.NewFile(file, r)
		if err != nil {
			return nil, err
		}
		if err := r.ours.RegisterFile(descriptor); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// rename puts the official names into a file, for its own and for those that it refers to.
func rename(file *descriptorpb.FileDescriptorProto) {
	file.Package = proto.String(strings.TrimSuffix(official(file.GetPackage()+"."), "."))
	var message func(*descriptorpb.DescriptorProto)
	message = func(m *descriptorpb.DescriptorProto) {
		for _, f := range m.Field {
			if f.TypeName != nil {
				f.TypeName = proto.String("." + official(f.GetTypeName()[1:]))
			}
		}
		for _, nested := range m.NestedType {
			message(nested)
		}
	}
	for _, m := range file.MessageType {
		message(m)
	}
	for _, s := range file.Service {
		for _, m := range s.Method {
			m.InputType = proto.String("." + official(m.GetInputType()[1:]))
			m.OutputType = proto.String("." + official(m.GetOutputType()[1:]))
		}
	}
}

// FindFileByPath implements protodesc.Resolver.
func (r *Resolver) FindFileByPath(path string) (protoreflect.FileDescriptor, error) {
	if d, err := r.ours.FindFileByPath(path); err == nil {
		return d, nil
	}
	return protoregistry.GlobalFiles.FindFileByPath(path)
}

// FindDescriptorByName implements protodesc.Resolver.
func (r *Resolver) FindDescriptorByName(name protoreflect.FullName) (protoreflect.Descriptor, error) {
	if d, err := r.ours.FindDescriptorByName(name); err == nil {
		return d, nil
	}
	return protoregistry.GlobalFiles.FindDescriptorByName(name)
}
