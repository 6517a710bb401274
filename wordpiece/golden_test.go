package wordpiece

import (
	"bufio"
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv"
)

// modelVocab returns the uncased vocabulary of the bundled model.
func modelVocab(t testing.TB) *Vocab {
	t.Helper()
	f, err := os.Open(filepath.Join(testenv.Model(t), "vocab.txt"))
	require.NoError(t, err)
	defer f.Close()
	v, err := ReadVocab(f)
	require.NoError(t, err)
	return v
}

func TestGolden(t *testing.T) {
	vocab := modelVocab(t)
	for p := range profiles {
		profile := Profile(p)
		t.Run(profile.String(), func(t *testing.T) {
			f, err := os.Open(testenv.Golden(t, "tokens."+profile.String()+".jsonl"))
			require.NoError(t, err)
			defer f.Close()
			lines := bufio.NewScanner(f)
			lines.Buffer(nil, 1<<20)
			n := 0
			for ; lines.Scan(); n++ {
				var want struct {
					Profile Profile
					Lower   bool
					Text    string
					Tokens  []string
					IDs     []int32
				}
				require.NoError(t, json.Unmarshal(lines.Bytes(), &want))
				require.Equal(t, profile, want.Profile)
				tok := Tokenizer{Vocab: vocab, Cased: !want.Lower, Profile: profile}
				require.Equal(t, want.Tokens, tok.Tokenize(want.Text), "line %d: %s", n+1, lines.Text())
				require.Equal(t, want.IDs, append([]int32{}, tok.AppendIDs(nil, want.Text)...), "line %d: %s", n+1, lines.Text())
			}
			require.NoError(t, lines.Err())
			require.Equal(t, 642, n)
		})
	}
}
