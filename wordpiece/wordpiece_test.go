package wordpiece

import (
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestBasic(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"empty", "", nil},
		{"only white space", " \t\n\r\u00a0\u3000", nil},
		{"only dropped", "\x00\ufffd\u200b\v", nil},
		{"the reference's own test", " \tHeLLo!how  \n Are yoU?  ", []string{"hello", "!", "how", "are", "you", "?"}},
		{"accents", "UNwant\u00e9d,running", []string{"unwanted", ",", "running"}},
		{"Chinese", "ah\u535a\u63a8zz", []string{"ah", "博", "推", "zz"}},
		{"compatibility ideograph", "a\uf900b", []string{"a", "\u8c48", "b"}},
		{"kana is not set apart", "aかb", []string{"aかb"}},
		{"control characters join", "a\vb a\x1cb a\u200bb a\x7fb\u0085c", []string{"ab", "ab", "ab", "abc"}},
		{"separators part", "a\u2028b a\u00a0b a\u202fb a\u2029b", []string{"a", "b", "a", "b", "a", "b", "a", "b"}},
		{"final sigma", "ΟΔΟΣ.", []string{"οδος", "."}},
		{"final sigma looks over punctuation", "Α.Σ 'Σ Σ'Α", []string{"α", ".", "ς", "'", "σ", "σ", "'", "α"}},
		{"sigma before Chinese is final", "ΑΣ博", []string{"ας", "博"}},
		{"dotted I", "İstanbul", []string{"istanbul"}},
		{"Hangul becomes letters", "한글", []string{"\u1112\u1161\u11ab\u1100\u1173\u11af"}},
		{"symbols are not punctuation, except in ASCII",
			"“q” €5×3° $5^3", []string{"“", "q", "”", "€5×3°", "$", "5", "^", "3"}},
		{"marks alone vanish", "\u0301\u0302 a", []string{"a"}},
		{"decomposes to punctuation", "a\u037eb", []string{"a", ";", "b"}},
		{"not UTF-8", "a\xffb \xed\xa0\x80 c\xe2\x82", []string{"ab", "c"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tok := Tokenizer{}
			assert.Equal(t, tt.want, tok.Basic(tt.text))
			assert.Equal(t, strings.Join(tt.want, " "), string(tok.AppendBasic(nil, tt.text)))
			assert.Equal(t, ">"+strings.Join(tt.want, " "), string(tok.AppendBasic([]byte(">"), tt.text)))
		})
	}
}

func TestBasicCased(t *testing.T) {
	tok := Tokenizer{Cased: true}
	assert.Equal(t, []string{"Café", ",", "cafe\u0301", "İΣ", "\uf900", "!"}, tok.Basic("Café, cafe\u0301 İΣ\uf900!"))
}

func TestProfilesDifferInControlCharacters(t *testing.T) {
	for text, dropped := range map[string]string{
		"x\ue000y":     "xy", // private use
		"x\u0378y":     "xy", // unassigned
		"x\U0001fae8y": "xy", // assigned after Unicode 14.0
	} {
		assert.Equal(t, []string{text}, (&Tokenizer{Profile: Google}).Basic(text))
		assert.Equal(t, []string{dropped}, (&Tokenizer{Profile: NVIDIA1903}).Basic(text))
		assert.Equal(t, []string{dropped}, (&Tokenizer{Profile: NVIDIA2006}).Basic(text))
	}
}

func readVocab(t testing.TB, pieces ...string) *Vocab {
	t.Helper()
	v, err := ReadVocab(strings.NewReader(strings.Join(pieces, "\n")))
	require.NoError(t, err)
	return v
}

func TestTokenize(t *testing.T) {
	// The vocabulary of the reference's tokenization_test.py, and a few traps.
	vocab := readVocab(t, "[UNK]", "[CLS]", "[SEP]", "want", "##want", "##ed", "wa", "un", "runn", "##ing", ",",
		"é", "##é", "##", "#", "##c")
	for _, tt := range []struct {
		name, text string
		want       []string
	}{
		{"empty", "", []string{}},
		{"pieces", "unwanted running", []string{"un", "##want", "##ed", "runn", "##ing"}},
		{"one bad end makes the whole word unknown", "unwantedX running", []string{"[UNK]", "runn", "##ing"}},
		{"basic first", "UNwantéd,running", []string{"un", "##want", "##ed", ",", "runn", "##ing"}},
		{"no piece starts the word", "edun", []string{"[UNK]"}},
		{"the empty piece is none", "un# c", []string{"un", "#", "[UNK]"}},
		{"special tokens are words like others", "[UNK]", []string{"[UNK]", "[UNK]", "[UNK]"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tok := Tokenizer{Vocab: vocab}
			assert.Equal(t, tt.want, tok.Tokenize(tt.text))
		})
	}
	t.Run("a piece is whole characters", func(t *testing.T) {
		tok := Tokenizer{Vocab: vocab, Cased: true}
		assert.Equal(t, []string{"é", "##é", "[UNK]"}, tok.Tokenize("éé éê"))
	})
	t.Run("no pieces inside words", func(t *testing.T) {
		tok := Tokenizer{Vocab: readVocab(t, "[UNK]", "a")}
		assert.Equal(t, []string{"a", "[UNK]"}, tok.Tokenize("a aa"))
	})
	t.Run("appends", func(t *testing.T) {
		tok := Tokenizer{Vocab: vocab}
		assert.Equal(t, []int32{1, 7, 0}, tok.AppendIDs([]int32{1}, "un X"))
	})
}

