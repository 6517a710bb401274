package checkpoint

import (
	"bytes"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/tfbert/go/internal/testenv/bounded"
	"github.com/tfbert/go/internal/tfproto"
)

const huge = 8 << 40 // bytes: of a claim, or of a file that is one hole

func marshal(t testing.TB, m proto.Message) string {
	t.Helper()
	b, err := proto.Marshal(m)
	require.NoError(t, err)
	return string(b)
}

// writeBundle writes a checkpoint of one data file.
func writeBundle(t testing.TB, index, data []byte) (prefix string) {
	t.Helper()
	prefix = filepath.Join(t.TempDir(), "m")
	require.NoError(t, os.WriteFile(prefix+indexSuffix, index, 0o666))
	require.NoError(t, os.WriteFile(shardPath(prefix, 0, 1), data, 0o666))
	return prefix
}

// An index that claims more than there is costs no more than its own reading.
func TestClaims(t *testing.T) {
	header := marshal(t, &tfproto.BundleHeaderProto{NumShards: 1})
	one := func(e *tfproto.BundleEntryProto) []byte {
		return writeAll(t, []pair{{"", header}, {"w", marshal(t, e)}})
	}
	dims := func(n int) *tfproto.TensorShapeProto {
		s := &tfproto.TensorShapeProto{}
		for range n {
			s.Dim = append(s.Dim, &tfproto.TensorShapeProto_Dim{Size: 1})
		}
		return s
	}
	many := []pair{{"", header}}
	float := marshal(t, &tfproto.BundleEntryProto{Dtype: int32(Float32), Shape: tfproto.NewShape([]int64{0})})
	for i := range maxVariables + 1 {
		many = append(many, pair{fmt.Sprintf("%07d", i), float})
	}
	// A name that repeats the one before it except for its last byte takes no room in the index.
	names := blockBuilder{interval: 16}
	names.add(nil, []byte(header))
	for i := range maxIndexSize>>20 + 1 {
		names.add([]byte(strings.Repeat("x", 1<<20)+string(rune('!'+i))), []byte(float))
	}
	var long rawTable
	handle := long.block(blockRaw, names.finish())
	for _, c := range []struct {
		name  string
		index []byte
		want  string
	}{
		{"8 TiB", one(&tfproto.BundleEntryProto{Dtype: int32(Int8), Shape: tfproto.NewShape([]int64{huge}), Size: huge}),
			"m.data-00000-of-00001 has 4 bytes but the variable ends at 8796093022208"},
		{"8 TiB of no known type", one(&tfproto.BundleEntryProto{Dtype: 99, Size: huge}),
			"has 4 bytes but the variable ends at"},
		{"at the end of an exabyte",
			one(&tfproto.BundleEntryProto{Dtype: int32(Int8), Shape: tfproto.NewShape([]int64{4}), Offset: 1<<60 - 4, Size: 4}),
			"the variable ends at 1152921504606846976"},
		{"sizes that wrap around",
			one(&tfproto.BundleEntryProto{Dtype: int32(Int8), Shape: tfproto.NewShape([]int64{1 << 32, 1 << 32}), Size: 0}),
			"0 bytes do not fit int8[4294967296 4294967296]"},
		{"an end that wraps around", one(&tfproto.BundleEntryProto{Dtype: 99, Offset: 1<<63 - 1, Size: 1<<63 - 1}),
			"bad place in its data file"},
		{"2^31 shards", writeAll(t,
			[]pair{{"", marshal(t, &tfproto.BundleHeaderProto{NumShards: 1<<31 - 1})},
				{"w", marshal(t, &tfproto.BundleEntryProto{Dtype: 99, ShardId: 1<<31 - 2})}}),
			"m.data-2147483646-of-2147483647: no such file"},
		{"a shard too many", one(&tfproto.BundleEntryProto{Dtype: 99, ShardId: 1}), "shard 1 of 1"},
		{"no type", one(&tfproto.BundleEntryProto{}), "no type"},
		{"dimensions", one(&tfproto.BundleEntryProto{Dtype: int32(Int8), Size: 1, Shape: dims(maxRank + 1)}),
			"255 dimensions"},
		{"a long description", one(&tfproto.BundleEntryProto{Dtype: int32(Int8), Size: 1, Shape: dims(maxEntrySize)}),
			`variable "w" is described in `},
		{"variables", writeAll(t, many), "more variables than a model has"},
		{"names", long.finish(blockOf(pair{"y", string(handle.append(nil))})), "more variables than a model has"},
	} {
		t.Run(c.name, func(t *testing.T) {
			prefix := writeBundle(t, c.index, make([]byte, 4))
			var err error
			bounded.Run(t, 100*len(c.index), 30*time.Second, func() { _, err = Open(prefix) })
			require.ErrorContains(t, err, c.want)
			assert.Less(t, len(err.Error()), 2000)
		})
	}
}

