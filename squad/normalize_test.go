package squad

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

// What Python 3.11 returns for
//
//	s = "".join(c for c in s.lower() if c not in string.punctuation)
//	re.sub(r"\b(a|an|the)\b", " ", s).split()
func TestNormalize(t *testing.T) {
	tests := []struct {
		name, answer string
		want         []string
	}{
		{"empty", "", nil},
		{"only an article", "The", nil},
		{"only punctuation", "...", nil},
		{"articles", "An apple, the a pear", []string{"apple", "pear"}},
		{"article within words", "anthem lathe a1 1a", []string{"anthem", "lathe", "a1", "1a"}},
		{"article made by deleting punctuation", "a-n 'the' _a_", nil},
		{"word made by deleting punctuation", "the-end o'clock U.S.", []string{"theend", "oclock", "us"}},
		{"all ASCII punctuation", "x!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~y", []string{"xy"}},
		{"other punctuation stays", "“a” – b…", []string{"“", "”", "–", "b…"}},
		{"article beside other punctuation", "the–end", []string{"–end"}},
		{"article under a combining mark", "a\u0301 b", []string{"\u0301", "b"}},
		{"mark keeps words apart", "a\u0301n", []string{"\u0301n"}},
		{"precomposed letter is no article", "á", []string{"á"}},
		{"letter and number characters", "aé a½ a² a١ aⅷ", []string{"aé", "a½", "a²", "a١", "aⅷ"}},
		{"zero width space is no letter", "a\u200bb", []string{"\u200bb"}},
		{"Python's white space", "b\x1cc\x1fd\u0085e\u00a0f\u3000g", []string{"b", "c", "d", "e", "f", "g"}},
		{"dotted I", "İ", []string{"i\u0307"}},
		{"dotted I makes no article", "THİE", []string{"thi\u0307e"}},
		{"final sigma", "ΟΔΟΣ ΟΔΟΣΑ Σ", []string{"οδος", "οδοσα", "σ"}},
		{"no final sigma before a full stop and a letter", "ΟΔΟΣ.Α", []string{"οδοσα"}},
		{"final sigma before a dash", "ΟΔΟΣ-Α", []string{"οδοςα"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			assert.Equal(t, strings.Join(test.want, "|"), strings.Join(normalize(test.answer), "|"))
			assert.Len(t, normalize(test.answer), len(test.want))
		})
	}
}

func FuzzNormalize(f *testing.F) {
	for _, s := range []string{"The cat's “hat”", "a\u0301n", "İ ΟΔΟΣ.", "\x1c\xff the", "a-n a"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		words := normalize(s)
		for _, w := range words {
			assert.NotEmpty(t, w)
			assert.NotContains(t, []string{"a", "an", "the"}, w)
			assert.NotContains(t, w, " ")
			assert.Equal(t, removePunctuation(w), w)
		}
		assert.Equal(t, words, normalize(strings.Join(words, " ")), "normal words are normal")
	})
}
