package page_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/serve/internal/page"
)

func TestHandler(t *testing.T) {
	h := page.Handler()
	get := func(method, path, etag string) *http.Response {
		r := httptest.NewRequest(method, path, nil)
		if etag != "" {
			r.Header.Set("If-None-Match", etag)
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Result()
	}
	for path, contentType := range map[string]string{
		"/":            "text/html; charset=utf-8",
		"/page.css":    "text/css; charset=utf-8",
		"/page.js":     "text/javascript; charset=utf-8",
		"/favicon.svg": "image/svg+xml",
	} {
		for _, method := range []string{"GET", "HEAD"} {
			res := get(method, path, "")
			assert.Equal(t, 200, res.StatusCode, path)
			assert.Equal(t, contentType, res.Header.Get("Content-Type"))
			assert.Equal(t, "no-cache", res.Header.Get("Cache-Control"))
			assert.Equal(t, "nosniff", res.Header.Get("X-Content-Type-Options"))
			assert.Equal(t, "no-referrer", res.Header.Get("Referrer-Policy"))
			assert.Equal(t, "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "+
				"img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
				res.Header.Get("Content-Security-Policy"))
		}
		etag := get("GET", path, "").Header.Get("ETag")
		assert.Equal(t, 304, get("GET", path, etag).StatusCode)
		assert.Equal(t, 200, get("GET", path, `"another"`).StatusCode)

		res := get("POST", path, "")
		assert.Equal(t, 405, res.StatusCode)
		assert.Equal(t, "GET, HEAD", res.Header.Get("Allow"))
		assert.Empty(t, res.Header.Get("ETag"))
	}
	for _, path := range []string{"/index.html", "/page.go", "/page.css/", "//", "/v1/answer"} {
		res := get("GET", path, "")
		assert.Equal(t, 404, res.StatusCode, path)
		assert.NotEmpty(t, res.Header.Get("Content-Security-Policy"))
	}
}

// stopBrowser ends the browser, if it was started, and removes its profile.
var stopBrowser = func() error { return nil }

// browser starts one browser for all tests and returns its context.
var browser = sync.OnceValues(func() (context.Context, error) {
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil {
			path = p
			break
		}
	}
	if path == "" {
		return nil, errNoBrowser
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path),
		chromedp.NoSandbox, // the sandbox does not work for root, which runs CI
		chromedp.DisableGPU,
		chromedp.Flag("headless", "new"),
		chromedp.Flag("disable-quic", true),
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("host-resolver-rules", "MAP *.example 127.0.0.1"), // for TestOtherSites
		chromedp.WindowSize(1280, 900),
	)
	ctx, _ := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, _ = chromedp.NewContext(ctx)
	stopBrowser = func() error { return chromedp.Cancel(ctx) }
	return ctx, chromedp.Do(ctx)
})

var errNoBrowser = errors.New("no chromium, chromium-browser or google-chrome here")

func TestMain(m *testing.M) {
	code := m.Run()
	if err := stopBrowser(); err != nil {
		fmt.Fprintln(os.Stderr, "the browser cannot be stopped:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// An api is a server of the page whose answers a test sets.
type api struct {
	*httptest.Server
	mu     sync.Mutex
	ready  bool
	key    string // that it asks for, if it is not ""
	models string
	answer func(w http.ResponseWriter, q query)
	asked  []query
}

// A query is what the page sends.
type query struct {
	Question     string `json:"question"`
	Context      string `json:"context"`
	Model        string `json:"model"`
	NBestSize    int    `json:"n_best_size"`
	WithNegative bool   `json:"version_2_with_negative"`
}

const oneModel = `{"models": [{"name": "minilm-squad", "version": "1", "state": "AVAILABLE",
	"max_seq_length": 384, "version_2_with_negative": false}]}`

// newAPI starts a server that runs until the test's end.
func newAPI(t *testing.T) *api {
	a := &api{ready: true, models: oneModel}
	mux := http.NewServeMux()
	mux.Handle("/", page.Handler())
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if !a.ready {
			writeError(w, 503, "minilm-squad is loading")
		}
	})
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.refuses(w, r) {
			return
		}
		fmt.Fprint(w, a.models)
	})
	mux.HandleFunc("POST /v1/answer", func(w http.ResponseWriter, r *http.Request) {
		var q query
		if err := json.NewDecoder(r.Body).Decode(&q); err != nil || r.Header.Get("Content-Type") != "application/json" {
			writeError(w, 400, "not JSON")
			return
		}
		a.mu.Lock()
		if a.refuses(w, r) {
			a.mu.Unlock()
			return
		}
		a.asked = append(a.asked, q)
		answer := a.answer
		a.mu.Unlock()
		answer(w, q)
	})
	a.Server = httptest.NewServer(mux)
	t.Cleanup(a.Close)
	return a
}

// refuses reports whether a request does not have the key, which it then answers.
func (a *api) refuses(w http.ResponseWriter, r *http.Request) bool {
	if a.key == "" || r.Header.Get("Authorization") == "Bearer "+a.key {
		return false
	}
	writeError(w, 401, "this needs an API key")
	return true
}

