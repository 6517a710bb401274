//go:build !asan

package faketf

const sanitized = false
