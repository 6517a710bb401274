//go:build !asan

package faketf

// Sanitized says whether this program, and so the library, has the address sanitizer.
const Sanitized = false