// A file of terabytes need not be on any disk: it has holes.
func TestHoles(t *testing.T) {
	t.Run("data", func(t *testing.T) {
		prefix := writeBundle(t, writeAll(t, []pair{{"", marshal(t, &tfproto.BundleHeaderProto{NumShards: 1})},
			{"w", marshal(t, &tfproto.BundleEntryProto{Dtype: int32(Float32), Shape: tfproto.NewShape([]int64{huge / 4}),
				Size: huge})}}), nil)
		stretchFile(t, shardPath(prefix, 0, 1))
		r := openTest(t, prefix)
		assert.EqualValues(t, huge, r.Variables()[0].Size)
		bounded.Run(t, 0, 10*time.Second, func() {
			_, err := r.Read("w")
			assert.ErrorContains(t, err, "read w: it has 8796093022208 bytes, and no more than 8589934592 are read")
			_, err = r.Float32s("w")
			assert.ErrorContains(t, err, "no model has such a variable")
		})
	})
	t.Run("index", func(t *testing.T) {
		prefix := copyFiles(t, "testdata/types")
		stretchFile(t, prefix+indexSuffix)
		assertRefused(t, prefix, "types.index: 8796093022208 bytes is too large for what it should be")
	})
	t.Run("state", func(t *testing.T) {
		prefix := copyFiles(t, "testdata/types")
		state := filepath.Join(filepath.Dir(prefix), "checkpoint")
		require.NoError(t, os.WriteFile(state, nil, 0o666))
		stretchFile(t, state)
		assertRefused(t, filepath.Dir(prefix), "8796093022208 bytes is too large for what it should be")
	})
}

// stretchFile makes a file huge by a hole.
func stretchFile(t *testing.T, path string) {
	t.Helper()
	if err := os.Truncate(path, huge); err != nil {
		t.Skip("no file of this size can be made here: ", err)
	}
}

func assertRefused(t *testing.T, path, want string) {
	t.Helper()
	bounded.Run(t, 0, 10*time.Second, func() {
		_, err := Open(path)
		assert.ErrorContains(t, err, want)
	})
}

// What has no end is not read: a link may lead to a device.
func TestDevices(t *testing.T) {
	if _, err := os.Stat("/dev/zero"); err != nil {
		t.Skip("no /dev/zero here")
	}
	for _, file := range []string{".index", ".data-00000-of-00001"} {
		prefix := copyFiles(t, "testdata/types")
		require.NoError(t, os.Remove(prefix+file))
		require.NoError(t, os.Symlink("/dev/zero", prefix+file))
		assertRefused(t, prefix, "types"+file+" is not a plain file")
	}
	dir := filepath.Dir(copyFiles(t, "testdata/types"))
	require.NoError(t, os.Symlink("/dev/zero", filepath.Join(dir, "checkpoint")))
	assertRefused(t, dir, "checkpoint is not a plain file")
}

// pathTraps are contents of a state file that lead out of its folder, beside which there is a checkpoint
// called outside.
func pathTraps(outside string) []string {
	return []string{
		"../outside", "./../outside", "x/../../outside", "..", ".", "", "/", "/..",
		outside, filepath.Dir(outside), "../folder/../outside", "\x00", "../outside\x00", "//" + outside,
	}
}

// Whatever a state file says, the checkpoint is in its folder.
func TestStateStaysInFolder(t *testing.T) {
	parent := t.TempDir()
	dir := filepath.Join(parent, "folder")
	write := func(elem ...string) {
		path := filepath.Join(elem...)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o777))
		require.NoError(t, os.WriteFile(path, nil, 0o666))
	}
	write(parent, "outside.index")
	write(parent, "folder.index") // which is dir with the suffix
	write(dir, "own.index")
	write(dir, "below", "deep.index")
	find := func(t *testing.T, name string) string {
		t.Helper()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "checkpoint"),
			fmt.Appendf(nil, "model_checkpoint_path: %q\n", name), 0o666))
		prefix, err := findInDir(dir)
		require.NoError(t, err)
		return prefix
	}
	for _, name := range append(pathTraps(filepath.Join(parent, "outside")), "own", "/results/own", "../own", dir+"/own",
		"below/../own", "none") {
		assert.Equal(t, filepath.Join(dir, "own"), find(t, name), "%q", name)
	}
	for _, name := range []string{"below/deep", "./below//deep", dir + "/below/deep"} {
		assert.Equal(t, filepath.Join(dir, "below", "deep"), find(t, name), "%q", name)
	}

	// A link is the will of who made it: caches of downloads are made of links.
	require.NoError(t, os.Symlink(filepath.Join(parent, "outside.index"), filepath.Join(dir, "link.index")))
	assert.Equal(t, filepath.Join(dir, "link"), find(t, "link"))

	hidden := t.TempDir()
	write(hidden, ".index")
	_, err := findInDir(hidden)
	assert.ErrorContains(t, err, "no checkpoint in this folder")
}

