// Package serveproto holds the messages and services of inference.proto and serving.proto, generated,
// and gives the services the names by which clients call them.
package serveproto

// The files are tfbert/inference.proto and tfbert/serving.proto to protobuf: two files of one path panic
// in one Go binary, as two messages of one name do.
//
//go:generate sh -c "go build -modfile=../../tools/go.mod -o ../../bin/ google.golang.org/protobuf/cmd/protoc-gen-go google.golang.org/grpc/cmd/protoc-gen-go-grpc && PATH=$PWD/../../bin:$PATH protoc -Itfbert=. -Itfbert=../tfproto --go_out=../.. --go_opt=module=github.com/tfbert/go --go-grpc_out=../.. --go-grpc_opt=module=github.com/tfbert/go inference.proto serving.proto"
