package tfbert

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/tfbert/go/internal/file"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/wordpiece"
)

// The files that an exported model carries in savedmodel.ExtraAssetsDir, so that the choices of the
// export need not be repeated when the model is opened.
const (
	configFile   = "bert_config.json"
	vocabFile    = "vocab.txt"
	settingsFile = "tfbert.json"
)

// Settings are the choices of an export.
type Settings struct {
	Graph        string               `json:"graph"`
	Precision    savedmodel.Precision `json:"precision"`      // of the weights
	Ops          string               `json:"ops,omitempty"`  // of a fused graph: "onednn", "direct" or "plain"
	MaxSeqLength int                  `json:"max_seq_length"` // 0: dynamic
	DoLowerCase  bool                 `json:"do_lower_case"`
	Profile      wordpiece.Profile    `json:"profile"`
	TensorFlow   string               `json:"tensorflow"` // the version that exported
	Source       string               `json:"source"`     // the checkpoint's name
	Int8         *Int8Settings        `json:"int8,omitempty"`
}

// Int8Settings are the choices of an export in int8, for the CPU that exported.
type Int8Settings struct {
	// WeightBits are 8, or 7 for a CPU whose products of integers add in 16 bits (without VNNI or AMX).
	WeightBits  int                  `json:"weight_bits"`
	Attention   savedmodel.Precision `json:"attention"` // the type that attention computes in: FP32 or BF16
	Calibration Calibration          `json:"calibration"`
}

// ReadSettings reads the settings of the model in dir. A model that Export did not write has zero
// settings, except that DoLowerCase is true, the default of the reference scripts.
func ReadSettings(dir string) (Settings, error) {
	path := filepath.Join(dir, savedmodel.ExtraAssetsDir, settingsFile)
	s := Settings{DoLowerCase: true}
	b, err := file.Read(path, maxConfigFile)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return s, nil
	case err != nil:
		return s, err
	}
	if err := json.Unmarshal(b, &s); err != nil {
		return s, fmt.Errorf("%s: not what an export writes: %w", path, err)
	}
	return s, nil
}

// beside finds one of a model's files: among the extra assets of an export, in the model's folder or, as
// in NVIDIA's model repositories, in the folder above: that of the version, or that of the model.
func beside(dir, name string) (string, bool) {
	folders := []string{savedmodel.ExtraAssetsDir, ".", ".."}
	if filepath.Base(dir) == "model.savedmodel" {
		folders = append(folders, "../..")
	}
	for _, folder := range folders {
		path := filepath.Join(dir, folder, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, true
		}
	}
	return "", false
}
