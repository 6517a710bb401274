package savedmodel

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"

	"github.com/tfbert/go/internal/testenv/bounded"
	"github.com/tfbert/go/internal/tfproto"
)

func skeletonOf(t *testing.T, data []byte) ([]byte, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), GraphFile)
	require.NoError(t, os.WriteFile(path, data, 0o666))
	f, err := os.Open(path)
	require.NoError(t, err)
	defer f.Close()
	return withoutAttrs.read(f, int64(len(data)))
}

// TestSkeleton holds that constants of any size are left out, and what is around them is not.
func TestSkeleton(t *testing.T) {
	node := func(name string, size int) *tfproto.NodeDef {
		value := &tfproto.AttrValue{Value: &tfproto.AttrValue_S{S: bytes.Repeat([]byte("w"), size)}}
		return &tfproto.NodeDef{Name: name, Op: "Const", Attr: map[string]*tfproto.AttrValue{"value": value}}
	}
	model := &tfproto.SavedModel{SavedModelSchemaVersion: 1, MetaGraphs: []*tfproto.MetaGraphDef{{
		MetaInfoDef: &tfproto.MetaGraphDef_MetaInfoDef{Tags: []string{"serve"}},
		GraphDef: &tfproto.GraphDef{Node: []*tfproto.NodeDef{node("none", 0), node("small", 10), node("large", 1<<20),
			node("last", 5000)}},
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

// TestSkeletonLies holds that a length beyond the file is found before memory is allocated for it.
func TestSkeletonLies(t *testing.T) {
	for _, path := range [][]protowire.Number{{3}, {2}, {2, 2}, {2, 2, 1}, {2, 2, 1, 5}, {2, 2, 2, 1, 3, 5}, {2, 4}} {
		data := protowire.AppendVarint(nil, 1<<50)
		for i := len(path) - 1; i >= 0; i-- {
			tag := protowire.AppendTag(nil, path[i], protowire.BytesType)
			if i == len(path)-1 {
				data = append(tag, data...)
			} else {
				data = protowire.AppendBytes(tag, data)
			}
		}
		bounded.Run(t, 0, 10*time.Second, func() {
			_, err := skeletonOf(t, data)
			assert.ErrorContains(t, err, "unexpected EOF", "%v", path)
		})
	}
}

// TestSkeletonHoles holds that a file of terabytes, which may have holes, does not take memory for what it claims.
func TestSkeletonHoles(t *testing.T) {
	const huge = 8 << 40
	for _, c := range []struct {
		path []protowire.Number
		want string
	}{
		{[]protowire.Number{3}, "larger than that of any BERT"},
		{[]protowire.Number{2, 4}, "larger than that of any BERT"},
		{[]protowire.Number{2, 2, 1, 2}, "larger than that of any BERT"},
		{[]protowire.Number{2, 2, 1, 5}, ""},
	} {
		data, rest := []byte(nil), uint64(huge)
		for _, num := range c.path {
			data = protowire.AppendTag(data, num, protowire.BytesType)
			rest -= uint64(protowire.SizeTag(num) + protowire.SizeVarint(rest))
			data = protowire.AppendVarint(data, rest)
		}
		path := filepath.Join(t.TempDir(), GraphFile)
		require.NoError(t, os.WriteFile(path, data, 0o666))
		if err := os.Truncate(path, int64(len(data))+int64(rest)); err != nil {
			t.Skip("no file of this size can be made here: ", err)
		}
		f, err := os.Open(path)
		require.NoError(t, err)
		defer f.Close()
		bounded.Run(t, 0, 10*time.Second, func() {
			_, err = withoutAttrs.read(f, int64(len(data))+int64(rest))
		})
		if c.want == "" {
			assert.NoError(t, err, "%v", c.path)
		} else {
			assert.ErrorContains(t, err, c.want, "%v", c.path)
		}
	}
}

// TestSkeletonLimits holds that many small fields do not get around the limits.
func TestSkeletonLimits(t *testing.T) {
	below := func(content []byte, path ...protowire.Number) []byte {
		for i := len(path) - 1; i >= 0; i-- {
			content = protowire.AppendBytes(protowire.AppendTag(nil, path[i], protowire.BytesType), content)
		}
		return content
	}
	for name, data := range map[string][]byte{
		"nodes":       below(bytes.Repeat([]byte{1<<3 | 2, 0}, maxNodes+1), 2, 2),
		"functions":   below(bytes.Repeat([]byte{1<<3 | 2, 0}, maxNodes+1), 2, 2, 2),
		"meta graphs": bytes.Repeat([]byte{2<<3 | 2, 0}, maxNodes+1),
		"names":       below(bytes.Repeat(append([]byte{1<<3 | 2, 127}, make([]byte, 127)...), maxSkeleton>>7), 2, 2, 1),
		"numbers":     bytes.Repeat([]byte{1 << 3, 1}, maxSkeleton/2+1),
		"strings":     below(bytes.Repeat([]byte{4<<3 | 2, 0}, maxSkeleton/2+1), 2, 1),
	} {
		t.Run(name, func(t *testing.T) {
			bounded.Run(t, 300<<20, 20*time.Second, func() {
				_, err := skeletonOf(t, data)
				assert.ErrorContains(t, err, "larger than that of any BERT")
			})
		})
	}
	// Attributes do not count, wherever they are.
	t.Run("attributes of functions", func(t *testing.T) {
		node := append(below([]byte("Const"), 2), below(make([]byte, 40<<20), 5, 2)...)
		data := below(append(below([]byte("f"), 1, 1), below(node, 3)...), 2, 2, 2, 1)
		got, err := skeletonOf(t, data)
		require.NoError(t, err)
		assert.Less(t, len(got), 100)
		read := &tfproto.SavedModel{}
		require.NoError(t, proto.Unmarshal(got, read))
		assert.Equal(t, map[string]int{"Const": 1}, metaGraph(read.MetaGraphs[0]).Ops)
	})
}

// TestInspectDevice holds that a file without an end is not read.
func TestInspectDevice(t *testing.T) {
	if _, err := os.Stat("/dev/zero"); err != nil {
		t.Skip("no /dev/zero here")
	}
	dir := t.TempDir()
	require.NoError(t, os.Symlink("/dev/zero", filepath.Join(dir, GraphFile)))
	_, err := Inspect(dir)
	assert.ErrorContains(t, err, GraphFile+" is not a plain file")
}
