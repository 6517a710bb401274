package main

import (
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Every command refuses a flag that it does not have, and for each of its flags a value that the flag's type
// does not allow, as mistakes in the command line that name the flag. What a flag's own rules refuse is in the
// scripts.
func TestBadFlags(t *testing.T) {
	bad := map[string]string{
		"bool": "perhaps", "int": "many", "int64": "many", "float64": "low", "intSlice": "1,x", "duration": "soon",
		"profile": "nvidia", "operations": "none",
	}
	root := newRoot()
	root.InitDefaultCompletionCmd()
	var seen int
	for _, cmd := range withSubcommands(root) {
		t.Run(cmd.CommandPath(), func(t *testing.T) {
			assertRefused(t, cmd, "nosuchflag", "x")
			check := func(f *pflag.Flag) {
				if f.Hidden || f.Value.Type() == "string" || f.Value.Type() == "stringSlice" {
					return
				}
				value, known := bad[f.Value.Type()]
				require.True(t, known, "--%s has the type %s", f.Name, f.Value.Type())
				assertRefused(t, cmd, f.Name, value)
				seen++
			}
			cmd.Flags().VisitAll(check)
			cmd.InheritedFlags().VisitAll(check)
		})
	}
	assert.Greater(t, seen, 100, "flags")
}

func withSubcommands(cmd *cobra.Command) []*cobra.Command {
	list := []*cobra.Command{cmd}
	for _, sub := range cmd.Commands() {
		list = append(list, withSubcommands(sub)...)
	}
	return list
}

func assertRefused(t *testing.T, cmd *cobra.Command, flag, value string) {
	t.Helper()
	root := newRoot()
	root.SetOut(io.Discard)
	root.SetArgs(append(strings.Fields(cmd.CommandPath())[1:], "--"+flag+"="+value))
	err := root.Execute()
	require.ErrorAs(t, err, new(*usageError), "--%s=%s", flag, value)
	assert.ErrorContains(t, err, "--"+flag)
}
