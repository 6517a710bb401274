package serve

import (
	"cmp"
	"context"
	"crypto/subtle"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"

	"github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/serve/repository"
)

// Options say how a server serves; what is 0 has a default.
type Options struct {
	Version string // of the server, as clients see it

	MaxRequestBytes int64         // of a body, also when it is unpacked; 8 MiB
	MaxRequests     int           // with a body, at once, so that their memory has a bound; 1024
	RequestTimeout  time.Duration // from a request's header to its answer; 60 s
	DrainTimeout    time.Duration // that requests under way have when the server ends; 30 s

	// AdminToken is what the verbs that change the server want as their bearer token; "" lets
	// everybody use them.
	AdminToken string

	TLS    *tls.Config // nil: none
	Logger *slog.Logger
}

// A Server answers requests by the models of a repository.
type Server struct {
	opts    Options
	models  *repository.Repository
	log     *slog.Logger
	metrics *metrics

	resolver *serveproto.Resolver // of gRPC's reflection

	requests atomic.Int64 // that are under way

	draining context.Context // ends when the server begins to end
	drain    context.CancelFunc
}

// New makes a server of a repository that has not been started.
func New(models *repository.Repository, opts Options) (*Server, error) {
	opts.MaxRequestBytes = cmp.Or(opts.MaxRequestBytes, 8<<20)
	opts.MaxRequests = cmp.Or(opts.MaxRequests, 1024)
	opts.RequestTimeout = cmp.Or(opts.RequestTimeout, time.Minute)
	opts.DrainTimeout = cmp.Or(opts.DrainTimeout, 30*time.Second)
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Server{opts: opts, models: models, log: opts.Logger}
	s.draining, s.drain = context.WithCancel(context.Background())
	s.metrics = newMetrics(s)
	var err error
	if s.resolver, err = serveproto.NewResolver(); err != nil {
		return nil, err
	}
	models.Observe(s.metrics.batch)
	return s, nil
}

// enter counts a request that begins, unless there are too many. leave ends it.
func (s *Server) enter() (leave func(), err error) {
	if s.requests.Add(1) > int64(s.opts.MaxRequests) {
		s.requests.Add(-1)
		return nil, &repository.Error{
			Code: codes.ResourceExhausted, Message: fmt.Sprintf("the server has %d requests under way and takes no more", s.opts.MaxRequests), RetryAfter: time.Second,
		}
	}
	return func() { s.requests.Add(-1) }, nil
}

// ready says why the server is not, nil where it is.
func (s *Server) ready() error {
	if s.draining.Err() != nil {
		return errDraining
	}
	return s.models.Ready()
}

var errDraining = repository.Errorf(codes.Unavailable, "the server is shutting down")

// admin says why a request with these credentials, an Authorization header, may not change the server.
func (s *Server) admin(authorization string) error {
	if s.opts.AdminToken == "" {
		return nil
	}
	scheme, token, _ := strings.Cut(authorization, " ")
	if !strings.EqualFold(scheme, "bearer") || subtle.ConstantTimeCompare([]byte(token), []byte(s.opts.AdminToken)) != 1 {
		return repository.Errorf(codes.Unauthenticated, "this needs the server's admin token: send it as Authorization: Bearer TOKEN")
	}
	return nil
}

// Serve serves HTTP and gRPC, either of which may be nil, until ctx ends. Then it takes no more
// connections, lets the requests under way end, and releases the models.
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
		s.log.Info("shutting down", "at most", s.opts.DrainTimeout)
	case err = <-failed:
		err = fmt.Errorf("serve: %w", err)
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
		err = fmt.Errorf("serve: some requests had not ended after %v: %w", s.opts.DrainTimeout, err)
	}
	s.models.Close()
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
		ErrorLog:          slog.NewLogLogger(s.log.Handler(), slog.LevelDebug),
	}
}

func (s *Server) rpcServer() *grpc.Server {
	options := s.rpcOptions()
	if s.opts.TLS != nil {
		options = append(options, grpc.Creds(credentials.NewTLS(s.opts.TLS)))
	}
	return s.newRPC(options...)
}
