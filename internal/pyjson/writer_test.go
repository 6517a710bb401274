package pyjson

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// writeSample writes {"a": [{"t": "é", "p": 0.5}, {}, []], "b": {}, "n": 3}.
func writeSample(w *Writer) {
	w.BeginObject()
	w.Key("a")
	w.BeginArray()
	w.BeginObject()
	w.Key("t")
	w.String("é")
	w.Key("p")
	w.Float(0.5)
	w.EndObject()
	w.BeginObject()
	w.EndObject()
	w.BeginArray()
	w.EndArray()
	w.EndArray()
	w.Key("b")
	w.BeginObject()
	w.EndObject()
	w.Key("n")
	w.Int(3)
	w.EndObject()
}

// json.dumps({"a": [{"t": "é", "p": 0.5}, {}, []], "b": {}, "n": 3}, indent=...)
func TestWriter(t *testing.T) {
	for _, tt := range []struct {
		name   string
		indent int
		want   string
	}{
		{"one line", 0, `{"a": [{"t": "\u00e9", "p": 0.5}, {}, []], "b": {}, "n": 3}`},
		{"indented", 2, `{
  "a": [
    {
      "t": "\u00e9",
      "p": 0.5
    },
    {},
    []
  ],
  "b": {},
  "n": 3
}`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var got strings.Builder
			w := NewWriter(&got, tt.indent)
			writeSample(w)
			require.NoError(t, w.Flush())
			assert.Equal(t, tt.want, got.String())
		})
	}
}

func TestWriterMisuse(t *testing.T) {
	for name, calls := range map[string]func(w *Writer){
		"value without a key": func(w *Writer) { w.BeginObject(); w.Int(1); w.EndObject() },
		"key outside":         func(w *Writer) { w.Key("a") },
		"key in an array":     func(w *Writer) { w.BeginArray(); w.Key("a") },
		"key without a value": func(w *Writer) { w.BeginObject(); w.Key("a"); w.EndObject() },
		"two keys":            func(w *Writer) { w.BeginObject(); w.Key("a"); w.Key("b") },
		"wrong end":           func(w *Writer) { w.BeginObject(); w.EndArray() },
		"no end":              func(w *Writer) { w.BeginObject() },
		"end too many":        func(w *Writer) { w.EndObject() },
	} {
		t.Run(name, func(t *testing.T) {
			w := NewWriter(&strings.Builder{}, 4)
			calls(w)
			assert.ErrorIs(t, w.Flush(), errStructure)
		})
	}
}

// full is a writer with no room left.
type full struct{}

var errFull = errors.New("no space left on device")

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestWriterErrorSticks(t *testing.T) {
	w := NewWriter(full{}, 4)
	for range 10000 {
		w.Float(1)
	}
	assert.ErrorIs(t, w.Flush(), errFull)
	assert.ErrorIs(t, w.Flush(), errFull)
}

func ExampleWriter() {
	w := NewWriter(os.Stdout, 4)
	w.BeginObject()
	w.Key("56be4db0acb8001400a502ec")
	w.String("Denver Broncos – 24")
	w.Key("score")
	w.Float(1e-5)
	w.EndObject()
	w.Newline()
	if err := w.Flush(); err != nil {
		panic(err)
	}
	// Output:
	// {
	//     "56be4db0acb8001400a502ec": "Denver Broncos \u2013 24",
	//     "score": 1e-05
	// }
}
