package tfbert

import (
	"fmt"

	"github.com/tfbert/go/savedmodel"
)

// FileError reports that the vocabulary or the configuration of a model is missing, cannot be read or
// belongs to another model.
type FileError struct {
	Name string // "vocab.txt" or "bert_config.json"
	Path string // "" if there is no such file
	Err  error
}

func (e *FileError) Error() string { return e.Err.Error() }

func (e *FileError) Unwrap() error { return e.Err }

// LengthError reports that a model does not take sequences of a length.
type LengthError struct {
	Length int
	Fixed  int // the one length that the model takes, or 0
	Most   int // the number of its positions, if Fixed is 0
}

func (e *LengthError) Error() string {
	if e.Fixed > 0 {
		return fmt.Sprintf("the model takes sequences of %d, not of %d", e.Fixed, e.Length)
	}
	return fmt.Sprintf("the model has positions for sequences of up to %d, not of %d", e.Most, e.Length)
}

// ExistsError reports that the directory of an export exists and may not be overwritten.
type ExistsError struct{ Dir string }

func (e *ExistsError) Error() string { return e.Dir + " exists" }

// PrecisionMismatchError reports that the weights of a fused graph are not of the type that was asked for.
type PrecisionMismatchError struct {
	Dir     string // of the model
	Weights savedmodel.Precision
	Asked   Precision
}

func (e *PrecisionMismatchError) Error() string {
	return fmt.Sprintf("the weights of %s are of %v, not of %s", e.Dir, e.Weights, e.Asked)
}

// Int8Error reports that a model in int8 cannot be written or run here.
type Int8Error struct {
	Dir    string // of the model; "" if none is there yet
	Reason string
}

func (e *Int8Error) Error() string {
	if e.Dir == "" {
		return "int8 cannot run here: " + e.Reason
	}
	return fmt.Sprintf("%s is in int8 and cannot run here: %s", e.Dir, e.Reason)
}

// HeadError reports that several layers of a checkpoint could be the one that answers questions.
type HeadError struct {
	Checkpoint string
	Heads      []string // their matrices
}

func (e *HeadError) Error() string {
	return fmt.Sprintf("the checkpoint %s has several layers that could answer questions: %s",
		e.Checkpoint, atMost(e.Heads, ", "))
}
