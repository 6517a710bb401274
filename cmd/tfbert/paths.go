package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/tfbert/go/internal/archive"
	"github.com/tfbert/go/internal/file"
	"github.com/tfbert/go/savedmodel"
)

// textFlags hold text or addresses, in which "://" is no mistake. The text of any other flag may be a path.
var textFlags = []string{
	"allowed_hosts", "allowed_origins", "context", "gcp_project", "host", "master", "question", "tpu_name", "tpu_zone", "url",
}

// checkPaths refuses the flags that name a file beyond this machine, before a command runs: of gs://bucket the
// operating system would make a folder here.
func checkPaths(cmd *cobra.Command, _ []string) (err error) {
	cmd.Flags().Visit(func(f *pflag.Flag) {
		values := []string{f.Value.String()}
		switch v := f.Value.(type) {
		case pflag.SliceValue:
			values = v.GetSlice()
		}
		for _, value := range values {
			if remote := file.CheckLocal(value); remote != nil && err == nil && !slices.Contains(textFlags, f.Name) {
				err = usagef("--%s: %w", f.Name, remote)
			}
		}
	})
	return err
}

// findModel returns the folder of the SavedModel that a path leads to, and says which of several versions it is.
func findModel(path string) (string, error) {
	dir, older, err := savedmodel.Find(path)
	if len(older) > 0 {
		var names []string
		for _, o := range older {
			name, err := filepath.Rel(path, o)
			if err != nil {
				name = o
			}
			names = append(names, name)
		}
		say("tfbert: %s is the newest version, and the one taken; older: %s", dir, strings.Join(names, ", "))
	}
	return dir, err
}

// withModel calls inspect with a path, or with that of the model that a path in an archive leads to, which is
// unpacked for the call. What inspect writes has the names of the archive.
func withModel(cmd *cobra.Command, path string, inspect func(out io.Writer, path string) error) (err error) {
	u, err := unpackModel(cmd.Context(), path)
	if err != nil || u == nil {
		if err == nil {
			err = inspect(cmd.OutOrStdout(), path)
		}
		return err
	}
	defer closing(&err, u.remove)
	var text strings.Builder
	if err := inspect(&text, u.Path); err != nil {
		return u.NameError(err)
	}
	_, err = io.WriteString(cmd.OutOrStdout(), u.Name(text.String()))
	return err
}

// unpackModel unpacks the model that a path in an archive leads to into a temporary folder, which remove removes.
// It returns nil if the path does not lead to an archive.
func unpackModel(ctx context.Context, path string) (_ *unpackedModel, err error) {
	name, inside, ok := archive.Split(path)
	if !ok {
		return nil, nil
	}
	temp, err := os.MkdirTemp("", "tfbert-*")
	if err != nil {
		return nil, err
	}
	u := &unpackedModel{temp: temp}
	if u.Unpacked, err = archive.Unpack(ctx, name, inside, true, filepath.Join(temp, "model")); err != nil {
		return nil, errors.Join(err, u.remove())
	}
	return u, nil
}

type unpackedModel struct {
	*archive.Unpacked
	temp string
}

func (u *unpackedModel) remove() error {
	if err := os.RemoveAll(u.temp); err != nil {
		return fmt.Errorf("remove the temporary folder: %w", err)
	}
	return nil
}
