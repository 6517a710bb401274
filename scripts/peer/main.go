// Command peer is tfbert's side of scripts/bench_peers.py. It opens a model, does the work that each line of standard
// input describes, and answers with a line of what the work took.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"os"
	"syscall"
	"time"

	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/squad"
	"github.com/tfbert/go/squad/logits"
	"github.com/tfbert/go/tfbert"
)

// task is a line of standard input.
type task struct {
	Work    string  `json:"work"`    // full: windows without padding; dev: the questions of the data
	Batch   int     `json:"batch"`   // windows of a batch
	Length  int     `json:"length"`  // of a full window
	Seconds float64 `json:"seconds"` // the least duration of full
	Stride  int     `json:"stride"`
	Data    string  `json:"data"`   // the SQuAD file of dev
	Out     string  `json:"out"`    // folder for the answers of dev
	Logits  string  `json:"logits"` // file for the logits of dev; "" for none
}

// answer is a line of standard output.
type answer struct {
	Items   int     `json:"items"` // windows
	Seconds float64 `json:"seconds"`
	CPU     float64 `json:"cpu"` // seconds on all processors
}

func main() {
	log.SetFlags(0)
	log.SetPrefix("peer: ")
	model := flag.String("model", "", "model `directory`")
	xla := flag.Bool("xla", false, "compile with XLA")
	flag.Parse()
	if err := serve(*model, *xla); err != nil {
		log.Fatal(err)
	}
}

func serve(model string, xla bool) (err error) {
	m, err := tfbert.Open(model, &tfbert.Options{TrimPadding: true, Config: savedmodel.Config{XLA: xla}})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, m.Close()) }()
	fmt.Println("ready")
	in, out := json.NewDecoder(os.Stdin), json.NewEncoder(os.Stdout)
	for {
		var t task
		if err := in.Decode(&t); errors.Is(err, io.EOF) {
			return nil
		} else if err != nil {
			return fmt.Errorf("read a task: %w", err)
		}
		work := full
		if t.Work == "dev" {
			work = dev
		}
		a, err := work(context.Background(), m, &t)
		if err != nil {
			return err
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
}

// full runs batches of full windows. The first one does not count: between two turns, others use the caches.
func full(ctx context.Context, m *tfbert.Model, t *task) (answer, error) {
	random := rand.New(rand.NewPCG(1, 2))
	features := make([]squad.Feature, t.Batch)
	for i := range features {
		f := squad.Feature{UniqueID: int32(i), Len: t.Length}
		for k := range t.Length {
			f.InputIDs = append(f.InputIDs, random.Int32N(int32(m.Tokenizer().Vocab.Len())))
			f.InputMask = append(f.InputMask, 1)
			f.SegmentIDs = append(f.SegmentIDs, int32(min(1, 3*k/t.Length)))
		}
		features[i] = f
	}
	if _, err := m.Predict(ctx, features); err != nil {
		return answer{}, err
	}
	c := start()
	for n := 1; ; n++ {
		if _, err := m.Predict(ctx, features); err != nil {
			return answer{}, err
		}
		if a := c.stop(n * t.Batch); n >= 2 && a.Seconds >= t.Seconds {
			return a, nil
		}
	}
}

// dev answers the questions of a file and writes the answers, as "tfbert predict" does.
func dev(ctx context.Context, m *tfbert.Model, t *task) (_ answer, err error) {
	in, err := os.Open(t.Data)
	if err != nil {
		return answer{}, err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	a := m.Answerer()
	a.BatchSize, a.Featurizer.MaxSeqLength, a.Featurizer.DocStride = t.Batch, t.Length, t.Stride
	windows := 0
	var saved *logits.Writer
	if t.Logits != "" {
		if saved, err = logits.Create(t.Logits, t.Length); err != nil {
			return answer{}, err
		}
		defer func() { err = errors.Join(err, saved.Close()) }()
	}
	a.OnExample = func(w *squad.Windows, results []squad.RawResult) error {
		windows += len(w.Features)
		if saved != nil {
			return saved.Write(results)
		}
		return nil
	}
	c := start()
	files, err := squad.CreateFiles(t.Out, false)
	if err != nil {
		return answer{}, err
	}
	defer func() { err = errors.Join(err, files.Abort()) }()
	for p, err := range a.AnswerAll(ctx, squad.Examples(in)) {
		if err != nil {
			return answer{}, err
		}
		if err := files.Write(&p); err != nil {
			return answer{}, err
		}
	}
	if err := files.Commit(); err != nil {
		return answer{}, err
	}
	return c.stop(windows), nil
}

// clock measures the time since it was started, and what this process used of the processors.
type clock struct {
	began time.Time
	cpu   time.Duration
}

func start() clock { return clock{time.Now(), cpuTime()} }

func (c clock) stop(items int) answer {
	return answer{Items: items, Seconds: time.Since(c.began).Seconds(), CPU: (cpuTime() - c.cpu).Seconds()}
}

func cpuTime() time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		log.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
