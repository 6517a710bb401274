package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/tfbert/go/internal/bench"
	"github.com/tfbert/go/internal/file"
	"github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/squad"
)

// serverFlags measure a server, by the questions of a SQuAD file.
type serverFlags struct {
	url, predictFile, model, caFile string
	stability                       bench.Stability
	percent                         float64
}

func (f *serverFlags) add(flags *pflag.FlagSet) {
	flags.StringVar(&f.url, "url", "",
		"`server` to measure in place of a model: http://, https://, grpc:// or grpcs:// with host and port")
	flags.StringVar(&f.predictFile, "predict_file", "",
		"with --url, SQuAD `file` with the questions to ask, in a random order (default: the bundled ones)")
	flags.StringVar(&f.model, "model_name", "", "with --url, `name` of the model to ask (default: the only one)")
	flags.StringVar(&f.caFile, "tls_ca_file", "",
		"with --url, `file` with the certificates that sign the server's (default: the system's)")
	flags.DurationVar(&f.stability.Interval, "measurement_interval", 5*time.Second,
		"with --url, `time` of an interval; three in a row that agree are the result")
	flags.Float64Var(&f.percent, "stability_percentage", 10,
		"with --url, per cent by which throughput and latency of the three may differ from their means")
	flags.IntVar(&f.stability.Most, "max_trials", 10, "with --url, intervals to measure before giving up")
	f.stability.Intervals = 3
}

// asker asks a server one question.
type serverAsker interface {
	ask(ctx context.Context, question, passage string, c *bench.Call) error
	Close() error
}

// run measures every concurrency that is listed.
func (f *serverFlags) run(
	cmd *cobra.Command, load bench.Load, concurrency []int, w bench.Writer[bench.ServerResult],
) error {
	f.stability.Tolerance = f.percent / 100
	switch {
	case f.stability.Interval <= 0 || f.percent <= 0:
		return usagef("--measurement_interval and --stability_percentage must be positive")
	case f.stability.Most < f.stability.Intervals:
		return usagef("--max_trials must be at least %d", f.stability.Intervals)
	}
	questions, err := f.questions(cmd.Context())
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	model, err := f.findModel(ctx)
	if err != nil {
		return err
	}
	asker, err := f.dial(model)
	if err != nil {
		return err
	}
	defer asker.Close()
	var next atomic.Int64
	ask := func(ctx context.Context, c *bench.Call) error {
		q := questions[int(next.Add(1)-1)%len(questions)]
		return asker.ask(ctx, q[0], q[1], c)
	}
	bar := newProgress("bench", "intervals", 0)
	defer bar.Done()
	for _, load.Concurrency = range concurrency {
		next.Store(0)
		calls, stable, err := bench.RunStable(ctx, ask, load, f.stability, func(n int) { bar.Set(int64(n)) })
		if err != nil {
			return err
		}
		r, err := bench.NewServerResult(f.url, model, load, calls, stable)
		if err != nil {
			return err
		}
		clearBar()
		if err := w.Write(&r); err != nil {
			return err
		}
	}
	return nil
}

// questions reads pairs of a question and its passage.
func (f *serverFlags) questions(ctx context.Context) ([][2]string, error) {
	path := f.predictFile
	if path == "" {
		models, err := bundledDir(ctx)
		if err != nil {
			return nil, fmt.Errorf("%w; or name questions with --predict_file", err)
		}
		path = filepath.Join(models, demoFile)
	}
	text, err := file.OpenText(path)
	if err != nil {
		return nil, err
	}
	defer text.Close()
	var pairs [][2]string
	for p, err := range squad.Paragraphs(text) {
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		for _, q := range p.QAs {
			pairs = append(pairs, [2]string{q.Question, p.Context})
		}
	}
	if len(pairs) == 0 {
		return nil, fmt.Errorf("%s has no questions", path)
	}
	// The questions of an article are alike: in the file's order, so would be those of an interval.
	rand.New(rand.NewPCG(1, 2)).Shuffle(len(pairs), func(i, k int) { pairs[i], pairs[k] = pairs[k], pairs[i] })
	return pairs, nil
}

// parse takes the URL apart.
func (f *serverFlags) parse() (scheme, host string, err error) {
	u, err := url.Parse(f.url)
	if err != nil || u.Host == "" || !strings.Contains(" http https grpc grpcs ", " "+u.Scheme+" ") {
		return "", "", usagef("--url is http://, https://, grpc:// or grpcs:// with host and port, not %q", f.url)
	}
	return u.Scheme, u.Host, nil
}

func (f *serverFlags) tls() (*tls.Config, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if f.caFile == "" {
		return config, nil
	}
	pem, err := os.ReadFile(f.caFile)
	if err != nil {
		return nil, err
	}
	config.RootCAs = x509.NewCertPool()
	if !config.RootCAs.AppendCertsFromPEM(pem) {
		return nil, fmt.Errorf("%s holds no certificate in PEM", f.caFile)
	}
	return config, nil
}

