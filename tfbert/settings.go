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

// The files that an exported model carries in savedmodel.ExtraAssetsDir, so that nothing of the
// export needs to be said again at run time.
const (
	configFile   = "bert_config.json"
	vocabFile    = "vocab.txt"
	settingsFile = "tfbert.json"
)

// Settings are the choices of an export.
type Settings struct {
	Graph        string               `json:"graph"`
	Precision    savedmodel.Precision `json:"precision"`      // that the weights are written in
	Ops          string               `json:"ops,omitempty"`  // of the fused graph: OneDNNOps or PlainOps
	MaxSeqLength int                  `json:"max_seq_length"` // 0: dynamic
	DoLowerCase  bool                 `json:"do_lower_case"`
	Profile      wordpiece.Profile    `json:"profile"`
	TensorFlow   string               `json:"tensorflow"` // the version that exported
	Source       string               `json:"source"`     // the checkpoint's name
}

func writeSettings(path string, s Settings) error {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(b, '\n'), 0o666)
}

// ReadSettings reads what an export left beside a model; a model that tfbert did not export has the
// zero of everything but lower-casing, which is the reference's default.
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

// beside finds one of a model's files: among the extra assets of an export, else in the model's
// folder itself or, as in NVIDIA's model repositories, in the one above.
func beside(dir, name string) (string, bool) {
	for _, folder := range []string{savedmodel.ExtraAssetsDir, ".", ".."} {
		path := filepath.Join(dir, folder, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, true
		}
	}
	return "", false
}
