package pytext

import (
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"io"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
)

// The digests below were made by Python 3.11.7, by the lines given with each, after
//
//	import hashlib, unicodedata as u
//	h = hashlib.sha256()
//	put = lambda s: h.update(s.encode() + b"\0")
//	points = [chr(i) for i in range(0x110000) if not 0xd800 <= i < 0xe000]
//
// and then print(h.hexdigest()).

func hexDigest(h hash.Hash) string { return hex.EncodeToString(h.Sum(nil)) }

func hashText(h hash.Hash, s string) {
	io.WriteString(h, s)
	h.Write([]byte{0})
}

// allCodePoints yields every code point that UTF-8 can hold.
func allCodePoints(yield func(rune) bool) {
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if utf8.ValidRune(r) && !yield(r) {
			return
		}
	}
}

// for c in points:
//
//	k = u.category(c)
//	h.update(bytes([c.isspace(), c.isalnum() or c == "_", k[0] == "P", k == "Mn", k in ("Cc", "Cf"), k in ("Cn", "Co")]))
func TestClassEveryCodePoint(t *testing.T) {
	h := sha256.New()
	for r := range allCodePoints {
		class := ClassOf(r)
		var row [6]byte
		for i, c := range []Class{Space, Word, Punct, Mn, Control, Other} {
			if class&c != 0 {
				row[i] = 1
			}
		}
		h.Write(row[:])
	}
	assert.Equal(t, "1ed3ff70f8e1ff229b7655e17c0779f020933d85fee4de7cbdf07617e11e3ad8", hexDigest(h))
}

// for c in points: put(c.lower() + ("a" + c + "Σ").lower() + (c + "Σ").lower() + ("aΣ" + c + "b").lower())
func TestLowerEveryCodePoint(t *testing.T) {
	h := sha256.New()
	for r := range allCodePoints {
		c := string(r)
		hashText(h, Lower(c)+Lower("a"+c+"Σ")+Lower(c+"Σ")+Lower("aΣ"+c+"b"))
	}
	assert.Equal(t, "59519baddf8c1e9c7c5169f1b133b65c1bdb93fade988e22cf28d17983da6c4a", hexDigest(h))
}

// for c in points: put(u.normalize("NFD", c + "\u0323" + c))
func TestNFDEveryCodePoint(t *testing.T) {
	h := sha256.New()
	for r := range allCodePoints {
		hashText(h, NFD(string(r)+"\u0323"+string(r)))
	}
	assert.Equal(t, "d1e809c7a7c7d1e7df83071d52ad17933c6f6f779e456d1d6774a9b2018b676f", hexDigest(h))
}

// marks = [c for c in points if u.combining(c)]
// for c in marks:
//
//	for d in marks: put(u.normalize("NFD", c + d))
func TestNFDEveryPairOfMarks(t *testing.T) {
	var marks []string
	for r := range allCodePoints {
		if lookup(r).ccc != 0 {
			marks = append(marks, string(r))
		}
	}
	h := sha256.New()
	for _, c := range marks {
		for _, d := range marks {
			hashText(h, NFD(c+d))
		}
	}
	assert.Equal(t, "373185fb604d31232a58ba65693a1749e9c2a639c451dee2f64cb335d522f4d1", hexDigest(h))
}

func TestLower(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"empty", "", ""},
		{"unchanged", "abc 1", "abc 1"},
		{"letters", "ABC Ä Я", "abc ä я"},
		{"dotted I grows", "İstanbul", "i\u0307stanbul"},
		{"final sigma", "ΟΔΟΣ ΟΔΟΣ.", "οδος οδος."},
		{"sigma alone", "Σ", "σ"},
		{"sigma before a letter", "ΣΑ", "σα"},
		{"case-ignorable in between", "Α'Σ'Α Α.Σ.", "α'σ'α α.ς."},
		{"not UTF-8", "A\xffB\xed\xa0\x80", "a\xffb\xed\xa0\x80"},
	} {
		t.Run(tt.name, func(t *testing.T) { assert.Equal(t, tt.want, Lower(tt.in)) })
	}
}

func TestNFD(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"ASCII", "abc", "abc"},
		{"precomposed", "é", "e\u0301"},
		{"twice", "ǖ", "u\u0308\u0304"},
		{"Hangul", "한글", "\u1112\u1161\u11ab\u1100\u1173\u11af"},
		{"order", "a\u0301\u0323b\u0301\u0301\u0323", "a\u0323\u0301b\u0323\u0301\u0301"},
		{"40 marks get nothing in between", "a" + strings.Repeat("\u0301", 40), "a" + strings.Repeat("\u0301", 40)},
		{"not UTF-8", "\xff\u0301\u0323\xed", "\xff\u0323\u0301\xed"},
		{"newer than Unicode 14", "\U000105c9", "\U000105c9"},
	} {
		t.Run(tt.name, func(t *testing.T) { assert.Equal(t, tt.want, NFD(tt.in)) })
	}
}

func TestFieldsAndStrip(t *testing.T) {
	const s = "\x1c a\u00a0b\v\x1fc\u2028\u200b \u3000"
	assert.Equal(t, []string{"a", "b", "c", "\u200b"}, Fields(s))
	assert.Equal(t, "a\u00a0b\v\x1fc\u2028\u200b", Strip(s))
	assert.Empty(t, Fields(" \t"))
	assert.Empty(t, Strip("\u0085\u205f"))
}

func TestOutOfRange(t *testing.T) {
	for _, r := range []rune{-1, unicode.MaxRune + 1, 1<<31 - 1} {
		assert.Equal(t, Other, ClassOf(r))
	}
}

// Runs of marks and of sigmas must not cost more than linear time: these take seconds otherwise.
func TestLongRuns(t *testing.T) {
	const n = 1 << 18
	marks := "a" + strings.Repeat("\u0301", n) + strings.Repeat("\u0323", n)
	assert.True(t, NFD(marks) == "a"+strings.Repeat("\u0323", n)+strings.Repeat("\u0301", n))
	assert.True(t, Lower("A"+strings.Repeat("Σ'", n)+"A") == "a"+strings.Repeat("σ'", n)+"a")
}

func FuzzText(f *testing.F) {
	f.Add("ΟΔΟΣ İ é 한글 a\u0301\u0323")
	f.Add("\xff\xed\xa0\x80 \x1c")
	f.Fuzz(func(t *testing.T, s string) {
		nfd := NFD(s)
		assert.Equal(t, nfd, NFD(nfd), "NFD is idempotent")
		assert.Equal(t, utf8.ValidString(s), utf8.ValidString(nfd))
		lower := Lower(s)
		assert.Equal(t, utf8.ValidString(s), utf8.ValidString(lower))
		if !strings.ContainsRune(s, capitalSigma) {
			assert.Equal(t, lower, Lower(lower), "lower case stays")
		}
		assert.Equal(t, Fields(s), Fields(Strip(s)))
		for _, word := range Fields(s) {
			assert.Equal(t, word, Strip(word))
		}
	})
}

func BenchmarkLower(b *testing.B) {
	for _, bb := range []struct{ name, text string }{
		{"ascii", strings.Repeat("The Quick brown Fox ", 50)},
		{"greek", strings.Repeat("Ο Χρήστος ΕΙΝΑΙ εδώ ", 50)},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.SetBytes(int64(len(bb.text)))
			for b.Loop() {
				Lower(bb.text)
			}
		})
	}
}
