package serve

import (
	"net/http"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	pb "github.com/tfbert/go/internal/serveproto"
)

// raceDetector is set by race_test.go.
var raceDetector bool

// Large requests of the kinds from which most is made, 12 at once, do not take memory out of proportion.
func TestAttackTinyElements(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	f := startServer(t, &setup{})
	size, text := 8<<20, 1<<20
	if raceDetector { // it is 10 times as slow
		size, text = 256<<10, 512<<10
	}
	fill := func(size int, before, element, after string) string {
		n := (size - len(before) - len(after) - 8) / len(element)
		return before + strings.Repeat(element, n) + strings.TrimSuffix(element, ",") + after
	}
	conn := f.dial(t)
	contents := &pb.InferTensorContents{BytesContents: make([][]byte, size/2-1000)}
	message := &pb.ModelInferRequest{ModelName: "bert_qa", Inputs: []*pb.ModelInferRequest_InferInputTensor{
		{Name: "QUESTION", Datatype: "BYTES", Shape: []int64{1, 1}, Contents: contents},
	}}
	for _, attack := range []struct{ name, path, body string }{
		{"instances", "/v1/models/bert:predict", fill(size, `{"instances":[`, `1,`, `]}`)},
		{"columns of numbers", "/v1/models/bert:predict", fill(size, `{"inputs":{"input_ids":[`, `1,`, `]}}`)},
		{"columns of strings", "/v1/models/bert_qa:predict", fill(size, `{"inputs":{"QUESTION":[`, `"",`, `]}}`)},
		{"documents", "/v1/answer", fill(size, `{"question":"x","documents":[`, `"",`, `]}`)},
		{"shape", "/v2/models/bert/infer",
			fill(size, `{"inputs":[{"name":"input_ids","datatype":"INT32","shape":[`, `1,`, `],"data":[1]}]}`)},
		{"data", "/v2/models/bert/infer",
			fill(size, `{"inputs":[{"name":"input_ids","datatype":"INT32","shape":[1,4],"data":[`, `1,`, `]}]}`)},
		{"a string", "/v2/models/bert_qa/infer",
			fill(size, `{"inputs":[{"name":"QUESTION","datatype":"BYTES","shape":[1,1],"data":["`, `a`, `"]}]}`)},
		{"words", "/v1/answer", fill(text-100, `{"question":"x","context":"`, `a `, `"}`)},
		{"gRPC bytes_contents", "", ""},
	} {
		runtime.GC()
		debug.FreeOSMemory()
		before := heap()
		stop := make(chan struct{})
		var peak int64
		var watch, group sync.WaitGroup
		watch.Go(func() {
			for {
				peak = max(peak, heap()-before)
				select {
				case <-stop:
					return
				case <-time.After(5 * time.Millisecond):
				}
			}
		})
		web := client(t)
		web.Timeout = 0 // the machine may be busy
		for range 12 {
			group.Go(func() {
				if attack.path == "" {
					_, err := pb.NewInferenceClient(conn).ModelInfer(t.Context(), message)
					assert.ErrorContains(t, err, "more than 16384 messages and strings")
					return
				}
				r, err := web.Post(f.url+attack.path, "application/json", strings.NewReader(attack.body))
				if assert.NoError(t, err) {
					assert.Equal(t, http.StatusBadRequest, r.StatusCode)
					assert.Less(t, len(readAll(t, r)), 400)
				}
			})
		}
		group.Wait()
		close(stop)
		watch.Wait()
		t.Logf("12 requests of %s: %d MiB", attack.name, peak>>20)
		most := int64(450 << 20) // with 50 MiB of a process, that is less than 500
		if attack.name == "words" {
			most = 650 << 20
		}
		assert.Less(t, peak, most, attack.name)
	}
	assert.Zero(t, f.budget.Used())
	assert.Zero(t, f.budget.Waiting())
}

// heap returns the memory that the heap takes of the machine.
func heap() int64 {
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapSys - m.HeapReleased)
}
