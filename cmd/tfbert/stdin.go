package main

import (
	"context"
	"io"

	"github.com/spf13/cobra"
)

// stdin returns standard input. A Read that waits ends with the command's context, though the system's
// own read goes on: Ctrl-C must end a prompt.
func stdin(cmd *cobra.Command) io.Reader { return &interruptible{cmd.Context(), cmd.InOrStdin()} }

type interruptible struct {
	ctx context.Context
	r   io.Reader
}

func (i *interruptible) Read(p []byte) (int, error) {
	type result struct {
		n   int
		err error
	}
	buf := make([]byte, len(p)) // p is the caller's again when the context ends
	done := make(chan result, 1)
	go func() {
		n, err := i.r.Read(buf)
		done <- result{n, err}
	}()
	select {
	case r := <-done:
		return copy(p, buf[:r.n]), r.err
	case <-i.ctx.Done():
		return 0, i.ctx.Err()
	}
}
