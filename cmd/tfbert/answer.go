package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/tfbert/go/squad"
)

func newAnswer() *cobra.Command {
	var model modelFlags
	var windows featureFlags
	var decoder decoderFlags
	var question, questionFile, passage, passageFile string
	var asJSON, padToMax bool
	cmd := &cobra.Command{
		Use:   "answer --question Q (--context TEXT | --context_file F)",
		Short: "Answer a question from a passage",
		Long: `Answer finds the answer to a question in a passage. On a terminal it asks for
what the flags leave out, and for further questions. Without --model it uses the
bundled one, exported once into the user's cache.`,
		Args: args(),
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if err := decoder.check(); err != nil {
				return err
			}
			if err := model.check(); err != nil {
				return err
			}
			in := asker{in: bufio.NewReader(stdin(cmd)), prompt: term.IsTerminal(int(os.Stdin.Fd()))}
			passage, err := in.text("passage", "context", passage, passageFile)
			if err != nil {
				return err
			}
			many := in.prompt && question == "" && questionFile == ""
			if !many {
				if question, err = in.text("question", "question", question, questionFile); err != nil {
					return err
				}
			}
			if model.model == "" && model.initCheckpoint == "" {
				if model.initCheckpoint, err = bundledCheckpoint(cmd.Context()); err != nil {
					return err
				}
			}
			start, before := time.Now(), libraryLoad // not 0 where the model was exported just now
			model.trimPadding = !padToMax
			m, a, err := model.answerer(cmd, &windows, &decoder)
			if err != nil {
				return err
			}
			defer closing(&err, m.Close)
			opening := time.Since(start) - (libraryLoad - before)
			seconds := answerSeconds{Library: libraryLoad.Seconds(), Model: opening.Seconds()}
			for {
				if many {
					if question, err = in.line("question"); errors.Is(err, io.EOF) {
						return nil
					} else if err != nil {
						return err
					}
				}
				start := time.Now()
				p, err := a.Answer(cmd.Context(), question, passage)
				if err != nil {
					return err
				}
				seconds.Answer = time.Since(start).Seconds()
				if verbose {
					say("library %.2f s, model %.2f s, answer %.3f s", seconds.Library, seconds.Model, seconds.Answer)
				}
				if p.Warning != "" {
					warn("%s", p.Warning)
				}
				if asJSON {
					err = printJSON(cmd.OutOrStdout(), newAnswerJSON(question, &p, decoder.WithNegative, seconds))
				} else {
					_, err = fmt.Fprintln(cmd.OutOrStdout(), p.Answer)
				}
				if err != nil || !many {
					return err
				}
			}
		},
	}
	f := cmd.Flags()
	f.StringVar(&question, "question", "", "the question")
	f.StringVar(&questionFile, "question_file", "", "`file` with the question ('-': standard input)")
	f.StringVar(&passage, "context", "", "the passage")
	f.StringVar(&passageFile, "context_file", "", "`file` with the passage ('-': standard input)")
	model.add(f)
	windows.addWindow(f)
	decoder.add(f)
	f.BoolVar(&padToMax, "pad_to_max", false, "pad windows to --max_seq_length and rank the padding too, "+
		"as the scripts do: the answer from a short passage may then be \"empty\"")
	f.BoolVar(&asJSON, "json", false, "print the answer and its n-best list as JSON")
	return cmd
}

type answerJSON struct {
	Question    string          `json:"question"`
	Answer      string          `json:"answer"`
	Probability float64         `json:"probability"`
	NullOdds    *float64        `json:"null_odds,omitempty"`
	NBest       []candidateJSON `json:"nbest"`
	Seconds     answerSeconds   `json:"seconds"`
}

// answerSeconds is the time of loading TensorFlow, loading the model and answering.
type answerSeconds struct {
	Library float64 `json:"library"`
	Model   float64 `json:"model"`
	Answer  float64 `json:"answer"`
}

type candidateJSON struct {
	Text        string  `json:"text"`
	Probability float64 `json:"probability"`
	StartLogit  float64 `json:"start_logit"`
	EndLogit    float64 `json:"end_logit"`
}

func newAnswerJSON(question string, p *squad.Prediction, withNegative bool, seconds answerSeconds) answerJSON {
	a := answerJSON{Question: question, Answer: p.Answer, Seconds: seconds}
	if withNegative {
		a.NullOdds = &p.NullOdds
	}
	for _, c := range p.NBest {
		if c.Text == p.Answer && a.Probability == 0 {
			a.Probability = c.Probability
		}
		a.NBest = append(a.NBest, candidateJSON{c.Text, c.Probability, c.StartLogit, c.EndLogit})
	}
	return a
}

// asker gets a text from a flag, from a file or, on a terminal, from a person.
type asker struct {
	in     *bufio.Reader
	prompt bool
}

func (a *asker) text(what, flag, value, file string) (string, error) {
	switch {
	case value != "" && file != "":
		return "", usagef("--%s and --%s_file exclude each other", flag, flag)
	case value != "":
		return value, nil
	case file != "":
		return a.file(what, file)
	case a.prompt:
		text, err := a.line(what)
		if !errors.Is(err, io.EOF) {
			return text, err
		}
	}
	return "", usagef("--%s or --%s_file is required", flag, flag)
}

func (a *asker) file(what, file string) (string, error) {
	var b []byte
	var err error
	if file == "-" {
		file = "standard input"
		b, err = io.ReadAll(a.in)
	} else {
		b, err = os.ReadFile(file)
	}
	b = bytes.TrimPrefix(b, []byte("\ufeff"))
	switch {
	case err != nil:
		return "", err
	case !utf8.Valid(b):
		return "", fmt.Errorf("%s is not UTF-8: save the %s as UTF-8 text", file, what)
	case len(bytes.TrimSpace(b)) == 0:
		return "", fmt.Errorf("%s is empty: it should hold the %s", file, what)
	}
	return string(b), nil
}

// line asks until it gets a line that is not blank.
func (a *asker) line(what string) (string, error) {
	for {
		fmt.Fprintf(os.Stderr, "%s: ", what)
		line, err := a.in.ReadString('\n')
		if text := strings.TrimSpace(line); text != "" {
			return text, nil
		}
		if err != nil {
			fmt.Fprintln(os.Stderr)
			return "", err
		}
	}
}
