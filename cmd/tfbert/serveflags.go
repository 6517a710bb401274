package main

import (
	"cmp"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tfbert/go/internal/archive"
	"github.com/tfbert/go/serve"
	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/serve/repository"
	"github.com/tfbert/go/tfbert"
)

// groups are the flags of serve in the order in which a person needs them.
func (c *serveCommand) groups() []flagGroup {
	model, answers := &c.models.model, &c.answers
	return []flagGroup{
		{"Models", c.models.add, c.models.check},
		{"Addresses", c.network.add, func() error { return c.network.check(c.models.control == "explicit") }},
		{"Clients", c.clients.add, c.clients.check},
		{"Answers", func(f *pflag.FlagSet) {
			f.IntVar(&c.maxSeqLength, "max_seq_length", 0,
				"word pieces of a window, with question and markers (0: what suits the model)")
			answers.add(f)
			model.addTokenizer(f)
		}, answers.check},
		{"Batching", c.batching.add, c.batching.check},
		{"Limits", c.limits.add, c.limits.check},
		{"Precision", model.precision.add, nil},
		{"TensorFlow", func(f *pflag.FlagSet) {
			model.session.add(f)
			model.allowOps.add(f)
		}, nil},
		{"Log", c.log.add, c.log.check},
	}
}

// modelsFlags name the models to serve.
type modelsFlags struct {
	model modelFlags
	graph string
	name  string

	repository string
	configFile string
	control    string
	load       []string
	pollSecs   float64
}

func (m *modelsFlags) add(f *pflag.FlagSet) {
	m.model.addSource(f)
	f.StringVar(&m.graph, "graph", tfbert.FusedGraph,
		"`graph` that a checkpoint is exported as: fused (faster) or reference")
	f.StringVar(&m.name, "model_name", "", "`name` to serve the one model under (default: its folder's)")
	f.StringVar(&m.repository, "model_repository", "",
		"`folder` of models in Triton's layout: NAME/config.pbtxt, NAME/1/model.savedmodel")
	f.StringVar(&m.configFile, "model_config_file", "",
		"`file` that names models, their versions and labels in TensorFlow Serving's form (model_config_list)")
	f.StringVar(&m.control, "model_control_mode", "none",
		"`when` models are loaded after the start: none (never), explicit (when a client asks) or poll (when files change)")
	f.StringSliceVar(&m.load, "load_model", nil,
		"`names` of the models to load at the start with --model_control_mode explicit")
	f.Float64Var(&m.pollSecs, "repository_poll_secs", 15,
		"`seconds` between two looks at the files with --model_control_mode poll")
}

func (m *modelsFlags) check() error {
	switch {
	case m.configFile != "" && (m.repository != "" || m.model.model != "" || m.model.initCheckpoint != "" || m.name != ""):
		return usagef("--model_config_file excludes --model_repository, --model, --init_checkpoint and --model_name")
	case m.repository != "" && (m.model.model != "" || m.model.initCheckpoint != ""):
		return usagef("--model_repository excludes --model and --init_checkpoint")
	case m.repository != "" && m.name != "":
		return usagef("--model_name is for one model: those of --model_repository have their folders' names")
	case m.graph != tfbert.FusedGraph && m.graph != tfbert.ReferenceGraph:
		return usagef("--graph is fused or reference, not %q", m.graph)
	case len(m.load) > 0 && m.control != "explicit":
		return usagef("--load_model needs --model_control_mode explicit")
	case m.pollSecs < 0.1 || m.pollSecs > 1e6:
		return usagef("--repository_poll_secs must be at least 0.1")
	}
	if _, err := repository.ParseControl(m.control); err != nil {
		return usagef("--model_control_mode is none, explicit or poll, not %q", m.control)
	}
	return m.model.check()
}

// open returns the repository that the flags name, and the models to load at the start.
func (m *modelsFlags) open(
	cmd *cobra.Command, opts repository.Options,
) (_ *repository.Repository, load []string, err error) {
	if opts.Control, err = repository.ParseControl(m.control); err != nil {
		return nil, nil, err
	}
	opts.PollInterval = time.Duration(m.pollSecs * float64(time.Second))
	if m.configFile != "" {
		r, err := repository.OpenConfig(m.configFile, opts)
		return r, m.load, err
	}
	if m.repository != "" {
		r, err := repository.OpenDir(m.repository, opts)
		return r, m.load, err
	}
	if err := m.model.named(cmd.Context()); err != nil {
		return nil, nil, err
	}
	dir, err := m.dir(cmd)
	if err != nil {
		return nil, nil, err
	}
	name, version := modelName(dir)
	if m.model.model == "" {
		name = cmp.Or(checkpointName(m.model.initCheckpoint), bundledName)
	}
	name = cmp.Or(m.name, name)
	load = m.load
	if len(load) == 0 { // the one model is to be served even where clients load models
		load = []string{name}
	}
	r, err := repository.OpenModel(name, version, dir, opts)
	return r, load, err
}

