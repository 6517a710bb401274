package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"github.com/spf13/cobra"

	"github.com/tfbert/go/wordpiece"
)

func newTokenize() *cobra.Command {
	var flags tokenizerFlags
	cmd := &cobra.Command{
		Use:   "tokenize --vocab_file V",
		Short: "Cut lines of JSON text into word pieces",
		Long: `Tokenize reads a JSON object {"text": ...} a line on standard input and writes
one with "text", "tokens" and "ids" a line to standard output.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) error {
			t, err := flags.tokenizer()
			if err != nil {
				return err
			}
			out := bufio.NewWriterSize(cmd.OutOrStdout(), 1<<16)
			in := bufio.NewReaderSize(stdin(cmd), 1<<16)
			for n := 1; ; n++ {
				b, readErr := in.ReadBytes('\n')
				if len(b) > 0 {
					b, err := tokenizeLine(t, b)
					if err != nil {
						return errors.Join(fmt.Errorf("standard input, line %d: %w", n, err), out.Flush())
					}
					if _, err := out.Write(b); err != nil {
						return err
					}
				}
				if errors.Is(readErr, io.EOF) {
					return out.Flush()
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

func tokenizeLine(t *wordpiece.Tokenizer, b []byte) ([]byte, error) {
	var line struct {
		Text   *string  `json:"text"`
		Tokens []string `json:"tokens"`
		IDs    []int32  `json:"ids"`
	}
	err := json.Unmarshal(b, &line)
	if syntax := (*jsontext.SyntacticError)(nil); errors.As(err, &syntax) {
		return nil, fmt.Errorf("not JSON: %w", syntax.Err)
	}
	if err != nil || line.Text == nil {
		return nil, errors.New(`want an object {"text": "..."}`)
	}
	line.Tokens, line.IDs = t.Tokenize(*line.Text), t.AppendIDs(nil, *line.Text)
	out, err := json.Marshal(line)
	return append(out, '\n'), err
}
