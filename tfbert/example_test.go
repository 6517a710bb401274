package tfbert_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/tfbert"
)

func Example() {
	ctx := context.Background()
	if _, err := tfbert.Export(ctx, "testdata/models/minilm-squad", "model",
		&tfbert.ExportOptions{Overwrite: true}); err != nil {
		log.Fatal(err)
	}
	m, err := tfbert.Open("model", nil)
	if err != nil {
		log.Fatal(err)
	}
	defer m.Close()
	p, err := m.Answerer().Answer(ctx, "Who wrote it?", "It was written by Ada Lovelace.")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(p.Answer)
}

// The example needs TensorFlow and the bundled checkpoint.
func TestExample(t *testing.T) {
	testenv.TensorFlow(t)
	dir := testenv.Model(t)
	t.Chdir(t.TempDir())
	require.NoError(t, os.MkdirAll("testdata/models", 0o777))
	require.NoError(t, os.Symlink(dir, "testdata/models/minilm-squad"))
	assert.Equal(t, "Ada Lovelace\n", testenv.Stdout(t, Example))
}
