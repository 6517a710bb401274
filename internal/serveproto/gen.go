// Package serveproto holds the messages and services of inference.proto and serving.proto, generated,
// and gives the services the names by which clients call them.
package serveproto

//go:generate sh -c "go build -modfile=../../tools/go.mod -o ../../bin/ google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc && PATH=$PWD/../../bin:$PATH protoc -I. -I../tfproto --go_out=. --go_opt=paths=source_relative --go-grpc_out=. --go-grpc_opt=paths=source_relative inference.proto serving.proto"
