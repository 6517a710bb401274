package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestInterruptible(t *testing.T) {
	t.Run("reads", func(t *testing.T) {
		text := bytes.Repeat([]byte("text "), 1<<15)
		require.NoError(t, iotest.TestReader(&interruptible{t.Context(), bytes.NewReader(text)}, text))
	})
	t.Run("ends a waiting read", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		r, w := io.Pipe()
		defer w.Close()
		in := bufio.NewReader(&interruptible{ctx, r})
		go func() { _, _ = io.WriteString(w, "a line\n") }()
		line, err := in.ReadString('\n')
		require.NoError(t, err)
		assert.Equal(t, "a line\n", line)
		go cancel()
		_, err = in.ReadString('\n')
		require.ErrorIs(t, err, context.Canceled)
	})
	t.Run("passes errors on", func(t *testing.T) {
		failing := iotest.TimeoutReader(iotest.OneByteReader(strings.NewReader("text")))
		_, err := io.ReadAll(&interruptible{t.Context(), failing})
		require.ErrorIs(t, err, iotest.ErrTimeout)
	})
}
