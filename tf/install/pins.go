package install

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tfbert/go/internal/libtf"
)

//go:generate python3 ../../scripts/pins.py

// A pin is a wheel on PyPI whose content is known beforehand.
type pin struct {
	Wheel  string
	SHA256 string
	Size   int64 // bytes, for the progress of its download
}

// requirement returns the requirement by which pip finds the wheel.
func (p pin) requirement() string {
	parts := strings.SplitN(p.Wheel, "-", 3)
	return strings.ReplaceAll(parts[0], "_", "-") + "==" + parts[1]
}

// findPin returns the pin of a wheel of any installation.
func findPin(pins map[string][]pin, wheel string) (pin, bool) {
	for _, installation := range pins {
		for _, p := range installation {
			if p.Wheel == wheel {
				return p, true
			}
		}
	}
	return pin{}, false
}

// toDownload returns the wheels that an installation needs besides the user's own. Nothing is
// downloaded whose digest is not known.
func (i *installer) toDownload(plan libtf.Installation) ([]pin, error) {
	if i.Wheel != "" && !plan.GPU {
		return nil, nil
	}
	wheels := i.pins[plan.Name()]
	if len(wheels) == 0 {
		return nil, &UnknownVersionError{plan.Version, plan.GPU, i.known(plan)}
	}
	if i.Wheel != "" {
		return wheels[1:], nil // TensorFlow's comes first
	}
	return wheels, nil
}

// An UnknownVersionError reports a version of TensorFlow for whose wheels no SHA-256 is known.
type UnknownVersionError struct {
	Version string
	GPU     bool
	Known   []string // the versions that can be installed
}

func (e *UnknownVersionError) Error() string {
	text := fmt.Sprintf("no SHA-256 is known for the wheels of TensorFlow %s: take one of %s",
		e.Version, strings.Join(e.Known, ", "))
	if e.GPU {
		text += fmt.Sprintf(", or set %s to the tensorflow folder of a Python environment that has "+
			"tensorflow[and-cuda]==%s", libtf.EnvLibrary, e.Version)
	}
	return text
}

// known returns the versions that can be downloaded in place of the planned one.
func (i *installer) known(plan libtf.Installation) (versions []string) {
	kind := strings.TrimPrefix(plan.Name(), plan.Version)
	for name := range i.pins {
		if version, ok := strings.CutSuffix(name, kind); ok {
			versions = append(versions, version)
		}
	}
	slices.SortFunc(versions, func(a, b string) int {
		return cmp.Or(libtf.CompareVersions(a, b), strings.Compare(a, b))
	})
	return versions
}
