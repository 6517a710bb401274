package access

import (
	"container/list"
	"context"
	"net"
	"net/netip"
	"sync"
	"time"

	"golang.org/x/time/rate"
	"google.golang.org/grpc/codes"

	"github.com/tfbert/go/serve/repository"
)

// Limits of each client.
type Limits struct {
	Rate   float64 // requests per second; 0 is no limit
	Burst  int     // requests that may come at once after a pause
	AtOnce int     // requests under way; 0 is no limit
}

// mostIdle is the number of clients without requests under way that a guard remembers, so that their rates still count.
// Beyond it, it forgets the one that asked longest ago: who asks from more addresses than that has its burst again.
const mostIdle = 16 << 10

// A Guard knows the clients of a server and counts what each of them asks.
type Guard struct {
	limits   Limits
	mostIdle int

	mu      sync.Mutex
	keys    []Key // none lets everybody ask
	clients map[string]*client
	idle    list.List // of *client; those that asked last are in front
}

// A client is one that a guard remembers.
type client struct {
	name   string
	rate   *rate.Limiter
	atOnce int
	place  *list.Element // in the guard's idle ones; nil while it has requests under way
}

// NewGuard returns a guard of clients that have one of these keys, or of all clients if there are none.
func NewGuard(keys []Key, limits Limits) *Guard {
	return &Guard{limits: limits, mostIdle: mostIdle, keys: keys, clients: map[string]*client{}}
}

// SetKeys replaces the keys, for requests from now on.
func (g *Guard) SetKeys(keys []Key) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.keys = keys
}

// Identify returns the client of a request: the one that its key belongs to, or its address if the guard has no keys.
// It returns an error if there are keys and the request does not have one of them.
func (g *Guard) Identify(authorization, address string) (client string, err error) {
	g.mu.Lock()
	keys := g.keys
	g.mu.Unlock()
	if len(keys) == 0 {
		return addressOf(address), nil
	}
	return find(keys, authorization)
}

// addressOf returns the address of a client without its port. Of an IPv6 address it returns the network of 64 bits, all
// of which one client usually has.
func addressOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		host = address
	}
	ip, err := netip.ParseAddr(host)
	if err != nil {
		return host
	}
	if ip = ip.Unmap().WithZone(""); ip.Is6() {
		network, _ := ip.Prefix(64) // which an IPv6 address has
		return network.String()
	}
	return ip.String()
}

// Enter counts a request of a client until leave is called. It returns an error if the client has too many.
func (g *Guard) Enter(name string) (leave func(), err error) {
	if g.limits.Rate == 0 && g.limits.AtOnce == 0 {
		return func() {}, nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	c := g.client(name)
	if most := g.limits.AtOnce; most > 0 && c.atOnce >= most {
		return nil, refused("client_requests", time.Second, "the client has %d requests under way and may have no more", most)
	}
	if err := g.count(c); err != nil {
		return nil, err
	}
	if c.atOnce++; c.place != nil {
		g.idle.Remove(c.place)
		c.place = nil
	}
	return sync.OnceFunc(func() {
		g.mu.Lock()
		defer g.mu.Unlock()
		if c.atOnce--; c.atOnce == 0 {
			g.rest(c)
		}
	}), nil
}

// Count counts one more request of a client that has entered, such as that of a stream. It returns an error if they
// come too fast.
func (g *Guard) Count(name string) error {
	if g.limits.Rate == 0 {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.count(g.client(name))
}

func (g *Guard) count(c *client) error {
	if g.limits.Rate == 0 {
		return nil
	}
	now := time.Now()
	r := c.rate.ReserveN(now, 1)
	if wait := r.DelayFrom(now); wait > 0 {
		r.CancelAt(now)
		return refused("client_rate", wait, "the client sends more than %v requests per second", g.limits.Rate)
	}
	return nil
}

func refused(reason string, wait time.Duration, format string, args ...any) error {
	e := repository.Errorf(codes.ResourceExhausted, format, args...)
	e.RetryAfter, e.Reason = wait, reason
	return e
}

// client returns a client, which it makes if need be. g.mu is held.
func (g *Guard) client(name string) *client {
	c := g.clients[name]
	if c == nil {
		c = &client{name: name, rate: rate.NewLimiter(rate.Limit(g.limits.Rate), max(1, g.limits.Burst))}
		g.clients[name] = c
		g.rest(c)
	}
	return c
}

// rest remembers a client that has no requests under way, and forgets another one if there are too many. g.mu is held.
func (g *Guard) rest(c *client) {
	c.place = g.idle.PushFront(c)
	if g.idle.Len() > g.mostIdle {
		delete(g.clients, g.idle.Remove(g.idle.Back()).(*client).name)
	}
}

// clientKey is the key of a request's client in its context.
type clientKey struct{}

// WithClient returns a context of a request of a client.
func WithClient(ctx context.Context, client string) context.Context {
	return context.WithValue(ctx, clientKey{}, client)
}

// ClientOf returns the client of a request, or "" if it is unknown.
func ClientOf(ctx context.Context) string {
	client, _ := ctx.Value(clientKey{}).(string)
	return client
}
