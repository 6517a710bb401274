package wordpiece

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/tfbert/go/internal/pytext"
)

// unknown is the piece that stands for words the vocabulary cannot spell.
const unknown = "[UNK]"

// maxVocab is a size in bytes that no vocabulary has: the largest, of half a million pieces, are 5 MB.
// What is made of a byte takes 40 bytes at most, most often 12.
const maxVocab = 1 << 24

// A Vocab maps pieces to ids and back. It is safe for concurrent use.
type Vocab struct {
	tokens []string
	trie   trie
	suffix int32 // the trie's node of "##", where pieces inside a word begin, or noNode
	unk    int32
}

// ReadVocab reads a vocab.txt. Each line holds a piece, whose id is the number of the line, counted
// from 0. White space around a piece is not part of it. If a piece is repeated, its last id counts.
// ReadVocab returns an error if the file is not UTF-8 or does not have [UNK], which any text may need.
func ReadVocab(r io.Reader) (*Vocab, error) { return NVIDIA1903.ReadVocab(r) }

// ReadVocab reads a vocab.txt as the function ReadVocab does, except that for NVIDIA2006 a lone carriage
// return ends a line, too.
func (p Profile) ReadVocab(r io.Reader) (*Vocab, error) {
	data, err := io.ReadAll(io.LimitReader(r, maxVocab+1))
	if err != nil {
		return nil, fmt.Errorf("read vocabulary: %w", err)
	}
	if len(data) > maxVocab {
		return nil, fmt.Errorf("read vocabulary: more than %d MiB: it is not a vocab.txt", maxVocab>>20)
	}
	if p.valid() && profiles[p].anyLine {
		data = bytes.ReplaceAll(data, []byte("\r\n"), []byte("\n"))
		data = bytes.ReplaceAll(data, []byte("\r"), []byte("\n"))
	}
	v := new(Vocab)
	for line := range strings.Lines(string(data)) {
		if !utf8.ValidString(line) {
			return nil, fmt.Errorf("read vocabulary: line %d is not UTF-8", len(v.tokens)+1)
		}
		v.tokens = append(v.tokens, pytext.Strip(line))
	}
	v.trie = newTrie(v.tokens)
	unk, ok := v.ID(unknown)
	if !ok {
		return nil, fmt.Errorf("read vocabulary: no %s among %d lines: it is not a vocab.txt", unknown, v.Len())
	}
	v.unk = unk
	v.suffix = v.trie.walk(0, "##")
	return v, nil
}

// ID returns the id of a piece. ok reports whether the vocabulary has the piece.
func (v *Vocab) ID(piece string) (id int32, ok bool) {
	node := v.trie.walk(0, piece)
	if node == noNode {
		return 0, false
	}
	id = v.trie[node].id
	return id, id >= 0
}

// Token returns the piece with the given id, or "" if there is none.
func (v *Vocab) Token(id int32) string {
	if id < 0 || int(id) >= len(v.tokens) {
		return ""
	}
	return v.tokens[id]
}

// Len returns the number of ids, which is the number of lines read.
func (v *Vocab) Len() int { return len(v.tokens) }

// appendPieces appends the pieces of a word, the longest that fits first, or [UNK] if they do not
// spell all of it.
func (v *Vocab) appendPieces(dst []int32, word []byte) []int32 {
	start := len(dst)
	for node := int32(0); len(word) > 0; node = v.suffix {
		id, size := v.trie.longest(node, word)
		if size == 0 {
			return append(dst[:start], v.unk)
		}
		dst = append(dst, id)
		word = word[size:]
	}
	return dst
}
