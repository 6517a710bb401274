package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	isc = `Permission to use, copy, modify, and/or distribute this software for any purpose with or without fee is
hereby granted, provided that the above copyright notice and this permission notice appear in all copies.

THE SOFTWARE IS PROVIDED "AS IS" AND THE AUTHOR DISCLAIMS ALL WARRANTIES WITH REGARD TO THIS SOFTWARE
INCLUDING ALL IMPLIED WARRANTIES OF MERCHANTABILITY AND FITNESS. IN NO EVENT SHALL THE AUTHOR BE LIABLE FOR
ANY SPECIAL, DIRECT, INDIRECT, OR CONSEQUENTIAL DAMAGES OR ANY DAMAGES WHATSOEVER RESULTING FROM LOSS OF
USE, DATA OR PROFITS, WHETHER IN AN ACTION OF CONTRACT, NEGLIGENCE OR OTHER TORTIOUS ACTION, ARISING OUT OF
OR IN CONNECTION WITH THE USE OR PERFORMANCE OF THIS SOFTWARE.
`
	gpl = `This program is free software: you can redistribute it and/or modify it under the terms of the GNU
General Public License as published by the Free Software Foundation, either version 3 of the License, or
(at your option) any later version.
`
)

func TestScan(t *testing.T) {
	apache, err := os.ReadFile("../../LICENSE")
	require.NoError(t, err)
	for _, c := range []struct {
		name     string
		path     string
		files    map[string]string
		licences []string
		texts    int
		err      string
	}{
		{
			name: "one", files: map[string]string{"LICENSE": string(apache)},
			licences: []string{"Apache-2.0"}, texts: 1,
		},
		{name: "other name", files: map[string]string{"licence.md": isc}, licences: []string{"ISC"}, texts: 1},
		{
			name: "two", files: map[string]string{"LICENSE": string(apache), "COPYING": isc},
			licences: []string{"Apache-2.0", "ISC"}, texts: 2,
		},
		{
			name: "two in a file", files: map[string]string{"LICENSE": string(apache) + isc},
			licences: []string{"Apache-2.0", "ISC"}, texts: 1,
		},
		{
			name: "of a linked part", files: map[string]string{"LICENSE": isc, "a/LICENSE": string(apache)},
			licences: []string{"Apache-2.0", "ISC"}, texts: 2,
		},
		{
			name: "of a part that is not linked", files: map[string]string{"LICENSE": isc, "c/LICENSE": gpl},
			licences: []string{"ISC"}, texts: 1,
		},
		{
			name: "notice", files: map[string]string{"LICENSE": isc, "NOTICE.txt": "By us."},
			licences: []string{"ISC"}, texts: 2,
		},
		{
			name: "source", files: map[string]string{"LICENSE": isc, "license.go": "package a"},
			licences: []string{"ISC"}, texts: 1,
		},
		{name: "none", err: "m v1.0.0 does not have a licence"},
		{name: "notice alone", files: map[string]string{"NOTICE": isc}, err: "does not have a licence"},
		{
			name: "not allowed", files: map[string]string{"LICENSE": isc, "COPYING": gpl},
			err: "the licence GPL-3.0-or-later is not allowed",
		},
		{name: "unknown", files: map[string]string{"LICENSE": "Ask us."}, err: "LICENSE is not a known licence"},
		{
			name:  "further terms",
			files: map[string]string{"LICENSE": isc + "\nWhoever sells this software, or a service that uses it, pays us."},
			err:   "LICENSE is not a known licence",
		},
		{
			name: "choice", path: "github.com/golang/freetype",
			files:    map[string]string{"LICENSE": "Ours or the GPL.", "licenses/ftl.txt": isc, "licenses/gpl.txt": gpl},
			licences: []string{"ISC"}, texts: 2,
		},
		{
			name: "choice, missing", path: "github.com/golang/freetype", files: map[string]string{"LICENSE": isc},
			err: "no such file",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			m := &module{Path: "m", Version: "v1.0.0", Dir: dir, packages: []string{filepath.Join(dir, "a", "b"), dir}}
			if c.path != "" {
				m.Path = c.path
			}
			require.NoError(t, os.MkdirAll(m.packages[0], 0o777))
			for name, text := range c.files {
				path := filepath.Join(dir, name)
				require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
				require.NoError(t, os.WriteFile(path, []byte(text), 0o666))
			}
			err := m.scan()
			if c.err != "" {
				assert.ErrorContains(t, err, c.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.licences, m.licences)
			assert.Len(t, m.texts, c.texts)
		})
	}
}

// An exception is for a licence that is not generally allowed, and a licence chosen by hand is an exception.
func TestAlso(t *testing.T) {
	for path, id := range also {
		assert.NotContains(t, allowed, id, "%s does not need an exception", path)
	}
	for path := range instead {
		assert.Contains(t, also, path, "a licence that was chosen by hand has to be allowed by hand")
	}
}
