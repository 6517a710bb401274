package serve

import (
	"bytes"
	"encoding/binary"
	"io"
	"net"
	"net/http"
	"runtime"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/serve/repository"
)

// An attacker is a connection of HTTP/2 that sends what it likes, as far as flow control permits.
type attacker struct {
	conn   net.Conn
	framer *http2.Framer
	sent   atomic.Int64 // bytes of DATA

	mu      sync.Mutex
	moved   *sync.Cond
	streams int // that the server permits
	initial int64
	window  int64            // of the connection
	windows map[uint32]int64 // of the streams beyond the first 64 KiB
	reset   int              // streams that the server has ended
	closed  bool
}

func attack(t *testing.T, address string) *attacker {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	require.NoError(t, err)
	a := &attacker{conn: conn, windows: map[uint32]int64{}, streams: 1 << 20, initial: 65535, window: 65535}
	a.moved = sync.NewCond(&a.mu)
	t.Cleanup(func() { conn.Close() })
	_, err = io.WriteString(conn, http2.ClientPreface)
	require.NoError(t, err)
	a.framer = http2.NewFramer(conn, conn)
	require.NoError(t, a.framer.WriteSettings())
	known := make(chan struct{})
	go a.read(sync.OnceFunc(func() { close(known) }))
	<-known
	return a
}

func (a *attacker) read(known func()) {
	for {
		f, err := a.framer.ReadFrame()
		a.mu.Lock()
		switch f := f.(type) {
		case *http2.SettingsFrame:
			if n, ok := f.Value(http2.SettingMaxConcurrentStreams); ok {
				a.streams = int(n)
			}
			if n, ok := f.Value(http2.SettingInitialWindowSize); ok {
				a.initial = int64(n)
			}
			known()
		case *http2.WindowUpdateFrame:
			if f.StreamID == 0 {
				a.window += int64(f.Increment)
			} else {
				a.windows[f.StreamID] += int64(f.Increment)
			}
		case *http2.RSTStreamFrame:
			a.reset++
		}
		a.closed = err != nil
		a.moved.Broadcast()
		a.mu.Unlock()
		if err != nil {
			known()
			return
		}
	}
}

// open begins the stream with a number, counted from 0.
func (a *attacker) open(n int, path, contentType string) (id uint32, err error) {
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for _, f := range [][2]string{
		{":method", "POST"}, {":scheme", "http"}, {":authority", "localhost"}, {":path", path},
		{"content-type", contentType}, {"te", "trailers"},
	} {
		_ = e.WriteField(hpack.HeaderField{Name: f[0], Value: f[1]})
	}
	id = uint32(2*n + 1)
	return id, a.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: block.Bytes(), EndHeaders: true})
}

// send sends as much of a piece of data as flow control permits within a time, and returns how much that is.
func (a *attacker) send(id uint32, data []byte, patience time.Duration) (n int) {
	timer := time.AfterFunc(patience, a.moved.Broadcast)
	defer timer.Stop()
	end := time.Now().Add(patience)
	for n < len(data) {
		a.mu.Lock()
		room := min(a.window, a.initial+a.windows[id], 16<<10, int64(len(data)-n))
		for room <= 0 && !a.closed && time.Now().Before(end) {
			a.moved.Wait()
			room = min(a.window, a.initial+a.windows[id], 16<<10, int64(len(data)-n))
		}
		if room <= 0 || a.closed {
			a.mu.Unlock()
			return n
		}
		a.window -= room
		a.windows[id] -= room
		a.mu.Unlock()
		if a.framer.WriteData(id, false, data[n:n+int(room)]) != nil {
			return n
		}
		n += int(room)
		a.sent.Add(room)
	}
	return n
}

func (a *attacker) ended() (streams int, closed bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.reset, a.closed
}

