package squad_test

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv/bounded"
	"github.com/tfbert/go/squad"
)

// readers are the readers of files of JSON.
var readers = map[string]func(io.Reader) error{
	"data set":    func(r io.Reader) error { _, err := squad.ReadDataset(r); return err },
	"predictions": func(r io.Reader) error { _, err := squad.ReadAnswers(r); return err },
	"odds":        func(r io.Reader) error { _, err := squad.ReadNAProbs(r); return err },
	"n-best":      func(r io.Reader) error { _, err := squad.ReadNBest(r); return err },
}

// Megabytes of anything take linear time and memory, however deep or long they are.
func TestHostileJSON(t *testing.T) {
	const size, deep = 1 << 20, 10 << 20
	long := strings.Repeat("k", size/2)
	for name, text := range map[string]string{
		"arrays":                     strings.Repeat("[", deep),
		"arrays in a member":         `{"data": ` + strings.Repeat("[", deep),
		"arrays in what is skipped":  `{"more": ` + strings.Repeat("[", deep),
		"objects":                    strings.Repeat(`{"a":`, deep/5),
		"objects in what is skipped": datasetOf(`{"more": ` + strings.Repeat(`{"a":`, deep/5)),
		"a string":                   `{"a": "` + strings.Repeat("x", size) + `"}`,
		"a string of escapes":        `{"a": "` + strings.Repeat(`\u0000`, size/6) + `"}`,
		"a string without end":       `{"a": "` + strings.Repeat("x", size),
		"a key":                      `{"` + long + long + `": []}`,
		"a number":                   `{"a": ` + strings.Repeat("9", size) + `}`,
		"a fraction":                 `{"a": 0.` + strings.Repeat("1", size) + `}`,
		"an id that is no number":    datasetOf(`{"id": 1.` + strings.Repeat("1", size) + `}`),
		"a place": datasetOf(`{"id": 1, "question": "", "answers": [{"answer_start": ` +
			strings.Repeat("1", size) + `}]}`),
		"an id":                    datasetOf(`{"id": "` + long + `", "question": 1}`),
		"a title":                  `{"data": [{"title": "` + long + `", "paragraphs": 1}]}`,
		"white space":              `{"a": ` + strings.Repeat(" ", size) + `"x"}`,
		"empty members":            `{"a": ""` + strings.Repeat(`,"":""`, size/6) + `}`,
		"many members":             `{"a": 1` + manyMembers(size/12) + `}`,
		"entries under a long key": `{"` + long + `": [{}` + strings.Repeat(",{}", size/6) + `]}`,
		"keys of entries": `{"a": [{"` + long + `": 1}` +
			strings.Repeat(`,{"text":"x","probability":1}`, size/60) + `]}`,
		"answers": datasetOf(`{"id": 1, "question": "", "answers": [{"text": ""}` +
			strings.Repeat(`,{"text":""}`, size/12) + `]}`),
		"paragraphs": `{"data": [{"paragraphs": [{"context":"","qas":[]}` +
			strings.Repeat(`,{"context":"","qas":[]}`, size/24) + `]}]}`,
		"articles": `{"data": [{"paragraphs":[]}` + strings.Repeat(`,{"paragraphs":[]}`, size/18) + `]}`,
		"lists of questions": `{"data": [{"paragraphs": [{"context": ""` + strings.Repeat(`,"qas":[]`, size/9) +
			`}]}]}`,
	} {
		t.Run(name, func(t *testing.T) {
			for reader, read := range readers {
				bounded.Run(t, 150*len(text), 20*time.Second, func() {
					if err := read(strings.NewReader(text)); err != nil {
						assert.Less(t, len(err.Error()), 2000, reader)
					}
				})
			}
		})
	}
}

func manyMembers(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"%d":"x"`, i)
	}
	return b.String()
}

// A token that has no end is not kept in memory for long.
func TestEndlessTokens(t *testing.T) {
	for name, head := range map[string]string{"string": `{"more": "`, "key": `{"`, "number": `{"more": 1`,
		"white space": `{"more":`} {
		t.Run(name, func(t *testing.T) {
			tail := map[string]string{"string": "x", "key": "x", "number": "1", "white space": " "}[name]
			bounded.Run(t, 300<<20, 20*time.Second, func() {
				_, err := squad.ReadDataset(io.MultiReader(strings.NewReader(head), repeating(tail[0])))
				assert.ErrorContains(t, err, "a string or number is longer than 64 MiB (line 1, byte ")
			})
		})
	}
	t.Run("but a file may be longer", func(t *testing.T) {
		paragraph := `{"context": "` + strings.Repeat("x", 20<<20) + `", "qas": []}`
		n := 0
		for _, err := range squad.Paragraphs(strings.NewReader(`{"data": [{"paragraphs": [` +
			strings.Repeat(paragraph+",", 4) + paragraph + `]}]}`)) {
			require.NoError(t, err)
			n++
		}
		assert.Equal(t, 5, n)
	})
}

// repeating reads as one byte over and over.
type repeating byte

func (b repeating) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(b)
	}
	return len(p), nil
}