// set calls f, which may change the fields of the server.
func (a *api) set(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

// questions returns the questions so far.
func (a *api) questions() []query {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.asked)
}

// last returns the last question.
func (a *api) last() query {
	q := a.questions()
	return q[len(q)-1]
}

// setAnswers makes the server answer every question with the texts, the first one as the answer. An empty
// text stands for "no answer"; the fields of more are merged into the response.
func (a *api) setAnswers(more map[string]any, texts ...string) {
	a.set(func() {
		a.answer = func(w http.ResponseWriter, q query) {
			_ = json.NewEncoder(w).Encode(answerJSON(q, more, texts...))
		}
	})
}

// answerJSON returns the response with these answers.
func answerJSON(q query, more map[string]any, texts ...string) map[string]any {
	var nbest []map[string]any
	probability := 0.9
	for _, text := range texts {
		n := map[string]any{"text": text, "probability": probability, "start_logit": 5.125, "end_logit": 4.5,
			"start": nil, "end": nil, "document": nil, "window": nil}
		if text != "" {
			before, _, _ := strings.Cut(q.Context, text)
			start := utf8.RuneCountInString(before)
			n["start"], n["end"], n["document"], n["window"] = start, start+utf8.RuneCountInString(text), 0, len(nbest)
		}
		nbest = append(nbest, n)
		probability /= 10
	}
	r := map[string]any{
		"answer": texts[0], "probability": 0.9,
		"start": nbest[0]["start"], "end": nbest[0]["end"], "document": nbest[0]["document"],
		"model": q.Model, "version": "1", "n_best": nbest,
		"windows": []map[string]any{{"document": 0, "start": 0, "end": utf8.RuneCountInString(q.Context)}},
		"seconds": map[string]any{"tokenize": 0.00012, "queue": 0.0005, "compute": 0.0214, "decode": 0.0003, "total": 0.0225},
	}
	for k, v := range more {
		r[k] = v
	}
	return r
}

// writeError writes an error as the response.
func writeError(w http.ResponseWriter, status int, text string) {
	w.WriteHeader(status)
	fmt.Fprintf(w, `{"error": %q}`, text)
}

// A tab is the page in a browser.
type tab struct {
	t       *testing.T
	ctx     context.Context
	forgive string // a complaint that the test provokes
}

// openPage opens the page in a tab of its own. At the test's end it fails the test if the browser complained
// about anything but a failed request.
func openPage(t *testing.T, a *api, before ...chromedp.Action[chromedp.Void]) *tab {
	t.Helper()
	t.Parallel()
	parent, err := browser()
	if errors.Is(err, errNoBrowser) {
		testenv.Missing(t, "chromium", err.Error())
	}
	require.NoError(t, err)
	ctx, cancel := chromedp.NewContext(parent, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	ctx, cancel = context.WithTimeout(ctx, time.Minute)
	t.Cleanup(cancel)
	b := &tab{t: t, ctx: ctx}
	messages := chromedp.Console(ctx)
	t.Cleanup(func() {
		b.eval(`console.log("the end")`)
		for m, err := range messages {
			require.NoError(t, err)
			if m.Text == "the end" {
				break
			}
			if b.forgive != "" && strings.Contains(m.Text, b.forgive) {
				continue
			}
			if m.Source != "network" || !strings.Contains(m.URL, "/v1/") && !strings.Contains(m.URL, "/readyz") {
				assert.Fail(t, "the browser complains", "%s %s", m.Source, m)
			}
		}
	})
	b.do(before...)
	b.do(chromedp.Navigate(a.URL))
	return b
}

// do runs steps in the tab.
func (b *tab) do(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	require.NoError(b.t, chromedp.Do(b.ctx, steps...))
}

// eval returns the value of an expression.
func (b *tab) eval(js string) (value any) {
	b.t.Helper()
	value, err := chromedp.Run(b.ctx, chromedp.Evaluate[any](js))
	if !errors.Is(err, chromedp.ErrJSUndefined) {
		require.NoError(b.t, err, js)
	}
	return value
}

// until waits until an expression is true.
func (b *tab) until(js string) {
	b.t.Helper()
	poll := chromedp.Poll[chromedp.Void](js, chromedp.WithPollingTimeout(20*time.Second))
	err := chromedp.Do(b.ctx, chromedp.Steps(poll))
	require.NoError(b.t, err, "%s\n%s", js, b.eval(`document.body.innerText`))
}

// waitUntilReady waits until the page knows that the server is ready.
func (b *tab) waitUntilReady() {
	b.t.Helper()
	b.until(`!document.querySelector("#ask").disabled`)
}

// waitForNotice waits until the page shows a notice.
func (b *tab) waitForNotice(text string) {
	b.t.Helper()
	b.until(fmt.Sprintf(`document.querySelector("#notice-text").textContent === %q`, text))
}

// text returns the visible text of an element; that of a hidden one is "".
func (b *tab) text(selector string) string {
	b.t.Helper()
	const js = `(e => e && e.checkVisibility() ? e.innerText : "")(document.querySelector(%q))`
	return b.eval(fmt.Sprintf(js, selector)).(string)
}

func (b *tab) click(selector string) { b.t.Helper(); b.do(chromedp.Click(chromedp.CSS(selector))) }

// press presses keys in the focused element.
func (b *tab) press(keys string, modifiers ...chromedp.Modifier) {
	b.t.Helper()
	b.do(chromedp.KeyEvent(keys, chromedp.KeyModifiers(modifiers...)))
}

// insert types a text into the focused element, all at once, as an input method does.
func (b *tab) insert(text string) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, input.InsertText, input.InsertTextParams{Text: text})
	require.NoError(b.t, err)
}

