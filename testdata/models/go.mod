// The models are a module of their own so that `go get` of the library leaves them out.
module github.com/tfbert/go/testdata/models

go 1.26
