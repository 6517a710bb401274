// Package serveproto has the generated messages and services of inference.proto and serving.proto, and
// registers the services under the names by which clients call them.
package serveproto

// To protobuf the files are tfbert/inference.proto and tfbert/serving.proto: two files with the same path
// panic in one Go binary, as two messages with the same name do.
//
//go:generate sh -c "go build -modfile=../../tools/go.mod -o ../../bin/ google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc && PATH=$PWD/../../bin:$PATH protoc -Itfbert=. -Itfbert=../tfproto --go_out=../.. --go_opt=module=github.com/tfbert/go --go-grpc_out=../.. --go-grpc_opt=module=github.com/tfbert/go inference.proto serving.proto"
