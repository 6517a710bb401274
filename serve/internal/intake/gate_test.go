package intake

import (
	"encoding/binary"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// begin begins a message and returns a channel that is closed when it is dropped.
func begin(g *Gate, c *Conn) (*Message, chan struct{}) {
	dropped := make(chan struct{})
	return g.Begin(c, func() { close(dropped) }), dropped
}

func TestOldestIsDropped(t *testing.T) {
	g := NewGate(Limits{Bytes: 10 * overhead, ConnBytes: 10 * overhead, MinRate: 1, Grace: time.Hour})
	c := &Conn{}
	first, dropped := begin(g, &Conn{})
	second, kept := begin(g, c)
	require.NoError(t, first.Add(1, 5*overhead))
	require.NoError(t, second.Add(1, 2*overhead))
	require.NoError(t, second.Add(1, 2*overhead), "the older one makes room")
	<-dropped
	require.ErrorContains(t, first.Err(), "of which this was the oldest")
	require.Error(t, first.Add(1, 1))
	assert.Equal(t, State{Messages: 1, Bytes: 5 * overhead, Dropped: 1}, g.State())
	require.Error(t, second.Add(1, 6*overhead), "alone it exceeds the bound")
	<-kept
	first.End()
	second.End()
	assert.Equal(t, State{Dropped: 2}, g.State())
	assert.Zero(t, c.held)
}

func TestConnectionHasAShare(t *testing.T) {
	g := NewGate(Limits{Bytes: 100 * overhead, ConnBytes: 3 * overhead, MinRate: 1, Grace: time.Hour})
	c := &Conn{}
	first, _ := begin(g, c)
	second, dropped := begin(g, c)
	other, _ := begin(g, &Conn{})
	require.NoError(t, second.Add(1, overhead))
	require.ErrorContains(t, second.Add(1, 1), "the connection sends more than")
	<-dropped
	require.NoError(t, first.Add(1, overhead), "those of others and of the same connection go on")
	require.NoError(t, other.Add(1, 2*overhead))
}

func TestRate(t *testing.T) {
	g := NewGate(Limits{Bytes: 1 << 30, ConnBytes: 1 << 30, MinRate: 1000, Grace: 100 * time.Millisecond})
	stalled, stalledDropped := begin(g, &Conn{})
	require.NoError(t, stalled.Add(1<<20, 1<<20), "what came quickly before does not count")
	steady, steadyDropped := begin(g, &Conn{})
	for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		require.NoError(t, steady.Add(1000, 1000))
	}
	<-stalledDropped
	var slow *SlowError
	require.ErrorAs(t, stalled.Err(), &slow)
	select {
	case <-steadyDropped:
		t.Error("it came quickly enough")
	default:
	}
	steady.End()
	assert.Equal(t, State{Dropped: 1}, g.State())
}

// A stream of gRPC between two messages costs little, and is asked for nothing.
func TestRest(t *testing.T) {
	g := NewGate(Limits{Bytes: 1 << 30, ConnBytes: 1 << 30, MinRate: 1000, Grace: 50 * time.Millisecond})
	c := &Conn{}
	m, dropped := begin(g, c)
	require.NoError(t, m.Add(10, 1<<20))
	m.Rest()
	assert.Equal(t, int64(overhead), c.held)
	time.Sleep(200 * time.Millisecond)
	require.NoError(t, m.Add(10, 10), "it may rest")
	<-dropped
	m.Rest()
	m.End()
	assert.Equal(t, State{Dropped: 1}, g.State())
	assert.Zero(t, c.held)
}

func TestSlots(t *testing.T) {
	s := Slots{Most: 1}
	leave, err := s.Enter()
	require.NoError(t, err)
	_, err = s.Enter()
	require.ErrorContains(t, err, "1 requests under way")
	leave()
	leave()
	_, err = s.Enter()
	require.NoError(t, err)
	_, err = s.Enter()
	require.Error(t, err, "a place is freed once")
}

