package main

import (
	"cmp"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// TestManPages writes the man pages, which make release calls it for: to the folder TFBERT_MAN, dated by
// SOURCE_DATE_EPOCH. It is a test so that the program does not link what only a release needs.
func TestManPages(t *testing.T) {
	dir := cmp.Or(os.Getenv("TFBERT_MAN"), t.TempDir())
	header := &doc.GenManHeader{Title: "TFBERT", Section: "1", Source: "tfbert " + release, Manual: "tfbert"}
	if seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64); err == nil {
		date := time.Unix(seconds, 0).UTC()
		header.Date = &date
	}
	root := newRoot()
	root.DisableAutoGenTag = true // the pages of a version do not depend on the day
	require.NoError(t, doc.GenManTree(root, header, dir))

	var check func(cmd *cobra.Command)
	check = func(cmd *cobra.Command) {
		if !cmd.IsAvailableCommand() && cmd.HasParent() {
			return
		}
		path := filepath.Join(dir, strings.ReplaceAll(cmd.CommandPath(), " ", "-")+".1")
		page, err := os.ReadFile(path)
		if assert.NoError(t, err) {
			assert.Contains(t, strings.ReplaceAll(string(page), `\-`, "-"), cmd.Short, path)
		}
		for _, sub := range cmd.Commands() {
			check(sub)
		}
	}
	check(root)
}
