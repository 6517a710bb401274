// Package escape makes names out of foreign files fit for a terminal.
package escape

import "strconv"

// Name returns a name with its control characters, quotes and backslashes escaped as in Go.
func Name(name string) string {
	quoted := strconv.Quote(name)
	return quoted[1 : len(quoted)-1]
}
