package serve

import (
	"compress/zlib"
	"io"

	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/gzip" // which clients may use too
)

func init() { encoding.RegisterCompressor(deflate{}) }

// deflate is the compression of gRPC that Triton's clients can ask for beside gzip and gRPC for Go
// does not have. As in HTTP, it is zlib's format.
type deflate struct{}

func (deflate) Name() string { return "deflate" }

func (deflate) Compress(w io.Writer) (io.WriteCloser, error) { return zlib.NewWriter(w), nil }

func (deflate) Decompress(r io.Reader) (io.Reader, error) { return zlib.NewReader(r) }
