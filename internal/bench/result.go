package bench

import "time"

// A Row is what one result is about.
type Row struct {
	Model            string `json:"model"` // "base", or the name of a file or folder
	Graph            string `json:"graph"`
	Precision        string `json:"precision"` // that was asked for
	MaxSeqLength     int    `json:"max_seq_length"`
	PredictBatchSize int    `json:"predict_batch_size"`
}

// A Result is what was measured of a row.
type Result struct {
	Row
	Concurrency int     `json:"concurrency"`
	Rate        float64 `json:"request_rate,omitempty"` // batches a second; 0: a closed loop
	Poisson     bool    `json:"poisson,omitempty"`
	Warmup      int     `json:"warmup"` // batches
	Batches     int     `json:"batches"`
	Seconds     float64 `json:"seconds"`
	Throughput  float64 `json:"throughput"` // sequences a second
	Latency     Stats   `json:"latency_ms"` // of a batch
	Queue       *Stats  `json:"queue_ms,omitempty"`

	Reference *Reference `json:"run_squad,omitempty"` // nil where the script would fail

	// PeakMemory is the most memory in bytes that the process had resident, or 0 if the system does not
	// tell: while this row was measured or, if PeakOf is "process", since the process began.
	PeakMemory int64  `json:"peak_memory_bytes,omitempty"`
	PeakOf     string `json:"peak_memory_of,omitempty"`

	Proof string `json:"precision_proof,omitempty"` // what really ran in which type
	Note  string `json:"note,omitempty"`            // why the figures are not what one might expect

	Environment *Environment `json:"environment,omitempty"`
}

// An Environment is where results were measured.
type Environment struct {
	CPU      string   `json:"cpu"`
	CPUs     int      `json:"cpus"`
	BFloat16 []string `json:"bfloat16_units"` // as /proc/cpuinfo names them
	// BFloat16Cost is the time of a matrix product in bfloat16 over that in float32, or 0 if it was not
	// measured.
	BFloat16Cost float64  `json:"bfloat16_cost,omitempty"`
	Memory       int64    `json:"memory_bytes,omitempty"`
	GPUs         []string `json:"gpus,omitempty"`
	OS           string   `json:"os"`
	Arch         string   `json:"arch"`
	TensorFlow   string   `json:"tensorflow"`
	Library      string   `json:"library"`
	Go           string   `json:"go"`
	Version      string   `json:"tfbert"`
}

// NewResult computes a result from a run of l.
func NewResult(row Row, l Load, warmup, calls Calls) Result {
	elapsed, batch := calls.Elapsed(), row.PredictBatchSize
	r := Result{
		Row: row, Concurrency: max(1, l.Concurrency), Rate: l.Rate, Poisson: l.Poisson && l.Rate > 0,
		Warmup: len(warmup), Batches: len(calls), Seconds: elapsed.Seconds(),
		Throughput: float64(len(calls)*batch) / elapsed.Seconds(),
		Latency:    NewStats(calls.Times(Call.Latency)),
	}
	if l.Rate > 0 {
		queue := NewStats(calls.Times(Call.Wait))
		r.Queue = &queue
	}
	var services []time.Duration
	for _, c := range []Calls{warmup, calls} {
		services = append(services, c.Times(Call.Service)...)
	}
	r.Reference = newReference(services, warmup.Elapsed()+elapsed, batch)
	return r
}
