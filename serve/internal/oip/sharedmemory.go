package oip

import (
	"context"
	"net"
	"net/http"
	"net/netip"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"

	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/serve/internal/shm"
	"github.com/tfbert/go/serve/internal/tensor"
	"github.com/tfbert/go/serve/internal/transport"
	"github.com/tfbert/go/serve/repository"
)

const (
	sharedMemory       = "shared_memory_region"
	sharedMemoryOffset = "shared_memory_offset"
	sharedMemorySize   = "shared_memory_byte_size"
)

var (
	errSharedMemory = repository.Errorf(codes.Unimplemented,
		"shared memory is not supported: send and take the tensors themselves")
	errNotLocal = repository.Errorf(codes.PermissionDenied, "shared memory is for clients of this machine")
	errCUDA     = repository.Errorf(codes.Unimplemented,
		"CUDA shared memory is not supported: use system shared memory, or send and take the tensors themselves")
)

// regions returns the regions of the server for a client, which must be one of this machine.
func (s *Service) regions(ctx context.Context) (*shm.Regions, error) {
	if s.host.SharedMemory == nil {
		return nil, errSharedMemory
	}
	p, ok := peer.FromContext(ctx)
	if !ok {
		return nil, errNotLocal
	}
	address, ok := p.Addr.(*net.TCPAddr)
	if !ok || !address.IP.IsLoopback() {
		return nil, errNotLocal
	}
	return s.host.SharedMemory, nil
}

// administered is regions for the verbs that change them or list them.
func (s *Service) administered(ctx context.Context) (*shm.Regions, error) {
	if err := s.admin(ctx); err != nil {
		return nil, err
	}
	return s.regions(ctx)
}

// SystemSharedMemoryStatus lists the regions.
func (s *Service) SystemSharedMemoryStatus(
	ctx context.Context, r *pb.SystemSharedMemoryStatusRequest,
) (*pb.SystemSharedMemoryStatusResponse, error) {
	regions, err := s.administered(ctx)
	if err != nil {
		return nil, err
	}
	list, err := regions.Status(r.GetName())
	if err != nil {
		return nil, err
	}
	response := &pb.SystemSharedMemoryStatusResponse{
		Regions: map[string]*pb.SystemSharedMemoryStatusResponse_RegionStatus{},
	}
	for _, region := range list {
		response.Regions[region.Name] = &pb.SystemSharedMemoryStatusResponse_RegionStatus{
			Name: region.Name, Key: region.Key, Offset: region.Offset, ByteSize: region.Size,
		}
	}
	return response, nil
}

// SystemSharedMemoryRegister registers a region.
func (s *Service) SystemSharedMemoryRegister(
	ctx context.Context, r *pb.SystemSharedMemoryRegisterRequest,
) (*pb.SystemSharedMemoryRegisterResponse, error) {
	regions, err := s.administered(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.SystemSharedMemoryRegisterResponse{},
		regions.Register(r.GetName(), r.GetKey(), r.GetOffset(), r.GetByteSize())
}

// SystemSharedMemoryUnregister forgets a region, or all.
func (s *Service) SystemSharedMemoryUnregister(
	ctx context.Context, r *pb.SystemSharedMemoryUnregisterRequest,
) (*pb.SystemSharedMemoryUnregisterResponse, error) {
	regions, err := s.administered(ctx)
	if err != nil {
		return nil, err
	}
	return &pb.SystemSharedMemoryUnregisterResponse{}, regions.Unregister(r.GetName())
}

// CudaSharedMemoryStatus is not supported.
func (s *Service) CudaSharedMemoryStatus(
	context.Context, *pb.CudaSharedMemoryStatusRequest,
) (*pb.CudaSharedMemoryStatusResponse, error) {
	return nil, errCUDA
}

// CudaSharedMemoryRegister is not supported.
func (s *Service) CudaSharedMemoryRegister(
	context.Context, *pb.CudaSharedMemoryRegisterRequest,
) (*pb.CudaSharedMemoryRegisterResponse, error) {
	return nil, errCUDA
}

// CudaSharedMemoryUnregister is not supported.
func (s *Service) CudaSharedMemoryUnregister(
	context.Context, *pb.CudaSharedMemoryUnregisterRequest,
) (*pb.CudaSharedMemoryUnregisterResponse, error) {
	return nil, errCUDA
}

// handleSharedMemory adds the verbs over HTTP.
func (s *Service) handleSharedMemory(handle transport.Handle) {
	const base = "/v2/systemsharedmemory/"
	for _, region := range []string{"", "region/{region}/"} {
		handle("GET "+base+region+"status", s.regionStatus)
		handle("POST "+base+region+"unregister", func(w http.ResponseWriter, r *http.Request) error {
			if err := transport.Enter(r); err != nil { // its body is not read
				return err
			}
			response, err := s.SystemSharedMemoryUnregister(local(r), &pb.SystemSharedMemoryUnregisterRequest{
				Name: r.PathValue("region"),
			})
			if err != nil {
				return err
			}
			return respond(w, response)
		})
	}
	handle("POST "+base+"region/{region}/register", s.registerRegion)
	for _, path := range []string{
		"GET /v2/cudasharedmemory/status", "GET /v2/cudasharedmemory/region/{region}/status",
		"POST /v2/cudasharedmemory/region/{region}/register",
		"POST /v2/cudasharedmemory/unregister", "POST /v2/cudasharedmemory/region/{region}/unregister",
	} {
		handle(path, func(http.ResponseWriter, *http.Request) error { return errCUDA })
	}
}

// local is incoming with the client's address where gRPC has it.
func local(r *http.Request) context.Context {
	p := &peer.Peer{Addr: &net.TCPAddr{}} // of no client of this machine
	if address, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
		p.Addr = net.TCPAddrFromAddrPort(address)
	}
	return peer.NewContext(incoming(r), p)
}

