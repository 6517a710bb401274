//go:build unix

package shm

import (
	"os"
	"syscall"
)

// openFile opens a file, but no link, and does not wait for the other end of a pipe.
func openFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDWR|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
}
