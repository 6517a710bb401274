package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json"
	"github.com/spf13/cobra"
)

func newTokenize() *cobra.Command {
	var flags tokenizerFlags
	cmd := &cobra.Command{
		Use:   "tokenize --vocab_file V",
		Short: "Cut lines of JSON text into word pieces",
		Long: `Tokenize reads a JSON object {"text": ...} a line on standard input and writes
one with "text", "tokens" and "ids" a line to standard output.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			t, err := flags.tokenizer()
			if err != nil {
				return err
			}
			type line struct {
				Text   string   `json:"text"`
				Tokens []string `json:"tokens"`
				IDs    []int32  `json:"ids"`
			}
			out := bufio.NewWriterSize(cmd.OutOrStdout(), 1<<16)
			defer closing(&err, out.Flush)
			in := bufio.NewReaderSize(stdin(cmd), 1<<16)
			for n := 1; ; n++ {
				b, readErr := in.ReadBytes('\n')
				if len(b) > 0 {
					var l line
					if err := json.Unmarshal(b, &l); err != nil {
						return fmt.Errorf("standard input, line %d: want an object {\"text\": ...}: %w", n, err)
					}
					l.Tokens, l.IDs = t.Tokenize(l.Text), t.AppendIDs(nil, l.Text)
					if err := json.MarshalWrite(out, l); err != nil {
						return err
					}
					if err := out.WriteByte('\n'); err != nil {
						return err
					}
				}
				if errors.Is(readErr, io.EOF) {
					return nil
				}
				if readErr != nil {
					return readErr
				}
			}
		},
	}
	flags.add(cmd.Flags())
	return cmd
}
