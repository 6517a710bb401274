package squad

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/pytext"
	"github.com/tfbert/go/wordpiece"
)

// finalTexts are cases of get_final_text with do_lower_case; the first seven were run in Python.
var finalTexts = []struct{ name, pred, orig, want string }{
	{"suffix", "steve smith", "Steve Smith's", "Steve Smith"},
	{"precomposed accent", "cafe", "Café,", "Café"},
	{"combining accent", "cafe", "Cafe\u0301,", "Cafe\u0301,"},
	{"empty prediction", "", "abc", "abc"},
	{"unknown word", "[UNK]", "😀x", "😀x"},
	{"no-break space inside", "a", "a\u00a0b", "a\u00a0b"},
	{"the first match", "the", "the The the", "the"},
	{"no match", "x", "abc", "abc"},
	{"part of a word", "b", "abc", "b"},
	{"punctuation between", "o ' connell", "Maude O'Connell-Reyes,", "O'Connell"},
	{"spaces in the original", "a b", "x a   b.", "a   b"},
	{"match across words of the tokenised text", "a . b", "A.B", "A.B"},
	{"format character", "ab", "a\u200bb c", "a\u200bb c"},
	{"Hangul", "한", "한글", "한글"},
	{"Chinese", "博 推", "ah博推zz", "博推"},
	{"beyond the basic plane", "𝟚 decks", "It has 𝟚 decks.", "𝟚 decks"},
	{"final sigma", "σοφο\u03c2", "ΣΟΦΟΣ ὁ", "ΣΟΦΟΣ"},
	{"no final sigma", "σοφο\u03c3", "ΣΟΦΟΣ ὁ", "ΣΟΦΟΣ ὁ"},
	{"empty original", "a", "", ""},
}

func TestFinalText(t *testing.T) {
	for _, tt := range finalTexts {
		t.Run(tt.name, func(t *testing.T) {
			assert.Equal(t, tt.want, textAndPlace(t, tt.pred, tt.orig, &wordpiece.Tokenizer{}))
			assert.Equal(t, tt.want, finalTextByTheBook(tt.pred, tt.orig, &wordpiece.Tokenizer{}))
		})
	}
	assert.Equal(t, "Steve Smith's", textAndPlace(t, "steve smith", "Steve Smith's", &wordpiece.Tokenizer{Cased: true}))
	assert.Equal(t, "Steve Smith", textAndPlace(t, "Steve Smith", "Steve Smith's", &wordpiece.Tokenizer{Cased: true}))
}

// finalTextByTheBook takes the same steps as get_final_text, with its maps of code points.
func finalTextByTheBook(pred, orig string, t *wordpiece.Tokenizer) string {
	strip := func(s string) (compact []rune, toOrig []int) {
		for i, r := range []rune(s) {
			if r != ' ' {
				compact, toOrig = append(compact, r), append(toOrig, i)
			}
		}
		return compact, toOrig
	}
	tok := strings.Join(t.Basic(orig), " ")
	byteAt := strings.Index(tok, pred)
	if byteAt < 0 {
		return orig
	}
	p := utf8.RuneCountInString(tok[:byteAt])
	q := p + utf8.RuneCountInString(pred) - 1
	origCompact, origMap := strip(orig)
	tokCompact, tokMap := strip(tok)
	if len(origCompact) != len(tokCompact) {
		return orig
	}
	toCompact := make(map[int]int)
	for i, at := range tokMap {
		toCompact[at] = i
	}
	i, ok := toCompact[p]
	j, ok2 := toCompact[q]
	if !ok || !ok2 {
		return orig
	}
	return string([]rune(orig)[origMap[i] : origMap[j]+1])
}

// textAndPlace checks the offset of a final text and returns the text.
func textAndPlace(t *testing.T, pred, orig string, tok *wordpiece.Tokenizer) string {
	t.Helper()
	text, offset := finalText(pred, orig, tok)
	require.Equal(t, text, orig[offset:offset+len(text)])
	return text
}

func FuzzFinalText(f *testing.F) {
	for _, tt := range finalTexts {
		f.Add(tt.pred, tt.orig, false)
	}
	f.Fuzz(func(t *testing.T, pred, orig string, cased bool) {
		pred, orig = strings.ToValidUTF8(pred, "?"), strings.ToValidUTF8(orig, "?")
		pred = strings.Join(pytext.Fields(pred), " ") // as joinPieces makes it
		tok := &wordpiece.Tokenizer{Cased: cased}
		require.Equal(t, finalTextByTheBook(pred, orig, tok), textAndPlace(t, pred, orig, tok))
		// Nearly no random prediction is in the text, but every part of its tokens is.
		words := tok.Basic(orig)
		for i := range words {
			pred := strings.Join(words[i:min(i+3, len(words))], " ")
			require.Equal(t, finalTextByTheBook(pred, orig, tok), textAndPlace(t, pred, orig, tok))
		}
	})
}

func TestJoinPieces(t *testing.T) {
	for _, tt := range []struct{ pieces, want string }{
		{"steve smith ' s", "steve smith ' s"},
		{"un ##want ##ed , runn ##ing", "unwanted , running"},
		{"##ed , un", "ed , un"}, // a window may begin inside a word
		{"# # a", "# # a"},
		{"a ### b", "a# b"},
		{"### a", "# a"},
		{"x # ##", "x #"},
		{"x # ### y", "x y"}, // what " ##" leaves behind becomes "##"
		{"## a", "a"},
		{"[UNK]", "[UNK]"},
	} {
		pieces := strings.Fields(tt.pieces)
		v, err := wordpiece.ReadVocab(strings.NewReader(strings.Join(append(pieces, "[UNK]"), "\n")))
		require.NoError(t, err)
		var ids []int32
		for _, p := range pieces {
			id, ok := v.ID(p)
			require.True(t, ok)
			ids = append(ids, id)
		}
		assert.Equal(t, tt.want, joinPieces(v, ids), tt.pieces)

		literal := strings.ReplaceAll(strings.ReplaceAll(strings.Join(pieces, " "), " ##", ""), "##", "")
		assert.Equal(t, strings.Join(pytext.Fields(literal), " "), joinPieces(v, ids), tt.pieces)
	}
}

// TestFinalTextIsLinear would take minutes if the cost grew with the square of the text.
func TestFinalTextIsLinear(t *testing.T) {
	orig := strings.Repeat("É, ", 1<<18) + "x"
	assert.Equal(t, "x", textAndPlace(t, "x", orig, &wordpiece.Tokenizer{}))
}
