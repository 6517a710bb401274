// Package tfproto holds the messages of tensorflow.proto, generated.
package tfproto

//go:generate sh -c "go build -modfile=../../tools/go.mod -o ../../bin/ google.golang.org/protobuf/cmd/protoc-gen-go && PATH=$PWD/../../bin:$PATH protoc --go_out=. --go_opt=paths=source_relative tensorflow.proto"