func (s *Service) regionStatus(w http.ResponseWriter, r *http.Request) error {
	regions, err := s.administered(local(r))
	if err != nil {
		return err
	}
	list, err := regions.Status(r.PathValue("region"))
	if err != nil {
		return err
	}
	type regionJSON struct {
		Name   string `json:"name"`
		Key    string `json:"key"`
		Offset uint64 `json:"offset"`
		Size   uint64 `json:"byte_size"`
	}
	response := []regionJSON{}
	for _, region := range list {
		response = append(response, regionJSON{region.Name, region.Key, region.Offset, region.Size})
	}
	return transport.WriteJSON(w, response)
}

func (s *Service) registerRegion(w http.ResponseWriter, r *http.Request) error {
	if _, err := s.administered(local(r)); err != nil { // before the body is read
		return err
	}
	var request struct {
		Key    string `json:"key"`
		Offset uint64 `json:"offset"`
		Size   uint64 `json:"byte_size"`
	}
	if err := s.host.ReadJSON(r, &request); err != nil {
		return err
	}
	response, err := s.SystemSharedMemoryRegister(local(r), &pb.SystemSharedMemoryRegisterRequest{
		Name: r.PathValue("region"), Key: request.Key, Offset: request.Offset, ByteSize: request.Size,
	})
	if err != nil {
		return err
	}
	return respond(w, response)
}

// shared are the parts of shared memory that a request uses.
type shared struct {
	parts   []*shm.Part
	outputs map[string]*shm.Part
}

func (x *shared) release() {
	for _, p := range x.parts {
		p.Release()
	}
}

// inShared reports whether a tensor is in shared memory.
func inShared(parameters map[string]*pb.InferParameter) bool {
	return parameters[sharedMemory] != nil || parameters[sharedMemorySize] != nil || parameters[sharedMemoryOffset] != nil
}

// attach takes the parts of shared memory that a request uses, and reads its inputs there. It returns nil if there are
// none. The others' contents then are as in a request whose inputs all have some.
func (s *Service) attach(
	ctx context.Context, r *pb.ModelInferRequest, read map[int]repository.Tensor,
) (x *shared, _ map[int]repository.Tensor, err error) {
	take := func(what, name string, parameters map[string]*pb.InferParameter) (*shm.Part, error) {
		regions, err := s.regions(ctx)
		if err != nil {
			return nil, err
		}
		region, size := parameters[sharedMemory].GetStringParam(), integer(parameters[sharedMemorySize])
		if region == "" || parameters[sharedMemorySize] == nil {
			return nil, repository.Invalidf("%s %q needs both %s and %s", what, name, sharedMemory, sharedMemorySize)
		}
		p, err := regions.Take(region, integer(parameters[sharedMemoryOffset]), size)
		if err != nil {
			return nil, err
		}
		if x == nil {
			x = &shared{outputs: map[string]*shm.Part{}}
		}
		x.parts = append(x.parts, p)
		return p, nil
	}
	defer func() {
		if err != nil && x != nil {
			x.release()
		}
	}()
	raw := r.GetRawInputContents()
	var aligned [][]byte
	total := int64(0)
	for i, in := range r.GetInputs() {
		if !inShared(in.GetParameters()) {
			if len(raw) > 0 {
				aligned, raw = append(aligned, raw[0]), raw[1:]
			}
			continue
		}
		p, err := take("input", in.GetName(), in.GetParameters())
		if err != nil {
			return x, nil, err
		}
		if in.GetContents() != nil {
			return x, nil, repository.Invalidf("input %q has contents beside those in shared memory", in.GetName())
		}
		if total += p.Size(); total > s.host.MaxRequestBytes {
			return x, nil, repository.Invalidf("the inputs in shared memory have more than %d bytes", s.host.MaxRequestBytes)
		}
		data, err := p.Read()
		t := repository.Tensor{Name: in.GetName(), Type: in.GetDatatype()}
		if err == nil {
			err = tensor.ReadBinary(&t, data)
		}
		if err != nil {
			return x, nil, err
		}
		if read == nil {
			read = map[int]repository.Tensor{}
		}
		read[i] = t
		aligned = append(aligned, nil)
	}
	for _, out := range r.GetOutputs() {
		if !inShared(out.GetParameters()) {
			continue
		}
		p, err := take("output", out.GetName(), out.GetParameters())
		if err != nil {
			return x, nil, err
		}
		x.outputs[out.GetName()] = p
	}
	if x != nil && len(r.GetRawInputContents()) > 0 {
		r.RawInputContents = append(aligned, raw...)
	}
	return x, read, nil
}

// write puts the outputs that belong there into shared memory. What is left of them is without elements.
func (x *shared) write(r *pb.ModelInferRequest, response *pb.ModelInferResponse, outputs []repository.Tensor) error {
	if x == nil {
		return nil
	}
	for i, out := range response.GetOutputs() {
		p := x.outputs[out.GetName()]
		if p == nil {
			continue
		}
		data := tensor.AppendBinary(nil, &outputs[i])
		if err := p.Write(data); err != nil {
			return err
		}
		outputs[i].Int32s, outputs[i].Float32s, outputs[i].Strings = nil, nil, nil
		out.Parameters = map[string]*pb.InferParameter{
			sharedMemorySize: {ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: int64(len(data))}},
		}
		for _, name := range []string{sharedMemory, sharedMemoryOffset} {
			for _, asked := range r.GetOutputs() {
				if asked.GetName() == out.GetName() && asked.GetParameters()[name] != nil {
					out.Parameters[name] = asked.GetParameters()[name]
				}
			}
		}
	}
	return nil
}
