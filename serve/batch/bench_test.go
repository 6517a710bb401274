package batch_test

import (
	"context"
	"fmt"
	"math"
	"sync"
	"testing"

	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/squad"
)

// free is a model whose results cost nothing to make.
var free = predictor(func(_ context.Context, f []squad.Feature) ([]squad.RawResult, error) {
	r := make([]squad.RawResult, len(f))
	for i := range f {
		r[i].UniqueID = f[i].UniqueID
	}
	return r, nil
})

// newBatcher returns a batcher that is closed when the benchmark ends.
func newBatcher(b *testing.B, p squad.Predictor, opts batch.Options) *batch.Batcher {
	batcher, err := batch.New(p, opts)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { batcher.Close() })
	return batcher
}

// mustDo runs a request and fails the benchmark on an error.
func mustDo(b *testing.B, batcher *batch.Batcher, r batch.Request) {
	if _, err := batcher.Do(b.Context(), r); err != nil {
		b.Error(err)
	}
}

// BenchmarkDo measures the time that the batcher adds to a request of one window.
func BenchmarkDo(b *testing.B) {
	r := batch.Request{Features: features(100, 1)}
	b.Run("serial", func(b *testing.B) {
		batcher := newBatcher(b, free, batch.Options{})
		b.ReportAllocs()
		for b.Loop() {
			mustDo(b, batcher, r)
		}
	})
	b.Run("parallel", func(b *testing.B) {
		batcher := newBatcher(b, free, batch.Options{})
		b.ReportAllocs()
		b.SetParallelism(16)
		b.RunParallel(func(p *testing.PB) {
			for p.Next() {
				mustDo(b, batcher, r)
			}
		})
	})
}

// BenchmarkWaiting measures the time of a window from its arrival to its result or cancellation, while many
// wait.
func BenchmarkWaiting(b *testing.B) {
	for _, n := range []int{100, 10_000, 100_000} {
		for _, cancelled := range []bool{false, true} {
			b.Run(fmt.Sprintf("windows=%d/cancelled=%v", n, cancelled), func(b *testing.B) {
				f := features(1, make([]int, n)...)
				for i := range f {
					f[i].Len = 1 + i%384
				}
				for b.Loop() {
					entered, hold := make(chan struct{}, 1), make(chan struct{})
					var once sync.Once
					model := predictor(func(ctx context.Context, f []squad.Feature) ([]squad.RawResult, error) {
						once.Do(func() { entered <- struct{}{}; <-hold })
						return free(ctx, f)
					})
					batcher, err := batch.New(model, batch.Options{MaxQueue: math.MaxInt32})
					if err != nil {
						b.Fatal(err)
					}
					var clients sync.WaitGroup
					clients.Go(func() { mustDo(b, batcher, batch.Request{Features: f[:1]}) })
					<-entered
					ctx, cancel := context.WithCancel(b.Context())
					for i := 0; i < n; i += 4 {
						clients.Go(func() { batcher.Do(ctx, batch.Request{Features: f[i:min(n, i+4)]}) })
					}
					for batcher.Waiting() < n {
					}
					if cancelled {
						cancel()
						for batcher.Waiting() > 0 {
						}
					}
					close(hold)
					clients.Wait()
					cancel()
					batcher.Close()
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N*n), "ns/window")
			})
		}
	}
}
