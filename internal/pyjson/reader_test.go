package pyjson

import (
	"bufio"
	"encoding/json"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// readAll reads text in pieces of every size.
func readAll(t *testing.T, text string) (string, *Reader) {
	t.Helper()
	var got string
	var r *Reader
	for i, in := range []io.Reader{strings.NewReader(text), iotest.OneByteReader(strings.NewReader(text)),
		iotest.HalfReader(strings.NewReader(text))} {
		for _, size := range []int{1, 5, 4096} {
			if i > 0 {
				in = strings.NewReader(text)
			}
			if i == 0 && size > 1 {
				continue
			}
			r = NewReader(bufio.NewReaderSize(in, 16))
			var b strings.Builder
			_, err := io.CopyBuffer(struct{ io.Writer }{&b}, struct{ io.Reader }{r}, make([]byte, size))
			require.NoError(t, err)
			if got != "" {
				require.Equal(t, got, b.String())
			}
			got = b.String()
		}
	}
	return got, r
}

func TestReader(t *testing.T) {
	for text, want := range map[string]string{
		``:                                      ``,
		`NaN`:                                   `9e9`,
		` -Infinity `:                           ` -1e999999 `,
		`{"NaN": NaN, "Infinity":Infinity}`:     `{"NaN": 9e9, "Infinity":1e999999}`,
		`[NaN,-Infinity , Infinity, -1, - 2]`:   `[9e9,-1e999999 , 1e999999, -1, - 2]`,
		`["\"NaN", NaN, "\\", NaN]`:             `["\"NaN", 9e9, "\\", 9e9]`,
		`[-NaN, 1NaN, xNaN, nan, Inf, N, -I]`:   `[-NaN, 1NaN, xNaN, nan, Inf, N, -I]`,
		`["\ud800"]`:                            `["\ufffd"]`,
		`["\uD83D\ude00 \udbff\uDFFF"]`:         `["\uD83D\ude00 \udbff\uDFFF"]`,
		`["\ud83d\ud83d\ude00"]`:                `["\ufffd\ud83d\ude00"]`,
		`["\udc00\ud800\n\ud800x\ud800\u0041"]`: `["\ufffd\ufffd\n\ufffdx\ufffd\u0041"]`,
		`"\ud800`:                               `"\ufffd`,
		`"\ud800\ud`:                            `"\ufffd\ud`,
		`"\ud8zz \u12`:                          `"\ud8zz \u12`,
		`"\`:                                    `"\`,
		`"\\ud800"`:                             `"\\ud800"`,
		`\ud800 `:                               `\ud800 `,
	} {
		got, _ := readAll(t, text)
		assert.Equal(t, want, got, text)
	}
}

func TestReaderOffsets(t *testing.T) {
	_, r := readAll(t, `[NaN, 9e9, NaN, "x\ud800", "\udc00"]`)
	assert.True(t, r.NaN(1))
	assert.False(t, r.NaN(6))
	assert.True(t, r.NaN(11))
	assert.False(t, r.NaN(30))
	assert.False(t, r.Half(0, 16))
	assert.True(t, r.Half(16, 25))
	assert.True(t, r.Half(27, 35))
	assert.False(t, r.Half(35, 36))
}

// What is JSON already stays as it is.
func FuzzReader(f *testing.F) {
	f.Add(`{"a": [-1, "\ud83d\ude00\\", null]}`)
	f.Add(`"\ud800`)
	f.Fuzz(func(t *testing.T, text string) {
		got, r := readAll(t, text)
		require.Len(t, got, len(text))
		if json.Valid([]byte(text)) && len(r.halves) == 0 {
			require.Equal(t, text, got)
		}
		if !strings.Contains(text, "NaN") && !strings.Contains(text, "Infinity") && len(r.halves) == 0 {
			require.Equal(t, text, got)
		}
	})
}
