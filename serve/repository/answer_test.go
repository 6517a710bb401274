package repository_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/tfbert/go/internal/fakemodel"
	"github.com/tfbert/go/serve/batch"
	"github.com/tfbert/go/serve/repository"
	"github.com/tfbert/go/squad"
)

// filler returns a passage of words that nobody asks for.
func filler(words int) string { return strings.Repeat("x ", words) }

// find returns a question for a key, a word of fakemodel's, in documents.
func find(key string, documents ...string) *repository.Question {
	return &repository.Question{Text: "find " + key, Documents: documents}
}

// Places are counted in code points, whatever stands in front of the answer.
func TestPlaces(t *testing.T) {
	m := startModel(t, &fakemodel.Models{}, repository.Options{})
	for _, before := range []string{
		"", "a b ", "🦉🦉 ", "👩‍👩‍👧‍👦 family, ", "e\u0301te\u0301 naïve ", "日本語 ", "\u200b\ufeff zero ",
		"\t\n \u00a0 \u202f", "ﷺ ﬃ ", "𝔘𝔫𝔦 ",
	} {
		text := before + "w7. 🦉 the end"
		a, err := m.Answer(t.Context(), find("w7", text))
		require.NoError(t, err)
		require.GreaterOrEqual(t, a.Best, 0)
		p := a.Places[a.Best]
		require.True(t, p.OK)
		runes := []rune(text)
		assert.Equal(t, a.Prediction.Answer, string(runes[p.Start:p.End]), "%q", text)
		assert.True(t, strings.HasPrefix(a.Prediction.Answer, "w7"))
		for i, c := range a.NBest {
			if p := a.Places[i]; p.OK {
				assert.Equal(t, c.Text, strings.Join(squad.Words(string(runes[p.Start:p.End])), " "))
			}
		}
		for _, w := range a.Windows {
			assert.True(t, 0 <= w.Start && w.Start <= w.End && w.End <= len(runes), "%+v of %d", w, len(runes))
		}
	}
}

// The answer comes from the document that has it, with its place there.
func TestDocuments(t *testing.T) {
	m := startModel(t, &fakemodel.Models{}, repository.Options{})
	documents := []string{filler(300), "", "🦉 w1", "   ", filler(120) + "w2 " + filler(120), "w3"}
	for key, want := range map[string]repository.Place{
		"w1": {Document: 2, Start: 2, End: 4, OK: true},
		"w2": {Document: 4, Start: 240, End: 242, OK: true},
		"w3": {Document: 5, Start: 0, End: 2, OK: true},
	} {
		q := find(key, documents...)
		q.DocStride, q.MaxQueryLength = 30, 16
		a, err := m.Answer(t.Context(), q)
		require.NoError(t, err)
		assert.Equal(t, key, a.Prediction.Answer)
		assert.Equal(t, want, a.Places[a.Best])
		assert.Equal(t, len(a.Windows), a.Done)
		assert.Len(t, a.NBest, 20)
		total := 0.0
		for i, c := range a.NBest {
			total += c.Probability
			if i > 0 {
				assert.LessOrEqual(t, c.Probability, a.NBest[i-1].Probability)
			}
		}
		assert.InDelta(t, 1, total, 1e-6)
		seen := map[int]bool{}
		for _, w := range a.Windows {
			seen[w.Document] = true
		}
		assert.Equal(t, map[int]bool{0: true, 2: true, 4: true, 5: true}, seen, "an empty document has none")
	}
	a, err := m.Answer(t.Context(), find("w9", "", " "))
	require.NoError(t, err)
	assert.Equal(t, "empty", a.Prediction.Answer, "as in the reference scripts")
	q := find("w9", "")
	q.Decoder.WithNegative = true
	a, err = m.Answer(t.Context(), q)
	require.NoError(t, err)
	assert.Empty(t, a.Prediction.Answer)
}

