package tf

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv"
)

// An attribute that TensorFlow cannot parse leaves the graph as it was, also where the operation would
// do without it. None that encodeAttr makes is such.
func TestRefusedAttributeAddsNothing(t *testing.T) {
	require.NoError(t, Load(testenv.TensorFlow(t)))
	g, err := NewGraph()
	require.NoError(t, err)
	defer g.Close()
	_, err = capiGraphAdd(g.ptr, "NoOp", "a", "", nil, nil, []attrValue{{name: "_garbage", proto: []byte("\xff\xff")}})
	require.Equal(t, InvalidArgument, ErrCode(err), "%v", err)
	_, ok := g.Operation("a")
	assert.False(t, ok)
}