// liveHeap returns the bytes of the heap that are in use.
func liveHeap() int64 {
	runtime.GC()
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// Bodies that never end do not take the places of requests, and are let go.
func TestAttackSlowBodies(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	f := startServer(t, &setup{
		serve: attackOptions, repo: repository.Options{Control: repository.ControlExplicit},
	})
	var attackers []*attacker
	opened := 0
	for opened < 1280 {
		a := attack(t, f.url[7:])
		attackers = append(attackers, a)
		for n := range min(a.streams, 256) {
			path := []string{"/v1/answer", "/v2/models/bert/infer", "/v2/repository/models/bert/load"}[n%3]
			id, err := a.open(n, path, "application/json")
			require.NoError(t, err)
			require.Equal(t, 1, a.send(id, []byte("{"), time.Second))
			opened++
		}
	}
	time.Sleep(200 * time.Millisecond) // so that the server has them all
	web := client(t)
	answered := map[string]int{}
	const tries = 20
	for range tries {
		for _, request := range []string{
			"POST /v1/answer", "GET /healthz", "GET /readyz", "GET /metrics", "POST /v2/repository/index",
			"POST /v2/repository/models/bert/load",
		} {
			method, path, _ := strings.Cut(request, " ")
			body := ""
			if path == "/v1/answer" {
				body = question(1)
			}
			r, err := http.NewRequestWithContext(t.Context(), method, f.url+path, strings.NewReader(body))
			require.NoError(t, err)
			response, err := web.Do(r)
			require.NoError(t, err)
			readAll(t, response)
			if response.StatusCode == 200 {
				answered[request]++
			}
		}
	}
	sent := int64(0)
	for _, a := range attackers {
		sent += a.sent.Load()
	}
	t.Logf("%d connections with %d bodies of %d bytes in all: answered of %d: %v",
		len(attackers), opened, sent, tries, answered)
	for request, n := range answered {
		assert.Equal(t, tries, n, request)
	}
	assert.Len(t, answered, 6)
	began := time.Now()
	ended := 0
	for _, a := range attackers {
		n, closed := a.ended()
		for !closed && n < min(a.streams, 256) && time.Since(began) < attackPatience {
			time.Sleep(10 * time.Millisecond)
			n, closed = a.ended()
		}
		ended += n
	}
	t.Logf("%d streams were ended after %v", ended, time.Since(began).Round(time.Second/10))
	assertNothingHeld(t, f)
}

// Messages of gRPC that never end do not take more memory than the server grants them, and are let go.
func TestAttackUnfinishedMessages(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	f := startServer(t, &setup{serve: attackOptions})
	const (
		size    = 8<<20 - 1<<10
		streams = 48 // 384 MiB
	)
	partial := binary.BigEndian.AppendUint32([]byte{0}, size)
	partial = append(partial, make([]byte, size-1)...)
	for _, connections := range []int{1, 4} {
		before := liveHeap()
		var peak int64
		var attackers []*attacker
		var group sync.WaitGroup
		for range connections {
			a := attack(t, f.rpc.String())
			attackers = append(attackers, a)
			group.Go(func() {
				for n := range min(streams/connections, a.streams) {
					id, err := a.open(n, "/inference.GRPCInferenceService/ModelInfer", "application/grpc")
					if err != nil || a.send(id, partial, time.Second) == 0 {
						return
					}
				}
			})
		}
		sending := make(chan struct{})
		go func() { group.Wait(); close(sending) }()
		for done := false; !done; {
			select {
			case <-sending:
				done = true
			case <-time.After(100 * time.Millisecond):
			}
			peak = max(peak, liveHeap()-before)
		}
		// Others are served meanwhile.
		conn := newClient(t, f.rpc, insecure.NewCredentials())
		_, err := pb.NewInferenceClient(conn).ModelInfer(t.Context(), textRequest(1))
		require.NoError(t, err)
		_, err = healthpb.NewHealthClient(conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
		require.NoError(t, err)
		require.NoError(t, conn.Close())
		began := time.Now()
		for time.Since(began) < attackPatience && slices.ContainsFunc(attackers, func(a *attacker) bool {
			_, closed := a.ended()
			return !closed
		}) {
			time.Sleep(10 * time.Millisecond)
		}
		time.Sleep(200 * time.Millisecond)
		kept := liveHeap() - before
		sent := int64(0)
		for _, a := range attackers {
			sent += a.sent.Load()
			a.conn.Close()
		}
		t.Logf("%d connections sent %d MiB: heap %d MiB at most, %d MiB after %v", connections, sent>>20, peak>>20, kept>>20,
			time.Since(began).Round(time.Second/10))
		assertHeap(t, connections, peak)
		assertNothingHeld(t, f)
	}
}

// Streams of gRPC that are opened and not used, over any number of connections, have a bound.
func TestAttackIdleStreams(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes seconds")
	}
	f := startServer(t, &setup{serve: Options{MaxUnfinished: 4 << 20}})
	var attackers []*attacker
	for range 5 {
		a := attack(t, f.rpc.String())
		attackers = append(attackers, a)
		for n := range a.streams {
			if _, err := a.open(n, "/inference.GRPCInferenceService/ModelStreamInfer", "application/grpc"); err != nil {
				break // its connection was closed
			}
		}
	}
	eventually(t, "the connections with the oldest are closed", func() bool {
		_, first := attackers[0].ended()
		return first
	})
	assert.LessOrEqual(t, f.host.Gate.State().Bytes, int64(4<<20))
	_, err := pb.NewInferenceClient(f.dial(t)).ModelInfer(t.Context(), textRequest(1))
	require.NoError(t, err)
	for _, a := range attackers {
		a.conn.Close()
	}
	assertNothingHeld(t, f)
}

// attackOptions are the defaults, with less patience.
var attackOptions = Options{grace: 2 * time.Second}

const attackPatience = 10 * time.Second

func assertNothingHeld(t *testing.T, f *fixture) {
	t.Helper()
	eventually(t, "nothing is being received", func() bool {
		state := f.host.Gate.State()
		return state.Messages == 0 && state.Bytes == 0
	})
}

func assertHeap(t *testing.T, connections int, peak int64) {
	t.Helper()
	most := int64(128 << 20)
	if connections > 1 {
		most = 256 << 20
	}
	assert.Less(t, peak, most+32<<20, "bytes of heap")
}
