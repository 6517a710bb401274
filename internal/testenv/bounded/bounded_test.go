package bounded_test

import (
	"fmt"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/tfbert/go/internal/testenv/bounded"
)

var sink []byte

// failing is a test whose failure does not end the real one.
type failing struct {
	testing.TB
	message string
}

func (f *failing) Helper()           {}
func (f *failing) Fatal(args ...any) { f.message = fmt.Sprint(args...) }

func TestRun(t *testing.T) {
	allocate := func(n int) func() { return func() { sink = make([]byte, n) } }
	wait := func(d time.Duration) func() { return func() { time.Sleep(d) } }
	for _, c := range []struct {
		name  string
		bytes int
		most  time.Duration
		f     func()
		want  string
	}{
		{"within both", 2 << 20, time.Minute, allocate(1 << 20), ""},
		{"too much", 1 << 20, time.Minute, allocate(16 << 20), "bounded: allocated "},
		{"too long", 1 << 20, time.Millisecond, wait(20 * time.Millisecond), "bounded: took "},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := failing{TB: t}
			bounded.Run(&f, c.bytes, c.most, c.f)
			if c.want == "" {
				assert.Empty(t, f.message)
			} else {
				assert.Contains(t, f.message, c.want)
			}
		})
	}
}

// A function that never returns is ended, with its process.
func TestRunEndsTheProcess(t *testing.T) {
	const child = "TFBERT_TEST_ENDLESS"
	switch os.Getenv(child) {
	case "memory":
		bounded.Run(t, 1<<20, time.Minute, func() {
			for {
				sink = append(sink, make([]byte, 1<<16)...)
				time.Sleep(time.Millisecond)
			}
		})
	case "time":
		bounded.Run(t, 1<<20, time.Millisecond, func() { select {} })
	default:
		for kind, want := range map[string]string{"memory": "bounded: allocated ", "time": "bounded: took "} {
			cmd := exec.Command(os.Args[0], "-test.run=^TestRunEndsTheProcess$")
			cmd.Env = append(os.Environ(), child+"="+kind)
			out, err := cmd.CombinedOutput()
			assert.Error(t, err)
			assert.Contains(t, string(out), want)
		}
	}
}

func BenchmarkRun(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		bounded.Run(b, 1<<30, time.Minute, func() {})
	}
}
