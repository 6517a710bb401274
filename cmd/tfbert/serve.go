package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"go.opentelemetry.io/contrib/exporters/autoexport"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/sdk/resource"
	"go.opentelemetry.io/otel/sdk/trace"
	semconv "go.opentelemetry.io/otel/semconv/v1.26.0"

	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/serve"
	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/serve/repository"
	"github.com/tfbert/go/tf"
	"github.com/tfbert/go/tfbert"
)

func newServe() *cobra.Command {
	var c serveCommand
	cmd := &cobra.Command{
		Use:   "serve [--model M | --model_repository D]",
		Short: "Answer questions over HTTP and gRPC",
		Long: `Serve answers questions over HTTP and gRPC, in the protocols of Triton and KServe
(the Open Inference Protocol), of TensorFlow Serving and of Hugging Face's
question-answering task, and on a page for a browser. docs/serving.md has all
verbs.

It serves one SavedModel (--model), a checkpoint (--init_checkpoint), a folder of
models in Triton's layout, as NVIDIA's export script writes it
(--model_repository), or without any of these the bundled model.

The first SIGINT or SIGTERM lets the requests under way end, a second one does
not.`,
		Example: `  tfbert serve
  curl -d '{"question":"Who wrote it?","context":"It was written by Ada Lovelace."}' localhost:8501/v1/answer

  # NVIDIA's exported models, reloaded on request
  tfbert serve --model_repository results/triton_models --model_control_mode explicit --admin_token_file token`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := c.check(); err != nil {
				return err
			}
			return c.run(cmd)
		},
	}
	c.add(cmd.Flags())
	return cmd
}

// serveCommand is what the flags of serve say.
type serveCommand struct {
	model        modelFlags
	decoder      decoderFlags
	repository   string
	name         string
	graph        string
	maxSeqLength int

	control  string
	load     []string
	pollSecs float64

	host                          string
	httpPort, grpcPort, adminPort int
	cert, key, clientCA           string
	tokenFile                     string
	logFormat                     string

	batching                batch.Options
	delayMicros, waitMicros int
	limits                  repository.Limits
	options                 serve.Options
}

func (c *serveCommand) add(f *pflag.FlagSet) {
	c.model.add(f)
	c.decoder.add(f)
	f.StringVar(&c.repository, "model_repository", "", "`folder` of models in Triton's layout: NAME/config.pbtxt, NAME/1/model.savedmodel")
	f.StringVar(&c.name, "model_name", "", "`name` to serve the one model under (default: its folder's)")
	f.StringVar(&c.graph, "graph", tfbert.FusedGraph, "`graph` that a checkpoint is exported as: fused (faster) or reference")
	f.IntVar(&c.maxSeqLength, "max_seq_length", 0, "word pieces of a window, with question and markers (0: the model's own)")

	f.StringVar(&c.control, "model_control_mode", "none", "`when` models are loaded after the start: none, explicit (as clients ask) or poll (as the files change)")
	f.StringSliceVar(&c.load, "load_model", nil, "with explicit, `names` of the models to load at the start")
	f.Float64Var(&c.pollSecs, "repository_poll_secs", 15, "with poll, seconds from one look at the files to the next")

	f.StringVar(&c.host, "host", "127.0.0.1", "`address` to listen on; 0.0.0.0 for all")
	f.IntVar(&c.httpPort, "http_port", 8501, "port for HTTP (-1: none, 0: any)")
	f.IntVar(&c.grpcPort, "grpc_port", 8500, "port for gRPC (-1: none, 0: any)")
	f.IntVar(&c.adminPort, "admin_port", -1, "port for profiles, /debug/pprof, on 127.0.0.1 (-1: none, 0: any)")
	f.StringVar(&c.cert, "tls_cert_file", "", "`file` with the server's certificate: serve over TLS")
	f.StringVar(&c.key, "tls_key_file", "", "`file` with its key")
	f.StringVar(&c.clientCA, "tls_client_ca_file", "", "`file` with the certificates that sign the clients', which they must have")
	f.StringVar(&c.tokenFile, "admin_token_file", "", "`file` with the bearer token that loading, unloading and profiles want")
	f.StringVar(&c.logFormat, "log_format", "text", "`form` of the log on standard error: text or json; --verbose logs every request")

	f.IntVar(&c.batching.MaxSize, "max_batch_size", 8, "windows of a batch")
	f.IntSliceVar(&c.batching.PreferredSizes, "preferred_batch_size", nil, "`sizes` of batches that do not wait for more")
	f.IntVar(&c.batching.MaxTokens, "max_batch_tokens", 0, "tokens of a batch, at most: its windows times the longest (0: no limit)")
	f.IntSliceVar(&c.batching.Buckets, "length_buckets", nil, "ascending `lengths`: windows share a batch with those between the same two (default: every 32)")
	f.IntVar(&c.delayMicros, "max_queue_delay_microseconds", 0, "microseconds that a window may wait for others although the model is free")
	f.IntVar(&c.batching.MaxQueue, "max_queue_size", 1024, "windows that may wait; requests beyond are refused")
	f.IntVar(&c.waitMicros, "default_timeout_microseconds", 0, "microseconds after which a request that still waits is refused (0: never)")
	f.IntVar(&c.batching.Priorities, "priority_levels", 1, "levels of a request's priority, of which 1 is the most urgent")
	f.IntVar(&c.batching.Concurrency, "instance_count", 2, "batches that run at once: with two the model is not idle between them")

	f.Int64Var(&c.options.MaxRequestBytes, "max_request_bytes", 8<<20, "bytes of a request")
	f.IntVar(&c.limits.QuestionBytes, "max_question_bytes", 16<<10, "bytes of a question")
	f.IntVar(&c.limits.DocumentBytes, "max_document_bytes", 1<<20, "bytes of a question's documents")
	f.IntVar(&c.limits.Windows, "max_windows", 1024, "windows of a question's documents")
	f.IntVar(&c.options.MaxRequests, "max_concurrent_requests", 1024, "requests at once; those beyond are refused")
	f.DurationVar(&c.options.RequestTimeout, "request_timeout", time.Minute, "`time` that a request may take")
	f.DurationVar(&c.options.DrainTimeout, "drain_timeout", 30*time.Second, "`time` that requests have to end when the server does")
}

