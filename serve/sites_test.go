package serve

import (
	"context"
	"net"
	"net/http"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestAllowedHosts(t *testing.T) {
	own, err := os.Hostname()
	require.NoError(t, err)
	s, err := newSites([]string{"Answers.example.com", "*.example.org"}, nil)
	require.NoError(t, err)
	for host, allowed := range map[string]bool{
		"127.0.0.1": true, "127.0.0.1:8501": true, "127.8.9.1:1": true, "[::1]:8501": true, "[::1]": true, "::1": true,
		"[::ffff:127.0.0.1]": true, "0.0.0.0:8501": true, "10.1.2.3": true, "192.168.0.9:80": true, "172.16.0.1": true,
		"169.254.1.1": true, "[fd00::1]:80": true, "[fe80::1%25eth0]:80": true, "localhost": true, "LOCALHOST:8501": true,
		"localhost.": true, "a.localhost:8501": true, "printer.local": true, "host.docker.internal:8501": true,
		own: true, own + ":8501": true, "": true,
		"answers.example.com": true, "answers.EXAMPLE.com:443": true, "a.example.org": true, "a.b.example.org.": true,

		"evil.example": false, "evil.example:8501": false, "8.8.8.8": false, "172.32.0.1:80": false,
		"[2001:db8::1]:80": false, "localhost.evil.example": false, "evillocalhost": false, "notlocal": false,
		"127.0.0.1.evil.example": false, "127.0.0.1.nip.io": false, "example.org": false, "evilexample.org": false,
		"a.answers.example.com": false, "local": false, "evil.example:1:2": false, "[evil.example]": false,
		"2130706433": false, "0x7f000001": false,
	} {
		assert.Equal(t, allowed, s.allows(host), host)
	}
	s, err = newSites([]string{"*"}, nil)
	require.NoError(t, err)
	assert.True(t, s.allows("evil.example"))
	for _, origin := range []string{"evil.example", "null", "", "https://a.example/path"} {
		_, err = newSites(nil, []string{origin})
		require.ErrorContains(t, err, "is not a valid origin")
	}
}

// get sends a request to a host's name, whatever its address.
func get(t *testing.T, c *http.Client, method, url, host string, headers ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, http.NoBody)
	require.NoError(t, err)
	r.Host = host
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	response, err := c.Do(r)
	require.NoError(t, err)
	return response
}

// A site whose name leads to this machine reaches nothing, over HTTP/1.1 and HTTP/2.
func TestRebinding(t *testing.T) {
	f := startServer(t, &setup{serve: Options{AllowedHosts: []string{"answers.example.com"}}})
	h2 := new(http.Protocols)
	h2.SetUnencryptedHTTP2(true)
	transport := &http.Transport{Protocols: h2}
	defer transport.CloseIdleConnections()
	for version, c := range map[int]*http.Client{1: client(t), 2: {Transport: transport}} {
		for _, request := range [][2]string{
			{"GET", "/"}, {"GET", "/healthz"}, {"GET", "/metrics"}, {"GET", "/v2/models/bert"}, {"GET", "/nowhere"},
			{"POST", "/v1/answer"}, {"POST", "/v2/repository/models/bert/unload"}, {"OPTIONS", "/v1/answer"},
		} {
			r := get(t, c, request[0], f.url+request[1], "evil.example:8501")
			assert.Equal(t, version, r.ProtoMajor)
			assert.Equal(t, 403, r.StatusCode, request)
			assert.Equal(t, "application/json", r.Header.Get("Content-Type"))
			assert.Contains(t, readAll(t, r), `{"error":"the server does not answer requests to this host`)
		}
		for _, host := range []string{"", "localhost:8501", "a.localhost", "answers.example.com"} {
			r := get(t, c, "GET", f.url+"/v2/models/bert", host)
			assert.Equal(t, 200, r.StatusCode, host)
			readAll(t, r)
		}
	}

	// The port of the profiles.
	l := listen(t)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- f.ServeAdmin(ctx, l) }()
	url := "http://" + l.Addr().String() + "/debug/pprof/cmdline"
	for host, status := range map[string]int{"evil.example": 403, "localhost": 200, "answers.example.com": 200} {
		r := get(t, client(t), "GET", url, host)
		assert.Equal(t, status, r.StatusCode)
		readAll(t, r)
	}
	stop()
	require.NoError(t, <-ended)
}

// Where others can connect too, hosts are checked only if the operator names some.
func TestHostsOfOtherAddresses(t *testing.T) {
	for _, hosts := range [][]string{nil, {"answers.example.com"}} {
		f := newFixture(t, &setup{serve: Options{AllowedHosts: hosts}})
		l, err := net.Listen("tcp", "0.0.0.0:0")
		require.NoError(t, err)
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- f.Serve(ctx, l, nil) }()
		_, port, err := net.SplitHostPort(l.Addr().String())
		require.NoError(t, err)
		r := get(t, client(t), "GET", "http://127.0.0.1:"+port+"/healthz", "any.example")
		assert.Equal(t, hosts == nil, r.StatusCode == 200)
		readAll(t, r)
		stop()
		require.NoError(t, <-ended)
	}
}

func TestAllowedOrigins(t *testing.T) {
	f := newFixture(t, &setup{serve: Options{AllowedOrigins: []string{"https://app.example"}}})
	const friend, evil = "Origin: https://app.example", "Origin: https://evil.example"
	body := []byte(question(1))
	w := f.ask("POST", "/v1/answer", body, friend, "Sec-Fetch-Site: cross-site")
	assert.Equal(t, 200, w.Code)
	assert.Equal(t, "https://app.example", w.Header().Get("Access-Control-Allow-Origin"))
	assert.Empty(t, w.Header().Get("Access-Control-Allow-Credentials"))
	assert.Contains(t, w.Header().Get("Access-Control-Expose-Headers"), "Retry-After")
	w = f.ask("POST", "/v1/answer", []byte("{"), friend)
	assert.Equal(t, 400, w.Code)
	assert.NotEmpty(t, w.Header().Get("Access-Control-Allow-Origin"), "it can read errors")
	w = f.ask("POST", "/v1/answer", body, evil, "Sec-Fetch-Site: cross-site")
	requireError(t, 403, "another site", w)
	assert.Empty(t, w.Header().Get("Access-Control-Allow-Origin"))

	preflight := []string{"Access-Control-Request-Method: POST", "Access-Control-Request-Headers: content-type"}
	w = f.ask("OPTIONS", "/v1/answer", nil, append(preflight, friend)...)
	assert.Equal(t, 204, w.Code)
	assert.Equal(t, "https://app.example", w.Header().Get("Access-Control-Allow-Origin"))
	assert.Equal(t, "POST", w.Header().Get("Access-Control-Allow-Methods"))
	assert.Equal(t, "content-type", w.Header().Get("Access-Control-Allow-Headers"))
	w = f.ask("OPTIONS", "/v1/answer", nil, append(preflight, evil)...)
	assert.Empty(t, w.Header().Get("Access-Control-Allow-Origin"))

	f = newFixture(t, &setup{serve: Options{AllowedOrigins: []string{"*"}}})
	w = f.ask("POST", "/v1/answer", body, evil, "Sec-Fetch-Site: cross-site")
	assert.Equal(t, 200, w.Code)
	assert.Equal(t, "*", w.Header().Get("Access-Control-Allow-Origin"))
}
