package corpus_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/corpus"
	"github.com/tfbert/go/squad"
)

// echo answers each question with the word of the passage that it asks for, and counts what it answers.
type echo struct {
	asked atomic.Int64
	fail  func(id string) error
}

func (e *echo) answer(
	ctx context.Context, examples iter.Seq2[*squad.Example, error],
) iter.Seq2[squad.Prediction, error] {
	return func(yield func(squad.Prediction, error) bool) {
		for ex, err := range examples {
			if err == nil && e.fail != nil {
				err = e.fail(ex.ID)
			}
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				yield(squad.Prediction{}, err)
				return
			}
			e.asked.Add(1)
			at := 0
			for i, w := range ex.Words {
				if w == ex.Question {
					at = i
				}
			}
			c := squad.Candidate{Text: ex.Words[at], Probability: 0.75, StartLogit: 1.5, EndLogit: 0.1, StartWord: at, EndWord: at}
			if !yield(squad.Prediction{ID: ex.ID, Answer: c.Text, NBest: []squad.Candidate{c}, NullOdds: -2}, nil) {
				return
			}
		}
	}
}

func line(n int) string {
	return fmt.Sprintf(`{"id": "q%d", "question": "w%[1]d", "context": "é w%[1]d x"}`+"\n", n)
}

func lines(n int) string {
	var b strings.Builder
	for i := range n {
		b.WriteString(line(i))
	}
	return b.String()
}

func write(t testing.TB, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	var b bytes.Buffer
	var w io.WriteCloser
	switch filepath.Ext(name) {
	case ".gz":
		w = gzip.NewWriter(&b)
	case ".zst":
		z, err := zstd.NewWriter(&b)
		require.NoError(t, err)
		w = z
	default:
		b.WriteString(text)
	}
	if w != nil {
		_, err := io.WriteString(w, text)
		require.NoError(t, err)
		require.NoError(t, w.Close())
	}
	require.NoError(t, os.WriteFile(path, b.Bytes(), 0o600))
	return path
}

func plan(t testing.TB, size int, paths ...string) *corpus.Plan {
	t.Helper()
	p, err := corpus.MakePlan(t.Context(), paths, size)
	require.NoError(t, err)
	return p
}

func merged(t testing.TB, dir string, p *corpus.Plan) (string, *corpus.Summary) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "answers.jsonl")
	sink, err := corpus.JSONL(path)
	require.NoError(t, err)
	s, err := corpus.Merge(t.Context(), dir, p, sink)
	require.NoError(t, err)
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text), s
}

var fingerprint = corpus.Fingerprint{"model": "sha256:1", "max_seq_length": "384"}

func run(t testing.TB, dir string, p *corpus.Plan, chunks []corpus.Chunk) {
	t.Helper()
	w := &corpus.Worker{Dir: dir, Plan: p, Fingerprint: fingerprint, NBest: true, Answer: new(echo).answer}
	for _, c := range chunks {
		_, err := w.Do(t.Context(), c)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
}

// Every form of the same questions gives the same answers, in the order of the inputs.
func TestForms(t *testing.T) {
	in := t.TempDir()
	table, dataset := "context,id,other,question\n", `{"version":"1.1","data":[{"title":"t","paragraphs":[`
	for i := range 10 {
		table += fmt.Sprintf("\"é w%d x\",q%[1]d,,w%[1]d\n", i)
		if i > 0 {
			dataset += ","
		}
		dataset += fmt.Sprintf(`{"context":"é w%d x","qas":[{"id":"q%[1]d","question":"w%[1]d"}]}`, i)
	}
	dataset += "]}]}"
	want := ""
	for i := range 10 {
		want += fmt.Sprintf(`{"id":"q%d","answer":"w%[1]d","start":2,"end":4,"probability":0.75,"start_logit":1.5,"end_logit":0.1,`+
			`"nbest":[{"text":"w%[1]d","probability":0.75,"start_logit":1.5,"end_logit":0.1}]}`+"\n", i)
	}
	for name, text := range map[string]string{
		"a.jsonl": lines(10), "a.jsonl.gz": lines(10), "a.ndjson.zst": lines(10), "b.jsonl": "\ufeff" + lines(10),
		"crlf.jsonl": strings.ReplaceAll(lines(10), "\n", "\r\n\r\n"), "open.jsonl": strings.TrimSuffix(lines(10), "\n"),
		"a.csv": table, "a.csv.gz": table, "bom.csv": "\ufeff" + table, "a.json": dataset, "a.json.zst": dataset,
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, in, name, text)
			for _, size := range []int{1, 3, 10, 512} {
				p := plan(t, size, path)
				assert.Len(t, p.Chunks, (10+size-1)/size)
				dir := t.TempDir()
				for i := range 3 { // in any order
					share, err := p.Share(2-i, 3)
					require.NoError(t, err)
					run(t, dir, p, share)
				}
				got, s := merged(t, dir, p)
				assert.Equal(t, want, got)
				assert.Equal(t, []int64{10, 10, 0}, []int64{s.Questions, s.Answers, s.Dead})
			}
		})
	}
}

