package squad

import (
	"fmt"
	"strings"
)

// A ReadError reports where a data set or a prediction file is not what it should be. All functions that
// read such a file return it.
type ReadError struct {
	Format string // "data set", "predictions", "no-answer odds" or "n-best lists"
	Place  string // in the articles of a data set: `article 3 ("Dogs"), paragraph 1, question "q7"`
	Line   int    // counted from 1; 0 if the error belongs to the file as a whole
	Byte   int64  // counted from 0
	Err    error  // what is wrong there
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

func (e *ReadError) Unwrap() error { return e.Err }