// fill types a passage and a question, and leaves the focus in the question.
func (b *tab) fill(passage, question string) {
	b.t.Helper()
	b.waitUntilReady()
	b.click("#passage")
	b.insert(passage)
	b.click("#question")
	b.insert(question)
}

// ask types both, presses Enter, and waits for the answer.
func (b *tab) ask(passage, question string) {
	b.t.Helper()
	b.fill(passage, question)
	b.press(kb.Enter)
	b.waitForAnswer(question)
}

// waitForAnswer waits until the page shows the answer to a question.
func (b *tab) waitForAnswer(question string) {
	b.t.Helper()
	b.until(fmt.Sprintf(`side.ariaBusy === "false" && !result.hidden && asked.textContent === %q`, question))
}

const lovelace = "👩🏽‍💻 Née à Londres 🇬🇧, Ada Lovelace wrote about the “Analytical Engine” 🤖 in 1843."

func TestAnswerIsMarkedInThePassage(t *testing.T) {
	a := newAPI(t)
	a.setAnswers(nil, "Ada Lovelace", "“Analytical Engine” 🤖", "1843")
	b := openPage(t, a)
	assert.Equal(t, "The answer appears here, and is marked in the passage.", b.text("#empty"))
	b.ask(lovelace, "Who wrote?")

	assert.Equal(t, query{"Who wrote?", lovelace, "minilm-squad", 10, false}, a.last())
	assert.Equal(t, "Ada Lovelace", b.text("#answer"))
	assert.Equal(t, "90.0%", b.text("#probability"))
	assert.Equal(t, "Ada Lovelace", b.text("mark"))
	assert.Equal(t, lovelace, b.text("#reading"))
	assert.Equal(t, "minilm-squad", b.text("#model-name"))
	assert.Empty(t, b.text("#empty"))
	assert.Empty(t, b.text("#odds"))
	assert.Empty(t, b.text("#extent"), "one window is the whole passage")
	assert.Equal(t, "question", b.eval(`document.activeElement.id`), "the user may type the next question")
	assert.Regexp(t, `(?s)Tokenize\s+0.12 ms\s+Queue\s+0.50 ms\s+Compute\s+21.4 ms\s+Decode\s+0.30 ms\s+`+
		`Network and rest\s+\d.*\s+Total in the server\s+22.5 ms\s+Round trip\s+\d`, b.text("#times"))
	assert.Contains(t, b.eval(`stages.ariaLabel`), "Compute 21.4 ms")
	rest := b.eval(`stages.getBoundingClientRect().right - stages.lastElementChild.getBoundingClientRect().right`)
	assert.InDelta(t, 0, rest, 1, "the stages fill the bar")

	// The keyboard goes through the best answers, and stops at the ends.
	b.do(chromedp.Focus(chromedp.CSS("#nbest")))
	for _, tc := range []struct{ key, marked, detail string }{
		{kb.ArrowDown, "“Analytical Engine” 🤖", "characters 52 to 73 · start logit 5.13, end logit 4.50"},
		{kb.ArrowDown, "1843", "characters 77 to 81 · start logit 5.13, end logit 4.50"},
		{kb.ArrowDown, "1843", "characters 77 to 81 · start logit 5.13, end logit 4.50"},
		{kb.Home, "Ada Lovelace", "characters 23 to 35 · start logit 5.13, end logit 4.50"},
		{kb.End, "1843", "characters 77 to 81 · start logit 5.13, end logit 4.50"},
		{kb.ArrowUp, "“Analytical Engine” 🤖", "characters 52 to 73 · start logit 5.13, end logit 4.50"},
	} {
		b.press(tc.key)
		assert.Equal(t, tc.marked, b.text("mark"))
		assert.Equal(t, tc.detail, b.text("#detail"))
		assert.Contains(t, b.text("#nbest [aria-selected=true]"), tc.marked)
		active := `document.getElementById(nbest.getAttribute("aria-activedescendant"))`
		assert.Equal(t, "true", b.eval(active+`.ariaSelected`))
	}
	b.click("#nbest li:nth-child(3)")
	assert.Equal(t, "1843", b.text("mark"))
	assert.Equal(t, "Ada Lovelace", b.text("#answer"), "the answer stays the model's")
	assert.Regexp(t, `1843\s+0.9%`, b.text("#nbest li:nth-child(3)"))
}

