package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestPlain(t *testing.T) {
	for name, tc := range map[string]struct {
		err  error
		want string
	}{
		"package":           {errors.New("squad: read data set: not JSON"), "read data set: not JSON"},
		"packages in a row": {errors.New("tfbert: export ck: tf: load: no"), "export ck: load: no"},
		"after a file":      {errors.New("dev.json: squad: read data set: not JSON"), "dev.json: read data set: not JSON"},
		"doubled":           {errors.New("tfbert: tfbert: no"), "no"},
		"not a package":     {errors.New("no squad: for tf:x"), "no squad: for tf:x"},
		"joined":            {errors.Join(errors.New("tf: one"), errors.New("tf: two")), "one; two"},
		"lines":             {errors.New("Invalid argument\n\t [[{{node a}}]]"), "Invalid argument; [[{{node a}}]]"},
	} {
		t.Run(name, func(t *testing.T) { assert.Equal(t, tc.want, plain(tc.err)) })
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