func (c *serveCommand) check() error {
	switch {
	case c.repository != "" && (c.model.model != "" || c.model.initCheckpoint != ""):
		return usagef("--model_repository excludes --model and --init_checkpoint")
	case c.repository != "" && c.name != "":
		return usagef("--model_name goes with one model: those of --model_repository have their folders' names")
	case c.graph != tfbert.FusedGraph && c.graph != tfbert.ReferenceGraph:
		return usagef("--graph is fused or reference, not %q", c.graph)
	case len(c.load) > 0 && c.control != "explicit":
		return usagef("--load_model goes with --model_control_mode explicit")
	case c.pollSecs < 0.1 || c.pollSecs > 1e6:
		return usagef("--repository_poll_secs must be at least 0.1")
	case c.httpPort < 0 && c.grpcPort < 0:
		return usagef("--http_port and --grpc_port are both off: nothing would be served")
	case (c.cert == "") != (c.key == ""):
		return usagef("--tls_cert_file and --tls_key_file go together")
	case c.clientCA != "" && c.cert == "":
		return usagef("--tls_client_ca_file goes with --tls_cert_file")
	case c.logFormat != "text" && c.logFormat != "json":
		return usagef("--log_format is text or json, not %q", c.logFormat)
	case c.delayMicros < 0 || c.waitMicros < 0:
		return usagef("--max_queue_delay_microseconds and --default_timeout_microseconds must not be negative")
	case c.options.MaxRequestBytes < 1 || c.limits.QuestionBytes < 1 || c.limits.DocumentBytes < 1 || c.limits.Windows < 1 || c.options.MaxRequests < 1:
		return usagef("--max_request_bytes, --max_question_bytes, --max_document_bytes, --max_windows and --max_concurrent_requests must be positive")
	case c.options.RequestTimeout <= 0 || c.options.DrainTimeout <= 0:
		return usagef("--request_timeout and --drain_timeout must be positive")
	case c.control == "explicit" && c.tokenFile == "" && !loopback(c.host):
		return usagef("on %s anyone could load and unload models: set --admin_token_file", c.host)
	}
	if err := c.decoder.check(); err != nil {
		return err
	}
	return c.model.check()
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (c *serveCommand) run(cmd *cobra.Command) (err error) {
	ctx := cmd.Context()
	log := c.logger()
	c.options.Logger, c.options.Version = log, readVersion().Version
	if c.options.TLS, err = c.tls(); err != nil {
		return err
	}
	if c.tokenFile != "" {
		token, err := os.ReadFile(c.tokenFile)
		if err != nil {
			return err
		}
		if c.options.AdminToken = strings.TrimSpace(string(token)); c.options.AdminToken == "" {
			return fmt.Errorf("%s is empty: it should hold the admin token", c.tokenFile)
		}
	}
	stopTracing, err := startTracing(ctx)
	if err != nil {
		return err
	}
	defer closing(&err, stopTracing)

	c.batching.MaxDelay = time.Duration(c.delayMicros) * time.Microsecond
	c.batching.MaxWait = time.Duration(c.waitMicros) * time.Microsecond
	models, err := c.open(cmd, repository.Options{
		Batching: c.batching, Limits: c.limits, Decoder: c.decoder.Decoder,
		PollInterval: time.Duration(c.pollSecs * float64(time.Second)), Logger: log,
	})
	if err != nil {
		return err
	}
	server, err := serve.New(models, c.options)
	if err != nil {
		return err
	}
	// The ports first: a server that has none need not load its models.
	web, err := c.listen(c.httpPort, c.host)
	if err != nil {
		return err
	}
	rpc, err := c.listen(c.grpcPort, c.host)
	if err != nil {
		return err
	}
	admin, err := c.listen(c.adminPort, "127.0.0.1")
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
	loaded := make(chan struct{})
	go func() {
		defer close(loaded)
		if err := models.Start(ctx, c.load...); err != nil {
			stop(err)
			return
		}
		c.welcome(log, web, rpc)
	}()
	err = server.Serve(ctx, web, rpc)
	<-loaded
	if cause := context.Cause(ctx); cause != nil && !errors.Is(cause, context.Canceled) {
		return errors.Join(cause, err)
	}
	return err
}

// welcome says where to point a browser.
func (c *serveCommand) welcome(log *slog.Logger, web, rpc net.Listener) {
	if rpc != nil {
		log.Info("serving gRPC", "address", rpc.Addr().String())
	}
	if web != nil {
		scheme := "http"
		if c.cert != "" {
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

func (c *serveCommand) logger() *slog.Logger {
	options := &slog.HandlerOptions{Level: slog.LevelInfo}
	if verbose {
		options.Level = slog.LevelDebug
	}
	var w belowBar
	if c.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, options))
	}
	return slog.New(slog.NewTextHandler(w, options))
}

func (c *serveCommand) listen(port int, host string) (net.Listener, error) {
	if port < 0 {
		return nil, nil
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return nil, fmt.Errorf("%w: choose another one by --http_port, --grpc_port, --admin_port or --host", err)
	}
	return l, nil
}

func (c *serveCommand) tls() (*tls.Config, error) {
	if c.cert == "" {
		return nil, nil
	}
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	if err != nil {
		return nil, fmt.Errorf("%s, %s: %w", c.cert, c.key, err)
	}
	config := &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	if c.clientCA != "" {
		pem, err := os.ReadFile(c.clientCA)
		if err != nil {
			return nil, err
		}
		config.ClientCAs, config.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		if !config.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate in PEM", c.clientCA)
		}
	}
	return config, nil
}

