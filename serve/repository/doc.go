// Package repository keeps the models that a server serves: by name and version, loaded, reloaded
// and unloaded while requests run, each behind a dynamic batcher. It answers questions and runs
// tensors through them, whatever protocol they came by.
//
// A repository is a folder in Triton's layout, as NVIDIA's export script writes it, or one
// SavedModel:
//
//	models/bert/config.pbtxt
//	models/bert/1/model.savedmodel/saved_model.pb
//
// The package reaches no TensorFlow: Options.Load brings a model into memory.
package repository
