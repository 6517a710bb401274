package page_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/fakemodel"
	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/serve"
	"github.com/tfbert/go/serve/repository"
)

// startServer starts a server of a fake model that allows pages of an origin, and returns its port.
func startServer(t *testing.T, origin string) (port string) {
	t.Helper()
	var fake fakemodel.Models
	root := t.TempDir()
	require.NoError(t, os.MkdirAll(filepath.Join(root, "bert", "1", "model.savedmodel"), 0o755))
	models, err := repository.OpenDir(root, repository.Options{Load: fake.Load, Control: repository.ControlExplicit})
	require.NoError(t, err)
	require.NoError(t, models.Start(t.Context(), "bert"))
	server, err := serve.New(models, serve.Options{AllowedOrigins: []string{origin}})
	require.NoError(t, err)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- server.Serve(ctx, l, nil) }()
	t.Cleanup(func() {
		stop()
		assert.NoError(t, <-ended)
		fake.Check(t)
	})
	_, port, err = net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	return port
}

// Pages of other sites cannot reach the server, even if their names lead to it, except those that it allows.
// The browser takes every name that ends with .example for this machine.
func TestOtherSites(t *testing.T) {
	parent, err := browser()
	if errors.Is(err, errNoBrowser) {
		testenv.Missing(t, "chromium", err.Error())
	}
	require.NoError(t, err)
	other := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprint(w, "<!doctype html><title>another site</title>")
	}))
	defer other.Close()
	_, otherPort, err := net.SplitHostPort(other.Listener.Addr().String())
	require.NoError(t, err)
	port := startServer(t, "http://friend.example:"+otherPort)
	ctx, cancel := chromedp.NewContext(parent, chromedp.WithNewBrowserContext())
	defer cancel()
	ctx, cancel = context.WithTimeout(ctx, time.Minute)
	defer cancel()
	b := &tab{t: t, ctx: ctx}
	// request sends a request of the page that is open, and returns the status, or "failed" if the browser does not
	// let the page see it.
	request := func(method, url, body string) any {
		options := fmt.Sprintf(`{method: %q}`, method)
		if method == "POST" {
			options = fmt.Sprintf(`{method: "POST", body: %q, headers: {"Content-Type": "application/json"}}`, body)
		}
		b.eval(fmt.Sprintf(
			`window.got = undefined; void fetch(%q, %s).then(r => window.got = "" + r.status, () => window.got = "failed")`,
			url, options))
		b.until(`window.got !== undefined`)
		return b.eval(`window.got`)
	}
	const question = `{"question":"find w1","context":"a w1"}`
	const unload = "/v2/repository/models/bert/unload"

	b.do(chromedp.Navigate("http://evil.example:" + port + "/"))
	assert.Contains(t, b.eval(`document.body.innerText`), "the server does not answer requests to this host")
	assert.Equal(t, "403", request("GET", "/v1/models", ""))
	assert.Equal(t, "403", request("POST", "/v1/answer", question))
	assert.Equal(t, "403", request("POST", unload, "{}"))

	server := "http://localhost:" + port
	b.do(chromedp.Navigate("http://evil.example:" + otherPort + "/"))
	assert.Equal(t, "failed", request("GET", server+"/v1/models", ""))
	assert.Equal(t, "failed", request("POST", server+"/v1/answer", question))
	assert.Equal(t, "failed", request("POST", server+unload, "{}"))

	b.do(chromedp.Navigate("http://friend.example:" + otherPort + "/"))
	assert.Equal(t, "200", request("GET", server+"/v1/models", ""))
	assert.Equal(t, "200", request("POST", server+"/v1/answer", question))
	assert.Equal(t, "400", request("POST", server+"/v1/answer", "{"))

	for _, host := range []string{"127.0.0.1", "localhost", "x.localhost"} {
		b.do(chromedp.Navigate("http://" + host + ":" + port + "/"))
		b.waitUntilReady()
		assert.Equal(t, "200", request("POST", "/v1/answer", question), host)
	}
}
