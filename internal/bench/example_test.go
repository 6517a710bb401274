package bench_test

import (
	"context"
	"fmt"
	"time"

	"github.com/tfbert/go/internal/bench"
	"github.com/tfbert/go/squad"
)

// instant is a model that knows nothing.
type instant struct{}

func (instant) Predict(context.Context, []squad.Feature) ([]squad.RawResult, error) { return nil, nil }

// Batches of eight windows that arrive at random, 500 in a second.
func Example() {
	var model squad.Predictor = instant{}
	batch := make([]squad.Feature, 8)
	predict := func(ctx context.Context, _ *bench.Call) error {
		_, err := model.Predict(ctx, batch)
		return err
	}
	load := bench.Load{Warmup: 2, Duration: 100 * time.Millisecond, Rate: 500, Poisson: true}
	warmup, calls, err := bench.Run(context.Background(), predict, load, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	r := bench.NewResult(bench.Row{Model: "instant", PredictBatchSize: len(batch)}, load, warmup, calls)
	fmt.Println(r.Warmup, r.Batches, r.Latency.P50 <= r.Latency.P99)
	// Output: 2 64 true
}
