// Package bounded limits the memory and the time of code that reads foreign files, so that a few bytes
// cannot make it allocate or compute without end. It is separate from testenv because it tests packages
// that testenv imports.
package bounded

import (
	"fmt"
	"runtime/metrics"
	"testing"
	"time"
)

// look is the interval at which Run checks f.
const look = 100 * time.Millisecond

// slack allows for allocations that are counted late or belong to others: the runtime counts small
// objects only when a processor's cache of them is full, and the testing package allocates too.
const slack = 4 << 20

// Run runs f, and fails the test if f allocates more than the given bytes, including garbage and with 4
// MiB of slack, or takes longer than most, or ten times as long under the race detector. If f exceeds a bound and does not return, Run ends the
// process, so that a fuzzer keeps the input and the machine keeps its memory. Allocations of other
// goroutines count too, so no other test may run at the same time.
func Run(t testing.TB, bytes int, most time.Duration, f func()) {
	t.Helper()
	most *= slowdown
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
