//go:build !unix

package shm

import (
	"os"

	"google.golang.org/grpc/codes"

	"github.com/tfbert/go/serve/repository"
)

func openFile(string) (*os.File, error) {
	return nil, repository.Errorf(codes.Unimplemented, "this system does not have shared memory of POSIX")
}