// What is not a question is a dead letter that says why, and the others are answered.
func TestDeadLetters(t *testing.T) {
	in := t.TempDir()
	path := write(t, in, "bad.jsonl", line(0)+"nonsense\n"+`{"id":1,"question":"w1"}`+"\n"+
		`{"id":[],"question":"w1","context":"w1"}`+"\n"+`{"question":"w7","document":"w7"}`+"\n\n"+
		`{"question":7,"context":"c"}`+"\n"+`{"question":"  ","context":"c"}`+"\n"+"{\"question\":\"\xff\",\"context\":\"c\"}\n"+
		`{"question":"long","context":"`+strings.Repeat("x", 17<<20)+"\"}\n"+line(9))
	table := write(t, in, "bad.csv", "id,question,context\n1,w1,w1\n2,w2\n3,\"w\"x,y\n4,w4,w4\n")
	p := plan(t, 4, path, table)
	dir := t.TempDir()
	run(t, dir, p, p.Chunks)
	text, s := merged(t, dir, p)
	var ids []string
	for l := range strings.Lines(text) {
		id, _, _ := strings.Cut(strings.TrimPrefix(l, `{"id":"`), `"`)
		ids = append(ids, id)
	}
	assert.Equal(t, []string{"q0", "bad.jsonl:5", "q9", "1", "4"}, ids)
	var dead []string
	for _, c := range p.Chunks {
		r, err := corpus.ReadRecord(dir, c)
		require.NoError(t, err)
		for _, d := range r.Dead {
			dead = append(dead, fmt.Sprintf("%s:%d: %s", filepath.Base(d.File), d.Line, d.Reason))
		}
	}
	assert.Equal(t, []string{
		"bad.jsonl:2: it is not a JSON object", "bad.jsonl:3: it has no context", "bad.jsonl:4: id must be a string or a number",
		"bad.jsonl:7: question must be a string", "bad.jsonl:8: its question is empty", "bad.jsonl:9: it is not UTF-8",
		"bad.jsonl:10: the line is longer than 16777216 bytes",
		"bad.csv:3: it has no context", `bad.csv:4: extraneous or missing " in quoted-field`,
	}, dead)
	assert.EqualValues(t, len(dead), s.Dead)
}

