package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// A flagGroup is some flags of a command that belong together: they stand under one heading of its help, in the
// order in which they are added, and are checked together.
type flagGroup struct {
	title string
	add   func(*pflag.FlagSet)
	check func() error // nil: every value is valid
}

// helpWidth is the width that the help of flags is wrapped to.
const helpWidth = 100

// usageTemplate is cobra's, with its lists of flags wrapped.
var usageTemplate = strings.ReplaceAll(new(cobra.Command).UsageTemplate(),
	"FlagUsages |", fmt.Sprintf("FlagUsagesWrapped %d |", helpWidth))

// addGroups adds groups of flags to a command.
func addGroups(cmd *cobra.Command, groups []flagGroup) {
	var help strings.Builder
	for _, g := range groups {
		flags := pflag.NewFlagSet(g.title, pflag.ContinueOnError)
		flags.SortFlags = false
		g.add(flags)
		cmd.Flags().AddFlagSet(flags)
		fmt.Fprintf(&help, "\n\n%s:\n%s", g.title, strings.TrimRight(flags.FlagUsagesWrapped(helpWidth), "\n"))
	}
	before, rest, _ := strings.Cut(usageTemplate, "\n\nFlags:\n")
	_, after, _ := strings.Cut(rest, "}}")
	cmd.SetUsageTemplate(before + help.String() + after)
}

func checkGroups(groups []flagGroup) error {
	for _, g := range groups {
		if g.check == nil {
			continue
		}
		if err := g.check(); err != nil {
			return err
		}
	}
	return nil
}
