// Package tf binds TensorFlow's C API: it loads libtensorflow at run time, makes tensors and graphs, and
// runs sessions. It is the only package of this module with cgo or unsafe code. It does not wrap
// operations one by one: an operation is a type name and attributes ([OpSpec]).
//
//	if err := tf.Load(""); err != nil { // finds the library that `tfbert lib install` installed
//		return err
//	}
//	s, err := tf.LoadSession("model", []string{"serve"}, nil)
//	if err != nil {
//		return err
//	}
//	defer s.Close()
//	x, err := tf.NewTensor(tf.Shape{2}, []float32{1, 2})
//	...
//	out, _, err := s.Run(ctx, []tf.Feed{{Output: in, Tensor: x}}, []tf.Output{y}, nil)
//
// # The library
//
// [Load] opens the shared library with dlopen, once per process. Every constructor returns
// [ErrNotLoaded] before that. TensorFlow reads its environment variables (TF_CPP_MIN_LOG_LEVEL,
// TF_ENABLE_ONEDNN_OPTS, TF_XLA_FLAGS, ...) while it loads and at the first session, so set them before
// Load. The library is never unloaded.
//
// # Logs
//
// TensorFlow logs to the C library's stderr. [CaptureLogs], called before Load, turns the log into records
// of a [slog.Logger]; slog.DiscardHandler silences it. TF_CPP_MIN_LOG_LEVEL=3, set before Load, leaves out
// most of the log, but not what TensorFlow says while it loads. The severities I, W, E and F become Info,
// Warn, Error and Error+4. Nothing is ever written to the standard output.
//
// # Ownership
//
// A [Tensor], [Graph] or [Session] owns memory that the garbage collector does not see. Close releases
// it, and may be called twice and from several goroutines. Later use returns [ErrClosed]. Close is safe at
// any time: the memory lives until the last call that uses it has returned, and Session.Close waits for
// the runs. A value that is dropped without Close is released at some later garbage collection, which is
// only a safety net. [Alive] counts what is open, for tests. [NewTensor] copies data in and [Values]
// copies it out; no Go slice ever shares C memory. The caller closes all tensors, those that Run takes and
// those that it returns.
//
// # Threads
//
// Run may be called from any number of goroutines. At most [SessionOptions].MaxRuns are in TensorFlow at
// once, each on a thread of its own. The others wait in Go. A graph may be built from several goroutines,
// but not while a session over it runs for the first time. A tensor is immutable.
//
// A call into TensorFlow cannot be interrupted. When its context ends, Run returns at once. The run itself
// goes on in a goroutine until TensorFlow is done with it, and holds its place and its tensors until then.
// A deadline becomes the timeout of the run, which ends waits inside the graph but not computations.
package tf
