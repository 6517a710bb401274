// Command pictures draws the pictures of README.md from real runs of the program: docs/page.png shows the server's page
// in a headless Chromium, and docs/demo.svg shows commands in a terminal. "make pictures" runs it.
package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"html"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/chromedp/chromedp"
)

// commands are the commands in docs/demo.svg.
var commands = []string{
	"tfbert demo",
	"tfbert answer --question 'Who wrote it?' --context 'It was written by Ada Lovelace.'",
}

func main() {
	log.SetFlags(0)
	root, err := os.Getwd()
	if err != nil {
		log.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	if err := errors.Join(terminal(ctx, root), page(ctx, root)); err != nil {
		log.Fatal(err)
	}
}

// terminal runs the commands and draws them with their output.
func terminal(ctx context.Context, root string) error {
	folder, err := os.MkdirTemp("", "tfbert-pictures-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(folder)
	var lines []string
	for _, command := range commands {
		shell := exec.CommandContext(ctx, "bash", "-c", command)
		shell.Dir = folder
		shell.Env = append(os.Environ(), "PATH="+filepath.Join(root, "bin")+":"+os.Getenv("PATH"))
		output, err := shell.CombinedOutput()
		if err != nil {
			return fmt.Errorf("%s: %w: %s", command, err, output)
		}
		// The path of the clone means nothing to a reader.
		text := strings.ReplaceAll(string(output), root+"/", "")
		lines = append(lines, "$ "+command)
		lines = append(lines, strings.Split(strings.TrimRight(text, "\n"), "\n")...)
		lines = append(lines, "")
	}
	return os.WriteFile(filepath.Join(root, "docs", "demo.svg"), drawing(lines[:len(lines)-1]), 0o644)
}

const (
	columns    = 104
	indent     = 2 // of continued lines
	fontSize   = 14.0
	cell       = 8.4 // the width of a character
	lineHeight = 20.0
	margin     = 20.0
	titleBar   = 36.0
)

// drawing draws lines as a terminal shows them: wrapped at its width, and with commands brighter than their output. The
// window has its own colours, so that it looks the same on a light page and on a dark one.
func drawing(lines []string) []byte {
	var text strings.Builder
	y := titleBar + margin
	for _, line := range lines {
		colour := "#b6bdc9"
		if strings.HasPrefix(line, "$ ") {
			colour = "#f2f4f8"
		}
		for i, part := range wrapped(line) {
			if part != "" {
				x := margin
				if i > 0 {
					x += indent * cell
				}
				shown := html.EscapeString(part)
				if rest, ok := strings.CutPrefix(shown, "$ "); ok && i == 0 {
					shown = `<tspan fill="#7fd1a6">$ </tspan>` + rest
				}
				// The length keeps the columns aligned, whatever font the reader has.
				fmt.Fprintf(&text, "<text x=\"%g\" y=\"%g\" fill=\"%s\" textLength=\"%.1f\">%s</text>\n",
					x, y, colour, cell*float64(utf8.RuneCountInString(part)), shown)
			}
			y += lineHeight
		}
	}
	width, height := (columns+indent)*cell+2*margin, y
	return fmt.Appendf(nil, `<svg xmlns="http://www.w3.org/2000/svg" role="img"
  viewBox="0 0 %g %g" width="%[1]g" height="%[2]g">
<title>tfbert in a terminal</title>
<rect x="0.5" y="0.5" width="%g" height="%g" rx="8" fill="#171a21" stroke="#444b59"/>
<circle cx="22" cy="20" r="6" fill="#e0695f"/>
<circle cx="42" cy="20" r="6" fill="#e0b14f"/>
<circle cx="62" cy="20" r="6" fill="#64b56e"/>
<g font-family="ui-monospace, SFMono-Regular, Menlo, Consolas, 'DejaVu Sans Mono', monospace"
  font-size="%g" xml:space="preserve">
%s</g>
</svg>
`, width, height, width-1, height-1, fontSize, text.String())
}

// wrapped breaks a line at a space in the second half of its columns, or else at the last column.
func wrapped(line string) []string {
	var parts []string
	for runes := []rune(line); ; {
		if len(runes) <= columns {
			return append(parts, string(runes))
		}
		end := columns
		for i := columns; i > columns/2; i-- {
			if runes[i] == ' ' {
				end = i
				break
			}
		}
		parts = append(parts, string(runes[:end]))
		runes = []rune(strings.TrimLeft(string(runes[end:]), " "))
	}
}

var listening = regexp.MustCompile(`http://127\.0\.0\.1:\d+/`)

const pageWidth = 1080

// page asks the bundled model a question on the server's page, and takes a picture of the whole page.
func page(ctx context.Context, root string) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	command := filepath.Join(root, "bin", "tfbert")
	server := exec.CommandContext(ctx, command, "serve", "--http_port", "0", "--grpc_port", "-1")
	server.Cancel = func() error { return server.Process.Signal(os.Interrupt) }
	stderr, err := server.StderrPipe()
	if err != nil {
		return err
	}
	if err := server.Start(); err != nil {
		return err
	}
	defer func() { cancel(); _ = server.Wait() }()
	var address string
	messages := bufio.NewScanner(stderr)
	for address == "" && messages.Scan() {
		address = listening.FindString(messages.Text())
	}
	if address == "" {
		return errors.New("tfbert serve did not print its address")
	}
	go func() {
		for messages.Scan() { // a server whose log is not read would block
		}
	}()

	browser, end := chromedp.NewExecAllocator(ctx, append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.NoSandbox, // Chromium has no sandbox for root
		chromedp.DisableGPU,
		chromedp.Flag("headless", "new"),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-quic", true),
	)...)
	defer end()
	tab, end := chromedp.NewContext(browser)
	defer end()
	if err := chromedp.Do(tab,
		chromedp.EmulateViewport(pageWidth, 400),
		chromedp.Navigate(address),
		chromedp.Click(chromedp.CSS("#examples button:nth-of-type(1)")),
		// The first run at a new length is slow. The second one shows the usual times.
		chromedp.Click(chromedp.CSS("#questions button:nth-of-type(2)")),
		chromedp.WaitVisible(chromedp.CSS("#result")),
		chromedp.Sleep(time.Second),
		chromedp.Click(chromedp.CSS("#questions button:nth-of-type(2)")),
		chromedp.Sleep(time.Second), // the page scrolls to the marked answer
	); err != nil {
		return err
	}
	// The window becomes as high as the page is with the answer, and so shows all of it without scrolling.
	height, err := chromedp.Run(tab, chromedp.Evaluate[int64]("document.documentElement.scrollHeight"))
	if err != nil {
		return err
	}
	if err := chromedp.Do(tab,
		chromedp.EmulateViewport(pageWidth, height),
		chromedp.Evaluate[chromedp.Void]("scrollTo(0, 0)"),
		chromedp.Sleep(time.Second),
	); err != nil {
		return err
	}
	png, err := chromedp.Run(tab, chromedp.CaptureScreenshot())
	if err != nil {
		return err
	}
	if err := chromedp.Cancel(tab); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(root, "docs", "page.png"), png, 0o644)
}
