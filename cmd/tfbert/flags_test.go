package main

import (
	"io"
	"os"
	"slices"
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

// A path with the scheme of a URL is refused in each flag and argument of each command that could be one, before the
// command runs: the operating system would make a folder gs: of it.
func TestRemotePaths(t *testing.T) {
	t.Chdir(t.TempDir())
	root := newRoot()
	root.InitDefaultCompletionCmd()
	seen := map[string]bool{}
	execute := func(t *testing.T, cmd *cobra.Command, what string, args ...string) {
		t.Helper()
		root := newRoot()
		root.SetOut(io.Discard)
		root.SetArgs(append(strings.Fields(cmd.CommandPath())[1:], args...))
		err := root.Execute()
		require.ErrorAs(t, err, new(*usageError), "%s", args)
		assert.EqualError(t, err, what+": gs:// is not supported: give a local path")
		seen[what] = true
	}
	for _, cmd := range withSubcommands(root) {
		if !cmd.Runnable() || cmd == root {
			continue
		}
		t.Run(cmd.CommandPath(), func(t *testing.T) {
			var names, local []string
			for _, word := range strings.Fields(cmd.Use)[1:] {
				word = strings.TrimSuffix(word, "...")
				if len(names) == len(local) && word == strings.ToUpper(word) && !strings.ContainsAny(word, "-|[]()") {
					names, local = append(names, word), append(local, "local")
				}
			}
			if cmd.Args != nil && cmd.Args(cmd, local) != nil { // not those of a command but of its flags' values
				names, local = nil, nil
			}
			if cmd.CommandPath() == "tfbert model pull" { // which takes addresses of https
				names = nil
			}
			for i, name := range names {
				remote := slices.Clone(local)
				remote[i] = "gs://bucket/x"
				execute(t, cmd, name, remote...)
			}
			check := func(f *pflag.Flag) {
				switch f.Value.Type() {
				case "string", "stringSlice":
					if !slices.Contains(textFlags, f.Name) {
						execute(t, cmd, "--"+f.Name, append(slices.Clone(local), "--"+f.Name+"=gs://bucket/x")...)
					}
				}
			}
			cmd.Flags().VisitAll(check)
		})
	}
	for _, name := range []string{
		"--model", "--init_checkpoint", "--bert_config_file", "--vocab_file", "--predict_file", "--output_dir", "--save_logits",
		"--session_config", "--model_repository", "--logits", "--out", "--out_file", "--out_image_dir", "--na_prob_file",
		"--context_file", "--question_file", "--config", "--plot", "--wheel", "--tls_cert_file", "--admin_token_file",
		"CHECKPOINT", "MODEL_DIR", "PATH", "DATA", "PREDICTIONS", "A", "B",
	} {
		assert.True(t, seen[name], name)
	}
	for _, name := range []string{"train_file", "dllog_path"} {
		root := newRoot()
		root.SetArgs([]string{"predict", "--" + name + "=gs://bucket/x"})
		assert.EqualError(t, root.Execute(), "--"+name+": gs:// is not supported: give a local path")
	}
	entries, err := os.ReadDir(".")
	require.NoError(t, err)
	assert.Empty(t, entries, "made in the folder")
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
