package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.26.0"

	"github.com/tfbert/go/serve"
	"github.com/tfbert/go/serve/repository"
	"github.com/tfbert/go/serve/tfmodel"
	"github.com/tfbert/go/tf"
)

func newServe() *cobra.Command {
	c := &serveCommand{}
	groups := c.groups()
	cmd := &cobra.Command{
		Use:   "serve [--model M | --model_repository D]",
		Short: "Answer questions over HTTP and gRPC",
		Long: `Serve answers questions over HTTP and gRPC, in the protocols of Triton and KServe
(the Open Inference Protocol), of TensorFlow Serving and of Hugging Face's
question-answering task, and on a page for a browser. docs/serving.md lists
every request.

It serves one SavedModel (--model), a checkpoint (--init_checkpoint) or a folder
of models in Triton's layout, as NVIDIA's export script writes it
(--model_repository). Without any of these it serves the bundled model.

The first SIGINT or SIGTERM lets requests under way end; a second one stops
the server at once. SIGHUP reads the certificates, the admin token, the API keys
and models whose files have changed again.`,
		Example: `  tfbert serve
  curl -d '{"question":"Who wrote it?","context":"It was written by Ada Lovelace."}' localhost:8501/v1/answer

  # NVIDIA's exported models, reloaded on request
  tfbert serve --model_repository results/triton_models --model_control_mode explicit --admin_token_file token`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.network.fromVertex(cmd.Flags()); err != nil {
				return err
			}
			if err := checkGroups(groups); err != nil {
				return err
			}
			return c.run(cmd)
		},
	}
	addGroups(cmd, groups)
	cmd.AddCommand(newHashKey())
	return cmd
}

// serveCommand holds what the flags of serve say.
type serveCommand struct {
	models       modelsFlags
	network      networkFlags
	clients      clientFlags
	maxSeqLength int
	answers      decoderFlags
	batching     batchingFlags
	limits       limitFlags
	log          logFlags
}

func (c *serveCommand) run(cmd *cobra.Command) (err error) {
	ctx := cmd.Context()
	log := c.log.logger()
	options := c.limits.server
	options.LogLevel = &c.log.level
	options.ClientSHM = c.network.clientSHM
	options.Logger, options.Version = log, readVersion().Version
	options.AllowedHosts, options.AllowedOrigins = c.network.allowedHosts, c.network.allowedOrigins
	var certificates *certificates
	if options.TLS, certificates, err = c.network.tls(); err != nil {
		return err
	}
	signal.Ignore(syscall.SIGPIPE) // a server whose log nobody reads any more goes on
	if options.AdminToken, err = c.network.token(); err != nil {
		return err
	}
	if err := c.clients.set(&options); err != nil {
		return err
	}
	if err := vertexRoutes(&options); err != nil {
		return err
	}
	stopTracing, err := startTracing(ctx)
	if err != nil {
		return err
	}
	defer closing(&err, stopTracing)

	loader, err := c.loader(cmd, log)
	if err != nil {
		return err
	}
	models, load, err := c.models.open(cmd, repository.Options{
		Load: loader, Batching: c.batching.options(), Limits: c.limits.question, Decoder: c.answers.Decoder, Logger: log,
		CacheBytes: c.limits.cacheBytes,
	})
	if err != nil {
		return err
	}
	server, err := serve.New(models, options)
	if err != nil {
		return err
	}
	// The ports first: a server that cannot have them need not load its models.
	n := &c.network
	web, err := n.listen(n.httpPort, n.host)
	if err != nil {
		return err
	}
	rpc, err := n.listen(n.grpcPort, n.host)
	if err != nil {
		return err
	}
	admin, err := n.listen(n.adminPort, "127.0.0.1")
	if err != nil {
		return err
	}

	// It serves while it loads, so that clients learn that it is alive and not yet ready.
	ctx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	if admin != nil {
		log.Info("profiles", "address", admin.Addr().String(), "path", "/debug/pprof/")
		go func() {
			if err := server.ServeAdmin(ctx, admin); err != nil {
				stop(err)
			}
		}()
	}
	hangUps := make(chan os.Signal, 1)
	signal.Notify(hangUps, syscall.SIGHUP)
	defer signal.Stop(hangUps)
	loaded := make(chan struct{})
	go func() {
		defer close(loaded)
		if err := models.Start(ctx, load...); err != nil {
			stop(err)
			return
		}
		c.welcome(log, web, rpc)
		for {
			select {
			case <-hangUps:
				c.reload(ctx, server, models, certificates, log)
			case <-ctx.Done():
				return
			}
		}
	}()
	err = server.Serve(ctx, web, rpc)
	stop(nil)
	<-loaded
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return errors.Join(cause, err)
	}
	return err
}

