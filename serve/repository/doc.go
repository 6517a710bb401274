// Package repository keeps the models that a server serves, by name and version. It loads, reloads and
// unloads them while requests run. Each stands behind a dynamic batcher and answers questions or runs
// tensors, whatever protocol they came by.
//
// A repository is a folder in Triton's layout, as NVIDIA's export script writes it, or one SavedModel:
//
//	models/bert/config.pbtxt
//	models/bert/1/model.savedmodel/saved_model.pb
//
// The package does not depend on TensorFlow: Options.Load brings a model into memory.
package repository
