// Package savedmodel inspects, loads, runs and writes TensorFlow SavedModel directories.
//
//	m, err := savedmodel.Load("half_plus_two/1", nil)
//	if err != nil {
//		return err
//	}
//	defer m.Close()
//	f, err := m.Func("serving_default", []string{"x"}, []string{"y"})
//	if err != nil {
//		return err
//	}
//	x, err := tf.NewTensor(tf.Shape{2, 1}, []float32{2, 4})
//	...
//	y, err := f.Run(ctx, x)
//
// [Inspect] and [Ops] read a directory without TensorFlow. Everything else loads the library by [tf.Load].
//
// A SavedModel is a program, which can read and write files and more. If you do not trust its source, look
// at what [Ops] returns before you load it, and refuse what you do not expect:
//
//	m, err := savedmodel.Load(dir, &savedmodel.Options{AllowOps: savedmodel.OpPolicy{Standard: true}})
//
// A [Model] and its [Func] values may be used from many goroutines at once.
package savedmodel