// open makes the repository that the flags name.
func (c *serveCommand) open(cmd *cobra.Command, opts repository.Options) (*repository.Repository, error) {
	var err error
	if opts.Control, err = repository.ParseControl(c.control); err != nil {
		return nil, usagef("--model_control_mode is none, explicit or poll, not %q", c.control)
	}
	opts.Load = func(_ context.Context, s repository.Source) (*repository.Backend, error) { return c.backend(cmd, s) }
	if c.repository != "" {
		return repository.OpenDir(c.repository, opts)
	}
	dir, err := c.dir(cmd)
	if err != nil {
		return nil, err
	}
	name, version := modelName(dir)
	if c.model.model == "" {
		name = cmp.Or(checkpointName(c.model.initCheckpoint), bundledName)
	}
	name = cmp.Or(c.name, name)
	if c.control == "explicit" && len(c.load) == 0 {
		c.load = []string{name}
	}
	return repository.OpenModel(name, version, dir, opts)
}

// dir finds the one model to serve, exporting a checkpoint the first time.
func (c *serveCommand) dir(cmd *cobra.Command) (string, error) {
	if c.model.model != "" {
		return c.model.model, nil
	}
	opts := &tfbert.ExportOptions{Graph: c.graph, ConfigFile: c.model.bertConfigFile, VocabFile: c.model.tokenizer.vocabFile}
	if c.graph == tfbert.FusedGraph {
		asked, err := c.model.precision.asked(cmd.Flags())
		if err != nil {
			return "", err
		}
		if opts.Precision, err = choosePrecision(asked, ""); err != nil {
			return "", err
		}
	}
	path := c.model.initCheckpoint
	if path == "" {
		models, err := bundledDir()
		if err != nil {
			return "", err
		}
		path = filepath.Join(models, bundledName)
	}
	return cachedModel(cmd, path, opts)
}

