package intake

import (
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Conns bounds the connections of several listeners together. If there are too many, or more than the process may
// have open files, the one on which nothing has happened for the longest time is closed, so that a new one always
// gets in.
type Conns struct {
	Most int
	Log  *slog.Logger // of a shortage of open files; nil: none

	logged atomic.Int64 // the time of the last log of a shortage

	mu   sync.Mutex
	open map[*countedConn]struct{}
}

// Listen returns a listener whose connections are counted.
func (c *Conns) Listen(l net.Listener) net.Listener { return &countingListener{l, c} }

// Len returns the number of open connections.
func (c *Conns) Len() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.open)
}

func (c *Conns) add(conn *countedConn) {
	c.mu.Lock()
	full := len(c.open) >= c.Most
	c.mu.Unlock()
	if full {
		c.closeIdle()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open == nil {
		c.open = map[*countedConn]struct{}{}
	}
	c.open[conn] = struct{}{}
}

// closeIdle closes the connection on which nothing has happened for the longest time. It reports whether there is one.
func (c *Conns) closeIdle() bool {
	c.mu.Lock()
	var idle *countedConn
	for conn := range c.open {
		if idle == nil || conn.active.Load() < idle.active.Load() {
			idle = conn
		}
	}
	delete(c.open, idle)
	c.mu.Unlock()
	if idle == nil {
		return false
	}
	_ = idle.Close()
	return true
}

func (c *Conns) remove(conn *countedConn) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.open, conn)
}

// logShortage logs that no more files can be opened, once in a while.
func (c *Conns) logShortage(err error) {
	now := time.Now().UnixNano()
	last := c.logged.Load()
	if c.Log != nil && now-last > int64(10*time.Second) && c.logged.CompareAndSwap(last, now) {
		c.Log.Error("connections are closed or refused, because no more files can be opened: raise their limit", "error", err)
	}
}

type countingListener struct {
	net.Listener
	conns *Conns
}

func (l *countingListener) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	for errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE) { // there are too many open files
		l.conns.logShortage(err)
		if !l.conns.closeIdle() {
			break
		}
		conn, err = l.Listener.Accept()
	}
	if err != nil {
		return nil, err
	}
	counted := &countedConn{Conn: conn, conns: l.conns}
	counted.touch()
	l.conns.add(counted)
	return counted, nil
}

type countedConn struct {
	net.Conn
	conns  *Conns
	active atomic.Int64 // the time of the last read or write
}

func (c *countedConn) touch() { c.active.Store(time.Now().UnixNano()) }

func (c *countedConn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.touch()
	return n, err
}

func (c *countedConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.touch()
	return n, err
}

func (c *countedConn) Close() error {
	c.conns.remove(c)
	return c.Conn.Close()
}