// dir returns the folder of the one model to serve, which may have to be exported first.
func (m *modelsFlags) dir(cmd *cobra.Command) (string, error) {
	if m.model.model != "" {
		return findModel(m.model.model)
	}
	opts := &tfbert.ExportOptions{
		Graph: m.graph, ConfigFile: m.model.bertConfigFile, VocabFile: m.model.tokenizer.vocabFile, Head: m.model.head,
	}
	if m.graph == tfbert.FusedGraph {
		asked, err := m.model.precision.asked(cmd.Flags())
		if err != nil {
			return "", err
		}
		if opts.Precision, err = choosePrecision(asked, ""); err != nil {
			return "", err
		}
	}
	path := m.model.initCheckpoint
	if path == "" {
		var err error
		if path, err = bundledCheckpoint(cmd.Context()); err != nil {
			return "", err
		}
	}
	return cachedModel(cmd, path, opts)
}

// modelName returns the name and the version of a SavedModel by its place: NAME/1/model.savedmodel, NAME/1 or
// NAME.
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

// checkpointName returns the name of a checkpoint's folder or archive.
func checkpointName(path string) string {
	if path == "" {
		return ""
	}
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	if packed, _, ok := archive.Split(path); ok {
		return archive.Base(packed)
	}
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		path = filepath.Dir(path) // a prefix such as model.ckpt
	}
	return filepath.Base(path)
}

// networkFlags say where the server listens, and who may do what.
type networkFlags struct {
	host                          string
	httpPort, grpcPort, adminPort int
	cert, key, clientCA           string
	tokenFile                     string
	allowedHosts, allowedOrigins  []string
	clientSHM                     bool
}

func (n *networkFlags) add(f *pflag.FlagSet) {
	f.StringVar(&n.host, "host", "127.0.0.1", "`address` to listen on; 0.0.0.0 for all")
	f.IntVar(&n.httpPort, "http_port", 8501, "`port` for HTTP (-1: none, 0: any)")
	f.IntVar(&n.grpcPort, "grpc_port", 8500, "`port` for gRPC (-1: none, 0: any)")
	f.IntVar(&n.adminPort, "admin_port", -1, "`port` for profiles (/debug/pprof) on 127.0.0.1 (-1: none, 0: any)")
	f.StringVar(&n.tokenFile, "admin_token_file", "",
		"`file` with the bearer token that a client needs to load models, unload them and take profiles")
	f.StringSliceVar(&n.allowedHosts, "allowed_hosts", nil,
		"`names` that requests may be sent to, such as x.example.com or *.example.com, beside those of this machine")
	f.StringSliceVar(&n.allowedOrigins, "allowed_origins", nil,
		"`origins` of other sites' pages that may send requests, such as https://example.com or *")
	f.BoolVar(&n.clientSHM, "allow_client_shm", false,
		"let clients of this machine register system shared memory and have tensors in it")
	f.StringVar(&n.cert, "tls_cert_file", "", "`file` with the server's certificate, to serve over TLS")
	f.StringVar(&n.key, "tls_key_file", "", "`file` with the certificate's key")
	f.StringVar(&n.clientCA, "tls_client_ca_file", "",
		"`file` with certificate authorities, to serve only clients that have a certificate from one of them")
}

func (n *networkFlags) check(clientsLoad bool) error {
	switch {
	case n.httpPort < 0 && n.grpcPort < 0:
		return usagef("--http_port and --grpc_port are both off: nothing would be served")
	case (n.cert == "") != (n.key == ""):
		return usagef("--tls_cert_file and --tls_key_file need each other")
	case n.clientCA != "" && n.cert == "":
		return usagef("--tls_client_ca_file needs --tls_cert_file")
	case n.clientSHM && !loopback(n.host):
		return usagef("--allow_client_shm is for clients of this machine: it needs a loopback --host, not %s", n.host)
	case clientsLoad && n.tokenFile == "" && !loopback(n.host):
		return usagef("on %s anyone could load and unload models: set --admin_token_file", n.host)
	}
	for _, origin := range n.allowedOrigins {
		if origin != "*" && http.NewCrossOriginProtection().AddTrustedOrigin(origin) != nil {
			return usagef("--allowed_origins takes * or origins such as https://example.com, not %q", origin)
		}
	}
	return nil
}

func loopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

func (n *networkFlags) listen(port int, host string) (net.Listener, error) {
	if port < 0 {
		return nil, nil
	}
	l, err := net.Listen("tcp", net.JoinHostPort(host, strconv.Itoa(port)))
	if err != nil {
		return nil, fmt.Errorf("%w: choose another one with --http_port, --grpc_port, --admin_port or --host", err)
	}
	return l, nil
}

func (n *networkFlags) token() (string, error) {
	if n.tokenFile == "" {
		return "", nil
	}
	text, err := os.ReadFile(n.tokenFile)
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", fmt.Errorf("%s is empty: it should hold the admin token", n.tokenFile)
	}
	return token, nil
}

// certificates are a TLS configuration that can be read again while it is in use.
type certificates struct{ current atomic.Pointer[tls.Config] }

// tls returns the configuration of the flags, nil without TLS, and what reads its files again.
func (n *networkFlags) tls() (*tls.Config, *certificates, error) {
	if n.cert == "" {
		return nil, nil, nil
	}
	c := &certificates{}
	if err := c.read(n); err != nil {
		return nil, nil, err
	}
	return &tls.Config{
		MinVersion:         tls.VersionTLS12,
		GetConfigForClient: func(*tls.ClientHelloInfo) (*tls.Config, error) { return c.current.Load(), nil },
	}, c, nil
}

// read reads the files. If it returns an error, what was read before stays in use.
func (c *certificates) read(n *networkFlags) error {
	config, err := n.readTLS()
	if err == nil {
		c.current.Store(config)
	}
	return err
}

func (n *networkFlags) readTLS() (*tls.Config, error) {
	pair, err := tls.LoadX509KeyPair(n.cert, n.key)
	if err != nil {
		return nil, fmt.Errorf("%s, %s: %w", n.cert, n.key, err)
	}
	config := &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12, NextProtos: []string{"h2", "http/1.1"},
	}
	if n.clientCA != "" {
		pem, err := os.ReadFile(n.clientCA)
		if err != nil {
			return nil, err
		}
		config.ClientCAs, config.ClientAuth = x509.NewCertPool(), tls.RequireAndVerifyClientCert
		if !config.ClientCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("%s holds no certificate in PEM", n.clientCA)
		}
	}
	return config, nil
}

// batchingFlags say how windows share batches.
type batchingFlags struct {
	batch.Options
	delayMicros, waitMicros int
}

func (b *batchingFlags) add(f *pflag.FlagSet) {
	f.IntVar(&b.MaxSize, "max_batch_size", 8, "windows of a batch, at most")
	f.IntVar(&b.MaxTokens, "max_batch_tokens", 0,
		"tokens of a batch, at most: its windows times the longest (0: no limit)")
	f.IntSliceVar(&b.PreferredSizes, "preferred_batch_size", nil,
		"`sizes` of batches that run without waiting for more windows")
	f.IntSliceVar(&b.Buckets, "length_buckets", nil,
		"ascending `lengths`: only windows between the same two share a batch (default: every 32)")
	f.IntVar(&b.delayMicros, "max_queue_delay_microseconds", 0,
		"microseconds that a window may wait for others although the model is free")
	f.IntVar(&b.waitMicros, "default_timeout_microseconds", 0,
		"microseconds after which a request that still waits is refused (0: never)")
	f.IntVar(&b.MaxQueue, "max_queue_size", 1024, "requests that may wait; further ones are refused")
	f.IntVar(&b.Priorities, "priority_levels", 1, "levels of a request's priority, of which 1 is the most urgent")
	f.IntVar(&b.Concurrency, "instance_count", 2,
		"batches that run at once: with two, the model is never idle between them")
}

func (b *batchingFlags) check() error {
	if b.delayMicros < 0 || b.waitMicros < 0 {
		return usagef("--max_queue_delay_microseconds and --default_timeout_microseconds must not be negative")
	}
	return nil
}

func (b *batchingFlags) options() batch.Options {
	opts := b.Options
	opts.MaxDelay = time.Duration(b.delayMicros) * time.Microsecond
	opts.MaxWait = time.Duration(b.waitMicros) * time.Microsecond
	return opts
}

