//go:build !asan

package faketf

// Sanitized reports whether this program, and so the library, has the address sanitizer.
const Sanitized = false
