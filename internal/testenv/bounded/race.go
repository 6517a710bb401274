//go:build race

package bounded

// slowdown is what the race detector costs code that does little but touch memory.
const slowdown = 10