// limitFlags bound what requests may cost.
type limitFlags struct {
	question   repository.Limits
	server     serve.Options
	cacheBytes int64
}

func (l *limitFlags) add(f *pflag.FlagSet) {
	f.Int64Var(&l.server.MaxRequestBytes, "max_request_bytes", 8<<20, "bytes of a request")
	f.IntVar(&l.question.QuestionBytes, "max_question_bytes", 16<<10, "bytes of a question")
	f.IntVar(&l.question.DocumentBytes, "max_document_bytes", 1<<20, "bytes of a question's documents")
	f.IntVar(&l.question.Windows, "max_windows", 1024, "windows of a question's documents")
	f.IntVar(&l.server.MaxRequests, "max_concurrent_requests", 1024,
		"complete requests at once; further ones are refused")
	f.IntVar(&l.server.MaxConnections, "max_connections", 16<<10,
		"connections at once; then the one that was idle longest is closed")
	f.IntVar(&l.server.MaxStreams, "max_streams", 128, "requests at once of a connection of HTTP/2 or gRPC")
	f.Int64Var(&l.server.MaxUnfinished, "max_unfinished_bytes", 0,
		"bytes of all requests that are not complete, half of them of one connection "+
			"(0: 256 MiB, or 4 times --max_request_bytes if that is more)")
	f.Int64Var(&l.server.MaxMemory, "max_request_memory", 320<<20,
		"bytes of memory for what is made from complete requests; further ones wait")
	f.Int64Var(&l.cacheBytes, "response_cache_bytes", 0,
		"`bytes` of results to keep for requests that come again (0: none); "+
			"a model with a config.pbtxt uses them if that enables response_cache")
	f.Int64Var(&l.server.MinRate, "min_request_rate", 1<<10,
		"bytes per second that must come of a request that is not complete")
	f.DurationVar(&l.server.RequestTimeout, "request_timeout", time.Minute, "`time` that a request may take")
	f.DurationVar(&l.server.ShutdownDelay, "shutdown_delay", 0,
		"`time` for which a server that stops is not ready and still takes requests")
	f.DurationVar(&l.server.DrainTimeout, "drain_timeout", 30*time.Second,
		"`time` that requests under way have to end then")
}

func (l *limitFlags) check() error {
	switch {
	case l.server.MaxRequestBytes < 1 || l.question.QuestionBytes < 1 || l.question.DocumentBytes < 1 ||
		l.question.Windows < 1 || l.server.MaxRequests < 1 || l.server.MaxConnections < 1 || l.server.MaxStreams < 1 ||
		l.server.MinRate < 1:
		return usagef("--max_request_bytes, --max_question_bytes, --max_document_bytes, --max_windows, " +
			"--max_concurrent_requests, --max_connections, --max_streams and --min_request_rate must be positive")
	case l.server.MaxUnfinished != 0 && l.server.MaxUnfinished < 4*l.server.MaxRequestBytes:
		return usagef("--max_unfinished_bytes must be at least 4 times --max_request_bytes")
	case l.server.MaxMemory < 1<<20:
		return usagef("--max_request_memory must be at least 1 MiB")
	case l.cacheBytes < 0:
		return usagef("--response_cache_bytes must not be negative")
	case l.server.RequestTimeout <= 0 || l.server.DrainTimeout <= 0:
		return usagef("--request_timeout and --drain_timeout must be positive")
	case l.server.ShutdownDelay < 0:
		return usagef("--shutdown_delay must not be negative")
	}
	return nil
}

// logFlags say how the server logs.
type logFlags struct {
	format string
	level  slog.LevelVar // which clients may change
}

func (l *logFlags) add(f *pflag.FlagSet) {
	f.StringVar(&l.format, "log_format", "text",
		"`form` of the log on standard error: text or json; --verbose logs every request")
}

func (l *logFlags) check() error {
	if l.format != "text" && l.format != "json" {
		return usagef("--log_format is text or json, not %q", l.format)
	}
	return nil
}

func (l *logFlags) logger() *slog.Logger {
	options := &slog.HandlerOptions{Level: &l.level}
	if verbose {
		l.level.Set(slog.LevelDebug)
	}
	var w belowBar
	if l.format == "json" {
		jsonLog = slog.New(slog.NewJSONHandler(w, options))
		return jsonLog
	}
	return slog.New(slog.NewTextHandler(w, options))
}
