// Package bounded holds what reads foreign files to a memory and a time, so that no few bytes make it
// allocate or compute without end. It is apart from testenv because that package's own imports are
// tested with it.
package bounded

import (
	"fmt"
	"runtime/metrics"
	"testing"
	"time"
)

// look is how often a run that takes long is looked at.
const look = 100 * time.Millisecond

// slack is for what is counted late, or belongs to others: the runtime counts small objects when a
// processor's cache of them is full, and the testing package allocates too.
const slack = 4 << 20

// Run runs f and fails the test where f allocated more than a number of bytes, garbage included and 4
// MiB apart, or took longer than a duration. Where f does not come to an end within them, Run ends the
// process: a fuzzer then keeps the input, and the machine its memory. What other goroutines allocate
// counts too, so no other test may run at the same time.
func Run(t testing.TB, bytes int, most time.Duration, f func()) {
	t.Helper()
	began, before := time.Now(), allocated()
	exceeded := func() error {
		if n := allocated() - before; n > uint64(bytes)+slack {
			return fmt.Errorf("bounded: allocated %d bytes, of at most %d", n, bytes)
		}
		if d := time.Since(began); d > most {
			return fmt.Errorf("bounded: took %v, of at most %v", d, most)
		}
		return nil
	}
	done := make(chan struct{})
	watch := time.AfterFunc(look, func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			if err := exceeded(); err != nil {
				panic(err)
			}
			time.Sleep(look)
		}
	})
	defer watch.Stop()
	defer close(done)
	f()
	if err := exceeded(); err != nil {
		t.Fatal(err)
	}
}

// allocated returns the bytes that the process has ever allocated, without stopping it as
// runtime.ReadMemStats does.
func allocated() uint64 {
	sample := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}
