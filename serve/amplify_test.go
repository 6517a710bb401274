package serve

import (
	"bytes"
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

// Bodies of many tiny elements do not take memory out of proportion: 12 requests of 8 MB at once.
func TestAttackTinyElements(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	f := startServer(t, &setup{})
	const size = 8 << 20
	fill := func(before, element, after string) string {
		n := (size - len(before) - len(after) - 8) / len(element)
		return before + strings.Repeat(element, n) + strings.TrimSuffix(element, ",") + after
	}
	conn := f.dial(t)
	contents := &pb.InferTensorContents{BytesContents: make([][]byte, size/2-1000)}
	message := &pb.ModelInferRequest{ModelName: "bert_qa", Inputs: []*pb.ModelInferRequest_InferInputTensor{
		{Name: "QUESTION", Datatype: "BYTES", Shape: []int64{1, 1}, Contents: contents},
	}}
	for _, attack := range []struct{ name, path, body string }{
		{"instances", "/v1/models/bert:predict", fill(`{"instances":[`, `1,`, `]}`)},
		{"columns of numbers", "/v1/models/bert:predict", fill(`{"inputs":{"input_ids":[`, `1,`, `]}}`)},
		{"columns of strings", "/v1/models/bert_qa:predict", fill(`{"inputs":{"QUESTION":[`, `"",`, `]}}`)},
		{"documents", "/v1/answer", fill(`{"question":"x","documents":[`, `"",`, `]}`)},
		{"shape", "/v2/models/bert/infer",
			fill(`{"inputs":[{"name":"input_ids","datatype":"INT32","shape":[`, `1,`, `],"data":[1]}]}`)},
		{"data", "/v2/models/bert/infer",
			fill(`{"inputs":[{"name":"input_ids","datatype":"INT32","shape":[1,4],"data":[`, `1,`, `]}]}`)},
		{"gRPC bytes_contents", "", ""},
	} {
		runtime.GC()
		debug.FreeOSMemory()
		var before runtime.MemStats
		runtime.ReadMemStats(&before)
		stop := make(chan struct{})
		var peak uint64
		var watch, group sync.WaitGroup
		watch.Go(func() {
			for {
				var m runtime.MemStats
				runtime.ReadMemStats(&m)
				peak = max(peak, m.HeapInuse)
				select {
				case <-stop:
					return
				case <-time.After(2 * time.Millisecond):
				}
			}
		})
		web := client(t)
		for range 12 {
			group.Go(func() {
				if attack.path == "" {
					_, err := pb.NewInferenceClient(conn).ModelInfer(t.Context(), message)
					assert.ErrorContains(t, err, "more than 16384 messages and strings")
					return
				}
				r, err := web.Post(f.url+attack.path, "application/json", bytes.NewReader([]byte(attack.body)))
				if assert.NoError(t, err) {
					assert.Equal(t, http.StatusBadRequest, r.StatusCode)
					assert.Less(t, len(readAll(t, r)), 400)
				}
			})
		}
		group.Wait()
		close(stop)
		watch.Wait()
		assert.Less(t, peak-before.HeapInuse, uint64(700<<20), attack.name) // as the client's bodies are in it
		t.Logf("%s: %d MiB", attack.name, (peak-before.HeapInuse)>>20)
	}
}