func TestQuestionLimits(t *testing.T) {
	models := &fakemodel.Models{}
	m := startModel(t, models, repository.Options{
		Limits:   repository.Limits{QuestionBytes: 50, DocumentBytes: 5000, Windows: 10, Documents: 3, NBestSize: 30},
		Batching: batch.Options{Priorities: 2},
	})
	warmed := models.Batches.Load()
	valid := func() *repository.Question { return find("w1", "w1") }
	type question = repository.Question
	for _, tt := range []struct {
		want   string
		change func(*question)
	}{
		{"the question is empty", func(q *question) { q.Text = " \n\t" }},
		{"the question is not valid UTF-8", func(q *question) { q.Text = "a\xff" }},
		{"the question has 51 bytes: it may have at most 50", func(q *question) { q.Text = strings.Repeat("a", 51) }},
		{"the context is missing", func(q *question) { q.Documents = nil }},
		{"there are 4 documents: there may be at most 3", func(q *question) { q.Documents = make([]string, 4) }},
		{"the context has 5001 bytes: it may have at most 5000", func(q *question) {
			q.Documents = []string{"a", strings.Repeat("a", 5000)}
		}},
		{"the context is not valid UTF-8", func(q *question) { q.Documents = []string{"a", "\xed\xa0\x80"} }},
		{"windows, more than 10: shorten it or raise doc_stride", func(q *question) { q.Documents = []string{filler(2000)} }},
		{"the documents make more than 10 windows: send fewer", func(q *question) {
			q.Documents = []string{filler(630), "a", "b"}
			q.DocStride = 60
		}},
		{"n_best_size is 31: it must be at most 30", func(q *question) { q.Decoder.NBestSize = 31 }},
		{"n_best_size and max_answer_length must be positive", func(q *question) { q.Decoder.NBestSize = -1 }},
		{"n_best_size and max_answer_length must be positive", func(q *question) { q.Decoder.MaxAnswerLength = -1 }},
		{"NaN", func(q *question) { q.Decoder.NullScoreDiffThreshold = math.NaN() }},
		{"max_seq_length is -1: this model takes 96", func(q *question) { q.MaxSeqLength = -1 }},
		{"max_seq_length 50 leaves no room", func(q *question) { q.MaxSeqLength = 50 }},
		{"max_seq_length 1 leaves no room", func(q *question) { q.MaxSeqLength, q.MaxQueryLength = 1, 1 }},
		{"doc_stride", func(q *question) { q.DocStride = -1 }},
		{"max_query_length", func(q *question) { q.MaxQueryLength = -1 }},
		{"leaves no room for the passage", func(q *question) { q.MaxQueryLength = math.MaxInt }},
		{"unknown priority: 3 is not one of 1 to 2", func(q *question) { q.Priority = 3 }},
		{"unknown priority: -1 is not one of 1 to 2", func(q *question) { q.Priority = -1 }},
	} {
		q := valid()
		tt.change(q)
		_, err := m.Answer(t.Context(), q)
		if assert.Error(t, err, tt.want) {
			e := repository.AsError(err)
			assert.Equal(t, codes.InvalidArgument, e.Code, "%v", err)
			assert.Contains(t, e.Message, tt.want)
			assert.NotContains(t, e.Message, "\n")
			assert.NotContains(t, e.Message, "squad:")
		}
	}
	a, err := m.Answer(t.Context(), valid())
	require.NoError(t, err)
	assert.Equal(t, "w1", a.Prediction.Answer)
	assert.Equal(t, warmed+1, models.Batches.Load(), "no refused question reached the model")

	q := valid()
	q.MaxSeqLength = 10000 // lowered
	a, err = m.Answer(t.Context(), q)
	require.NoError(t, err)
	assert.Equal(t, "w1", a.Prediction.Answer)
	q = find("w1", "a b c d e f g h i j k l m n o p q r s w1")
	q.MaxSeqLength, q.MaxQueryLength, q.DocStride = 20, 5, 100000
	a, err = m.Answer(t.Context(), q)
	require.NoError(t, err)
	assert.Equal(t, "w1", a.Prediction.Answer)
	assert.Greater(t, len(a.Windows), 1)
}

func TestModelOfOneLength(t *testing.T) {
	m := startModel(t, &fakemodel.Models{OneLength: true}, repository.Options{})
	q := find("w1", "w1")
	q.MaxSeqLength = 80
	_, err := m.Answer(t.Context(), q)
	require.ErrorContains(t, err, "max_seq_length is 80: this model takes 96")
	for _, n := range []int{0, 96, 384} {
		q.MaxSeqLength = n
		_, err = m.Answer(t.Context(), q)
		require.NoError(t, err)
	}
}