// reload reads again what may change while the server runs: the certificates, the admin token, the API keys, and the
// models whose files have changed, with their configurations. What cannot be read stays as it was.
func (c *serveCommand) reload(
	ctx context.Context, server *serve.Server, models *repository.Repository, certificates *certificates, log *slog.Logger,
) {
	log.Info("reading certificates, token, keys and models again")
	if certificates != nil {
		if err := certificates.read(&c.network); err != nil {
			log.Error("the certificates cannot be read again", "error", err)
		}
	}
	if token, err := c.network.token(); err != nil {
		log.Error("the admin token cannot be read again", "error", err)
	} else {
		server.SetAdminToken(token)
	}
	if keys, err := c.clients.keys(); err != nil {
		log.Error("the API keys cannot be read again", "error", err)
	} else {
		server.SetAPIKeys(keys)
	}
	models.Refresh(ctx)
}

// welcome logs the addresses and says where to point a browser.
func (c *serveCommand) welcome(log *slog.Logger, web, rpc net.Listener) {
	if rpc != nil {
		log.Info("serving gRPC", "address", rpc.Addr().String())
	}
	if web != nil {
		scheme := "http"
		if c.network.cert != "" {
			scheme = "https"
		}
		log.Info("serving HTTP", "address", web.Addr().String())
		host, port, _ := net.SplitHostPort(web.Addr().String())
		if ip := net.ParseIP(host); ip == nil || ip.IsUnspecified() {
			host = "localhost"
		}
		say("tfbert: ask questions at %s://%s/", scheme, net.JoinHostPort(host, port))
	}
}

// loader returns what loads a model as the flags say.
func (c *serveCommand) loader(cmd *cobra.Command, log *slog.Logger) (repository.Loader, error) {
	model := &c.models.model
	if err := model.precision.lists.apply(); err != nil { // before TensorFlow is loaded
		return nil, err
	}
	model.trimPadding = true
	options, err := model.options(cmd.Flags())
	if err != nil {
		return nil, err
	}
	load := tfmodel.Loader(&tfmodel.Options{
		Model: *options, SeqLength: c.maxSeqLength, RequirePrecision: model.precision.require, Logger: log,
	})
	return func(ctx context.Context, s repository.Source) (*repository.Backend, error) {
		if os.Getenv("MALLOC_ARENA_MAX") == "" && !tf.Loaded() {
			tf.LimitArenas(runtime.NumCPU()) // so that models which come and go leave less behind
		}
		if err := loadTensorFlow(); err != nil { // with its log where it belongs
			return nil, err
		}
		return load(ctx, s)
	}, nil
}

// startTracing sends spans where the environment names a collector, by the variables of OpenTelemetry.
func startTracing(ctx context.Context) (stop func() error, err error) {
	variables := []string{"OTEL_TRACES_EXPORTER", "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"}
	if !slices.ContainsFunc(variables, func(name string) bool { return os.Getenv(name) != "" }) {
		return func() error { return nil }, nil
	}
	exporter, err := autoexport.NewSpanExporter(ctx)
	if err != nil {
		return nil, fmt.Errorf("tracing, which the OTEL_ variables ask for: %w", err)
	}
	service := []attribute.KeyValue{semconv.ServiceName("tfbert"), semconv.ServiceVersion(readVersion().Version)}
	about, err := resource.New(ctx,
		resource.WithAttributes(service...), resource.WithFromEnv(), resource.WithTelemetrySDK())
	if err != nil {
		return nil, err
	}
	provider := trace.NewTracerProvider(trace.WithBatcher(exporter), trace.WithResource(about))
	otel.SetTracerProvider(provider)
	otel.SetTextMapPropagator(propagation.NewCompositeTextMapPropagator(propagation.TraceContext{}, propagation.Baggage{}))
	return func() error {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 5*time.Second)
		defer cancel()
		return provider.Shutdown(ctx)
	}, nil
}
