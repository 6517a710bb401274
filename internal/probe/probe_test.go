package probe

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/cpu"
	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/tf"
)

func TestBFloat16Cost(t *testing.T) {
	testenv.TensorFlow(t)
	require.NoError(t, tf.Load(""))
	cost, err := BFloat16Cost()
	require.NoError(t, err)
	t.Logf("a product in bfloat16 takes %.2f times as long as in float32", cost)
	assert.Greater(t, cost, 0.01)
	if cpu.This().Has("amx_bf16") {
		assert.Less(t, cost, 0.75)
	}
}
