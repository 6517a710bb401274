package serve

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"math/big"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/tfbert/go/internal/fakemodel"
	pb "github.com/tfbert/go/internal/serveproto"
)

// A server that shuts down answers the requests that it has accepted, takes no more, and then releases its
// models.
func TestDrain(t *testing.T) {
	f := startServer(t, &setup{models: fakemodel.Models{Delay: 500 * time.Millisecond}})
	c, web := pb.NewInferenceClient(f.dial(t)), client(t)
	idle, err := c.ModelStreamInfer(t.Context())
	require.NoError(t, err)
	require.NoError(t, idle.Send(textRequest(3)))
	r, err := idle.Recv()
	require.NoError(t, err)
	assert.Equal(t, "w3", textAnswer(t, r.GetInferResponse()))
	before := f.models.Windows.Load()
	busy, err := c.ModelStreamInfer(t.Context())
	require.NoError(t, err)
	for range 5 {
		require.NoError(t, busy.Send(askRequest("", "find w2", "slow w2")))
	}
	m, err := f.host.Models.Acquire("bert", 0)
	require.NoError(t, err)
	var group sync.WaitGroup
	for range 10 {
		group.Go(func() {
			body := strings.NewReader(`{"question":"find w1","context":"slow w1"}`)
			r, err := web.Post(f.url+"/v1/answer", "application/json", body)
			if assert.NoError(t, err) {
				assert.Contains(t, readAll(t, r), `{"answer":"w1"`)
			}
		})
		group.Go(func() {
			r, err := c.ModelInfer(t.Context(), askRequest("", "find w2", "slow w2"))
			if assert.NoError(t, err) {
				assert.Equal(t, "w2", textAnswer(t, r))
			}
		})
	}
	eventually(t, "all are accepted", func() bool {
		waiting := m.Batcher().Waiting() // first, so that a window may be missed but not counted twice
		return int64(waiting)+f.models.Windows.Load() >= before+25
	})
	m.Release()
	f.stop()
	eventually(t, "it is not ready", func() bool { return f.host.Ready() != nil })
	eventually(t, "connections are refused", func() bool {
		_, err := net.Dial("tcp", f.url[7:])
		return err != nil
	})
	group.Wait()
	for range 5 {
		r, err := busy.Recv()
		require.NoError(t, err)
		assert.Equal(t, "w2", textAnswer(t, r.GetInferResponse()))
	}
	for _, stream := range []pb.GRPCInferenceService_ModelStreamInferClient{busy, idle} {
		_, err = stream.Recv()
		requireCode(t, codes.Unavailable, "shutting down", err)
	}
	require.NoError(t, <-f.ended)
	f.ended <- nil
	assert.Zero(t, f.models.Loaded())
	_, err = c.ModelInfer(t.Context(), textRequest(1))
	assert.Equal(t, codes.Unavailable, status.Code(err))
}

// Requests that do not end in time are cut off, and Serve returns an error.
func TestDrainTimeout(t *testing.T) {
	for _, protocol := range []string{"HTTP", "gRPC"} {
		t.Run(protocol, func(t *testing.T) {
			f := startServer(t, &setup{
				serve: Options{DrainTimeout: 100 * time.Millisecond}, models: fakemodel.Models{Delay: time.Minute},
			})
			c := pb.NewInferenceClient(f.dial(t))
			ended := make(chan error)
			go func() {
				var err error
				if protocol == "HTTP" {
					body := strings.NewReader(`{"question":"find w1","context":"slow w1"}`)
					var r *http.Response
					if r, err = client(t).Post(f.url+"/v1/answer", "", body); err == nil {
						err = status.Error(codes.Code(r.StatusCode), readAll(t, r))
					}
				} else {
					_, err = c.ModelInfer(context.Background(), askRequest("", "find w2", "slow w2"))
				}
				ended <- err
			}()
			m, err := f.host.Models.Acquire("bert", 0)
			require.NoError(t, err)
			eventually(t, "it runs", func() bool { return m.Batcher().Running() == 1 })
			m.Release()
			began := time.Now()
			f.stop()
			err = <-f.ended
			require.ErrorContains(t, err, "some requests had not ended after 100ms: ")
			assert.NotContains(t, err.Error(), "\n")
			require.ErrorIs(t, err, context.DeadlineExceeded)
			want := codes.Unavailable
			if protocol == "HTTP" {
				want = http.StatusServiceUnavailable
			}
			requireCode(t, want, "the server is shutting down", <-ended)
			assert.Less(t, time.Since(began), 10*time.Second)
			assert.Zero(t, f.models.Loaded())
			f.ended <- nil
		})
	}
}