// findModel settles the model's name.
func (f *serverFlags) findModel(ctx context.Context) (string, error) {
	if f.model != "" {
		return f.model, nil
	}
	scheme, _, err := f.parse()
	if err != nil || strings.HasPrefix(scheme, "http") {
		return "", err // the server's only one
	}
	conn, err := f.connect()
	if err != nil {
		return "", err
	}
	defer conn.Close()
	index, err := serveproto.NewInferenceClient(conn).RepositoryIndex(ctx, &serveproto.RepositoryIndexRequest{Ready: true})
	if err != nil {
		return "", fmt.Errorf("%s: %w; or name the model with --model_name", f.url, err)
	}
	for _, m := range index.GetModels() {
		if !strings.HasSuffix(m.GetName(), "_qa") {
			return m.GetName(), nil
		}
	}
	return "", fmt.Errorf("%s has no model that is ready", f.url)
}

func (f *serverFlags) dial(model string) (serverAsker, error) {
	scheme, host, err := f.parse()
	if err != nil {
		return nil, err
	}
	if scheme == "grpc" || scheme == "grpcs" {
		conn, err := f.connect()
		if err != nil {
			return nil, err
		}
		return &rpcAsker{conn, serveproto.NewInferenceClient(conn), model + "_qa"}, nil
	}
	config, err := f.tls()
	if err != nil {
		return nil, err
	}
	return &webAsker{
		client: http.Client{Transport: &http.Transport{TLSClientConfig: config, MaxIdleConnsPerHost: 10000}},
		url:    scheme + "://" + host + "/v1/answer", model: model,
	}, nil
}

func (f *serverFlags) connect() (*grpc.ClientConn, error) {
	scheme, host, err := f.parse()
	if err != nil {
		return nil, err
	}
	creds := insecure.NewCredentials()
	if scheme == "grpcs" {
		config, err := f.tls()
		if err != nil {
			return nil, err
		}
		creds = credentials.NewTLS(config)
	}
	return grpc.NewClient(host, grpc.WithTransportCredentials(creds))
}

// webAsker asks /v1/answer.
type webAsker struct {
	client     http.Client
	url, model string
}

func (a *webAsker) Close() error {
	a.client.CloseIdleConnections()
	return nil
}

func (a *webAsker) ask(ctx context.Context, question, passage string, c *bench.Call) error {
	body, err := json.Marshal(map[string]string{"question": question, "context": passage, "model": a.model})
	if err != nil {
		return err
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, a.url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	r.Header.Set("Content-Type", "application/json")
	response, err := a.client.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	switch response.StatusCode {
	case http.StatusOK:
	case http.StatusTooManyRequests:
		c.Refused = true
		return nil
	default:
		return fmt.Errorf("%s: %s: %s", a.url, response.Status, bytes.TrimSpace(text))
	}
	var answer struct {
		Answer  *string `json:"answer"`
		Seconds struct {
			Queue   float64 `json:"queue"`
			Compute float64 `json:"compute"`
		} `json:"seconds"`
	}
	if err := json.Unmarshal(text, &answer); err != nil || answer.Answer == nil {
		return fmt.Errorf("%s: the response is not an answer: %.100s", a.url, text)
	}
	c.Queued, c.Compute = seconds(answer.Seconds.Queue), seconds(answer.Seconds.Compute)
	return nil
}

func seconds(s float64) time.Duration { return time.Duration(s * float64(time.Second)) }

// rpcAsker asks the text-in model by ModelInfer.
type rpcAsker struct {
	*grpc.ClientConn
	client serveproto.GRPCInferenceServiceClient
	model  string
}

func (a *rpcAsker) ask(ctx context.Context, question, passage string, c *bench.Call) error {
	input := func(name, text string) *serveproto.ModelInferRequest_InferInputTensor {
		return &serveproto.ModelInferRequest_InferInputTensor{
			Name: name, Datatype: "BYTES", Shape: []int64{1, 1},
			Contents: &serveproto.InferTensorContents{BytesContents: [][]byte{[]byte(text)}},
		}
	}
	response, err := a.client.ModelInfer(ctx, &serveproto.ModelInferRequest{
		ModelName: a.model,
		Inputs:    []*serveproto.ModelInferRequest_InferInputTensor{input("QUESTION", question), input("CONTEXT", passage)},
	})
	switch {
	case status.Code(err) == codes.ResourceExhausted:
		c.Refused = true
		return nil
	case err != nil:
		return err
	case len(response.GetRawOutputContents()) == 0:
		return fmt.Errorf("the response has no answer")
	}
	for name, d := range map[string]*time.Duration{"queue_us": &c.Queued, "compute_us": &c.Compute} {
		*d = time.Duration(response.GetParameters()[name].GetInt64Param()) * time.Microsecond
	}
	return nil
}
