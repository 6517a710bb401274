package transport

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/tfbert/go/serve/internal/intake"
)

// A Call is a request over HTTP on its way through the server.
type Call struct {
	Conn   *intake.Conn  // that it came on
	Slots  *intake.Slots // that it needs one of once it is complete
	Budget *intake.Budget
	Writer http.ResponseWriter

	leave []func()
	body  []byte // for ReadBody, if it is not nil

	mu    sync.Mutex
	ended bool
}

type callKey struct{}

// WithCall returns a context of a call.
func WithCall(ctx context.Context, c *Call) context.Context {
	return context.WithValue(ctx, callKey{}, c)
}

func callOf(ctx context.Context) *Call { return ctx.Value(callKey{}).(*Call) }

// SetBody makes the next ReadBody return a body, after an earlier one has read that of the request.
func SetBody(r *http.Request, body []byte) { callOf(r.Context()).body = body }

// Enter takes the slot of a request. ReadBody does so for a request with a body.
func Enter(r *http.Request) error { return callOf(r.Context()).enter(r.Context(), 0) }

// enter takes the slot of a request, and then the memory for what is made from a body of a size.
func (c *Call) enter(ctx context.Context, size int) error {
	leave, err := c.Slots.Enter()
	if err != nil {
		return err
	}
	c.leave = append(c.leave, leave)
	give, err := c.Budget.Take(ctx, size)
	if err != nil {
		return err
	}
	c.leave = append(c.leave, give)
	return nil
}

// End frees the slot and the memory. The Writer is not used afterwards.
func (c *Call) End() {
	for _, leave := range c.leave {
		leave()
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.ended = true
}

// stopReading ends the reading of the body.
func (c *Call) stopReading() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.ended {
		_ = http.NewResponseController(c.Writer).SetReadDeadline(time.Unix(1, 0))
	}
}
