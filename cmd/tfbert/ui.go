package main

// The rules of what a person sees: results are on standard output, everything else on standard
// error; an error is one line that begins with "tfbert:", in lower case, without a full stop,
// and says what to do; progress is a bar on a terminal and a line now and then elsewhere.

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"os"
	"regexp"
	"strings"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/term"
)

// jsonLog writes the lines for a person as JSON, where standard error is a log that programs read; nil otherwise.
var jsonLog *slog.Logger

func printError(err error) {
	if jsonLog != nil {
		jsonLog.Error(withAdvice(err))
		return
	}
	say("tfbert: %s", withAdvice(err))
}

// withAdvice returns the text of an error as one line, and what a person can do about it.
func withAdvice(err error) string {
	text := oneLine(err)
	if advice := advice(err); advice != "" {
		text += ": " + advice
	}
	return text
}

// oneLine returns the text of an error as one line. Joined errors and TensorFlow's have several.
func oneLine(err error) string { return lineBreaks.ReplaceAllString(err.Error(), "; ") }

var lineBreaks = regexp.MustCompile(`\s*\n\s*`)

func hint(format string, args ...any) { say("tfbert: "+format, args...) }

func warn(format string, args ...any) {
	if jsonLog != nil {
		jsonLog.Warn(fmt.Sprintf(format, args...))
		return
	}
	say("tfbert: warning: "+format, args...)
}

// say writes a line to standard error.
func say(format string, args ...any) {
	if jsonLog != nil {
		jsonLog.Info(strings.TrimPrefix(fmt.Sprintf(format, args...), "tfbert: "))
		return
	}
	clearBar()
	fmt.Fprintf(os.Stderr, format+"\n", args...)
}

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

// newProgress shows progress towards a total, which is 0 if it is not known. The unit is what is counted, "B" for
// bytes.
func newProgress(what, unit string, total int64) progress {
	if !onTerminal() {
		return &lineProgress{what: what, unit: unit, total: total, last: time.Now()}
	}
	options := []progressbar.Option{
		progressbar.OptionSetWriter(os.Stderr),
		progressbar.OptionSetDescription(what),
		progressbar.OptionSetWidth(barWidth()),
		progressbar.OptionThrottle(100 * time.Millisecond),
		progressbar.OptionShowCount(),
		progressbar.OptionSetPredictTime(true),
		progressbar.OptionClearOnFinish(),
		progressbar.OptionSetRenderBlankState(true), // and begin to measure the time
	}
	if unit == "B" {
		options = append(options, progressbar.OptionShowBytes(true))
	}
	bar.Lock()
	defer bar.Unlock()
	bar.ProgressBar = progressbar.NewOptions64(cmp.Or(total, -1), options...)
	return barProgress{}
}

// onTerminal reports whether standard error is a terminal.
func onTerminal() bool { return term.IsTerminal(int(os.Stderr.Fd())) }

// barWidth leaves room for the longest figures beside the bar: a line that wraps cannot be cleared.
func barWidth() int {
	columns, _, err := term.GetSize(int(os.Stderr.Fd()))
	if err != nil || columns == 0 {
		columns = 80
	}
	return min(max(columns-50, 5), 30)
}

// bar is the bar on the screen, or nil. A failure to draw it is ignored: the work is what matters.
var bar struct {
	sync.Mutex // TensorFlow's log lines come from another goroutine
	*progressbar.ProgressBar
}

// clearBar makes room for a line. The bar comes back below it with the next step.
func clearBar() {
	bar.Lock()
	defer bar.Unlock()
	if bar.ProgressBar != nil {
		_ = bar.Clear()
	}
}

// belowBar is standard error for loggers, which write lines of their own.
type belowBar struct{}

func (belowBar) Write(b []byte) (int, error) {
	clearBar()
	return os.Stderr.Write(b)
}

type barProgress struct{}

func (barProgress) Set(done int64) {
	bar.Lock()
	defer bar.Unlock()
	_ = bar.Set64(done)
}

func (barProgress) Done() {
	bar.Lock()
	defer bar.Unlock()
	_ = bar.Finish()
	bar.ProgressBar = nil
}

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
	total, unit := p.total, p.unit
	if unit == "B" {
		done, total, unit = done/1e6, total/1e6, "MB"
	}
	if total == 0 {
		say("%s: %d %s", p.what, done, unit)
	} else {
		say("%s: %d of %d %s", p.what, done, total, unit)
	}
}

func (p *lineProgress) Done() {}