// modelName gives a name and a version to a SavedModel by where it is: NAME/1/model.savedmodel, NAME/1
// or NAME.
func modelName(dir string) (name string, version int64) {
	if abs, err := filepath.Abs(dir); err == nil {
		dir = abs
	}
	if filepath.Base(dir) == "model.savedmodel" {
		dir = filepath.Dir(dir)
	}
	if v, err := strconv.ParseInt(filepath.Base(dir), 10, 64); err == nil && v > 0 {
		return filepath.Base(filepath.Dir(dir)), v
	}
	return filepath.Base(dir), 1
}

// checkpointName is the folder's name, or that of a zip.
func checkpointName(path string) string {
	if path == "" {
		return ""
	}
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	if info, err := os.Stat(path); err != nil || !info.IsDir() && filepath.Ext(path) != ".zip" {
		path = filepath.Dir(path) // a prefix such as model.ckpt
	}
	return strings.TrimSuffix(filepath.Base(path), ".zip")
}

// backend opens a model as the flags and its configuration say.
func (c *serveCommand) backend(cmd *cobra.Command, s repository.Source) (*repository.Backend, error) {
	flags := c.model
	flags.model, flags.initCheckpoint, flags.trimPadding = s.Dir, "", true
	if flags.tokenizer.vocabFile == "" {
		flags.tokenizer.vocabFile = vocabOf(s)
	}
	if asked, err := flags.precision.asked(cmd.Flags()); err != nil {
		return nil, err
	} else if asked == "" && s.MixedPrecision {
		if err := tfbert.FP16Support(); err == nil {
			flags.precision.precision = string(tfbert.FP16)
		} else {
			warn("%s: its configuration asks for auto_mixed_precision, which is for GPUs: it runs in fp32, since %v; see --precision",
				s.Name, err)
		}
	}
	m, err := flags.open(cmd)
	if err != nil {
		return nil, err
	}
	b := &repository.Backend{
		Predictor: m, Tokenizer: m.Tokenizer(), SeqLength: cmp.Or(c.maxSeqLength, m.SeqLength()), CheckLength: m.CheckLength,
		Segments:    m.TypeVocabSize(),
		Close:       m.Close,
		Description: fmt.Sprintf("%s graph", cmp.Or(m.Settings().Graph, "unknown")),
	}
	err = m.CheckLength(b.SeqLength)
	meta := m.SavedModel().MetaGraph()
	signature, signatureErr := meta.Signature(savedmodel.DefaultSignature)
	if err = errors.Join(err, signatureErr); err != nil {
		return nil, errors.Join(err, m.Close())
	}
	b.Inputs, b.Outputs = tensorInfos(signature.Inputs), tensorInfos(signature.Outputs)
	return b, nil
}

// vocabOf finds the vocabulary in the folder of a model of a repository; "" leaves it to be found
// beside the SavedModel.
func vocabOf(s repository.Source) string {
	path := filepath.Join(s.ModelDir, "vocab.txt")
	if _, err := os.Stat(path); s.ModelDir == "" || err != nil {
		return ""
	}
	return path
}

func tensorInfos(from []savedmodel.TensorInfo) []repository.TensorInfo {
	types := map[tf.DataType]string{tf.Int32: repository.Int32, tf.Float: repository.Float32}
	var infos []repository.TensorInfo
	for _, t := range from {
		if kind, ok := types[t.DType]; ok {
			infos = append(infos, repository.TensorInfo{Name: t.Key, Type: kind, Shape: t.Shape, TensorName: t.Name})
		}
	}
	return infos
}

// startTracing sends spans where the environment names a collector, by the variables of OpenTelemetry.
func startTracing(ctx context.Context) (stop func() error, err error) {
	if os.Getenv("OTEL_TRACES_EXPORTER") == "" && os.Getenv("OTEL_EXPORTER_OTLP_ENDPOINT") == "" && os.Getenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT") == "" {
		return func() error { return nil }, nil
	}
	exporter, err := autoexport.NewSpanExporter(ctx)
	if err != nil {
		return nil, fmt.Errorf("tracing, which the OTEL_ variables ask for: %w", err)
	}
	about, err := resource.New(ctx, resource.WithAttributes(semconv.ServiceName("tfbert"), semconv.ServiceVersion(readVersion().Version)),
		resource.WithFromEnv(), resource.WithTelemetrySDK())
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
