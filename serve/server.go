package serve

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"net"
	"net/http"
	"slices"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/serve/internal/access"
	"github.com/tfbert/go/serve/internal/intake"
	"github.com/tfbert/go/serve/internal/oip"
	"github.com/tfbert/go/serve/internal/shm"
	"github.com/tfbert/go/serve/internal/tfserving"
	"github.com/tfbert/go/serve/internal/transport"
	"github.com/tfbert/go/serve/internal/warmup"
	"github.com/tfbert/go/serve/repository"
)

// Options say how a server serves. The zero value of a field stands for its default.
type Options struct {
	Version string // of the server, as clients see it

	MaxRequestBytes   int64         // of a body, also when it is unpacked; 8 MiB
	MaxRequests       int           // complete ones that ask a model, at once; 1024
	MaxConnections    int           // at once; then the one that was idle longest is closed; 16384
	MaxStreams        int           // of a connection of HTTP/2 and gRPC, at once; 128
	MaxUnfinished     int64         // bytes of all requests that are not complete; 256 MiB or 4 MaxRequestBytes
	MaxConnUnfinished int64         // bytes of those of one connection; half of MaxUnfinished
	MaxMemory         int64         // bytes for what is made from complete requests; 320 MiB; further ones wait
	MinRate           int64         // bytes per second at which a request must come, over 5 s; 1024
	RequestTimeout    time.Duration // from a request's header to its answer; 60 s
	ShutdownDelay     time.Duration // for which a server that ends is not ready and still takes requests; 0
	DrainTimeout      time.Duration // that requests under way have then; 30 s

	// AdminToken is the bearer token that the verbs which change the server ask for; "" lets everybody use
	// them.
	AdminToken string

	// APIKeys are those of which every request needs one, as a bearer token. Health, readiness, metrics, the page's
	// files and the verbs that need the admin token do not. None lets everybody ask.
	APIKeys []APIKey

	// Limits of each client, by its API key, or else by its address: an IPv4 address or a network of 64 bits in IPv6.
	// What needs no API key does not count.
	ClientRate     float64 // requests per second; 0 is no limit
	ClientBurst    int     // requests that may come at once after a pause; those of a second, but at least 1
	ClientRequests int     // under way; 0 is no limit

	// AllowedHosts are hosts that requests may be sent to, beside addresses and names of this machine and its network:
	// names, "*.example.com" or "*". On a loopback address all others are refused, and so they are on any address if
	// AllowedHosts is not empty. gRPC has no such check: no page of a browser can speak it to the server.
	AllowedHosts []string
	// AllowedOrigins are the origins of other sites' pages that may send requests, such as "https://example.com", or
	// "*". All others are refused.
	AllowedOrigins []string

	// HealthRoute and PredictRoute are more paths for GET /ping and POST /invocations, as Vertex AI names them.
	HealthRoute, PredictRoute string

	// ClientSHM lets clients of this machine register system shared memory and have tensors in it. The server reads and
	// writes any that its user may.
	ClientSHM bool

	TLS      *tls.Config // nil: none
	Logger   *slog.Logger
	LogLevel *slog.LevelVar // of Logger, which clients that may change the server set then; nil: it stays

	grace time.Duration // that MinRate is an average of; 5 s
}

// A Server answers requests by the models of a repository.
type Server struct {
	opts    Options
	host    *transport.Host
	metrics *metrics

	oip       *oip.Service
	tfServing *tfserving.Service

	resolver  *serveproto.Resolver // of gRPC's reflection
	questions intake.Slots         // of requests that ask a model
	admins    intake.Slots         // of those that change the server or list its models
	budget    *intake.Budget       // of both
	conns     intake.Conns
	sites     *sites
	streaming map[string]bool // the methods of gRPC, true for streams
	stages    stages
}

// stages begin the stages of a shutdown, as transport.Host has them.
type stages struct{ leave, drain, late, cut context.CancelFunc }

// New returns a server of the models of a repository that has not been started.
func New(models *repository.Repository, opts Options) (*Server, error) {
	opts.MaxRequestBytes = cmp.Or(opts.MaxRequestBytes, 8<<20)
	opts.MaxRequests = cmp.Or(opts.MaxRequests, 1024)
	opts.MaxConnections = cmp.Or(opts.MaxConnections, 16<<10)
	opts.MaxStreams = cmp.Or(opts.MaxStreams, 128)
	opts.MaxUnfinished = cmp.Or(opts.MaxUnfinished, max(256<<20, 4*opts.MaxRequestBytes))
	opts.MaxConnUnfinished = cmp.Or(opts.MaxConnUnfinished, opts.MaxUnfinished/2)
	opts.MaxMemory = cmp.Or(opts.MaxMemory, 320<<20)
	opts.MinRate = cmp.Or(opts.MinRate, 1<<10)
	opts.grace = cmp.Or(opts.grace, 5*time.Second)
	opts.RequestTimeout = cmp.Or(opts.RequestTimeout, time.Minute)
	opts.DrainTimeout = cmp.Or(opts.DrainTimeout, 30*time.Second)
	opts.ClientBurst = cmp.Or(opts.ClientBurst, int(max(1, min(math.Ceil(opts.ClientRate), 1<<20))))
	if opts.Logger == nil {
		opts.Logger = slog.New(slog.DiscardHandler)
	}
	resolver, err := serveproto.NewResolver()
	if err != nil {
		return nil, err
	}
	sites, err := newSites(opts.AllowedHosts, opts.AllowedOrigins)
	if err != nil {
		return nil, err
	}
	host := &transport.Host{
		Models: models, Version: opts.Version, Log: opts.Logger, MaxRequestBytes: opts.MaxRequestBytes,
		RequestTimeout: opts.RequestTimeout,
		LogLevel:       opts.LogLevel, Tracing: transport.NewTracing(),
		Guard: access.NewGuard(slices.Clone(opts.APIKeys), access.Limits{
			Rate: opts.ClientRate, Burst: opts.ClientBurst, AtOnce: opts.ClientRequests,
		}),
		Gate: intake.NewGate(intake.Limits{
			Bytes: opts.MaxUnfinished, ConnBytes: opts.MaxConnUnfinished, MinRate: opts.MinRate, Grace: opts.grace,
		}),
	}
	host.SetAdminToken(opts.AdminToken)
	var stages stages
	host.Leaving, stages.leave = context.WithCancel(context.Background())
	host.Draining, stages.drain = context.WithCancel(context.Background())
	host.Late, stages.late = context.WithCancel(context.Background())
	host.Cutting, stages.cut = context.WithCancel(context.Background())
	if opts.ClientSHM {
		host.SharedMemory = shm.New(shm.Dir)
	}
	s := &Server{
		opts: opts, host: host, metrics: newMetrics(host), resolver: resolver, stages: stages,
		oip: oip.New(host), tfServing: tfserving.New(host),
		questions: intake.Slots{Most: opts.MaxRequests}, admins: intake.Slots{Most: mostAdmins},
		budget: intake.NewBudget(opts.MaxMemory, opts.MaxUnfinished),
		conns:  intake.Conns{Most: opts.MaxConnections, Log: opts.Logger}, streaming: map[string]bool{}, sites: sites,
	}
	host.Questions, host.Ended = &s.questions, s.metrics.ended
	s.metrics.received(host.Gate, s.budget, &s.conns)
	s.metrics.cached(models)
	models.Observe(s.metrics.batch)
	models.ObserveLoads(s.metrics.load)
	host.Refused = s.metrics.refusal
	models.WarmUp(warmup.Run)
	return s, nil
}

