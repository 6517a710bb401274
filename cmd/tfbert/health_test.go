package main

import (
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestHealth(t *testing.T) {
	ready := http.StatusServiceUnavailable
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v2/health/live":
		case "/v2/health/ready":
			w.WriteHeader(ready)
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()
	health := func(flags ...string) error {
		root := newRoot()
		root.SetArgs(append([]string{"health", "--url", server.URL + "/"}, flags...))
		return root.ExecuteContext(t.Context())
	}
	assert.NoError(t, health("--live"))
	assert.ErrorContains(t, health(), "/v2/health/ready: the server answers 503 Service Unavailable")
	ready = http.StatusOK
	assert.NoError(t, health())
	assert.ErrorContains(t, health("--timeout", "1ns"), "deadline exceeded")
	assert.ErrorContains(t, health("--timeout", "0s"), "--timeout must be positive")
	assert.ErrorContains(t, health("--url", "localhost:8501"), "--url is http:// or https://")
	server.Close()
	assert.ErrorContains(t, health(), "refused")
}
