package checkpoint

import (
	"bufio"
	"encoding/binary"
	"hash/crc32"
	"io"
)

// TensorFlow's settings, so that the same content is written as the same bytes.
const (
	blockSize       = 256 << 10
	restartInterval = 16
)

// tableWriter writes an uncompressed table; see readTable for the format. Errors stick to the
// buffered writer and come out of finish.
type tableWriter struct {
	w       *bufio.Writer
	written uint64
	data    blockBuilder
	index   blockBuilder
	last    []byte // key added last
	pending []byte // handle of a finished block that the index does not hold yet
}

func newTableWriter(w io.Writer) *tableWriter {
	return &tableWriter{
		w:     bufio.NewWriter(w),
		data:  blockBuilder{interval: restartInterval},
		index: blockBuilder{interval: 1},
	}
}

// add appends an entry; keys must come in ascending order.
func (t *tableWriter) add(key, value []byte) {
	if t.pending != nil {
		t.index.add(separator(t.last, key), t.pending)
		t.pending = nil
	}
	t.data.add(key, value)
	t.last = append(t.last[:0], key...)
	if t.data.size() >= blockSize {
		t.pending = t.flush(&t.data)
	}
}

// finish writes what is left and the footer.
func (t *tableWriter) finish() error {
	if len(t.data.buf) > 0 {
		t.pending = t.flush(&t.data)
	}
	metaindex := t.flush(&blockBuilder{interval: restartInterval})
	if t.pending != nil {
		t.index.add(successor(t.last), t.pending)
	}
	footer := append(metaindex, t.flush(&t.index)...)
	footer = append(footer, make([]byte, footerSize-8-len(footer))...)
	footer = binary.LittleEndian.AppendUint64(footer, tableMagic)
	t.w.Write(footer)
	return t.w.Flush()
}

// flush writes a block and empties its builder. It returns the block's handle.
func (t *tableWriter) flush(b *blockBuilder) []byte {
	block := b.finish()
	handle := binary.AppendUvarint(nil, t.written)
	handle = binary.AppendUvarint(handle, uint64(len(block)))

	block = append(block, blockRaw)
	block = binary.LittleEndian.AppendUint32(block, mask(crc32.Checksum(block, castagnoli)))
	t.w.Write(block)
	t.written += uint64(len(block))
	*b = blockBuilder{interval: b.interval}
	return handle
}

// blockBuilder collects the entries of one block.
type blockBuilder struct {
	interval int // entries from one fully spelled key to the next
	buf      []byte
	restarts []uint32
	count    int // entries since the last restart
	last     []byte
}

func (b *blockBuilder) add(key, value []byte) {
	shared := 0
	if b.count%b.interval == 0 {
		b.restarts = append(b.restarts, uint32(len(b.buf)))
	} else {
		shared = commonPrefix(b.last, key)
	}
	b.count++
	b.buf = binary.AppendUvarint(b.buf, uint64(shared))
	b.buf = binary.AppendUvarint(b.buf, uint64(len(key)-shared))
	b.buf = binary.AppendUvarint(b.buf, uint64(len(value)))
	b.buf = append(b.buf, key[shared:]...)
	b.buf = append(b.buf, value...)
	b.last = append(b.last[:0], key...)
}

// size returns how long the finished block would be.
func (b *blockBuilder) size() int { return len(b.buf) + 4*len(b.restarts) + 4 }

func (b *blockBuilder) finish() []byte {
	if b.restarts == nil {
		b.restarts = []uint32{0} // an empty block has one all the same
	}
	for _, at := range b.restarts {
		b.buf = binary.LittleEndian.AppendUint32(b.buf, at)
	}
	return binary.LittleEndian.AppendUint32(b.buf, uint32(len(b.restarts)))
}

func commonPrefix(a, b []byte) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// separator returns a short key in [a, b), as LevelDB chooses it: the first byte in which the two
// differ raised by one, if that stays below b.
func separator(a, b []byte) []byte {
	n := commonPrefix(a, b)
	if n < len(a) && n < len(b) && a[n] < 0xff && a[n]+1 < b[n] {
		return append(append([]byte(nil), a[:n]...), a[n]+1)
	}
	return a
}

// successor returns a short key not below a: its first byte that can be raised, raised by one.
func successor(a []byte) []byte {
	for n, c := range a {
		if c != 0xff {
			return append(append([]byte(nil), a[:n]...), c+1)
		}
	}
	return a
}