func TestEnterInThePassageAndEditing(t *testing.T) {
	a := newAPI(t)
	a.setAnswers(nil, "Ada Lovelace")
	b := openPage(t, a)
	b.ask(lovelace, "Who wrote?")
	assert.Empty(t, b.text("#passage"))
	b.click("#edit")
	assert.Equal(t, "passage", b.eval(`document.activeElement.id`))
	assert.Empty(t, b.text("#reading"))
	assert.Equal(t, "Ada Lovelace", b.text("#answer"))
	b.click("#nbest li")
	assert.Equal(t, "Ada Lovelace", b.text("mark"), "a chosen answer is shown in the passage")

	b.click("#edit")
	b.insert("And Babbage. ")
	assert.Empty(t, b.text("#result"), "an answer disappears with the passage it was found in")
	for i, modifier := range []chromedp.Modifier{kb.ModifierCtrl, kb.ModifierMeta} {
		b.press(kb.Enter, modifier)
		b.waitForAnswer("Who wrote?")
		assert.Equal(t, "reading", b.eval(`document.activeElement.id`))
		assert.Contains(t, b.text("#reading"), "And Babbage.")
		assert.Len(t, a.questions(), 2+i)
		b.click("#edit")
		b.insert(".")
	}
}

func TestNothingToAsk(t *testing.T) {
	a := newAPI(t)
	b := openPage(t, a)
	b.waitUntilReady()
	b.click("#ask")
	assert.Equal(t, "Paste a passage first.", b.text("#notice-text"))
	assert.Equal(t, "passage", b.eval(`document.activeElement.id`))
	b.insert("A passage.")
	b.click("#ask")
	assert.Equal(t, "Type a question first.", b.text("#notice-text"))
	assert.Equal(t, "question", b.eval(`document.activeElement.id`))
	assert.Empty(t, a.questions())
}

func TestExamples(t *testing.T) {
	a := newAPI(t)
	b := openPage(t, a)
	b.waitUntilReady()
	longest := 0.0
	for i, marked := range []string{"June 1833", "Augustin de Saint-Hilaire", "Four"} {
		a.setAnswers(nil, marked)
		b.click(fmt.Sprintf("#examples button:nth-of-type(%d)", i+1))
		longest = max(longest, b.eval(`passage.value.split(/\s+/).length`).(float64))
		assert.GreaterOrEqual(t, b.eval(`questions.children.length`), 4.0)
		b.click("#questions button")
		b.waitForAnswer(b.text("#questions button"))
		assert.Equal(t, marked, b.text("mark"))
	}
	assert.Greater(t, longest, 600.0, "several windows of 384 word pieces")
	b.click("#edit")
	b.insert("no longer an example")
	assert.Empty(t, b.text("#questions"))
}

func TestWindows(t *testing.T) {
	a := newAPI(t)
	passage := strings.Repeat("Nothing is here 🙂. ", 400) + "The answer is forty-two. " + strings.Repeat("Nor here. ", 200)
	start := utf8.RuneCountInString(passage[:strings.Index(passage, "The answer")])
	windows := []map[string]any{
		{"document": 0, "start": 0, "end": 100}, {"document": 0, "start": start, "end": start + 24},
	}
	a.setAnswers(map[string]any{"windows": windows}, "Nothing", "forty-two")
	b := openPage(t, a, reducedMotion)
	b.ask(passage, "What is it?")
	assert.Equal(t, "Window 1 of 2: the model read the part in brackets to find this.", b.text("#extent"))
	assert.Equal(t, 0.0, b.eval(`reading.scrollTop`))
	b.click("#nbest li:nth-child(2)")
	assert.Equal(t, "forty-two", b.text("mark"))
	assert.Equal(t, "The answer is forty-two.", b.text(".window"))
	assert.Equal(t, passage, b.eval(`reading.textContent`))
	assert.Contains(t, b.text("#detail"), "Window 2 of 2 · characters ")
	offset := b.eval(`document.querySelector("mark").offsetTop - reading.scrollTop`)
	assert.Greater(t, offset, 0.0)
	assert.Less(t, offset, b.eval(`reading.clientHeight`))
}

