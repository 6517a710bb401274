package bench_test

import (
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/tfbert/go/internal/bench"
)

func TestPeakMemory(t *testing.T) {
	if bench.PeakMemory() == 0 {
		t.Skip("this system does not tell")
	}
	const size = 256 << 20
	block := make([]byte, size)
	for i := 0; i < size; i += 4096 {
		block[i] = 1
	}
	high := bench.PeakMemory()
	assert.Greater(t, high, int64(size*9/10))
	assert.EqualValues(t, 1, block[0])

	block = nil
	debug.FreeOSMemory()
	assert.Greater(t, bench.PeakMemory(), int64(size*9/10), "a peak stays")
	if bench.ResetPeak() {
		assert.Less(t, bench.PeakMemory(), high-size/2, "until it is counted anew")
	}
}
