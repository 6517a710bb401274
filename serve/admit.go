package serve

import (
	"context"
	"slices"
	"sync"
	"time"

	"google.golang.org/grpc"
)

// A registrar registers services on a gRPC server whose unary calls take a slot, and the memory for their request,
// before the request is decoded. No interceptor runs that early.
type registrar struct {
	server *Server
	rpc    *grpc.Server
}

// RegisterService implements grpc.ServiceRegistrar.
func (r registrar) RegisterService(desc *grpc.ServiceDesc, impl any) {
	counted := *desc
	counted.Methods = slices.Clone(desc.Methods)
	for i, m := range desc.Methods {
		method := "/" + desc.ServiceName + "/" + m.MethodName
		counted.Methods[i].Handler = func(
			srv any, ctx context.Context, decode func(any) error, interceptor grpc.UnaryServerInterceptor,
		) (any, error) {
			began := time.Now()
			traceID(ctx)
			if err := grpc.SetHeader(ctx, idHeader(ctx)); err != nil {
				return nil, err
			}
			var message received
			if err := decode(&message); err != nil {
				return nil, err
			}
			defer message.free()
			arrived(ctx)
			leave, err := r.server.admit(ctx, method, message.Len())
			if err != nil {
				r.server.called(ctx, method, began, err)
				return nil, statusOf(err)
			}
			defer leave()
			return m.Handler(srv, ctx, message.decode, interceptor)
		}
	}
	r.rpc.RegisterService(&counted, impl)
}

// admit takes the slot that a call needs, and then the memory for its request.
func (s *Server) admit(ctx context.Context, method string, size int) (leave func(), err error) {
	free := func() {}
	if slots := s.slots(method); slots != nil {
		if free, err = slots.Enter(); err != nil {
			return nil, err
		}
	}
	give, err := s.budget.Take(ctx, size)
	if err != nil {
		free()
		return nil, err
	}
	return func() { give(); free() }, nil
}

// A countedStream is a stream each of whose requests takes memory until it is answered.
type countedStream struct {
	grpc.ServerStream
	server *Server

	mu    sync.Mutex
	give  []func() // of the requests that are not answered, the oldest first
	ended bool
}

// RecvMsg implements grpc.ServerStream.
func (s *countedStream) RecvMsg(v any) error {
	var message received
	if err := s.ServerStream.RecvMsg(&message); err != nil {
		return err
	}
	defer message.free()
	ctx, cancel := context.WithTimeout(s.Context(), s.server.opts.RequestTimeout)
	defer cancel()
	give, err := s.server.budget.Take(ctx, message.Len())
	if err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended {
		give()
		return context.Canceled
	}
	s.give = append(s.give, give)
	return message.decode(v)
}

// SendMsg implements grpc.ServerStream. A message answers the oldest request.
func (s *countedStream) SendMsg(v any) error {
	err := s.ServerStream.SendMsg(v)
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.give) > 0 {
		s.give[0]()
		s.give = s.give[1:]
	}
	return err
}

// end gives back the memory of the requests that are not answered. It is called when the stream has ended.
func (s *countedStream) end() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, give := range s.give {
		give()
	}
	s.give, s.ended = nil, true
}
