package access

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/tfbert/go/serve/repository"
)

func line(key, client string) string {
	hash := sha256.Sum256([]byte(key))
	return hex.EncodeToString(hash[:]) + "  " + client + "\n"
}

func TestReadKeys(t *testing.T) {
	text := "# team\n\n" + line("one", "alice") + line("two", "bob") + line("three", "bob")
	keys, err := ReadKeys(strings.NewReader(text))
	require.NoError(t, err)
	require.Len(t, keys, 3)
	assert.Equal(t, Key{"alice", sha256.Sum256([]byte("one"))}, keys[0])
	assert.Equal(t, "bob", keys[2].Client)

	for text, want := range map[string]string{
		"":                                      "it has no keys",
		"# only a comment\n":                    "it has no keys",
		"secret\n":                              "line 1: it has 1 words",
		"a b c\n":                               "line 1: it has 3 words",
		"\nsecret alice\n":                      "line 2: it must begin with the SHA-256",
		"abcd alice\n":                          "line 1: it must begin with the SHA-256",
		line("one", "-"):                        "line 1: its client must have a name",
		line("one", strings.Repeat("x", 65)):    "line 1: its client must have a name",
		line("one", "a") + line("one", "b"):     "line 2 has the same key as line 1",
		strings.Repeat("#\n", mostBytes/2+1):    "more than 1048576 bytes",
		strings.Repeat("x", mostBytes+1) + "\n": "too long",
	} {
		_, err := ReadKeys(strings.NewReader(text))
		if assert.ErrorContains(t, err, want) {
			assert.NotContains(t, err.Error(), "secret")
		}
	}
}

func TestIdentify(t *testing.T) {
	g := NewGuard(nil, Limits{})
	for address, want := range map[string]string{
		"192.0.2.1:80": "192.0.2.1", "[::ffff:192.0.2.1]:80": "192.0.2.1", "[2001:db8:1:2:3::4]:80": "2001:db8:1:2::/64",
		"[fe80::1%eth0]:80": "fe80::/64", "bufconn": "bufconn", "": "",
	} {
		client, err := g.Identify("Bearer whatever", address)
		require.NoError(t, err)
		assert.Equal(t, want, client)
	}

	keys, err := ReadKeys(strings.NewReader(line("one", "alice") + line("two", "bob")))
	require.NoError(t, err)
	g.SetKeys(keys)
	for authorization, want := range map[string]string{
		"Bearer one": "alice", "bearer two": "bob", "BEARER  one": "alice",
	} {
		client, err := g.Identify(authorization, "192.0.2.1:80")
		require.NoError(t, err)
		assert.Equal(t, want, client)
	}
	for _, authorization := range []string{"", "one", "Bearer", "Bearer ", "Bearer three", "Basic one", "Bearer one two"} {
		_, err := g.Identify(authorization, "192.0.2.1:80")
		require.Error(t, err, authorization)
		assert.Equal(t, codes.Unauthenticated, repository.AsError(err).Code)
	}
}

func TestAtOnce(t *testing.T) {
	g := NewGuard(nil, Limits{AtOnce: 2})
	var leave [2]func()
	for i := range leave {
		var err error
		leave[i], err = g.Enter("a")
		require.NoError(t, err)
	}
	_, err := g.Enter("a")
	require.ErrorContains(t, err, "has 2 requests under way")
	assert.Equal(t, time.Second, repository.AsError(err).RetryAfter)
	_, err = g.Enter("b")
	require.NoError(t, err, "another client has its own")
	leave[0]()
	leave[0]() // which does nothing
	_, err = g.Enter("a")
	require.NoError(t, err)
	_, err = g.Enter("a")
	require.Error(t, err)
}

func TestRate(t *testing.T) {
	g := NewGuard(nil, Limits{Rate: 1.0 / 3600, Burst: 3})
	for range 3 {
		leave, err := g.Enter("a")
		require.NoError(t, err)
		leave()
	}
	for range 3 { // refused requests do not make it wait for longer
		_, err := g.Enter("a")
		require.Error(t, err)
		e := repository.AsError(err)
		assert.Equal(t, codes.ResourceExhausted, e.Code)
		assert.InDelta(t, time.Hour.Seconds(), e.RetryAfter.Seconds(), 300)
	}
	_, err := g.Enter("b")
	require.NoError(t, err)
}

// However many clients come, the guard remembers a bounded number, and none that has a request under way is forgotten.
func TestMemory(t *testing.T) {
	g := NewGuard(nil, Limits{Rate: 1.0 / 3600, Burst: 1, AtOnce: 1})
	g.mostIdle = 10
	leaveBusy, err := g.Enter("busy")
	require.NoError(t, err)
	for i := range 1000 {
		leave, err := g.Enter(fmt.Sprint(i))
		require.NoError(t, err)
		leave()
		require.LessOrEqual(t, len(g.clients), 11)
	}
	_, err = g.Enter("busy")
	require.ErrorContains(t, err, "has 1 requests under way")
	_, err = g.Enter("999")
	require.ErrorContains(t, err, "requests per second", "it is remembered")
	_, err = g.Enter("0")
	require.NoError(t, err, "it is forgotten")
	leaveBusy()
	assert.LessOrEqual(t, g.idle.Len(), 10)
}
