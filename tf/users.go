package tf

import "sync"

// users counts the calls that use a C object. The last of them frees the object if it is closed, so that closing
// or using it never waits for a call into TensorFlow.
type users struct {
	mu     sync.Mutex
	n      int
	closed bool
}

// enter begins a use. It returns an error if the object is closed.
func (u *users) enter() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return ErrClosed
	}
	u.n++
	return nil
}

// leave ends a use. If it returns true, the caller must free the object.
func (u *users) leave() (last bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.n--
	return u.closed && u.n == 0
}

// close lets no more uses begin. If it returns true, the caller must free the object.
func (u *users) close() (last bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return false
	}
	u.closed = true
	return u.n == 0
}