// FuzzBundle makes a checkpoint of a header, of the description of one variable and of data. Its
// checksums are right if the description names a place that the data have.
func FuzzBundle(f *testing.F) {
	header := marshal(f, &tfproto.BundleHeaderProto{NumShards: 1, Version: &tfproto.VersionDef{Producer: 1}})
	for _, e := range []*tfproto.BundleEntryProto{
		{Dtype: int32(Float32), Shape: tfproto.NewShape([]int64{2, 1}), Size: 8},
		{Dtype: int32(BFloat16), Size: 2, Offset: 1},
		{Dtype: int32(Int32), Shape: tfproto.NewShape([]int64{1}), Size: 4, Offset: 4},
		{Dtype: int32(String), Shape: tfproto.NewShape([]int64{2}), Size: 7},
		{Dtype: 99, Size: 8},
	} {
		f.Add([]byte(header), "bert/w", []byte(marshal(f, e)), []byte("01234567"))
	}
	dir := f.TempDir()
	f.Fuzz(func(t *testing.T, header []byte, name string, description, data []byte) {
		if name == "" {
			return
		}
		var e tfproto.BundleEntryProto
		if proto.Unmarshal(description, &e) == nil && e.Offset >= 0 && e.Size >= 0 && e.Offset <= int64(len(data)) &&
			e.Size <= int64(len(data))-e.Offset {
			e.Crc32C = mask(crc32.Checksum(data[e.Offset:][:e.Size], castagnoli))
			description = []byte(marshal(t, &e))
		}
		prefix := filepath.Join(dir, "m")
		require.NoError(t, os.WriteFile(prefix+indexSuffix,
			writeAll(t, []pair{{"", string(header)}, {name, string(description)}}), 0o666))
		require.NoError(t, os.WriteFile(shardPath(prefix, 0, 1), data, 0o666))
		size := len(header) + len(name) + len(description) + len(data)
		bounded.Run(t, 200*size, 10*time.Second, func() {
			r, err := Open(prefix)
			if err != nil {
				return
			}
			for _, v := range r.Variables() {
				b, err := r.Read(v.Name)
				if err == nil {
					require.Len(t, b, int(v.Size))
					require.True(t, bytes.Contains(data, b))
				}
				values, err := r.Float32s(v.Name)
				if err == nil {
					require.EqualValues(t, v.Size, v.DType.Size()*int64(len(values)))
				}
				_, _ = r.Int64s(v.Name)
			}
			require.NoError(t, r.Close())
		})
	})
}

// FuzzState holds that any "checkpoint" file of a folder leads to a file in the folder.
func FuzzState(f *testing.F) {
	parent := f.TempDir()
	dir := filepath.Join(parent, "folder")
	require.NoError(f, os.Mkdir(dir, 0o777))
	for _, path := range []string{"outside.index", "folder.index", "folder/own.index", "folder/other.index"} {
		require.NoError(f, os.WriteFile(filepath.Join(parent, path), nil, 0o666))
	}
	for _, name := range pathTraps("/tmp/outside") {
		f.Add([]byte("model_checkpoint_path: " + strconv.Quote(name)))
	}
	f.Add([]byte("all_model_checkpoint_paths: \"own\"\nmodel_checkpoint_path: \"/results/own\"\n"))
	f.Fuzz(func(t *testing.T, state []byte) {
		require.NoError(t, os.WriteFile(filepath.Join(dir, "checkpoint"), state, 0o666))
		bounded.Run(t, 64*len(state), 10*time.Second, func() {
			prefix, err := findInDir(dir)
			if err == nil {
				rel, err := filepath.Rel(dir, prefix)
				require.NoError(t, err)
				require.Contains(t, []string{"own", "other"}, rel)
			}
		})
	})
}
