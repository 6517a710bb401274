package main

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// newMan writes the man pages, which the archives of a release hold. It is hidden: a person reads them by man.
func newMan() *cobra.Command {
	return &cobra.Command{
		Use:    "man DIR",
		Short:  "Write the man pages to a folder",
		Hidden: true,
		Args:   args("DIR"),
		RunE: func(cmd *cobra.Command, args []string) error {
			header := &doc.GenManHeader{Title: "TFBERT", Section: "1", Source: "tfbert " + release, Manual: "tfbert"}
			if seconds, err := strconv.ParseInt(os.Getenv("SOURCE_DATE_EPOCH"), 10, 64); err == nil {
				date := time.Unix(seconds, 0).UTC()
				header.Date = &date
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true // the pages of a version do not depend on the day
			if err := os.MkdirAll(args[0], 0o777); err != nil {
				return err
			}
			if err := doc.GenManTree(root, header, args[0]); err != nil {
				return fmt.Errorf("write the man pages: %w", err)
			}
			return nil
		},
	}
}