// A stream reports more and more windows, and its last answer is Answer's.
func TestStream(t *testing.T) {
	m := startModel(t, &fakemodel.Models{}, repository.Options{})
	q := find("w1", filler(100)+"w2", filler(200), filler(300)+"w1")
	q.DocStride, q.MaxQueryLength = 20, 5
	want, err := m.Answer(t.Context(), q)
	require.NoError(t, err)
	for _, step := range []int{0, 1, 3, 1000} {
		var done []int
		got, err := m.AnswerStream(t.Context(), q, step, func(a *repository.Answer) error {
			done = append(done, a.Done)
			assert.Len(t, a.Places, len(a.NBest))
			assert.Equal(t, want.Windows, a.Windows, "all windows are known from the start")
			if a.Best >= 0 && a.Places[a.Best].OK {
				assert.NotEqual(t, "w1", a.Prediction.Answer, "it is in one of the last windows")
			}
			return nil
		})
		require.NoError(t, err)
		got.Seconds = want.Seconds
		assert.Equal(t, want, got)
		n := (len(want.Windows) - 1) / max(1, step)
		assert.InDelta(t, n, len(done), 4)
		for i := range done {
			assert.Equal(t, (i+1)*max(1, step), done[i])
		}
	}
	calls := 0
	_, err = m.AnswerStream(t.Context(), q, 2, func(*repository.Answer) error { calls++; return assert.AnError })
	require.ErrorIs(t, err, assert.AnError)
	assert.Equal(t, 1, calls)
}

func TestModelFaults(t *testing.T) {
	m := startModel(t, &fakemodel.Models{}, repository.Options{})
	for word, want := range map[string]string{
		fakemodel.Fail:  "told to fail",
		fakemodel.Crash: "the model panicked: told to crash",
		fakemodel.NaN:   "NaN",
		fakemodel.Short: "logits",
	} {
		_, err := m.Answer(t.Context(), find("w1", word+" w1"))
		require.ErrorContains(t, err, want)
		assert.Equal(t, codes.Internal, errorCode(err))
		_, err = m.AnswerAll(t.Context(), []*repository.Question{find("w1", "w1"), find("w1", word+" w1")})
		require.ErrorContains(t, err, want)
		assert.Contains(t, repository.AsError(err).Message, "question 1: ")
	}
	var panicked *batch.PanicError
	_, err := m.AnswerAll(t.Context(), []*repository.Question{find("crash", "w1"), find("crash", "w1")})
	require.ErrorAs(t, err, &panicked, "its stack is for the log")
	answers, err := m.AnswerAll(t.Context(), nil)
	require.NoError(t, err)
	assert.Empty(t, answers)
}

// A panic of the server's own in one of several questions ends these questions, and not the server.
func TestPanicOfOneOfSeveral(t *testing.T) {
	m := startModel(t, &fakemodel.Models{}, repository.Options{})
	m.Backend().CheckLength = nil
	panicking := find("w2", "w2")
	panicking.MaxSeqLength = 90
	_, err := m.AnswerAll(t.Context(), []*repository.Question{find("w1", "w1"), panicking})
	assert.Equal(t, codes.Internal, errorCode(err))
}

func TestCancelledQuestion(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		root := t.TempDir()
		writeVersion(t, root, "bert", 1, "")
		models := &fakemodel.Models{Delay: time.Hour}
		r := openRepository(t, root, models, repository.Options{Batching: batch.Options{MaxQueue: 1}})
		require.NoError(t, r.Start(t.Context()))
		m, err := r.Acquire("bert", 0)
		require.NoError(t, err)
		slow := find("slow", "slow")

		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = m.Answer(ctx, slow)
		assert.Equal(t, codes.DeadlineExceeded, errorCode(err))

		ctx, cancel = context.WithCancel(t.Context())
		first, second := make(chan error), make(chan error)
		go func() { _, err := m.Answer(ctx, slow); first <- err }()
		synctest.Wait()
		go func() {
			q := find("w1", "w1")
			q.Timeout = time.Second
			_, err := m.Answer(t.Context(), q)
			second <- err
		}()
		synctest.Wait()
		_, err = m.Answer(t.Context(), slow)
		assert.Equal(t, codes.ResourceExhausted, errorCode(err))
		assert.Positive(t, repository.AsError(err).RetryAfter)
		assert.Equal(t, codes.DeadlineExceeded, errorCode(<-second))
		cancel()
		assert.Equal(t, codes.Canceled, errorCode(<-first))
		synctest.Wait()
		assert.Zero(t, m.Batcher().Waiting())
		assert.Zero(t, m.Batcher().Running())
		m.Release()
		r.Close()
	})
}

