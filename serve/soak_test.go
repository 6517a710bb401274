package serve

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/tfbert/go/internal/fakemodel"
	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/internal/tfproto"
	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/serve/internal/tensor"
	"github.com/tfbert/go/serve/repository"
)

const (
	soakClients    = 16
	soakGoroutines = 60 * soakClients // at most, under load
	soakHeap       = 4 << 20          // bytes by which the heap may grow from the first quarter to the end
)

// A soak is a server under mixed traffic.
type soak struct {
	*fixture
	web       *http.Client
	inference pb.GRPCInferenceServiceClient
	predict   pb.PredictionServiceClient

	sent, answered, faults, reloads, failedLoads atomic.Int64
	wrong                                        atomic.Pointer[string]
	goroutines                                   atomic.Int64
}

// TestSoak serves traffic of all protocols with all kinds of faults for 3 s, or for the time in TFBERT_SOAK,
// such as 5m. No request may be lost or get the answer of another, and nothing may pile up.
func TestSoak(t *testing.T) {
	duration := 3 * time.Second
	if text := os.Getenv("TFBERT_SOAK"); text != "" {
		var err error
		duration, err = time.ParseDuration(text)
		require.NoError(t, err)
	}
	setup := &setup{
		models: fakemodel.Models{Delay: 5 * time.Millisecond},
		repo: repository.Options{
			Control:  repository.ControlExplicit,
			Batching: batch.Options{MaxDelay: 200 * time.Microsecond, Concurrency: 2},
		},
	}
	loads := atomic.Int64{}
	setup.models.OnLoad = func(context.Context, repository.Source) error {
		if loads.Add(1)%5 == 0 {
			return errors.New("told to fail")
		}
		return nil
	}
	f := startServer(t, setup)
	f.log.drop = true
	conn := f.dial(t)
	s := &soak{
		fixture: f, web: client(t), inference: pb.NewInferenceClient(conn), predict: pb.NewPredictionClient(conn),
	}
	_, err := s.inference.ServerLive(t.Context(), &pb.ServerLiveRequest{})
	require.NoError(t, err)
	requireNoLeaks := watchGoroutines(t)
	began := time.Now()
	heap := func() uint64 {
		s.web.CloseIdleConnections()
		for range 3 { // also for memory that finalizers and pools release
			runtime.GC()
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	s.sendTraffic(t, duration/4)
	quarter := heap()
	s.sendTraffic(t, duration-duration/4)
	end := heap()

	if p := s.wrong.Load(); p != nil {
		t.Error(*p)
	}
	assert.Equal(t, s.sent.Load(), s.answered.Load()+s.faults.Load(), "no request is lost")
	assert.Positive(t, s.reloads.Load())
	assert.Positive(t, s.failedLoads.Load())
	assert.Less(t, s.goroutines.Load(), int64(soakGoroutines))
	assert.Less(t, int64(end)-int64(quarter), int64(soakHeap), "bytes of heap")
	requireNoLeaks()
	eventually(t, "nothing is in the queue, and one model in memory", func() bool {
		m, err := f.host.Models.Acquire("bert", 0)
		require.NoError(t, err)
		defer m.Release()
		return m.Batcher().Waiting()+m.Batcher().Running() == 0 && f.models.Loaded() == 1
	})
	t.Logf("soak: %v, %d requests, %d answered, %d with the fault that was meant", time.Since(began).Round(time.Second/10),
		s.sent.Load(), s.answered.Load(), s.faults.Load())
	t.Logf("%d reloads and %d that failed, at most %d goroutines, heap %.1f MiB after a quarter and %.1f MiB at the end",
		s.reloads.Load(), s.failedLoads.Load(), s.goroutines.Load(), float64(quarter)/(1<<20), float64(end)/(1<<20))
}

// sendTraffic sends requests from several clients for a time, and reloads the model meanwhile.
func (s *soak) sendTraffic(t *testing.T, d time.Duration) {
	end := time.Now().Add(d)
	var group sync.WaitGroup
	for range soakClients {
		group.Go(func() {
			for time.Now().Before(end) && s.wrong.Load() == nil {
				s.sent.Add(1)
				fault, err := s.sendRequest(t.Context(), rand.IntN(fakemodel.Keys))
				switch {
				case err != nil:
					text := err.Error()
					s.wrong.CompareAndSwap(nil, &text)
				case fault:
					s.faults.Add(1)
				default:
					s.answered.Add(1)
				}
			}
		})
	}
	group.Go(func() {
		for time.Now().Before(end) {
			request := &pb.RepositoryModelLoadRequest{ModelName: "bert"}
			if _, err := s.inference.RepositoryModelLoad(t.Context(), request); err != nil {
				s.failedLoads.Add(1)
			} else {
				s.reloads.Add(1)
			}
			for range 10 {
				s.goroutines.Store(max(s.goroutines.Load(), int64(runtime.NumGoroutine())))
				time.Sleep(5 * time.Millisecond)
			}
		}
	})
	group.Wait()
}

// post sends a body and returns an error unless the response has a status and a text.
func (s *soak) post(ctx context.Context, path, body string, code int, want string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	response, err := s.web.Do(r)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	b, err := io.ReadAll(response.Body)
	if err != nil {
		return err
	}
	if response.StatusCode != code || !bytes.Contains(b, []byte(want)) {
		return fmt.Errorf("POST %s %s: %d %s, not %d %s", path, body, response.StatusCode, b, code, want)
	}
	return nil
}

// sendRequest sends a random kind of request for the nth key. A fault is one that is meant to fail.
func (s *soak) sendRequest(ctx context.Context, n int) (fault bool, err error) {
	key := fakemodel.Key(n)
	ask := func(word string) string {
		return fmt.Sprintf(`{"question":"find %s","context":"%sx %[2]s a %[1]s"}`, key, word)
	}
	var ids []int32
	for _, word := range []string{"[CLS]", key, "[SEP]", "find", key} {
		ids = append(ids, fakemodel.ID(word))
	}
	checkLogits := func(got []byte) error {
		starts, _ := fakemodel.Logits(ids, 1)
		if !bytes.Equal(got, tensor.AppendBinary(nil, &repository.Tensor{Float32s: starts})) {
			return errors.New("the logits of another request")
		}
		return nil
	}
	checkAnswer := func(r *pb.ModelInferResponse, err error) error {
		if err == nil && string(r.GetRawOutputContents()[0][4:]) != key {
			err = fmt.Errorf("%q instead of %q", r.GetRawOutputContents()[0][4:], key)
		}
		return err
	}
	checkCode := func(err error, code codes.Code) error {
		if status.Code(err) == code {
			return nil
		}
		return fmt.Errorf("%w instead of %v", err, code)
	}
	switch rand.IntN(24) {
	case 0, 1, 2:
		return false, s.post(ctx, "/v1/answer", ask(""), 200, `{"answer":"`+key+`"`)
	case 3:
		return false, s.post(ctx, "/v1/answer", `{"requests":[`+ask("")+`,`+ask("slow")+`]}`, 200, `,{"answer":"`+key+`"`)
	case 4:
		return false, s.post(ctx, "/", `{"inputs":[`+ask("")+`]}`, 200, `"answer":"`+key+`"`)
	case 5:
		body := textBody("find "+key, "a "+key)
		return false, s.post(ctx, "/v2/models/bert_qa/infer", body, 200, `"data":["`+key+`"]`)
	case 6:
		body := `{"instances":[{"QUESTION":"find ` + key + `","CONTEXT":"` + key + `"}]}`
		return false, s.post(ctx, "/v1/models/bert_qa:predict", body, 200, `{"ANSWER":"`+key+`"`)
	case 7:
		body := `{"question":"find ` + key + `","context":"` + strings.Repeat("x ", 600) + key +
			`","stream":true,"max_query_length":8,"doc_stride":60}`
		return false, s.post(ctx, "/v1/answer", body, 200, "\n{\"answer\":\""+key+`"`)
	case 8, 9, 10:
		return false, checkAnswer(s.inference.ModelInfer(ctx, textRequest(n)))
	case 11:
		r, err := s.inference.ModelInfer(ctx, tensorRequest(n%2 == 0, ids...))
		if err != nil {
			return false, err
		}
		return false, checkLogits(r.GetRawOutputContents()[0])
	case 12:
		ints := func(shape []int64, values ...int32) *tfproto.TensorProto {
			return &tfproto.TensorProto{Dtype: 3, TensorShape: tensor.ShapeProto(shape), IntVal: values}
		}
		shape := []int64{1, int64(len(ids))}
		r, err := s.predict.Predict(ctx, &pb.PredictRequest{
			ModelSpec: &pb.ModelSpec{Name: "bert"},
			Inputs: map[string]*tfproto.TensorProto{
				"input_ids": ints(shape, ids...), "input_mask": ints(shape, 1), "segment_ids": ints(shape, 0),
				"unique_ids": ints([]int64{1}, 1),
			},
		})
		if err != nil {
			return false, err
		}
		return false, checkLogits(floatBytes(r.GetOutputs()["start_logits"].GetFloatVal()))
	case 13:
		return false, s.sendStream(ctx, n)
	case 14:
		return true, s.post(ctx, "/v1/answer", ask("fail"), 500, "its log says why")
	case 15:
		return true, s.post(ctx, "/v1/answer", ask("crash"), 500, "its log says why")
	case 16:
		return true, s.post(ctx, "/v1/answer", ask("nan"), 500, "its log says why")
	case 17:
		return true, s.post(ctx, "/v1/answer", `{"question":`, 400, "is not JSON")
	case 18:
		_, err := s.inference.ModelInfer(ctx, askRequest("", "find "+key, "crash"))
		return true, checkCode(err, codes.Internal)
	case 19:
		ctx, cancel := context.WithTimeout(ctx, time.Duration(rand.IntN(3000))*time.Microsecond)
		defer cancel()
		if _, err := s.inference.ModelInfer(ctx, askRequest("", "find "+key, "slow")); err != nil {
			// It is refused at once if so little time is left that it would be late.
			if checkCode(err, codes.ResourceExhausted) == nil && strings.Contains(err.Error(), "the request would take") {
				return true, nil
			}
			return true, checkCode(err, codes.DeadlineExceeded)
		}
		return true, nil
	case 20:
		ctx, cancel := context.WithTimeout(ctx, time.Duration(rand.IntN(3000))*time.Microsecond)
		defer cancel()
		err := s.post(ctx, "/v1/answer", ask("slow"), 200, `{"answer":"`+key+`"`)
		if errors.Is(err, context.DeadlineExceeded) {
			return true, nil
		}
		return true, err
	case 21:
		return true, s.hangUp(ask("slow"))
	case 22:
		ctx, cancel := context.WithCancel(ctx)
		defer cancel()
		stream, err := s.inference.ModelStreamInfer(ctx)
		for range 5 {
			if err == nil {
				err = stream.Send(askRequest("", "find "+key, "slow"))
			}
		}
		return true, err // the stream is cancelled with answers under way
	}
	return true, s.post(ctx, "/v2/models/other/infer", tensorBody, 404, "there is no model")
}

// sendStream sends some requests over a stream, one of which fails.
func (s *soak) sendStream(ctx context.Context, n int) error {
	stream, err := s.inference.ModelStreamInfer(ctx)
	if err != nil {
		return err
	}
	for i := range 10 {
		r := textRequest(n + i)
		if i == 5 {
			r = askRequest("", "find w1", "fail")
		}
		if err := stream.Send(r); err != nil {
			return err
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for i := range 10 {
		r, err := stream.Recv()
		if err != nil {
			return err
		}
		if i == 5 {
			if !strings.Contains(r.GetErrorMessage(), "its log says why") {
				return fmt.Errorf("%v has no error", r)
			}
			continue
		}
		got, want := string(r.GetInferResponse().GetRawOutputContents()[0][4:]), fakemodel.Key(n+i)
		if r.GetErrorMessage() != "" || got != want {
			return fmt.Errorf("%q %q instead of %q", got, r.GetErrorMessage(), want)
		}
	}
	if _, err = stream.Recv(); !errors.Is(err, io.EOF) {
		return fmt.Errorf("the stream ends with %w", err)
	}
	return nil
}

// hangUp sends a request, all of it or half, and does not wait for the answer.
func (s *soak) hangUp(body string) error {
	conn, err := net.Dial("tcp", s.url[len("http://"):])
	if err != nil {
		return err
	}
	defer conn.Close()
	text := fmt.Sprintf("POST /v1/answer HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	_, err = io.WriteString(conn, text[:len(text)/(1+rand.IntN(2))])
	time.Sleep(time.Duration(rand.IntN(2000)) * time.Microsecond)
	return err
}
