// Package pytext does what Python 3's str does, where Go's strings and unicode packages differ:
// white space, lower-casing, word characters, categories and the canonical decomposition.
//
// The tables follow Unicode 14.0, the version of Python 3.11, independent of the version of Go,
// so results do not change with the toolchain. Strings are expected to be valid UTF-8; other bytes
// are passed through or taken for U+FFFD and never panic.
package pytext

//go:generate sh -c "python3.11 gen_tables.py | gofmt > ztables.go"

import "unicode"

// A Class is the set of properties of a code point.
type Class uint16

const (
	Space   Class = 1 << iota // str.isspace: what str.split and str.strip take for white space
	Word                      // \w of a regular expression: str.isalnum or "_"
	Punct                     // categories P*
	Mn                        // category Mn: the marks that stripping accents removes
	Control                   // categories Cc and Cf
	Other                     // categories Cn (in Unicode 14.0), Co and Cs
	cased
	ignorable // case-ignorable and not cased
	lowers
	decomposes
)

// A record is a row of the tables: what is known about a code point.
type record struct {
	class Class
	ccc   uint8 // canonical combining class
	lower int32 // distance to the lower-case letter
}

// unassigned is the row of numbers that are no code points.
var unassigned = record{class: Other}

func lookup(r rune) *record {
	if uint32(r) > unicode.MaxRune {
		return &unassigned
	}
	middle := recordMiddle[int(recordRoot[r>>12])<<6|int(r>>6&63)]
	return &records[recordLeaf[int(middle)<<6|int(r&63)]]
}

// ClassOf returns the properties of r.
func ClassOf(r rune) Class { return lookup(r).class }

// IsSpace reports whether r is white space to Python: Go's unicode.IsSpace and U+001C to U+001F.
func IsSpace(r rune) bool { return ClassOf(r)&Space != 0 }

// IsWord reports whether r matches \w in a Python regular expression on str.
func IsWord(r rune) bool { return ClassOf(r)&Word != 0 }