func TestErrors(t *testing.T) {
	for _, tt := range []struct {
		err  error
		code codes.Code
	}{
		{fmt.Errorf("x: %w", &repository.Error{Code: codes.NotFound}), codes.NotFound},
		{fmt.Errorf("x: %w", &batch.QueueFullError{}), codes.ResourceExhausted},
		{batch.ErrTimeout, codes.DeadlineExceeded},
		{batch.ErrClosed, codes.Unavailable},
		{context.Canceled, codes.Canceled},
		{context.DeadlineExceeded, codes.DeadlineExceeded},
		{errors.New("x"), codes.Internal},
	} {
		assert.Equal(t, tt.code, repository.AsError(tt.err).Code, "%v", tt.err)
		assert.Equal(t, tt.code, repository.AsError(tt.err).GRPCStatus().Code())
	}
}

func TestStatistics(t *testing.T) {
	m := startModel(t, &fakemodel.Models{}, repository.Options{})
	question := find("w1", "w1", "w2")
	for range 3 {
		_, err := m.Answer(t.Context(), question)
		require.NoError(t, err)
	}
	_, err := m.Answer(t.Context(), find("fail", "w1"))
	require.Error(t, err)
	_, err = m.Infer(t.Context(), tensorCall(2, 10))
	require.NoError(t, err)

	text, matrices := m.Servables()[1].Statistics(), m.Statistics()
	assert.Equal(t, 3, text.Success.Count)
	assert.Equal(t, 1, text.Fail.Count)
	assert.Equal(t, 3, text.Rows, "a row is a question, however many documents it has")
	assert.Equal(t, 3, text.Compute.Count)
	assert.Positive(t, text.Compute.Time)
	assert.WithinDuration(t, time.Now(), text.Last, time.Minute)
	assert.Equal(t, 1, matrices.Success.Count)
	assert.Equal(t, 2, matrices.Rows)
	assert.Zero(t, matrices.Fail.Count)
	assert.Equal(t, text.Executions(), matrices.Executions())
	assert.Equal(t, []int{1, 2}, slices.Sorted(maps.Keys(text.Batches)), "windows of the batches")
	text.Batches[1] = repository.Total{}
	assert.Positive(t, m.Statistics().Batches[1].Count, "a snapshot is a copy")
}

func FuzzAnswer(f *testing.F) {
	models := &fakemodel.Models{}
	root := f.TempDir()
	writeVersion(f, root, "bert", 1, "")
	r := openRepository(f, root, models, repository.Options{Limits: repository.Limits{Windows: 200}})
	require.NoError(f, r.Start(f.Context()))
	m, err := r.Acquire("bert", 0)
	require.NoError(f, err)
	f.Cleanup(m.Release)
	f.Add("find w1", "a w1. b", "c", 0, 0, 0, 0, 0, false)
	f.Add("wer w2?", "🦉 e\u0301 w2\u202fx", "", 40, 3, 8, 5, 2, true)
	f.Add("?", "\x00\ufffd\ufeff", "\u00a0", -1, -1, -1, -1, -1, true)
	f.Add("İ ß", strings.Repeat("日本 ", 100), "ﷺ", 30, 1, 10, 1000, 1000, true)
	f.Fuzz(func(t *testing.T, question, a, b string, length, stride, query, nBest, answerLength int, negative bool) {
		q := &repository.Question{
			Text: question, Documents: []string{a, b}, MaxSeqLength: length, DocStride: stride, MaxQueryLength: query,
			Decoder: squad.Decoder{NBestSize: nBest, MaxAnswerLength: answerLength, WithNegative: negative},
		}
		for _, word := range []string{fakemodel.Fail, fakemodel.Crash, fakemodel.NaN, fakemodel.Short} {
			if strings.Contains(strings.ToLower(question+a+b), word) {
				t.Skip("the model obeys this word")
			}
		}
		began := time.Now()
		answer, err := m.Answer(t.Context(), q)
		require.Less(t, time.Since(began), 10*time.Second)
		if err != nil {
			require.Equal(t, codes.InvalidArgument, errorCode(err), "%v", err)
			return
		}
		require.True(t, utf8.ValidString(answer.Prediction.Answer))
		require.NotEmpty(t, answer.NBest)
		for i, c := range answer.NBest {
			if p := answer.Places[i]; p.OK {
				text := []rune(q.Documents[p.Document])[p.Start:p.End]
				require.Equal(t, c.Text, strings.Join(squad.Words(string(text)), " "))
			}
		}
	})
}