func TestNoAnswer(t *testing.T) {
	a := newAPI(t)
	a.setAnswers(map[string]any{"null_odds": 1.5, "warning": "the question was cut to 64 word pieces"}, "", "1843")
	b := openPage(t, a)
	b.click("#negative")
	b.ask(lovelace, "Who flew?")
	assert.True(t, a.last().WithNegative)
	assert.Equal(t, "No answer in the passage", b.text("#answer"))
	assert.Equal(t, "“No answer” scores 1.50 above the best text.", b.text("#odds"))
	assert.Equal(t, "the question was cut to 64 word pieces", b.text("#warning"))
	assert.Nil(t, b.eval(`document.querySelector("mark")`))
	assert.Contains(t, b.text("#nbest [aria-selected=true]"), "no answer")
	b.click("#nbest li:nth-child(2)")
	assert.Equal(t, "1843", b.text("mark"))

	a.setAnswers(map[string]any{"null_odds": -3.2}, "1843", "")
	b.click("#ask")
	b.until(`odds.textContent === "“No answer” scores 3.20 below the best text."`)
	assert.Empty(t, b.text("#warning"))

	// A model that cannot answer "no answer" answers "empty" if the passage has no word pieces.
	a.set(func() {
		a.answer = func(w http.ResponseWriter, q query) {
			r := answerJSON(q, map[string]any{"answer": "empty"}, "")
			r["n_best"], r["windows"] = []any{}, []any{}
			_ = json.NewEncoder(w).Encode(r)
		}
	})
	b.click("#ask")
	b.until(`answer.textContent === "empty"`)
	assert.Nil(t, b.eval(`document.querySelector("mark")`))
}

func TestNotReady(t *testing.T) {
	a := newAPI(t)
	a.ready = false
	a.setAnswers(nil, "Ada Lovelace")
	b := openPage(t, a)
	b.waitForNotice("The model is loading.")
	assert.Equal(t, true, b.eval(`ask.disabled`))
	b.click("#examples button")
	b.click("#questions button")
	assert.Equal(t, "The model is loading.", b.text("#notice-text"))
	b.eval(`passage.select()`)
	b.insert(lovelace)
	b.press(kb.Enter, kb.ModifierCtrl)
	b.click("#negative")
	b.do(chromedp.Reload())
	b.waitForNotice("The model is loading.")
	a.set(func() { a.ready = true })
	b.until(`!ask.disabled`)
	assert.Empty(t, b.text("#notice"))
	assert.Empty(t, a.questions())
	assert.Equal(t, lovelace, b.eval(`passage.value`))
	assert.Equal(t, true, b.eval(`negative.checked`), "it was set before the models were known")
	b.eval(`question.select()`)
	b.insert("Who?")
	b.press(kb.Enter)
	b.waitForAnswer("Who?")
	assert.True(t, a.last().WithNegative)
}

func TestBusy(t *testing.T) {
	a := newAPI(t)
	a.answer = func(w http.ResponseWriter, q query) {
		w.Header().Set("Retry-After", "1")
		writeError(w, 429, "the queue is full")
	}
	b := openPage(t, a)
	b.fill(lovelace, "Who?")
	b.press(kb.Enter)
	b.until(`!retry.hidden`)
	assert.Equal(t, "The server is busy.", b.text("#notice-text"))
	assert.Equal(t, "Ask again in 1 s", b.text("#retry"))
	assert.Equal(t, true, b.eval(`retry.disabled`))
	a.setAnswers(nil, "Ada Lovelace")
	b.until(`!retry.disabled`)
	assert.Equal(t, "Ask again", b.text("#retry"))
	b.click("#retry")
	b.waitForAnswer("Who?")
	assert.Equal(t, "Ada Lovelace", b.text("mark"))
	assert.Empty(t, b.text("#notice"))
}

func TestErrors(t *testing.T) {
	a := newAPI(t)
	a.setAnswers(nil, "Ada Lovelace")
	b := openPage(t, a)
	b.ask(lovelace, "Who?")
	for _, tc := range []struct {
		answer func(w http.ResponseWriter)
		want   string
	}{
		{func(w http.ResponseWriter) { writeError(w, 413, "the passage is too large") }, "the passage is too large"},
		{func(w http.ResponseWriter) { writeError(w, 503, "shutting down") }, "shutting down"},
		{func(w http.ResponseWriter) { writeError(w, 504, "no time left") }, "no time left"},
		{func(w http.ResponseWriter) { w.WriteHeader(502); fmt.Fprint(w, "<h1>Bad gateway</h1>") },
			"The server's reply could not be read (status 502)."},
		{func(w http.ResponseWriter) { fmt.Fprint(w, "null") }, "The server's reply could not be read (status 200)."},
		{func(w http.ResponseWriter) { panic(http.ErrAbortHandler) }, "The server cannot be reached."},
	} {
		a.set(func() { a.answer = func(w http.ResponseWriter, q query) { tc.answer(w) } })
		b.click("#ask")
		b.waitForNotice(tc.want)
		assert.Empty(t, b.text("#result"), tc.want)
		assert.Nil(t, b.eval(`document.querySelector("mark")`), tc.want)
		assert.Equal(t, lovelace, b.text("#reading"))
	}
	a.setAnswers(nil, "Ada Lovelace")
	b.click("#retry")
	b.waitForAnswer("Who?")
	assert.Empty(t, b.text("#notice"))
}

