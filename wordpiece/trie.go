package wordpiece

import (
	"cmp"
	"slices"
)

const (
	noNode   = -1 // the node that is not there
	noParent = -2 // the parent of the root
)

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
	order := make([]int32, len(strings))
	for i := range order {
		order[i] = int32(i)
	}
	slices.SortFunc(order, func(i, j int32) int {
		if c := cmp.Compare(strings[i], strings[j]); c != 0 {
			return c
		}
		return cmp.Compare(i, j)
	})
	b := trieBuilder{strings: strings}
	b.reserve(1)
	b.trie[0].parent = noParent
	// Depth first, but not by recursion: a line may be as long as the file.
	todo := []branch{{order: order}}
	for len(todo) > 0 {
		last := todo[len(todo)-1]
		todo = b.grow(todo[:len(todo)-1], last)
	}
	return b.trie
}

// A trieBuilder places the nodes of a trie.
type trieBuilder struct {
	trie     trie
	strings  []string
	children []byte   // scratch
	from     [257]int // by number of children: no base before it suits so many
}

// A branch is a node whose cell is placed and what is below it: the strings of order, sorted indices,
// which share their first depth bytes.
type branch struct {
	node  int32
	order []int32
	depth int
}

// grow places the children of br and appends their branches to todo.
func (b *trieBuilder) grow(todo []branch, br branch) []branch {
	for len(br.order) > 0 && len(b.strings[br.order[0]]) == br.depth {
		b.trie[br.node].id = br.order[0]
		br.order = br.order[1:]
	}
	if len(br.order) == 0 {
		return todo
	}
	first := len(todo)
	b.children = b.children[:0]
	start := 0 // of the strings of one child
	for i := range br.order {
		c := b.strings[br.order[i]][br.depth]
		if i+1 < len(br.order) && b.strings[br.order[i+1]][br.depth] == c {
			continue
		}
		b.children = append(b.children, c)
		todo = append(todo, branch{order: br.order[start : i+1], depth: br.depth + 1})
		start = i + 1
	}
	base := b.place(b.children)
	b.trie[br.node].base = base
	for i, c := range b.children {
		child := base + int32(c)
		b.trie[child].parent = br.node
		todo[first+i].node = child
	}
	return todo
}

// place returns a base at which the cells of all children are free. The search for so many children
// goes on where the last one ended, which leaves some holes to nodes with fewer children and keeps
// the whole near linear.
func (b *trieBuilder) place(children []byte) int32 {
search:
	for base := b.from[len(children)]; ; base++ {
		b.reserve(base + 1)
		for _, c := range children {
			if b.trie[base+int(c)].parent != noNode {
				continue search
			}
		}
		b.from[len(children)] = base
		return int32(base)
	}
}

// reserve makes at least n cells and the 255 after them that a base may reach.
func (b *trieBuilder) reserve(n int) {
	for len(b.trie) < n+255 {
		b.trie = append(b.trie, cell{parent: noNode, id: -1})
	}
}
