package main

// The rules of what a person sees: results are on standard output, everything else on standard
// error; an error is one line that begins with "tfbert:", in lower case, without a full stop,
// and says what to do; progress is a bar on a terminal and a line now and then elsewhere.

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

func printError(err error) {
	fmt.Fprintf(os.Stderr, "tfbert: %s\n", strings.TrimPrefix(err.Error(), "tfbert: "))
}

func hint(format string, args ...any) { fmt.Fprintf(os.Stderr, "tfbert: "+format+"\n", args...) }

func warn(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "tfbert: warning: "+format+"\n", args...)
}

// say tells a person what has been done.
func say(format string, args ...any) { fmt.Fprintf(os.Stderr, format+"\n", args...) }

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

// progress shows how far a task is.
type progress interface {
	Set(done int64)
	Done()
}

// newProgress shows progress towards total; unit is what is counted, "B" for bytes.
func newProgress(what, unit string, total int64) progress {
	if !term.IsTerminal(int(os.Stderr.Fd())) {
		return &lineProgress{what: what, unit: unit, total: total, last: time.Now()}
	}
	options := []progressbar.Option{
		progressbar.OptionSetWriter(os.Stderr),
		progressbar.OptionSetDescription(what),
		progressbar.OptionSetWidth(30),
		progressbar.OptionThrottle(100 * time.Millisecond),
		progressbar.OptionShowCount(),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionClearOnFinish(),
	}
	if unit == "B" {
		options = append(options, progressbar.OptionShowBytes(true))
	} else {
		options = append(options, progressbar.OptionShowIts(), progressbar.OptionSetItsString(unit))
	}
	return &barProgress{progressbar.NewOptions64(total, options...)}
}

// A failure to draw is not worth failing for.
type barProgress struct{ bar *progressbar.ProgressBar }

func (p *barProgress) Set(done int64) { _ = p.bar.Set64(done) }
func (p *barProgress) Done()          { _ = p.bar.Finish() }

// lineInterval is the time between two lines of progress in a log.
const lineInterval = 10 * time.Second

type lineProgress struct {
	what, unit string
	total      int64
	last       time.Time
}

func (p *lineProgress) Set(done int64) {
	if time.Since(p.last) < lineInterval {
		return
	}
	p.last = time.Now()
	if p.unit == "B" {
		say("%s: %d of %d MB", p.what, done>>20, p.total>>20)
	} else {
		say("%s: %d of %d %s", p.what, done, p.total, p.unit)
	}
}

func (p *lineProgress) Done() {}