// A server that ends answers for a while although it is not ready, and then does not wait for requests that do not come.
func TestShutdownDelay(t *testing.T) {
	f := startServer(t, &setup{serve: Options{ShutdownDelay: 300 * time.Millisecond, DrainTimeout: 4 * time.Second}})
	web := client(t)
	halves, writer := io.Pipe()
	unfinished := make(chan int, 1)
	go func() {
		r, err := web.Post(f.url+"/v1/answer", "application/json", halves)
		if assert.NoError(t, err) {
			unfinished <- r.StatusCode
			readAll(t, r)
		}
	}()
	_, err := writer.Write([]byte("{"))
	require.NoError(t, err)
	eventually(t, "it is being received", func() bool { return f.host.Gate.State().Messages > 0 })
	c := pb.NewInferenceClient(f.dial(t))
	idle, err := c.ModelStreamInfer(t.Context())
	require.NoError(t, err)
	began := time.Now()
	f.stop()
	eventually(t, "it is not ready", func() bool { return f.host.Ready() != nil })
	r, err := web.Post(f.url+"/v1/answer", "application/json", strings.NewReader(question(1)))
	if time.Since(began) < 300*time.Millisecond {
		require.NoError(t, err)
		assert.Equal(t, 200, r.StatusCode)
		readAll(t, r)
	}
	assert.Equal(t, 503, <-unfinished)
	_, err = idle.Recv()
	requireCode(t, codes.Unavailable, "shutting down", err)
	require.NoError(t, <-f.ended, "it ends before its time is over")
	f.ended <- nil
}

// A listener that fails ends the server.
func TestListenerFails(t *testing.T) {
	for _, overHTTP := range []bool{true, false} {
		f := newFixture(t, &setup{})
		l := listen(t)
		require.NoError(t, l.Close())
		var err error
		if overHTTP {
			err = f.Serve(t.Context(), l, nil)
		} else {
			err = f.Serve(t.Context(), nil, l)
		}
		require.ErrorIs(t, err, net.ErrClosed)
		assert.Zero(t, f.models.Loaded())
	}
}

// An authority signs certificates.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return &authority{cert, key}
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

func (a *authority) sign(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotAfter: time.Now().Add(time.Hour), IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestTLS(t *testing.T) {
	ours, others := newAuthority(t), newAuthority(t)
	for name, mutual := range map[string]bool{"server alone": false, "mutual": true} {
		t.Run(name, func(t *testing.T) {
			config := &tls.Config{Certificates: []tls.Certificate{ours.sign(t)}, MinVersion: tls.VersionTLS12}
			if mutual {
				config.ClientCAs, config.ClientAuth = ours.pool(), tls.RequireAndVerifyClientCert
			}
			f := startServer(t, &setup{serve: Options{TLS: config}})
			// ask sends a question by both protocols, as a client with these roots and certificates.
			ask := func(roots *x509.CertPool, certs ...tls.Certificate) (overHTTP, overGRPC error) {
				config := &tls.Config{RootCAs: roots, Certificates: certs}
				transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
				defer transport.CloseIdleConnections()
				client := &http.Client{Transport: transport}
				r, err := client.Post(f.url+"/v1/answer", "", strings.NewReader(question(1)))
				if err == nil {
					assert.Equal(t, 2, r.ProtoMajor)
					assert.Contains(t, readAll(t, r), `{"answer":"w1"`)
				}
				conn := newClient(t, f.rpc, credentials.NewTLS(config.Clone()))
				defer conn.Close()
				_, overGRPC = pb.NewInferenceClient(conn).ModelInfer(t.Context(), textRequest(1))
				return err, overGRPC
			}
			overHTTP, overGRPC := ask(ours.pool(), ours.sign(t))
			require.NoError(t, overHTTP)
			require.NoError(t, overGRPC)
			overHTTP, overGRPC = ask(others.pool(), ours.sign(t))
			require.ErrorContains(t, overHTTP, "certificate")
			require.Error(t, overGRPC, "a server of an unknown authority")
			for _, certs := range [][]tls.Certificate{nil, {others.sign(t)}} {
				overHTTP, overGRPC = ask(ours.pool(), certs...)
				assert.Equal(t, mutual, overHTTP != nil, "%v", overHTTP)
				assert.Equal(t, mutual, overGRPC != nil, "%v", overGRPC)
			}
			plain, err := http.Post("http"+f.url[5:]+"/v1/answer", "", strings.NewReader(question(1)))
			if err == nil {
				assert.Equal(t, http.StatusBadRequest, plain.StatusCode)
				plain.Body.Close()
			}
			_, err = tls.Dial("tcp", f.url[8:], &tls.Config{
				RootCAs: ours.pool(), MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10,
			})
			require.Error(t, err)
		})
	}
}

// The profiles have a port of their own and need the admin token.
func TestAdmin(t *testing.T) {
	f := newFixture(t, &setup{serve: Options{AdminToken: "secret"}})
	l := listen(t)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- f.ServeAdmin(ctx, l) }()
	url := "http://" + l.Addr().String() + "/debug/pprof/cmdline"
	get := func(token string) (int, string) {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
		require.NoError(t, err)
		r.Header.Set("Authorization", token)
		response, err := client(t).Do(r)
		require.NoError(t, err)
		return response.StatusCode, readAll(t, response)
	}
	code, body := get("Bearer wrong")
	assert.Equal(t, 401, code)
	assert.Contains(t, body, "admin token")
	code, body = get("Bearer secret")
	assert.Equal(t, 200, code)
	assert.Contains(t, body, "serve.test")
	stop()
	require.NoError(t, <-ended)
}
