//go:build !linux

package install

import "errors"

// freeSpace is never reached: Install refuses this system first.
func freeSpace(string) (int64, error) { return 0, errors.ErrUnsupported }
