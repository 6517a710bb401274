package serve

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"

	"github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/serve/internal/oip"
	"github.com/tfbert/go/serve/internal/tfserving"
	"github.com/tfbert/go/serve/internal/transport"
	"github.com/tfbert/go/serve/repository"
)

// Options say how a server serves. The zero value of a field stands for its default.
type Options struct {
	Version string // of the server, as clients see it

	MaxRequestBytes int64         // of a body, also when it is unpacked; 8 MiB
	MaxRequests     int           // with a body, at once, so that their memory has a bound; 1024
	RequestTimeout  time.Duration // from a request's header to its answer; 60 s
	DrainTimeout    time.Duration // that requests under way have when the server ends; 30 s

	// AdminToken is the bearer token that the verbs which change the server ask for; "" lets everybody use
	// them.
	AdminToken string

	TLS    *tls.Config // nil: none
	Logger *slog.Logger
}

// A Server answers requests by the models of a repository.
type Server struct {
	opts    Options
	host    *transport.Host
	metrics *metrics

	oip       *oip.Service
	tfServing *tfserving.Service

	resolver *serveproto.Resolver // of gRPC's reflection
	requests atomic.Int64         // that are under way
	drain    context.CancelFunc
}

// New returns a server of the models of a repository that has not been started.
func New(models *repository.Repository, opts Options) (*Server, error) {
	opts.MaxRequestBytes = cmp.Or(opts.MaxRequestBytes, 8<<20)
	opts.MaxRequests = cmp.Or(opts.MaxRequests, 1024)
	opts.RequestTimeout = cmp.Or(opts.RequestTimeout, time.Minute)
	opts.DrainTimeout = cmp.Or(opts.DrainTimeout, 30*time.Second)
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	resolver, err := serveproto.NewResolver()
	if err != nil {
		return nil, err
	}
	draining, drain := context.WithCancel(context.Background())
	host := &transport.Host{
		Models: models, Version: opts.Version, Log: opts.Logger, MaxRequestBytes: opts.MaxRequestBytes,
		RequestTimeout: opts.RequestTimeout, AdminToken: opts.AdminToken, Draining: draining,
	}
	s := &Server{
		opts: opts, host: host, metrics: newMetrics(host), resolver: resolver, drain: drain,
		oip: oip.New(host), tfServing: tfserving.New(host),
	}
	models.Observe(s.metrics.batch)
	return s, nil
}

// enter counts a request that begins, unless there are too many. leave ends it.
func (s *Server) enter() (leave func(), err error) {
	if s.requests.Add(1) > int64(s.opts.MaxRequests) {
		s.requests.Add(-1)
		e := repository.Errorf(codes.ResourceExhausted,
			"the server has %d requests under way and takes no more", s.opts.MaxRequests)
		e.RetryAfter = time.Second
		return nil, e
	}
	return func() { s.requests.Add(-1) }, nil
}

// Serve serves HTTP and gRPC, either of which may be nil, until ctx ends. Then it takes no more connections,
// lets the requests under way end, and releases the models.
func (s *Server) Serve(ctx context.Context, overHTTP, overGRPC net.Listener) error {
	web := s.webServer()
	rpc := s.rpcServer()
	failed := make(chan error, 2)
	if overHTTP != nil {
		go func() {
			if s.opts.TLS != nil {
				failed <- web.ServeTLS(overHTTP, "", "")
			} else {
				failed <- web.Serve(overHTTP)
			}
		}()
	}
	if overGRPC != nil {
		go func() { failed <- rpc.Serve(overGRPC) }()
	}
	var err error
	select {
	case <-ctx.Done():
		s.opts.Logger.Info("shutting down", "at most", s.opts.DrainTimeout)
	case err = <-failed:
	}
	return errors.Join(err, s.shutdown(web, rpc))
}

func (s *Server) shutdown(web *http.Server, rpc *grpc.Server) error {
	s.drain() // not ready from here on
	ctx, cancel := context.WithTimeout(context.Background(), s.opts.DrainTimeout)
	defer cancel()
	drained := make(chan struct{})
	go func() {
		rpc.GracefulStop()
		close(drained)
	}()
	err := web.Shutdown(ctx)
	select {
	case <-drained:
	case <-ctx.Done():
		err = cmp.Or(err, ctx.Err())
		rpc.Stop()
	}
	if err != nil {
		_ = web.Close() // ends them
		err = fmt.Errorf("some requests had not ended after %v: %w", s.opts.DrainTimeout, err)
	}
	s.host.Models.Close()
	return err
}

// webServer bounds what a client may make the server wait for and keep.
func (s *Server) webServer() *http.Server {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	return &http.Server{
		Handler:           s.Handler(),
		Protocols:         protocols,
		TLSConfig:         s.opts.TLS,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       s.opts.RequestTimeout,
		WriteTimeout:      2 * s.opts.RequestTimeout, // from the header's end: reading, answering and writing
		IdleTimeout:       5 * time.Minute,
		MaxHeaderBytes:    64 << 10,
		ErrorLog:          slog.NewLogLogger(s.opts.Logger.Handler(), slog.LevelDebug),
	}
}

func (s *Server) rpcServer() *grpc.Server {
	options := s.rpcOptions()
	if s.opts.TLS != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(s.opts.TLS)))
	}
	return s.newRPC(options...)
}
