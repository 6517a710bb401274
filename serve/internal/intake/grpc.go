package intake

import (
	"context"
	"encoding/binary"
	"net"
	"sync"

	"google.golang.org/grpc/credentials"
)

// frameCost is what gRPC's server keeps for each DATA frame of a message beside its bytes.
const frameCost = 128

// Credentials returns credentials of a gRPC server that count, on each connection, the streams that their clients
// have not ended, and the messages on them that are not complete. gRPC grants each stream a whole message, whatever
// its other streams hold, and receives it before any of the server's code runs. If the gate drops a message, its
// connection is closed: nothing less stops the bytes that a client may already send.
func (g *Gate) Credentials(inner credentials.TransportCredentials) credentials.TransportCredentials {
	return &gatedCredentials{inner, g}
}

type gatedCredentials struct {
	credentials.TransportCredentials
	gate *Gate
}

func (c *gatedCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	conn, info, err := c.TransportCredentials.ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	return newGRPCConn(conn, c.gate), info, nil
}

func (c *gatedCredentials) ClientHandshake(
	ctx context.Context, authority string, raw net.Conn,
) (net.Conn, credentials.AuthInfo, error) {
	return c.TransportCredentials.ClientHandshake(ctx, authority, raw)
}

func (c *gatedCredentials) Clone() credentials.TransportCredentials {
	return &gatedCredentials{c.TransportCredentials.Clone(), c.gate}
}

// grpcConn is a connection of gRPC's server.
type grpcConn struct {
	net.Conn
	gate *Gate
	conn Conn

	mu      sync.Mutex
	in, out frames
	streams map[uint32]*stream // that the client has not ended; nil once the connection is closed
	touched map[uint32]*stream // by the bytes that are being counted
}

// A stream is cut into messages, each of which has a prefix of 5 bytes: a flag and its length.
type stream struct {
	prefix [5]byte
	have   int    // bytes of the prefix
	left   uint32 // bytes of the message that are still to come

	bytes, cost int      // not yet counted, of the message that is not complete
	message     *Message // nil if it is not counted yet
}

func newGRPCConn(conn net.Conn, gate *Gate) *grpcConn {
	c := &grpcConn{Conn: conn, gate: gate, streams: map[uint32]*stream{}, touched: map[uint32]*stream{}}
	ignoreData := func(uint32, []byte) {}
	c.in = frames{
		skip: len(preface),
		onHeader: func(kind, _ byte, id uint32) {
			if s := c.streams[id]; kind == frameHeaders && s == nil && c.streams != nil {
				c.streams[id] = &stream{}
				c.touched[id] = c.streams[id]
			} else if kind == frameData && s != nil {
				s.cost += frameCost
			}
		},
		onData: func(id uint32, b []byte) {
			if s := c.streams[id]; s != nil {
				s.receive(b)
				c.touched[id] = s
			}
		},
		onEnd: c.endFrame,
	}
	c.out = frames{
		onHeader: func(byte, byte, uint32) {},
		onData:   ignoreData,
		onEnd:    c.endFrame,
	}
	return c
}

// endFrame forgets a stream if a frame ends it: the client has sent all, or the server has answered.
func (c *grpcConn) endFrame(kind, flags byte, id uint32) {
	ends := (kind == frameData || kind == frameHeaders) && flags&flagEndStream != 0
	if s := c.streams[id]; s != nil && (kind == frameReset || ends) {
		s.end()
		delete(c.streams, id)
		delete(c.touched, id)
	}
}

func (s *stream) receive(b []byte) {
	for len(b) > 0 {
		if s.have < len(s.prefix) {
			n := copy(s.prefix[s.have:], b)
			s.have, b, s.bytes, s.cost = s.have+n, b[n:], s.bytes+n, s.cost+n
			if s.have < len(s.prefix) {
				return
			}
			s.left = binary.BigEndian.Uint32(s.prefix[1:])
		} else {
			n := int(min(int64(s.left), int64(len(b))))
			s.left, b, s.bytes, s.cost = s.left-uint32(n), b[n:], s.bytes+n, s.cost+n
		}
		if s.left == 0 {
			s.reset()
		}
	}
}

// reset begins with the next message.
func (s *stream) reset() {
	s.have, s.left, s.bytes, s.cost = 0, 0, 0, 0
	if s.message != nil {
		s.message.Rest()
	}
}

func (s *stream) end() {
	if s.message != nil {
		s.message.End()
	}
}

func (c *grpcConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.in.feed(b[:n])
	for id, s := range c.touched {
		if c.streams != nil {
			c.count(s)
		}
		delete(c.touched, id)
	}
	return n, err
}

// count counts what has come of a stream that its client has not ended. Most calls come whole and are not counted.
func (c *grpcConn) count(s *stream) {
	if s.message == nil {
		s.message = c.gate.Begin(&c.conn, func() { _ = c.Close() })
		s.message.Rest()
	}
	if s.bytes > 0 {
		_ = s.message.Add(s.bytes, s.cost) // if it is dropped, the connection is closed
		s.bytes, s.cost = 0, 0
	}
}

func (c *grpcConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.out.feed(b[:n])
	return n, err
}

func (c *grpcConn) Close() error {
	err := c.Conn.Close()
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, s := range c.streams {
		s.end()
	}
	c.streams = nil
	return err
}
