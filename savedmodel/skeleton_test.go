package savedmodel

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/tfbert/go/internal/tfproto"
)

func skeletonOf(t *testing.T, data []byte) ([]byte, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), GraphFile)
	require.NoError(t, os.WriteFile(path, data, 0o666))
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	return skeleton(f)
}

// TestSkeleton: constants of any size are left out, and what is around them is not.
func TestSkeleton(t *testing.T) {
	node := func(name string, size int) *tfproto.NodeDef {
		value := &tfproto.AttrValue{Value: &tfproto.AttrValue_S{S: bytes.Repeat([]byte("w"), size)}}
		return &tfproto.NodeDef{Name: name, Op: "Const", Attr: map[string]*tfproto.AttrValue{"value": value}}
	}
	model := &tfproto.SavedModel{SavedModelSchemaVersion: 1, MetaGraphs: []*tfproto.MetaGraphDef{{
		MetaInfoDef: &tfproto.MetaGraphDef_MetaInfoDef{Tags: []string{"serve"}},
		GraphDef:    &tfproto.GraphDef{Node: []*tfproto.NodeDef{node("none", 0), node("small", 10), node("large", 1<<20), node("last", 5000)}},
	}}}
	data, err := proto.Marshal(model)
	require.NoError(t, err)
	got, err := skeletonOf(t, data)
	require.NoError(t, err)
	assert.Less(t, len(got), 200)
	for _, n := range model.MetaGraphs[0].GraphDef.Node {
		n.Attr = nil
	}
	read := &tfproto.SavedModel{}
	require.NoError(t, proto.Unmarshal(got, read))
	assert.True(t, proto.Equal(model, read), "%v", read)

	for _, n := range []int{1, 5, 20, len(data) / 2, len(data) - 1} {
		_, err := skeletonOf(t, data[:n])
		assert.Error(t, err, "%d bytes", n)
	}
}

// TestSkeletonLies: a length beyond the file is found before anything is made for it.
func TestSkeletonLies(t *testing.T) {
	for _, path := range [][]protowire.Number{{3}, {2}, {2, 2}, {2, 2, 1}, {2, 2, 1, 5}} {
		data := protowire.AppendVarint(nil, 1<<50)
		for i := len(path) - 1; i >= 0; i-- {
			tag := protowire.AppendTag(nil, path[i], protowire.BytesType)
			if i == len(path)-1 {
				data = append(tag, data...)
			} else {
				data = protowire.AppendBytes(tag, data)
			}
		}
		_, err := skeletonOf(t, data)
		assert.ErrorContains(t, err, "unexpected EOF", "%v", path)
	}
}
