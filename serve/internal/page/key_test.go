package page_test

import (
	"testing"

	"github.com/chromedp/chromedp/kb"
	"github.com/stretchr/testify/assert"
)

// If the server needs an API key, the page asks for one, and again when it no longer holds.
func TestKey(t *testing.T) {
	a := newAPI(t)
	a.key = "secret"
	a.setAnswers(nil, "Ada")
	b := openPage(t, a)
	b.waitForNotice("Enter your API key above.")
	assert.Equal(t, "Needs an API key", b.text("#state"))
	enter := func(key string) {
		t.Helper()
		b.eval(`key.value = ""`)
		b.click("#key")
		b.insert(key)
		b.press(kb.Enter)
	}
	enter("wrong")
	b.waitForNotice("The API key is not valid.")
	enter("secret")
	b.waitUntilReady()
	assert.Equal(t, "", b.text("#notice"))
	b.ask("Ada wrote it.", "Who?")
	b.click("summary")
	b.until(`curl.textContent.includes('-H "Authorization: Bearer $KEY"')`)
	assert.NotContains(t, b.eval(`curl.textContent`), "secret")

	a.set(func() { a.key = "other" })
	b.click("#ask")
	b.waitForNotice("The API key is not valid.")
	enter("other")
	b.waitUntilReady()
	b.click("#ask")
	b.waitForAnswer("Who?")
	assert.NotContains(t, b.eval(`JSON.stringify([sessionStorage, localStorage])`), "other", "it is not stored")
}
