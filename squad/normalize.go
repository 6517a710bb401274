package squad

import (
	"strings"

	"github.com/tfbert/go/internal/pytext"
)

// normalize returns the words of an answer in the form that the evaluation scripts compare: in
// lower case, without ASCII punctuation, without articles. Two answers match exactly if their words
// are equal.
func normalize(answer string) []string {
	return pytext.Fields(removeArticles(removePunctuation(pytext.Lower(answer))))
}

// removePunctuation deletes the characters of Python's string.punctuation, so that "o'clock" is one
// word.
func removePunctuation(s string) string {
	return strings.Map(func(r rune) rune {
		if '!' <= r && r <= '/' || ':' <= r && r <= '@' || '[' <= r && r <= '`' || '{' <= r && r <= '~' {
			return -1
		}
		return r
	}, s)
}

// removeArticles puts a space for every match of \b(a|an|the)\b, a regular expression whose \b Go
// has for ASCII only. To match is to be a whole run of \w characters; combining marks are not among
// these, so an "a" with a mark on it counts as an article with a mark behind it.
func removeArticles(s string) string {
	var b strings.Builder
	b.Grow(len(s))
	for len(s) > 0 {
		n := strings.IndexFunc(s, pytext.IsWord)
		if n < 0 {
			n = len(s)
		}
		b.WriteString(s[:n])
		s = s[n:]
		n = strings.IndexFunc(s, isNoWord)
		if n < 0 {
			n = len(s)
		}
		switch word := s[:n]; word {
		case "a", "an", "the":
			b.WriteByte(' ')
		default:
			b.WriteString(word)
		}
		s = s[n:]
	}
	return b.String()
}

func isNoWord(r rune) bool { return !pytext.IsWord(r) }
