// Package tfproto holds the messages of tensorflow.proto, generated.
package tfproto

// The file is tfbert/tensorflow.proto to protobuf: two files of one path panic in one Go binary, as two
// messages of one name do.
//
//go:generate go build -modfile=../../tools/go.mod -o ../../bin/ google.golang.org/protobuf/cmd/protoc-gen-go
//go:generate protoc --plugin=../../bin/protoc-gen-go -Itfbert=. --go_out=../.. --go_opt=module=github.com/tfbert/go tensorflow.proto
