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

// Formats of the files that this package reads.
const (
	datasetFormat     = "data set"
	predictionsFormat = "predictions"
	oddsFormat        = "no-answer odds"
	nBestFormat       = "n-best lists"
)

// A ContentError reports a file that is valid but of another format than the one asked for, as where a command's
// arguments are swapped.
type ContentError struct {
	Format string // what the file looks like, in the words of ReadError
	Err    error  // why it is not what was asked for
}

func (e *ContentError) Error() string {
	like := e.Format
	if like == datasetFormat {
		like = "a " + like
	}
	return fmt.Sprintf("%v; the file looks like %s", e.Err, like)
}

func (e *ContentError) Unwrap() error { return e.Err }