func TestConns(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	conns := &Conns{Most: 2}
	counted := conns.Listen(l)
	connect := func() (client, server net.Conn) {
		client, err := net.Dial("tcp", l.Addr().String())
		require.NoError(t, err)
		t.Cleanup(func() { client.Close() })
		server, err = counted.Accept()
		require.NoError(t, err)
		return client, server
	}
	busy, busyServer := connect()
	idle, idleServer := connect()
	_, err = busy.Write([]byte("x"))
	require.NoError(t, err)
	_, err = busyServer.Read(make([]byte, 1))
	require.NoError(t, err)
	_, server := connect()
	assert.Equal(t, 2, conns.Len())
	_, err = idle.Read(make([]byte, 1))
	require.Error(t, err, "the idle one was closed")
	_, err = busyServer.Write([]byte("x"))
	require.NoError(t, err)
	require.Error(t, idleServer.Close(), "it is closed")
	require.NoError(t, server.Close())
	require.NoError(t, busyServer.Close())
	assert.Zero(t, conns.Len())
}

// fullListener has no free file until a connection is closed.
type fullListener struct {
	net.Listener
	conns *Conns
}

func (l fullListener) Accept() (net.Conn, error) {
	if l.conns.Len() > 0 {
		return nil, &net.OpError{Op: "accept", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
	}
	return l.Listener.Accept()
}

func TestOpenFiles(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	defer l.Close()
	conns := &Conns{Most: 10}
	counted := conns.Listen(fullListener{l, conns})
	for range 2 {
		client, err := net.Dial("tcp", l.Addr().String())
		require.NoError(t, err)
		defer client.Close()
		_, err = counted.Accept()
		require.NoError(t, err)
		assert.Equal(t, 1, conns.Len())
	}
}

// appendFrame appends a frame of HTTP/2.
func appendFrame(b []byte, kind, flags byte, stream uint32, payload []byte) []byte {
	n := len(payload)
	b = append(b, byte(n>>16), byte(n>>8), byte(n), kind, flags)
	return append(binary.BigEndian.AppendUint32(b, stream), payload...)
}

// Frames are counted the same however their bytes are cut.
func TestMessagesOfGRPC(t *testing.T) {
	whole := append([]byte{0, 0, 0, 0, 3}, "abc"...)
	partial := append([]byte{0, 0, 0, 0, 9}, "abc"...)
	padded := append(append([]byte{4}, partial...), 0, 0, 0, 0)
	from := []byte(preface)
	from = appendFrame(from, 0x4, 0, 0, nil) // settings
	for stream := uint32(1); stream <= 11; stream += 2 {
		from = appendFrame(from, frameHeaders, 0, stream, []byte("block"))
	}
	from = appendFrame(from, frameData, 0, 1, whole)
	from = appendFrame(from, frameData, 0, 3, partial)                            // 8 bytes
	from = appendFrame(from, frameData, flagPadded, 5, padded)                    // 8 bytes
	from = appendFrame(from, frameData, 0, 7, append(whole, 0))                   // 1 byte of the next
	from = appendFrame(from, frameData, flagEndStream, 9, partial)                // it ends too early
	from = appendFrame(appendFrame(from, 0, 0, 11, partial), 3, 0, 11, whole[:4]) // and is reset
	from = appendFrame(from, frameData, 0, 13, partial)                           // it was not opened
	for size := 1; size <= len(from); size++ {
		client, server := net.Pipe()
		g := NewGate(Limits{Bytes: 1 << 30, ConnBytes: 1 << 30, MinRate: 1, Grace: time.Hour})
		c := newGRPCConn(server, g)
		go func() {
			for b := from; len(b) > 0; b = b[min(size, len(b)):] {
				_, _ = client.Write(b[:min(size, len(b))])
			}
			client.Close()
		}()
		for {
			if _, err := c.Read(make([]byte, size)); err != nil {
				break
			}
		}
		require.Equal(t, 4, g.State().Messages, "pieces of %d bytes", size)
		received := int64(0)
		for place := g.oldest.Front(); place != nil; place = place.Next() {
			received += place.Value.(*Message).bytes
		}
		require.Equal(t, int64(17), received)

		// The server ends two of these streams, and with the connection the last one ends.
		out := appendFrame(nil, frameHeaders, flagEndStream, 3, []byte("trailers"))
		out = appendFrame(out, frameReset, 0, 5, whole[:4])
		c.Conn = writer{}
		for b := out; len(b) > 0; b = b[min(size, len(b)):] {
			_, err := c.Write(b[:min(size, len(b))])
			require.NoError(t, err)
		}
		require.Equal(t, 2, g.State().Messages)
		require.NoError(t, c.Close())
		require.Equal(t, State{}, g.State())
	}
}

// writer is a connection that takes everything.
type writer struct{ net.Conn }

func (writer) Write(b []byte) (int, error) { return len(b), nil }
func (writer) Close() error                { return nil }
