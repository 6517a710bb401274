package checkpoint

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
	"testing"
	"time"

	"github.com/golang/snappy"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv/bounded"
)

type pair struct{ key, value string }

func readAll(table []byte) (pairs []pair, err error) {
	err = readTable(table, func(key, value []byte) error {
		pairs = append(pairs, pair{string(key), string(value)})
		return nil
	})
	return pairs, err
}

func writeAll(t testing.TB, pairs []pair) []byte {
	t.Helper()
	var buf bytes.Buffer
	w := newTableWriter(&buf)
	for _, p := range pairs {
		w.add([]byte(p.key), []byte(p.value))
	}
	require.NoError(t, w.finish())
	return buf.Bytes()
}

func TestTableRoundTrip(t *testing.T) {
	many := make([]pair, 20000) // several blocks
	for i := range many {
		many[i] = pair{fmt.Sprintf("layer/%06d/weight", i), fmt.Sprint("value", i)}
	}
	tests := map[string][]pair{
		"empty":       nil,
		"one":         {{"a", "1"}},
		"empty key":   {{"", "header"}, {"a", ""}},
		"high bytes":  {{"\xff", "1"}, {"\xff\xff", "2"}},
		"prefixes":    {{"a", "1"}, {"aa", "2"}, {"aaa", "3"}, {"ab", "4"}},
		"many":        many,
		"large value": {{"a", string(make([]byte, 2*blockSize))}, {"b", "2"}},
	}
	for name, pairs := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := readAll(writeAll(t, pairs))
			require.NoError(t, err)
			assert.Equal(t, pairs, got)
		})
	}
}

// rawTable builds a table from finished blocks, with right checksums.
type rawTable struct{ buf []byte }

func (t *rawTable) block(kind byte, content []byte) blockHandle {
	h := blockHandle{uint64(len(t.buf)), uint64(len(content))}
	t.buf = append(append(t.buf, content...), kind)
	t.buf = binary.LittleEndian.AppendUint32(t.buf, mask(crc32.Checksum(t.buf[h.offset:], castagnoli)))
	return h
}

func (t *rawTable) finish(index []byte) []byte {
	metaindex := t.block(blockRaw, (&blockBuilder{interval: 1}).finish())
	footer := append(metaindex.append(nil), t.block(blockRaw, index).append(nil)...)
	footer = append(footer, make([]byte, 40-len(footer))...)
	return append(t.buf, binary.LittleEndian.AppendUint64(footer, tableMagic)...)
}

func (h blockHandle) append(b []byte) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(b, h.offset), h.size)
}

func blockOf(pairs ...pair) []byte {
	b := blockBuilder{interval: 2}
	for _, p := range pairs {
		b.add([]byte(p.key), []byte(p.value))
	}
	return b.finish()
}

func TestSnappyBlock(t *testing.T) {
	pairs := []pair{{"a", "1111111111111111111111111111111111111"}, {"b", "2"}}
	var table rawTable
	h := table.block(blockSnappy, snappy.Encode(nil, blockOf(pairs...)))
	got, err := readAll(table.finish(blockOf(pair{"b", string(h.append(nil))})))
	require.NoError(t, err)
	assert.Equal(t, pairs, got)
}