func TestServerGoesAndComesBack(t *testing.T) {
	a := newAPI(t)
	a.setAnswers(nil, "Ada Lovelace")
	b := openPage(t, a)
	b.fill(lovelace, "Who?")
	b.setOffline(true)
	b.press(kb.Enter)
	b.waitForNotice("The server cannot be reached. This page keeps trying.")
	assert.Equal(t, true, b.eval(`ask.disabled`))
	b.setOffline(false)
	b.until(`!ask.disabled`)
	assert.Empty(t, b.text("#notice"))
	b.click("#ask")
	b.waitForAnswer("Who?")
}

func (b *tab) setOffline(yes bool) {
	b.t.Helper()
	_, err := chromedp.Call(b.ctx, network.EmulateNetworkConditionsByRule, network.EmulateNetworkConditionsByRuleParams{
		MatchedNetworkConditions: []*network.Conditions{{Offline: yes, DownloadThroughput: -1, UploadThroughput: -1}},
	})
	require.NoError(b.t, err)
}

// twoAnswers are those to the questions of the tests of late answers.
var twoAnswers = map[string]string{"First?": "1843", "Second?": "Ada Lovelace"}

// A late answer does not replace the answer to a newer question.
func TestLateAnswers(t *testing.T) {
	a := newAPI(t)
	first, arrived, gone := make(chan struct{}), make(chan struct{}), make(chan struct{})
	a.answer = func(w http.ResponseWriter, q query) {
		if q.Question == "First?" {
			close(arrived)
			<-first
			defer close(gone)
		}
		_ = json.NewEncoder(w).Encode(answerJSON(q, nil, twoAnswers[q.Question]))
	}
	b := openPage(t, a)
	b.fill(lovelace, "First?")
	b.press(kb.Enter)
	<-arrived
	assert.Equal(t, "true", b.eval(`side.ariaBusy`))
	b.eval(`question.select()`)
	b.insert("Second?")
	b.press(kb.Enter)
	b.waitForAnswer("Second?")
	close(first)
	<-gone
	b.eval(`fetch("readyz")`)
	assert.Equal(t, "Second?", b.text("#asked"))
	assert.Equal(t, "Ada Lovelace", b.text("mark"))

	// Nor does an answer appear for a passage that has changed since the question.
	first, arrived, gone = make(chan struct{}), make(chan struct{}), make(chan struct{})
	b.eval(`question.select()`)
	b.insert("First?")
	b.press(kb.Enter)
	<-arrived
	b.click("#edit")
	close(first)
	<-gone
	assert.Equal(t, "false", b.eval(`side.ariaBusy`))
	assert.Equal(t, lovelace, b.text("#passage")+b.eval(`passage.value`).(string))
	assert.Equal(t, "Second?", b.text("#asked"))
}

// A proxy may keep a connection that the page has aborted, so the page does not rely on the abort alone.
func TestLateAnswersWithoutAbort(t *testing.T) {
	a := newAPI(t)
	a.answer = func(w http.ResponseWriter, q query) {
		_ = json.NewEncoder(w).Encode(answerJSON(q, nil, twoAnswers[q.Question]))
	}
	b := openPage(t, a)
	b.fill(lovelace, "First?")
	b.eval(`{
		const send = window.fetch;
		window.fetch = async (address, options) => {
			const response = await send(address, { ...options, signal: undefined });
			if (options.body?.includes("First?")) await new Promise((late) => { window.late = late; });
			return response;
		};
	}`)
	b.press(kb.Enter)
	b.until(`window.late`)
	b.eval(`question.select()`)
	b.insert("Second?")
	b.press(kb.Enter)
	b.waitForAnswer("Second?")
	b.eval(`late()`)
	b.do(chromedp.Sleep(50 * time.Millisecond))
	assert.Equal(t, "Second?", b.text("#asked"))
	assert.Equal(t, "Ada Lovelace", b.text("mark"))
}

func TestMarkupStaysText(t *testing.T) {
	const evil = `<img src=x onerror="document.title='evil'"><script>document.title='evil'</script></textarea>`
	a := newAPI(t)
	a.models = fmt.Sprintf(`{"models": [{"name": %q, "version": "1", "state": "AVAILABLE"},
		{"name": "b", "version": "1", "state": "AVAILABLE"}]}`, evil)
	a.setAnswers(map[string]any{"warning": evil}, evil)
	b := openPage(t, a)
	b.ask("Say "+evil+".", evil)
	for _, selector := range []string{"#answer", "#asked", "#warning", "mark", "#nbest .words", "#model option"} {
		assert.Equal(t, evil, b.eval(fmt.Sprintf(`document.querySelector(%q).textContent`, selector)), selector)
	}
	a.set(func() { a.answer = func(w http.ResponseWriter, q query) { writeError(w, 400, evil) } })
	b.click("#ask")
	b.until(`!notice.hidden`)
	assert.Equal(t, evil, b.text("#notice-text"))
	assert.Equal(t, 1.0, b.eval(`document.images.length`))
	assert.Equal(t, 1.0, b.eval(`document.scripts.length`))
	assert.Equal(t, "tfbert: ask a passage", b.eval(`document.title`))
}

