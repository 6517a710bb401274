package squad

import (
	"bytes"
	"strings"
	"unicode/utf8"

	"github.com/tfbert/go/internal/pytext"
	"github.com/tfbert/go/wordpiece"
)

// finalText returns the part of orig, words of the passage, and its offset there, that pred, word
// pieces put together, was tokenised from: "steve smith" in "Steve Smith's" is "Steve Smith". Both are compared as the
// basic tokenizer leaves them and then counted along without their spaces, so where tokenising
// adds or drops characters that cannot be known, and the answer is all of orig.
//
// It follows get_final_text of run_squad.py in every detail, among them that the first match
// counts even if the prediction was a later one.
func finalText(pred, orig string, t *wordpiece.Tokenizer) (text string, offset int) {
	var buf [256]byte
	tok := t.AppendBasic(buf[:0], orig)
	p := bytes.Index(tok, []byte(pred))
	if pred == "" || p < 0 || countNonSpace(tok) != countNonSpace([]byte(orig)) {
		return orig, 0
	}
	// The match has its first and last character at these places among all that are not spaces.
	// It neither begins nor ends with a space, for joinPieces makes no such text.
	first := countNonSpace(tok[:p])
	last := first + countNonSpace([]byte(pred)) - 1
	start := nonSpace(orig, first)
	end := start + nonSpace(orig[start:], last-first)
	_, size := utf8.DecodeRuneInString(orig[end:])
	return orig[start : end+size], start
}

// countNonSpace returns the number of code points of s that are not U+0020.
func countNonSpace(s []byte) int {
	return utf8.RuneCount(s) - bytes.Count(s, []byte(" "))
}

// nonSpace returns the offset in s of its n-th code point that is not U+0020, counted from 0.
func nonSpace(s string, n int) int {
	for i, r := range s {
		if r == ' ' {
			continue
		}
		if n == 0 {
			return i
		}
		n--
	}
	return len(s)
}

// joinPieces puts word pieces together as text. Like the reference it removes "##" wherever it
// is, not only where a continuation begins.
func joinPieces(v *wordpiece.Vocab, ids []int32) string {
	var buf [256]byte
	text := buf[:0]
	for i, id := range ids {
		piece := v.Token(id)
		if i > 0 {
			if rest, ok := strings.CutPrefix(piece, "##"); ok {
				piece = rest
			} else {
				text = append(text, ' ')
			}
		}
		text = append(text, piece...)
	}
	if !bytes.Contains(text, []byte("##")) {
		return string(text) // pieces are neither empty nor have white space
	}
	text = bytes.ReplaceAll(text, []byte("##"), nil)
	return strings.Join(pytext.Fields(string(text)), " ")
}
