// Package tf binds TensorFlow's C API: it loads libtensorflow at run time, makes tensors and
// graphs, and runs sessions. It is the only package of this module with cgo or unsafe code, and it
// wraps no operations: an operation is a type name and attributes ([OpSpec]).
//
//	if err := tf.Load(""); err != nil { // finds the library that `tfbert lib install` left
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
// Nothing is linked: [Load] opens the shared library with dlopen, once per process, and until it
// has succeeded every constructor fails with [ErrNotLoaded]. TensorFlow reads its environment
// variables (TF_CPP_MIN_LOG_LEVEL, TF_ENABLE_ONEDNN_OPTS, TF_XLA_FLAGS, ...) while it loads and at
// the first session, so set them before Load. The library is never unloaded.
//
// # Logs
//
// TensorFlow logs to the C library's stderr. [CaptureLogs], called before Load, turns that into records
// of a [slog.Logger], and with slog.DiscardHandler into silence. TF_CPP_MIN_LOG_LEVEL=3, set before Load,
// leaves out most of it, but not what it says while it loads. Its severities I, W, E and F are slog's
// Info, Warn, Error and Error+4. Nothing is ever written to the standard output.
//
// # Ownership
//
// A [Tensor], [Graph] or [Session] owns memory that the garbage collector does not see. Close
// releases it, may be called twice and from several goroutines, and later use returns [ErrClosed]. The
// memory lives until the last call that uses it has returned, so that Close is safe at any time; that
// of a session waits for its runs. A value that is dropped without Close is released by a cleanup at
// some later collection: a safety net, not a plan. [Alive] counts what is open, for tests. Data is
// copied in by [NewTensor] and out by [Values]; no Go slice ever shares C memory. Tensors given to Run
// stay the caller's; tensors that Run returns are the caller's to Close.
//
// # Threads
//
// Run may be called from any number of goroutines: at most [SessionOptions].MaxRuns are in TensorFlow
// at once, each on a thread of its own, and the others wait in Go. A graph may be built from several
// goroutines, but not while a session over it runs for the first time. A tensor is immutable once
// made.
//
// A call into TensorFlow cannot be interrupted. When the context of a Run ends its caller gets the
// error at once; the run goes on in a goroutine until TensorFlow is done with it, and holds its place
// and its tensors until then. A deadline is passed on as the run's timeout, which ends waits inside
// the graph but no computation.
package tf