func TestModels(t *testing.T) {
	a := newAPI(t)
	a.models = `{"models": [
		{"name": "minilm-squad", "version": "1", "state": "AVAILABLE", "version_2_with_negative": false},
		{"name": "minilm-squad", "version": "2", "state": "AVAILABLE", "version_2_with_negative": false},
		{"name": "large", "version": "1", "state": "LOADING", "version_2_with_negative": true},
		{"name": "squad2", "version": "1", "state": "AVAILABLE", "version_2_with_negative": true}]}`
	a.setAnswers(nil, "Ada Lovelace")
	b := openPage(t, a)
	b.fill(lovelace, "Who?")
	assert.Equal(t, []any{"minilm-squad", "squad2"}, b.eval(`[...model.options].map(o => o.value)`))
	assert.Equal(t, false, b.eval(`negative.checked`))
	b.do(chromedp.Focus(chromedp.CSS("#model")))
	b.press(kb.ArrowDown)
	b.until(`negative.checked`)
	b.click("#ask")
	b.waitForAnswer("Who?")
	assert.Equal(t, query{"Who?", lovelace, "squad2", 10, true}, a.last())
}

func TestReloadKeepsTheText(t *testing.T) {
	a := newAPI(t)
	a.setAnswers(nil, "Ada Lovelace")
	b := openPage(t, a)
	b.fill(lovelace, "Who?")
	b.click("#negative")
	b.do(chromedp.Reload())
	b.waitUntilReady()
	assert.Equal(t, lovelace, b.eval(`passage.value`))
	assert.Equal(t, "Who?", b.eval(`question.value`))
	assert.Equal(t, true, b.eval(`negative.checked`))
	b.click("#ask")
	b.waitForAnswer("Who?")

	// The page works if nothing can be stored, and with anything that another version has stored.
	b.eval(`sessionStorage.setItem("tfbert", "{")`)
	b.eval(`Storage.prototype.setItem = () => { throw new Error("full") }`)
	b.click("#edit")
	b.insert("More. ")
	b.do(chromedp.Reload())
	b.waitUntilReady()
	assert.Empty(t, b.eval(`passage.value`))
}

func TestCurl(t *testing.T) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		testenv.Missing(t, "curl", "no curl here")
	}
	a := newAPI(t)
	a.setAnswers(nil, "Ada Lovelace")
	b := openPage(t, a)
	const passage = "It's Ada Lovelace's \\ `engine` \"$HOME\" 🤖.\n"
	b.fill(passage, "Who's \"she\"?")
	b.click("summary")
	b.until(`curl.textContent !== ""`)
	b.do(chromedp.Focus(chromedp.CSS("#question")))
	b.press(kb.End)
	b.insert("!")
	command := strings.Replace(b.eval(`curl.textContent`).(string), "curl", curl, 1)
	out, err := exec.CommandContext(t.Context(), "sh", "-c", command).Output()
	require.NoError(t, err, command)
	assert.Contains(t, string(out), `"answer":"Ada Lovelace"`)
	assert.Equal(t, query{"Who's \"she\"?!", passage, "minilm-squad", 10, false}, a.last())

	b.eval(`Object.defineProperty(navigator, "clipboard", {
		configurable: true, value: { writeText: async (text) => { window.copied = text; } },
	})`)
	b.click("#copy")
	b.until(`copy.textContent === "Copied"`)
	assert.Equal(t, b.eval(`curl.textContent`), b.eval(`copied`))
	b.eval(`Object.defineProperty(navigator, "clipboard", { value: undefined })`) // as in a page without TLS
	b.click("#copy")
	b.until(`copy.textContent === "Selected"`)
	assert.Equal(t, b.eval(`curl.textContent`), b.eval(`getSelection().toString()`))
}

// media emulates a setting of the user's.
func media(name, value string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: name, Value: value}},
		})
		return err
	})
}

var (
	dark          = media("prefers-color-scheme", "dark")
	light         = media("prefers-color-scheme", "light")
	reducedMotion = media("prefers-reduced-motion", "reduce")
	phone         = chromedp.EmulateViewport(360, 740, chromedp.EmulateMobile)
)

// inEachState brings the page into each of its states and calls f there.
func inEachState(t *testing.T, f func(b *tab, state string), before ...chromedp.Action[chromedp.Void]) {
	a := newAPI(t)
	a.ready = false
	b := openPage(t, a, before...)
	b.waitForNotice("The model is loading.")
	f(b, "not ready")
	a.set(func() { a.ready = true })
	long := "https://example.org/" + strings.Repeat("a", 300)
	passage := lovelace + " " + long + strings.Repeat(" Nothing is here.", 300)
	a.setAnswers(map[string]any{
		"windows": []map[string]any{
			{"document": 0, "start": 20, "end": 300}, {"document": 0, "start": 30, "end": 400},
			{"document": 0, "start": 40, "end": 400},
		},
		"null_odds": -3.25, "warning": "the question was cut",
	}, "Ada Lovelace", long, "", "1843")
	b.ask(passage, "Who wrote "+long+"?")
	b.click("summary")
	f(b, "answer")
	b.click("#nbest li:nth-child(2)")
	f(b, "long answer")
	a.set(func() { a.answer = func(w http.ResponseWriter, q query) { writeError(w, 400, "no: "+long) } })
	b.click("#ask")
	b.until(`!notice.hidden`)
	f(b, "error")
	b.click("#edit")
	b.click("#examples button:nth-of-type(3)")
	f(b, "example")
}

