package squad

import (
	"fmt"
	"strings"
)

// A ReadError says where a file is not what it should be. All functions of this package that read a
// data set or a prediction file return it.
type ReadError struct {
	Format string // what was read: "data set", "predictions", "no-answer odds" or "n-best lists"

	// Place is the path to the element of a data set that is wrong, such as
	// `article 3 ("Dogs"), paragraph 1, question "q7"`. It is empty outside the articles and in
	// other files, whose errors name the question themselves.
	Place string

	// Line, counted from 1, and Byte, counted from 0, are where the reader stood. Both are 0 where
	// the error belongs to the file as a whole.
	Line int
	Byte int64

	Err error // what is wrong there
}

func (e *ReadError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "read %s: ", e.Format)
	if e.Place != "" {
		fmt.Fprintf(&b, "%s: ", e.Place)
	}
	fmt.Fprint(&b, e.Err)
	if e.Line > 0 {
		fmt.Fprintf(&b, " (line %d, byte %d)", e.Line, e.Byte)
	}
	return b.String()
}

// Unwrap returns Err.
func (e *ReadError) Unwrap() error { return e.Err }
