package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestOneLine(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		want string
	}{
		"one":    {errors.New("not JSON"), "not JSON"},
		"joined": {errors.Join(errors.New("one"), errors.New("two")), "one; two"},
		"lines":  {errors.New("Invalid argument\n\t [[{{node a}}]]"), "Invalid argument; [[{{node a}}]]"},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, tc.want, oneLine(tc.err)) })
	}
}

func TestWriting(t *testing.T) {
	assert.NoError(t, writing("out.json", nil))
	for name, err := range map[string]error{
		"file":   &fs.PathError{Op: "write", Path: ".out.json.tmp-1", Err: fs.ErrPermission},
		"rename": &os.LinkError{Op: "rename", Old: ".out.json.tmp-1", New: "out.json", Err: fs.ErrPermission},
		"both":   fmt.Errorf("features: %w", &fs.PathError{Op: "write", Path: ".out.json.tmp-1", Err: fs.ErrPermission}),
	} {
		t.Run(name, func(t *testing.T) {
			got := writing("out.json", err)
			assert.EqualError(t, got, "cannot write out.json: permission denied")
			assert.ErrorIs(t, got, fs.ErrPermission)
		})
	}
}