// Tables with right checksums that no writer makes.
func TestTableRefuses(t *testing.T) {
	one := func(kind byte, content []byte) []byte {
		var table rawTable
		h := table.block(kind, content)
		return table.finish(blockOf(pair{"z", string(h.append(nil))}))
	}
	claim := binary.AppendUvarint(nil, 1<<31)
	nested := func() []byte { // every key one byte longer than the last: n entries, n²/2 key bytes
		var b []byte
		for i := range 1000 {
			b = binary.AppendUvarint(b, uint64(i))
			b = append(b, 1, 0, 'a')
		}
		return append(b, 0, 0, 0, 0, 1, 0, 0, 0)
	}
	tests := []struct {
		name  string
		table []byte
		want  string
	}{
		{"keys descending", one(blockRaw, blockOf(pair{"b", ""}, pair{"a", ""})), "keys out of order"},
		{"key twice", one(blockRaw, blockOf(pair{"a", ""}, pair{"a", ""})), "keys out of order"},
		{"key beyond the index's", one(blockRaw, blockOf(pair{"zz", ""})), "keys out of order"},
		{"unknown compression", one(7, blockOf(pair{"a", ""})), "block of unknown compression type 7"},
		{"snappy that claims 2 GiB", one(blockSnappy, append(claim, 0, 0, 0, 0)), "bad snappy length"},
		{"snappy that is none", one(blockSnappy, []byte{4, 0xff, 0xff}), "snappy: corrupt input"},
		{"no restarts", one(blockRaw, nil), "block without restart array"},
		{"too many restarts", one(blockRaw, []byte{0, 0, 0, 0, 2, 0, 0, 0}), "restart array longer than its block"},
		{"shares more than there is", one(blockRaw, []byte{1, 1, 0, 'a', 0, 0, 0, 0, 1, 0, 0, 0}),
			"entry longer than its block"},
		{"value outside", one(blockRaw, []byte{0, 1, 9, 'a', 0, 0, 0, 0, 1, 0, 0, 0}), "entry longer than its block"},
		{"endless varint", one(blockRaw, append(bytes.Repeat([]byte{0xff}, 12), 0, 0, 0, 0, 1, 0, 0, 0)), "bad entry header"},
		{"nested prefixes", one(blockRaw, nested()), "keys share too much"},
		{"block outside", (&rawTable{}).finish(blockOf(pair{"z", string(blockHandle{1 << 40, 1 << 63}.append(nil))})),
			"block ends outside the file"},
		{"handle with more behind", (&rawTable{}).finish(blockOf(pair{"z", "\x00\x00\x00"})), "bad block handle"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := readAll(test.table)
			assert.ErrorContains(t, err, test.want)
		})
	}

	t.Run("one block twice", func(t *testing.T) {
		var table rawTable
		h := string(table.block(blockRaw, blockOf()).append(nil))
		_, err := readAll(table.finish(blockOf(pair{"a", h}, pair{"b", h})))
		assert.ErrorContains(t, err, "bad block handle")
	})
}

func TestSeparator(t *testing.T) {
	tests := []struct{ a, b, want string }{
		{"abc", "abe", "abd"},
		{"abc", "abd", "abc"},   // no byte between c and d
		{"ab", "abc", "ab"},     // a prefix
		{"abcz", "abg", "abd"},  // shorter
		{"a\xff", "b", "a\xff"}, // b does not lie beyond "b"
	}
	for _, test := range tests {
		got := separator([]byte(test.a), []byte(test.b))
		assert.Equal(t, test.want, string(got), "%q, %q", test.a, test.b)
	}
	assert.Equal(t, "d", string(successor([]byte("cls"))))
	assert.Equal(t, "\xff\x02", string(successor([]byte("\xff\x01x"))))
	assert.Equal(t, "\xff", string(successor([]byte("\xff"))))
}

// FuzzTable makes arbitrary bytes a table whose checksums are right, so that the parsers behind the
// checksums see them too.
func FuzzTable(f *testing.F) {
	for _, name := range []string{"types", "sharded", "partition"} {
		table, err := os.ReadFile("testdata/" + name + ".index")
		require.NoError(f, err)
		f.Add(table, true)
		f.Add(blockOf(pair{"", "\x08\x01"}, pair{"a", "\x08\x01\x12\x00"}), false)
		f.Add(snappy.Encode(nil, blockOf(pair{"", "\x08\x01"})), true)
	}
	f.Fuzz(func(t *testing.T, b []byte, compressed bool) {
		parse := func(table []byte) {
			var total int
			var err error
			bounded.Run(t, 2000*len(table), 10*time.Second, func() {
				err = readTable(table, func(key, value []byte) error {
					total += len(key) + len(value)
					return nil
				})
			})
			if err == nil {
				assert.LessOrEqual(t, total, 2000*len(table), "content grew beyond all proportion")
			}
			var nshards int32
			var entries []entry
			bounded.Run(t, 4000*len(table), 10*time.Second, func() { nshards, entries, err = parseIndex(table) })
			if err != nil {
				return
			}
			for _, e := range entries {
				assert.Less(t, e.shard, nshards)
				assert.GreaterOrEqual(t, e.offset+e.Size, e.offset)
			}
		}
		parse(b)
		var table rawTable
		kind := byte(blockRaw)
		if compressed {
			kind = blockSnappy
		}
		h := table.block(kind, b)
		parse(table.finish(blockOf(pair{"\xff", string(h.append(nil))})))
		parse((&rawTable{}).finish(b))
	})
}
