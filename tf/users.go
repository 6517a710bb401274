package tf

import "sync"

// users counts the calls that use a C object, so that the object is freed once it is closed and the
// last of them has returned, by whoever comes last. Nobody who only wants to close or to use it ever
// waits for a call into TensorFlow.
type users struct {
	mu     sync.Mutex
	n      int
	closed bool
}

// enter begins a use; it fails once the object is closed.
func (u *users) enter() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return ErrClosed
	}
	u.n++
	return nil
}

// leave ends a use. Where it returns true the caller must free the object.
func (u *users) leave() (last bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.n--
	return u.closed && u.n == 0
}

// close lets no more uses begin. Where it returns true the caller must free the object.
func (u *users) close() (last bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.closed {
		return false
	}
	u.closed = true
	return u.n == 0
}