// idleTimeout is how long a connection without requests is kept.
const idleTimeout = 5 * time.Minute

// mostAdmins is the number of requests at once that change the server or list its models. Questions do not take
// their places.
const mostAdmins = 32

// connKey is the key of a request's *intake.Conn in its context.
type connKey struct{}

// SetAdminToken replaces Options.AdminToken.
func (s *Server) SetAdminToken(token string) { s.host.SetAdminToken(token) }

// Serve serves HTTP and gRPC, either of which may be nil, until ctx ends. Then it is no longer ready; after
// Options.ShutdownDelay it takes no more connections, lets the requests under way end, and releases the models.
func (s *Server) Serve(ctx context.Context, overHTTP, overGRPC net.Listener) error {
	web := s.webServer()
	rpc := s.rpcServer()
	failed := make(chan error, 2)
	if overHTTP != nil {
		overHTTP = s.conns.Listen(overHTTP)
		go func() {
			if s.opts.TLS != nil {
				failed <- web.ServeTLS(overHTTP, "", "")
			} else {
				failed <- web.Serve(overHTTP)
			}
		}()
	}
	if overGRPC != nil {
		overGRPC = s.conns.Listen(overGRPC)
		go func() { failed <- rpc.Serve(overGRPC) }()
	}
	var err error
	select {
	case <-ctx.Done():
		s.opts.Logger.Info("shutting down", "delay", s.opts.ShutdownDelay, "at most", s.opts.DrainTimeout)
		s.stages.leave()
		select {
		case <-time.After(s.opts.ShutdownDelay):
		case err = <-failed:
		}
	case err = <-failed:
	}
	return errors.Join(err, s.shutdown(web, rpc))
}

func (s *Server) shutdown(web *http.Server, rpc *grpc.Server) error {
	s.stages.leave()
	s.stages.drain()
	late := time.AfterFunc(min(arrivalTime, s.opts.DrainTimeout/2), s.stages.late)
	defer late.Stop()
	drained := make(chan struct{}, 2)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	go func() {
		_ = web.Shutdown(ctx) // whose only other error is a listener's
		drained <- struct{}{}
	}()
	go func() {
		rpc.GracefulStop()
		drained <- struct{}{}
	}()
	var err error
	timeout := time.After(s.opts.DrainTimeout)
	for left := 2; left > 0; {
		select {
		case <-drained:
			left--
		case <-timeout:
			if err != nil { // for the second time
				_ = web.Close()
				rpc.Stop()
				left = 0
				continue
			}
			err = fmt.Errorf("some requests had not ended after %v: %w", s.opts.DrainTimeout, context.DeadlineExceeded)
			s.stages.late()
			s.stages.cut() // they end with an error
			timeout = time.After(cutTime)
		}
	}
	if s.host.SharedMemory != nil {
		err = errors.Join(err, s.host.SharedMemory.Unregister(""))
	}
	s.host.Models.Close()
	return err
}

const (
	arrivalTime = time.Second // for which a server that drains waits for requests that are not complete
	cutTime     = time.Second // for which it waits for errors to be written
)

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
		IdleTimeout:       idleTimeout,
		MaxHeaderBytes:    64 << 10,
		HTTP2:             &http.HTTP2Config{MaxConcurrentStreams: s.opts.MaxStreams},
		BaseContext:       func(l net.Listener) context.Context { return withListener(context.Background(), l) },
		ConnContext: func(ctx context.Context, _ net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, &intake.Conn{})
		},
		ErrorLog: slog.NewLogLogger(s.opts.Logger.Handler(), slog.LevelDebug),
	}
}

func (s *Server) rpcServer() *grpc.Server {
	creds := insecure.NewCredentials()
	if s.opts.TLS != nil {
		creds = credentials.NewTLS(s.opts.TLS)
	}
	return s.newRPC(append(s.rpcOptions(), grpc.Creds(s.host.Gate.Credentials(creds)))...)
}
