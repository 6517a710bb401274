// Package serve is a question-answering server in the protocols that clients already speak: questions
// as JSON, Hugging Face's task form, the Open Inference Protocol of Triton and KServe over HTTP and
// gRPC, and TensorFlow Serving's REST and gRPC. docs/serving.md lists the verbs.
//
// The models are those of a repository (package serve/repository), each behind a batcher (package
// serve/batch). The package reaches no TensorFlow.
package serve
