package tfbert

import "fmt"

// MissingFileError reports that one of the files that a model needs beside it is missing or cannot be
// used.
type MissingFileError struct {
	Name string // "vocab.txt" or "bert_config.json"
	Of   string // the model or checkpoint
	Err  error  // why the file cannot be read; nil if there is none
}

func (e *MissingFileError) Error() string {
	if e.Err != nil {
		return e.Err.Error()
	}
	return fmt.Sprintf("%s has no %s beside it", e.Of, e.Name)
}

func (e *MissingFileError) Unwrap() error { return e.Err }

// LengthError reports that a model does not take sequences of a length.
type LengthError struct {
	Length int
	Fixed  int // the one length that the model takes, or 0
	Most   int // the number of its positions, where Fixed is 0
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

// VocabSizeError reports that a vocabulary belongs to another model.
type VocabSizeError struct {
	File            string
	Entries         int // of the file
	ConfigVocabSize int // the configuration's vocab_size
}

func (e *VocabSizeError) Error() string {
	return fmt.Sprintf("%s has %d entries, but the configuration's vocab_size is %d: it belongs to another model",
		e.File, e.Entries, e.ConfigVocabSize)
}

// ConfigMismatchError reports that a configuration does not describe a checkpoint.
type ConfigMismatchError struct {
	Checkpoint, ConfigFile string
	Detail                 string
	// NoHead says that all that is missing is the head which answers questions: the checkpoint was not
	// fine-tuned on SQuAD.
	NoHead bool
}

func (e *ConfigMismatchError) Error() string {
	text := fmt.Sprintf("the checkpoint %s does not fit %s", e.Checkpoint, e.ConfigFile)
	if e.NoHead {
		text += " (it has no question-answering head: it was not fine-tuned on SQuAD)"
	}
	return text + ": " + e.Detail
}
