package pytext

import "strings"

// Fields returns the words of s, as s.split() does.
func Fields(s string) []string { return strings.FieldsFunc(s, IsSpace) }

// Strip returns s without white space at its ends, as s.strip() does.
func Strip(s string) string { return strings.TrimFunc(s, IsSpace) }
