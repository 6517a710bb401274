package checkpoint

import (
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/tfbert/go/internal/testenv"
)

// TestFullNames reads the object graph that TensorFlow's Keras wrote.
func TestFullNames(t *testing.T) {
	r, err := Open(testenv.Shared(t, "data", "savedmodels", "java_keras_model", "variables", "variables"))
	require.NoError(t, err)
	defer r.Close()
	assert.True(t, r.ObjectBased())
	names, err := r.FullNames()
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"variable/.ATTRIBUTES/VARIABLE_VALUE": "Variable"}, names)
}

// graphOf serializes an object graph that names keys, with fields beside them that are to be skipped.
func graphOf(names ...[2]string) []byte {
	var graph []byte
	for _, n := range names {
		attribute := protowire.AppendTag(nil, 1, protowire.BytesType)
		attribute = protowire.AppendString(attribute, "VARIABLE_VALUE")
		attribute = protowire.AppendTag(attribute, 2, protowire.BytesType)
		attribute = protowire.AppendString(attribute, n[0])
		attribute = protowire.AppendTag(attribute, 3, protowire.BytesType)
		attribute = protowire.AppendString(attribute, n[1])
		attribute = protowire.AppendTag(attribute, 4, protowire.VarintType)
		attribute = protowire.AppendVarint(attribute, 1)
		node := protowire.AppendTag(nil, 1, protowire.BytesType)
		node = protowire.AppendBytes(node, []byte{8, 1})
		node = protowire.AppendTag(node, 2, protowire.BytesType)
		node = protowire.AppendBytes(node, attribute)
		graph = protowire.AppendTag(graph, 1, protowire.BytesType)
		graph = protowire.AppendBytes(graph, node)
	}
	return graph
}

// stringReader returns a Reader whose object graph is an entry of the given bytes and checksum.
func stringReader(t *testing.T, data []byte, crc uint32) *Reader {
	t.Helper()
	path := filepath.Join(t.TempDir(), "data")
	require.NoError(t, os.WriteFile(path, data, 0o600))
	f, err := os.Open(path)
	require.NoError(t, err)
	t.Cleanup(func() { f.Close() })
	e := entry{Variable: Variable{Name: objectGraph, DType: String, Size: int64(len(data))}, crc: mask(crc)}
	return &Reader{prefix: "model.ckpt", entries: []entry{e}, shards: map[int32]*os.File{0: f}, nshards: 1}
}

// stringEntry returns a string as a data file holds it, and its checksum before masking.
func stringEntry(s []byte) (data []byte, crc uint32) {
	data = binary.AppendUvarint(nil, uint64(len(s)))
	crc = crc32.Update(0, castagnoli, binary.LittleEndian.AppendUint32(nil, uint32(len(s))))
	rest := append(binary.LittleEndian.AppendUint32(nil, mask(crc)), s...)
	return append(data, rest...), crc32.Update(crc, castagnoli, rest)
}

func TestFullNamesOfManyNodes(t *testing.T) {
	data, crc := stringEntry(graphOf([2]string{"a/kernel", "x/1"}, [2]string{"", "x/2"}, [2]string{"b", "x/3"}))
	names, err := stringReader(t, data, crc).FullNames()
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"x/1": "a/kernel", "x/3": "b"}, names)

	r := &Reader{entries: []entry{{Variable: Variable{Name: "a"}}}}
	names, err = r.FullNames()
	require.NoError(t, err)
	assert.Nil(t, names)
	assert.False(t, r.ObjectBased())
}

func TestDamagedObjectGraph(t *testing.T) {
	whole, crc := stringEntry(graphOf([2]string{"a/kernel", "x/1"}))
	cut, cutCRC := stringEntry(graphOf([2]string{"a/kernel", "x/1"})[:9])
	for name, tc := range map[string]struct {
		data []byte
		crc  uint32
		want string
	}{
		"empty":            {nil, 0, "a string of another length"},
		"shorter":          {whole[:len(whole)-1], crc, "a string of another length"},
		"another checksum": {whole, crc + 1, "checksum mismatch"},
		"not a message":    {cut, cutCRC, "unexpected EOF"},
		"a length too long": {
			append([]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1}, whole...), crc,
			"a string of another length",
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := stringReader(t, tc.data, tc.crc).FullNames()
			assert.ErrorContains(t, err, tc.want)
		})
	}
}

func FuzzFullNames(f *testing.F) {
	f.Add(graphOf([2]string{"a/kernel", "x/1"}))
	f.Add([]byte{0x0a, 0xff, 0xff, 0x01})
	f.Fuzz(func(t *testing.T, graph []byte) {
		data, crc := stringEntry(graph)
		names, err := stringReader(t, data, crc).FullNames()
		if err != nil {
			assert.Nil(t, names)
		}
	})
}