// A worker that is killed at any time leaves nothing that counts, and the chunks that are done are not done again.
func TestInterrupted(t *testing.T) {
	path := write(t, t.TempDir(), "a.jsonl", lines(100))
	p := plan(t, 10, path)
	clean := t.TempDir()
	run(t, clean, p, p.Chunks)
	want, _ := merged(t, clean, p)

	dir := t.TempDir()
	stop := errors.New("the power went out")
	e := &echo{}
	for n := 0; n < 100; n += 7 {
		e.fail = func(id string) error {
			if id == fmt.Sprintf("q%d", n) {
				return stop
			}
			return nil
		}
		w := &corpus.Worker{Dir: dir, Plan: p, Fingerprint: fingerprint, NBest: true, Answer: e.answer}
		for _, c := range p.Chunks {
			if _, err := w.Do(t.Context(), c); err != nil {
				require.ErrorIs(t, err, stop)
				require.ErrorContains(t, err, fmt.Sprintf("chunk %d, from line %d of %s: ", c.Index, c.Line, path))
				break
			}
		}
		require.NoError(t, w.Close())
	}
	asked := e.asked.Load()
	_, err := corpus.Merge(t.Context(), dir, p, nopSink{})
	var incomplete *corpus.IncompleteError
	require.ErrorAs(t, err, &incomplete)
	assert.EqualError(t, err, "1 of 10 chunks of "+dir+" are not done: 9")

	e.fail = nil
	w := &corpus.Worker{Dir: dir, Plan: p, Fingerprint: fingerprint, NBest: true, Answer: e.answer}
	for _, c := range p.Chunks {
		_, err := w.Do(t.Context(), c)
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	assert.EqualValues(t, 10, e.asked.Load()-asked, "only the chunk that was not done")
	got, _ := merged(t, dir, p)
	assert.Equal(t, want, got)
}

type nopSink struct{}

func (nopSink) Chunk([]byte) error { return nil }
func (nopSink) Commit() error      { return nil }
func (nopSink) Abort() error       { return nil }

// Workers that do the same chunks at the same time write the same, and nothing is counted twice.
func TestTwice(t *testing.T) {
	path := write(t, t.TempDir(), "a.jsonl.gz", lines(50))
	p := plan(t, 5, path)
	dir := t.TempDir()
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			w := &corpus.Worker{Dir: dir, Plan: p, Fingerprint: fingerprint, Answer: new(echo).answer}
			for i := range p.Chunks {
				_, err := w.Do(t.Context(), p.Chunks[len(p.Chunks)-1-i]) // so that each is before the last
				assert.NoError(t, err)
			}
			assert.NoError(t, w.Close())
		})
	}
	group.Wait()
	text, s := merged(t, dir, p)
	assert.Equal(t, 50, strings.Count(text, "\n"))
	assert.EqualValues(t, 50, s.Answers)
}

// The answers of two models, and of two plans, do not mix.
func TestFingerprint(t *testing.T) {
	path := write(t, t.TempDir(), "a.jsonl", lines(10))
	p := plan(t, 5, path)
	dir := t.TempDir()
	run(t, dir, p, p.Chunks[:1])
	other := &corpus.Worker{
		Dir: dir, Plan: p, Answer: new(echo).answer, Fingerprint: corpus.Fingerprint{"model": "sha256:2", "precision": "bf16"},
	}
	_, err := other.Do(t.Context(), p.Chunks[0])
	var differs *corpus.FingerprintError
	require.ErrorAs(t, err, &differs)
	assert.Equal(t, "max_seq_length is 384, not not set; model is sha256:1, not sha256:2; precision is not set, not bf16",
		differs.Differs)
	_, err = other.Do(t.Context(), p.Chunks[1])
	require.NoError(t, err)
	_, err = corpus.Status(t.Context(), dir, p)
	require.ErrorAs(t, err, &differs)
	assert.Equal(t, 1, differs.Chunk)

	require.NoError(t, p.Write(dir))
	require.NoError(t, p.Write(dir))
	again, err := corpus.ReadPlan(dir)
	require.NoError(t, err)
	assert.Equal(t, p, again)
	require.ErrorContains(t, plan(t, 4, path).Write(dir), "has the plan of another corpus: it has 2 chunks, not 3")
	write(t, filepath.Dir(path), "a.jsonl", lines(9)+line(11))
	require.ErrorContains(t, plan(t, 5, path).Write(dir), "chunk 1, from line 6 of "+path+", is another one")
}

// An input that has changed since the plan, or answers that were damaged since the record, are noticed.
func TestChanged(t *testing.T) {
	in, dir := t.TempDir(), t.TempDir()
	path := write(t, in, "a.jsonl", lines(10))
	p := plan(t, 5, path)
	run(t, dir, p, p.Chunks[:1])
	for _, text := range []string{lines(9) + line(11), lines(7), "", strings.Repeat("\n", 1000)} {
		write(t, in, "a.jsonl", text)
		w := &corpus.Worker{Dir: dir, Plan: p, Fingerprint: fingerprint, Answer: new(echo).answer}
		_, err := w.Do(t.Context(), p.Chunks[1])
		require.ErrorContains(t, err, path+" is not what it was when the plan was made")
		require.NoError(t, w.Close())
	}
	write(t, in, "a.jsonl", lines(10))
	run(t, dir, p, p.Chunks)
	r, err := corpus.ReadRecord(dir, p.Chunks[0])
	require.NoError(t, err)
	answers := filepath.Join(dir, r.Path)
	text, err := os.ReadFile(answers)
	require.NoError(t, err)
	text[20] ^= 1
	require.NoError(t, os.WriteFile(answers, text, 0o600))
	_, err = corpus.Merge(t.Context(), dir, p, nopSink{})
	require.ErrorContains(t, err, answers+" is damaged: remove it and ")
}

