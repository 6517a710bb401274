package wordpiece

import (
	"fmt"
	"strings"

	"github.com/tfbert/go/internal/pytext"
)

// A Profile names a version of the reference scripts, whose tokenizer is followed. The versions differ
// in three things: which control characters they drop, how long a word may be, and what ends a line of
// the vocabulary.
type Profile int

const (
	NVIDIA1903 Profile = iota // NVIDIA/DeepLearningExamples as of the 19.03 container; the default
	Google                    // google-research/bert since 2019-03-28
	NVIDIA2006                // NVIDIA/DeepLearningExamples since 2019-09, as of the 20.06 container
)

// profiles is indexed by Profile.
var profiles = [...]struct {
	name     string
	dropped  pytext.Class // "control" characters
	maxChars int          // a longer word is [UNK]
	anyLine  bool         // \r and \r\n end a line of the vocabulary too
}{
	NVIDIA1903: {"nvidia-19.03", pytext.Control | pytext.Other, 200, false},
	Google:     {"google", pytext.Control, 200, false},
	NVIDIA2006: {"nvidia-20.06", pytext.Control | pytext.Other, 100, true},
}

// String returns the name of the profile: "nvidia-19.03", "google" or "nvidia-20.06".
func (p Profile) String() string {
	if !p.valid() {
		return fmt.Sprintf("Profile(%d)", int(p))
	}
	return profiles[p].name
}

// MarshalText returns the name of the profile.
func (p Profile) MarshalText() ([]byte, error) {
	if !p.valid() {
		return nil, fmt.Errorf("unknown profile: %d", int(p))
	}
	return []byte(profiles[p].name), nil
}

// UnmarshalText sets p to the profile of the given name.
func (p *Profile) UnmarshalText(name []byte) error {
	var names []string
	for i, profile := range profiles {
		if profile.name == string(name) {
			*p = Profile(i)
			return nil
		}
		names = append(names, profile.name)
	}
	return fmt.Errorf("unknown profile %q: want one of %s", name, strings.Join(names, ", "))
}

func (p Profile) valid() bool { return 0 <= p && int(p) < len(profiles) }
