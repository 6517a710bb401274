package wordpiece

import (
	"cmp"
	"slices"
)

// noNode is the node that is not there.
const noNode = -1

// A trie holds strings as a double array: the child of a node for a byte is at the node's base plus
// the byte, if the cell there names the node as its parent. Node 0 is the root.
type trie []cell

type cell struct {
	base   int32
	parent int32 // noNode: the cell is free
	id     int32 // of the string that ends here, or -1
}

// walk returns the node reached from node by the bytes of s, or noNode.
func (t trie) walk(node int32, s string) int32 {
	for i := range len(s) {
		child := t[node].base + int32(s[i])
		if t[child].parent != node {
			return noNode
		}
		node = child
	}
	return node
}

// longest returns the id and the size of the longest prefix of word that the trie has below node.
// The size is 0 if it has none.
func (t trie) longest(node int32, word []byte) (id int32, size int) {
	if node == noNode {
		return 0, 0
	}
	base := t[node].base
	for i, c := range word {
		child := base + int32(c)
		cell := &t[child]
		if cell.parent != node {
			break
		}
		node, base = child, cell.base
		if cell.id >= 0 {
			id, size = cell.id, i+1
		}
	}
	return id, size
}

// newTrie returns the trie in which strings[i] has the id i, or the last such i.
func newTrie(strings []string) trie {
	b := trieBuilder{strings: strings, order: make([]int32, len(strings))}
	for i := range b.order {
		b.order[i] = int32(i)
	}
	slices.SortFunc(b.order, func(i, j int32) int {
		return cmp.Or(cmp.Compare(strings[i], strings[j]), cmp.Compare(i, j))
	})
	b.reserve(1)
	b.trie[0].parent = 0
	b.build(0, b.order, 0)
	return b.trie
}

// A trieBuilder places the nodes of a trie depth first.
type trieBuilder struct {
	trie    trie
	strings []string
	order   []int32 // indices into strings, sorted
	free    int     // no cell before it is free
}

// build fills in node, whose strings are those of order and share their first depth bytes.
func (b *trieBuilder) build(node int32, order []int32, depth int) {
	for len(order) > 0 && len(b.strings[order[0]]) == depth {
		b.trie[node].id = order[0]
		order = order[1:]
	}
	if len(order) == 0 {
		return
	}
	var children []byte
	for _, i := range order {
		if c := b.strings[i][depth]; len(children) == 0 || children[len(children)-1] != c {
			children = append(children, c)
		}
	}
	base := b.place(children)
	b.trie[node].base = int32(base)
	for _, c := range children {
		b.trie[base+int(c)].parent = node
	}
	for _, c := range children {
		n := 0
		for n < len(order) && b.strings[order[n]][depth] == c {
			n++
		}
		b.build(int32(base+int(c)), order[:n], depth+1)
		order = order[n:]
	}
}

// place returns a base at which the cells of all children are free.
func (b *trieBuilder) place(children []byte) int {
	for b.trie[b.free].parent != noNode {
		b.free++
		b.reserve(b.free + 1)
	}
search:
	for base := max(b.free-int(children[0]), 0); ; base++ {
		b.reserve(base + 256)
		for _, c := range children {
			if b.trie[base+int(c)].parent != noNode {
				continue search
			}
		}
		return base
	}
}

// reserve makes at least n cells and the 255 after them that a base may reach.
func (b *trieBuilder) reserve(n int) {
	for len(b.trie) < n+255 {
		b.trie = append(b.trie, cell{parent: noNode, id: -1})
	}
}