// A model that leaves out or mixes up answers fails the chunk.
func TestWrongAnswers(t *testing.T) {
	path := write(t, t.TempDir(), "a.jsonl", lines(3))
	p := plan(t, 5, path)
	for name, tt := range map[string]struct {
		ids  []string
		want string
	}{
		"too few":  {[]string{"q0", "q1"}, "2 of 3 questions have an answer"},
		"too many": {[]string{"q0", "q1", "q2", "q3"}, "the answer to q3 came in the place of another"},
		"mixed":    {[]string{"q1", "q0", "q2"}, "the answer to q1 came in the place of another"},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			w := &corpus.Worker{Dir: dir, Plan: p, Fingerprint: fingerprint, Answer: func(
				context.Context, iter.Seq2[*squad.Example, error],
			) iter.Seq2[squad.Prediction, error] {
				return func(yield func(squad.Prediction, error) bool) {
					for _, id := range tt.ids {
						if !yield(squad.Prediction{ID: id, NBest: []squad.Candidate{{StartWord: -1, EndWord: -1}}}, nil) {
							return
						}
					}
				}
			}}
			defer w.Close()
			_, err := w.Do(t.Context(), p.Chunks[0])
			require.ErrorContains(t, err, tt.want)
			s, err := corpus.Status(t.Context(), dir, p)
			require.NoError(t, err)
			assert.Equal(t, [][2]int{{0, 0}}, s.Missing)
		})
	}
}

func TestPredictionFiles(t *testing.T) {
	path := write(t, t.TempDir(), "a.jsonl", lines(4))
	p := plan(t, 3, path)
	dir, out := t.TempDir(), t.TempDir()
	run(t, dir, p, p.Chunks)
	sink, err := corpus.PredictionFiles(out, false)
	require.NoError(t, err)
	_, err = corpus.Merge(t.Context(), dir, p, sink)
	require.NoError(t, err)
	text, err := os.ReadFile(filepath.Join(out, squad.PredictionsFile))
	require.NoError(t, err)
	assert.Equal(t, "{\n    \"q0\": \"w0\",\n    \"q1\": \"w1\",\n    \"q2\": \"w2\",\n    \"q3\": \"w3\"\n}\n", string(text))
}

func TestSweep(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".a.jsonl.tmp-OLD", ".b.jsonl.tmp-NEW", "c.jsonl", ".keep"} {
		write(t, dir, name, "x")
	}
	old := time.Now().Add(-2 * time.Hour)
	require.NoError(t, os.Chtimes(filepath.Join(dir, ".a.jsonl.tmp-OLD"), old, old))
	n, err := corpus.Sweep(dir, time.Hour)
	require.NoError(t, err)
	assert.Equal(t, 1, n)
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.Len(t, entries, 3)
}

func TestBadInputs(t *testing.T) {
	in := t.TempDir()
	for name, tt := range map[string]struct{ text, want string }{
		"a.txt":      {"", "the form of the file is not known by its name"},
		"empty.csv":  {"", "the first line must name the columns"},
		"none.csv":   {"a,b\n", "it has no column question: its first line names a, b"},
		"open.csv":   {"question,context\nq,\"" + strings.Repeat("x\n", 20<<20), "is a quotation mark not closed?"},
		"a.json":     {"{", "EOF"},
		"a.jsonl.gz": {"", ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := write(t, in, name, tt.text)
			if name == "a.jsonl.gz" {
				require.NoError(t, os.WriteFile(path, []byte("not packed"), 0o600))
				tt.want = "gzip"
			}
			_, err := corpus.MakePlan(t.Context(), []string{path}, 5)
			require.ErrorContains(t, err, tt.want)
			require.ErrorContains(t, err, path)
		})
	}
	_, err := corpus.MakePlan(t.Context(), nil, 0)
	require.ErrorContains(t, err, "a chunk of 0 questions")
	_, err = (&corpus.Plan{}).Share(2, 2)
	require.ErrorContains(t, err, "there is no worker 2 of 2: they count from 0")
}
