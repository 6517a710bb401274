//go:build !race

package bounded

const slowdown = 1