func TestPhone(t *testing.T) {
	const tooWide = `[...document.querySelectorAll("body *")]
		.filter(e => e.checkVisibility() && e.getBoundingClientRect().right > 360.5 && !e.closest(".bar"))
		.map(e => e.outerHTML.slice(0, 80))`
	inEachState(t, func(b *tab, state string) {
		assert.Equal(t, 360.0, b.eval(`document.documentElement.scrollWidth`), state)
		assert.Empty(t, b.eval(tooWide), state)
	}, phone)
}

// Every text has enough contrast to its background, by WCAG's formula, in both color schemes.
func TestContrast(t *testing.T) {
	const low = `(() => {
		const parse = (color) => color.match(/[\d.]+/g).map(Number);
		const linear = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
		const luminance = ([r, g, b]) => 0.2126 * linear(r) + 0.7152 * linear(g) + 0.0722 * linear(b);
		const ratio = (a, b) => (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
		const behind = (e) => {
			for (; e; e = e.parentElement) {
				const color = parse(getComputedStyle(e).backgroundColor);
				if (color[3] !== 0) return color;
			}
		};
		const low = [];
		const check = (e, style, back) => {
			const r = ratio(luminance(parse(style.color)), luminance(back));
			if (r < 4.5) low.push(r.toFixed(2) + " " + (e.id || e.className || e.tagName) + ": " + e.textContent.slice(0, 30));
		};
		const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
		while (walk.nextNode()) {
			const e = walk.currentNode.parentElement;
			if (!walk.currentNode.data.trim() || !e.checkVisibility()) continue;
			check(e, getComputedStyle(e), behind(e));
			const bar = e.parentElement.querySelector(":scope > .bar");
			if (bar) check(e, getComputedStyle(e), behind(bar));
		}
		for (const e of document.querySelectorAll("input, textarea, .window")) {
			if (!e.checkVisibility()) continue;
			check(e, getComputedStyle(e), behind(e));
			check(e, getComputedStyle(e, e.className === "window" ? "::before" : "::placeholder"), behind(e));
		}
		return low;
	})()`
	for name, tc := range map[string]struct {
		scheme     chromedp.Action[chromedp.Void]
		background string
	}{"light": {light, "rgb(246, 245, 242)"}, "dark": {dark, "rgb(19, 21, 24)"}} {
		t.Run(name, func(t *testing.T) {
			inEachState(t, func(b *tab, state string) {
				assert.Empty(t, b.eval(low), state)
				assert.Equal(t, tc.background, b.eval(`getComputedStyle(document.body).backgroundColor`))
			}, tc.scheme)
		})
	}
}

func TestKeyboardReachesEverything(t *testing.T) {
	a := newAPI(t)
	a.setAnswers(nil, "Ada Lovelace", "1843")
	b := openPage(t, a)
	b.ask(lovelace, "Who?")
	b.eval(`document.activeElement.blur(); document.body.focus()`)
	reached := map[any]bool{}
	for range 20 {
		b.press(kb.Tab)
		reached[b.eval(`document.activeElement.id || document.activeElement.textContent`)] = true
		if b.eval(`document.activeElement !== document.body`) == true {
			assert.Equal(t, "solid", b.eval(`getComputedStyle(document.activeElement).outlineStyle`), "the focus is visible")
		}
	}
	for _, id := range []string{
		"edit", "Ada Lovelace", "reading", "question", "ask", "negative", "nbest", "Metrics", "This question with curl",
	} {
		assert.Contains(t, reached, id)
	}
	assert.Empty(t, b.eval(`[...document.querySelectorAll("input, textarea, select")]
		.filter(e => e.labels.length === 0).map(e => e.id)`), "fields without a label")
}

// The policy blocks a script that is inserted. The test also shows that the others would see a violation.
func TestPolicyBlocksInsertedScripts(t *testing.T) {
	a := newAPI(t)
	b := openPage(t, a)
	messages := chromedp.Console(b.ctx)
	assert.Equal(t, "blocked", b.eval(`(() => {
		document.body.append(Object.assign(document.createElement("script"), { textContent: "window.ran = true" }));
		return window.ran ? "ran" : "blocked";
	})()`))
	for m, err := range messages {
		require.NoError(t, err)
		if m.Type == chromedp.ConsoleError {
			assert.Contains(t, m.Text, "Content Security Policy")
			break
		}
	}
	b.forgive = "Content Security Policy"
}
