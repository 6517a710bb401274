// Package intake bounds what clients can make the server hold before it has a request: the bytes of requests
// that are not complete, the rate at which they come, and connections.
package intake

import (
	"container/list"
	"fmt"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tfbert/go/serve/repository"
)

// Limits of a gate.
type Limits struct {
	Bytes     int64         // of all requests that are being received
	ConnBytes int64         // of those of one connection
	MinRate   int64         // bytes per second that each of them must come at
	Grace     time.Duration // that MinRate is an average of
}

// overhead is what a request that is being received costs at least, in bytes: its goroutine and buffers.
const overhead = 16 << 10

// A Gate counts the requests that are being received, from their first byte to their last. If they exceed the
// bound of all connections, the oldest one is dropped: a request that comes quickly gets through however
// many others stand still.
type Gate struct {
	limits Limits

	mu      sync.Mutex
	held    int64
	oldest  list.List // of *Message
	dropped int64
	sweeper *time.Timer // runs while there are messages
}

// NewGate returns a gate with these limits.
func NewGate(limits Limits) *Gate { return &Gate{limits: limits} }

// A Conn is a connection as a gate sees it.
type Conn struct{ held int64 } // guarded by the gate's mutex

// A Message is a request that is being received.
type Message struct {
	gate    *Gate
	conn    *Conn
	since   time.Time
	bytes   int64 // received since then
	resting bool  // nothing is due
	charged int64
	drop    func()
	place   *list.Element // nil once it has ended
	err     error         // why it was dropped
}

// Begin counts a message of a connection until End. drop is called once, on a goroutine of its own, if the gate
// drops the message; it must end what waits for more of its bytes.
func (g *Gate) Begin(c *Conn, drop func()) *Message {
	g.mu.Lock()
	defer g.mu.Unlock()
	m := &Message{gate: g, conn: c, since: time.Now(), drop: drop}
	m.place = g.oldest.PushBack(m)
	g.charge(m, overhead)
	if g.oldest.Len() == 1 {
		g.sweepLater()
	}
	return m
}

// Add counts n more bytes, which cost the server a number of bytes. It returns an error if the message has
// been dropped.
func (m *Message) Add(n, cost int) error {
	m.gate.mu.Lock()
	defer m.gate.mu.Unlock()
	if m.place != nil {
		if m.resting {
			m.resting, m.since = false, time.Now()
		}
		m.bytes += int64(n)
		m.gate.charge(m, int64(cost))
	}
	return m.err
}

// Rest says that all has come that was begun, although there may be more: what came is no longer charged, and no
// rate is asked until more comes.
func (m *Message) Rest() {
	m.gate.mu.Lock()
	defer m.gate.mu.Unlock()
	if m.place == nil {
		return
	}
	m.gate.oldest.MoveToBack(m.place)
	m.gate.held -= m.charged - overhead
	m.conn.held -= m.charged - overhead
	m.charged, m.bytes, m.resting = overhead, 0, true
}

// End ends the counting. It may be called again.
func (m *Message) End() {
	m.gate.mu.Lock()
	defer m.gate.mu.Unlock()
	m.gate.end(m)
}

// Err returns why the gate has dropped the message, or nil.
func (m *Message) Err() error {
	m.gate.mu.Lock()
	defer m.gate.mu.Unlock()
	return m.err
}

// A State is what a gate counts.
type State struct {
	Messages int   // being received
	Bytes    int64 // that they are charged with
	Dropped  int64 // messages so far
}

// State returns what the gate counts now.
func (g *Gate) State() State {
	g.mu.Lock()
	defer g.mu.Unlock()
	return State{g.oldest.Len(), g.held, g.dropped}
}

func (g *Gate) charge(m *Message, cost int64) {
	m.charged += cost
	m.conn.held += cost
	g.held += cost
	if m.conn.held > g.limits.ConnBytes {
		g.refuse(m, exhausted("unfinished",
			"the connection sends more than %d bytes of unfinished requests", g.limits.ConnBytes))
	}
	for g.held > g.limits.Bytes && g.oldest.Len() > 0 {
		g.refuse(g.oldest.Front().Value.(*Message), exhausted("unfinished",
			"the server receives more than %d bytes of unfinished requests, of which this was the oldest", g.limits.Bytes))
	}
}

func exhausted(reason, format string, args ...any) error {
	e := repository.Errorf(codes.ResourceExhausted, format, args...)
	e.RetryAfter, e.Reason = time.Second, reason
	return e
}

// refuse drops a message.
func (g *Gate) refuse(m *Message, err error) {
	if m.place == nil {
		return
	}
	m.err = err
	g.dropped++
	g.end(m)
	go m.drop() // it may call the gate
}

func (g *Gate) end(m *Message) {
	if m.place == nil {
		return
	}
	g.oldest.Remove(m.place)
	m.place = nil
	m.conn.held -= m.charged
	g.held -= m.charged
	if g.oldest.Len() == 0 {
		g.sweeper.Stop()
	}
}

// sweepLater looks at the rates after a while, as long as there are messages.
func (g *Gate) sweepLater() {
	g.sweeper = time.AfterFunc(max(g.limits.Grace/4, 10*time.Millisecond), func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		now := time.Now()
		for place := g.oldest.Front(); place != nil; {
			m := place.Value.(*Message)
			place = place.Next()
			past := now.Sub(m.since)
			if m.resting || past < g.limits.Grace {
				continue
			}
			if float64(m.bytes) < past.Seconds()*float64(g.limits.MinRate) {
				g.refuse(m, &SlowError{g.limits.MinRate})
			}
			m.since, m.bytes = now, 0
		}
		if g.oldest.Len() > 0 {
			g.sweeper.Reset(max(g.limits.Grace/4, 10*time.Millisecond))
		}
	})
}

// A SlowError is the error of a request that comes too slowly.
type SlowError struct{ MinRate int64 } // bytes per second

func (e *SlowError) Error() string {
	return fmt.Sprintf("the request came at less than %d bytes per second", e.MinRate)
}

// Slots bound the requests under way.
type Slots struct {
	mu         sync.Mutex
	Most, used int
}

// Enter takes a slot, unless all are taken. leave frees it.
func (s *Slots) Enter() (leave func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used == s.Most {
		return nil, exhausted("requests", "the server has %d requests under way and takes no more", s.Most)
	}
	s.used++
	return sync.OnceFunc(func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.used--
	}), nil
}
