package wordpiece

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv/bounded"
)

func TestReadVocab(t *testing.T) {
	for _, tt := range []struct {
		name    string
		profile Profile
		text    string
		want    []string
	}{
		{"lines", NVIDIA1903, "[UNK]\na\n##b\n", []string{"[UNK]", "a", "##b"}},
		{"no newline at the end", NVIDIA1903, "[UNK]\na", []string{"[UNK]", "a"}},
		{"a blank line takes an id", NVIDIA1903, "[UNK]\n\na\n\n", []string{"[UNK]", "", "a", ""}},
		{"Python's white space is stripped", NVIDIA1903, "\x1c[UNK]\u00a0\r\n \ta b\v\n", []string{"[UNK]", "a b"}},
		{"a lone return is no line end", NVIDIA1903, "[UNK]\na\rb\r\nc", []string{"[UNK]", "a\rb", "c"}},
		{"nor for Google", Google, "[UNK]\na\rb\r\nc", []string{"[UNK]", "a\rb", "c"}},
		{"for NVIDIA 20.06 it is one", NVIDIA2006, "[UNK]\na\rb\r\nc\r\r\n", []string{"[UNK]", "a", "b", "c", ""}},
		{"a byte order mark stays", NVIDIA1903, "\ufeff[PAD]\n[UNK]", []string{"\ufeff[PAD]", "[UNK]"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			v, err := tt.profile.ReadVocab(strings.NewReader(tt.text))
			require.NoError(t, err)
			assert.Equal(t, len(tt.want), v.Len())
			for id, token := range tt.want {
				assert.Equal(t, token, v.Token(int32(id)))
			}
		})
	}
}

func TestVocabID(t *testing.T) {
	v, err := ReadVocab(strings.NewReader("[UNK]\na\nabc\n##\n##b\na\n\n"))
	require.NoError(t, err)
	for token, want := range map[string]int32{"[UNK]": 0, "abc": 2, "##": 3, "##b": 4, "": 6, "a": 5 /* the later */} {
		id, ok := v.ID(token)
		assert.True(t, ok, "%q", token)
		assert.Equal(t, want, id, "%q", token)
	}
	for _, token := range []string{"ab", "abcd", "b", "#", "\x00", "\xff", "[UNK]\x00"} {
		_, ok := v.ID(token)
		assert.False(t, ok, "%q", token)
	}
	assert.Empty(t, v.Token(-1))
	assert.Empty(t, v.Token(7))
}

func TestModelVocab(t *testing.T) {
	v := modelVocab(t)
	require.Equal(t, 30522, v.Len())
	for i := range int32(v.Len()) {
		id, ok := v.ID(v.Token(i))
		require.True(t, ok)
		require.Equal(t, i, id)
	}
}

func TestReadVocabErrors(t *testing.T) {
	broken := errors.New("input/output error")
	for _, tt := range []struct{ name, text, want string }{
		{"empty", "", "no [UNK] among 0 lines: it is not a vocab.txt"},
		{"another file", `{"vocab_size": 30522}`, "no [UNK] among 1 lines"},
		{"one long line", strings.Repeat("ab", 1<<20), "no [UNK] among 1 lines"},
		{"not UTF-8", "[UNK]\nna\xefve\n", "line 2 is not UTF-8"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := ReadVocab(strings.NewReader(tt.text))
			assert.ErrorContains(t, err, "read vocabulary: "+tt.want)
		})
	}
	t.Run("too large", func(t *testing.T) {
		_, err := ReadVocab(bytes.NewReader(make([]byte, maxVocab+1)))
		assert.ErrorContains(t, err, "more than 16 MiB")
	})
	t.Run("unreadable", func(t *testing.T) {
		_, err := ReadVocab(iotest.ErrReader(broken))
		assert.ErrorIs(t, err, broken)
	})
}

// The worst of files take a bounded time and memory: deep, wide, dense, and sparse.
func TestHostileVocab(t *testing.T) {
	const size = 1 << 20
	lines := func(line func(i int) string) string {
		var b strings.Builder
		for i := 0; b.Len() < size; i++ {
			b.WriteString(line(i))
		}
		return b.String()
	}
	seed := rand.New(rand.NewPCG(1, 2))
	for name, text := range map[string]string{
		"one line":      strings.Repeat("a", size),
		"blank lines":   strings.Repeat("\n", size),
		"one piece":     strings.Repeat("a\n", size/2),
		"numbers":       lines(func(i int) string { return fmt.Sprintln(i) }),
		"distant pairs": lines(func(i int) string { return fmt.Sprintf("%x\x01\n%[1]x\U0010ffff\n", i) }),
		"random":        lines(func(int) string { return fmt.Sprintf("%c%c\n", 32+seed.IntN(0xd000), 32+seed.IntN(0xd000)) }),
		// All cells are taken when the nodes of many children look for a place.
		"dense": strings.Repeat("!", size) + "\n" + lines(func(i int) string {
			return fmt.Sprintf("~%c%c\n", rune(i/90), rune(i%90)*rune(1+i/90%40))
		}),
	} {
		t.Run(name, func(t *testing.T) {
			bounded.Run(t, 150*len(text), 20*time.Second, func() {
				_, err := ReadVocab(strings.NewReader("[UNK]\n" + text))
				assert.NoError(t, err)
			})
		})
	}
}

func FuzzReadVocab(f *testing.F) {
	f.Add("[UNK]\na\n##b\nab\n", false)
	f.Add("[UNK]\r\r\n\x1c\xe2\x80\xa8x", true)
	f.Fuzz(func(t *testing.T, text string, anyLine bool) {
		profile := NVIDIA1903
		if anyLine {
			profile = NVIDIA2006
		}
		var v *Vocab
		var err error
		bounded.Run(t, 1000*len(text), 10*time.Second, func() { v, err = profile.ReadVocab(strings.NewReader(text)) })
		if err != nil {
			return
		}
		last := make(map[string]int32)
		for i := range int32(v.Len()) {
			last[v.Token(i)] = i
		}
		for token, want := range last {
			id, ok := v.ID(token)
			require.True(t, ok)
			require.Equal(t, want, id)
			_, known := last[token+"x"]
			_, ok = v.ID(token + "x")
			require.Equal(t, known, ok)
		}
	})
}