func TestLongWords(t *testing.T) {
	vocab := readVocab(t, "[UNK]", "a", "##a", "é", "##é")
	for _, tt := range []struct {
		profile Profile
		limit   int // in characters
	}{{NVIDIA1903, 200}, {Google, 200}, {NVIDIA2006, 100}} {
		for _, char := range []string{"a", "é"} {
			tok := Tokenizer{Vocab: vocab, Cased: true, Profile: tt.profile}
			assert.Len(t, tok.AppendIDs(nil, strings.Repeat(char, tt.limit)), tt.limit)
			assert.Equal(t, []string{"[UNK]"}, tok.Tokenize(strings.Repeat(char, tt.limit+1)))
		}
	}
}

// Every text has a megabyte. In quadratic time one takes minutes.
func TestLinearTime(t *testing.T) {
	const size = 1 << 20
	tok := Tokenizer{Vocab: modelVocab(t)}
	for name, part := range map[string]string{
		"one word":                   "a",
		"one word, not ASCII":        "я",
		"words that almost match":    "supercalifragilisticexpialidociou\u2603" + " ",
		"many words":                 "hippopotomonstrosesquippedaliophobia ",
		"no piece fits at the end":   strings.Repeat("a", 199) + "\u2603 ",
		"punctuation":                ".",
		"punctuation and sigma":      "Σ.",
		"marks":                      "\u0301\u0323",
		"marks and words":            "a\u0301\u0323",
		"control characters":         "\x01",
		"Chinese":                    "博",
		"ASCII, then the rest":       "a.a.a.a.a.a.é ",
		"white space":                " ",
		"bytes that are not UTF-8":   "\xff",
		"one chunk of words":         "word-word'word",
		"one chunk, late non-ASCII":  "word-",
		"white space of other kinds": "\u3000\u2028",
	} {
		t.Run(name, func(t *testing.T) {
			text := strings.Repeat(part, size/len(part)) + "é"
			start := time.Now()
			tok.AppendIDs(nil, text)
			assert.Less(t, time.Since(start), 5*time.Second)
		})
	}
}

func TestAppendIDsAllocatesNothing(t *testing.T) {
	tok := Tokenizer{Vocab: modelVocab(t)}
	for _, tt := range []struct {
		name, text string
		most       float64
	}{
		{"ASCII", strings.Repeat("The Broncos' win: unaffable, 24-10. ", 100), 0},
		{"other, one buffer a call", strings.Repeat("Beyoncé — naïve Жизнь 한글 ", 100), 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			ids := make([]int32, 0, 4096)
			n := testing.AllocsPerRun(10, func() { ids = tok.AppendIDs(ids[:0], tt.text) })
			assert.LessOrEqual(t, n, tt.most)
		})
	}
}

func TestConcurrentUse(t *testing.T) {
	tok := Tokenizer{Vocab: modelVocab(t)}
	const text = "Beyoncé sang at Super Bowl 50, didn't she?"
	want := tok.AppendIDs(nil, text)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 100 {
				assert.Equal(t, want, tok.AppendIDs(nil, text))
			}
		})
	}
	wg.Wait()
}

func FuzzTokenize(f *testing.F) {
	f.Add("Beyoncé's ΟΔΟΣ", "한글 ah博推zz", false, 0)
	f.Add("a\u0301\u0323\xff\x1c", "Σ\u2028", true, 1)
	vocab := modelVocab(f)
	f.Fuzz(func(t *testing.T, a, b string, cased bool, profile int) {
		p := Profile(uint(profile) % uint(len(profiles)))
		tok := Tokenizer{Vocab: vocab, Cased: cased, Profile: p}
		pieces := tok.Tokenize(a)
		ids := tok.AppendIDs(nil, a)
		require.Len(t, ids, len(pieces))
		for i, piece := range pieces {
			id, ok := vocab.ID(piece)
			require.True(t, ok, "%q is in the vocabulary", piece)
			require.Equal(t, id, ids[i])
		}

		// White space parts, so the sum's words are the words of both.
		require.Equal(t, append(pieces, tok.Tokenize(b)...), tok.Tokenize(a+" "+b))

		words := tok.Basic(a)
		for _, word := range words {
			require.NotEmpty(t, word)
			require.True(t, utf8.ValidString(word))
		}
		require.Equal(t, strings.Join(words, " "), string(tok.AppendBasic(nil, a)))
		// The pieces spell the word or are one [UNK].
		for _, word := range words {
			pieces := vocab.appendPieces(nil, []byte(word))
			if slices.Equal(pieces, []int32{vocab.unk}) {
				continue
			}
			var spelled strings.Builder
			for i, id := range pieces {
				piece := vocab.Token(id)
				if i > 0 {
					piece = strings.TrimPrefix(piece, "##")
				}
				spelled.WriteString(piece)
			}
			require.Equal(t, word, spelled.String())
		}
	})
}
