package checkpoint

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"

	"github.com/golang/snappy"
)

// A table is a sorted map of byte strings in the file format of LevelDB:
//
//	data block… | metaindex block (unused) | index block | footer
//
// Every block is followed by a type byte and the masked CRC-32C of the block and that byte. The
// index block maps a key not below any of a data block's keys to that block's handle (offset and
// size as varints); the footer holds the handles of the metaindex and the index block, padded, and
// a magic number.
const (
	footerSize       = 48
	blockTrailerSize = 5
	tableMagic       = 0xdb4775248b80fb57

	blockRaw    = 0
	blockSnappy = 1
)

var (
	errNotTable = errors.New("not a table file: its last bytes are not those of a checkpoint index")
	errDamaged  = errors.New("the file is damaged; copy it again")
)

func damaged(format string, args ...any) error {
	return fmt.Errorf(format+": %w", append(args, errDamaged)...)
}

// readTable calls visit for every entry of a table, in the order of the keys. It is strict: it returns an error
// if no writer of the format writes such a table. key and value are valid only during the call.
func readTable(table []byte, visit func(key, value []byte) error) error {
	if len(table) < footerSize {
		return errNotTable
	}
	footer := table[len(table)-footerSize:]
	if binary.LittleEndian.Uint64(footer[footerSize-8:]) != tableMagic {
		return errNotTable
	}
	body := table[:len(table)-footerSize]
	metaindex, rest, ok := cutHandle(footer[:footerSize-8])
	handle, padding, ok2 := cutHandle(rest)
	if !ok || !ok2 || len(bytes.Trim(padding, "\x00")) > 0 {
		return damaged("bad footer")
	}
	if _, err := readBlock(body, metaindex); err != nil {
		return fmt.Errorf("metaindex block: %w", err)
	}
	index, err := readBlock(body, handle)
	if err != nil {
		return fmt.Errorf("index block: %w", err)
	}

	var last []byte // the greatest key so far
	var end uint64  // of the previous data block
	first := true
	return walkBlock(index, func(bound, value []byte) error {
		handle, rest, ok := cutHandle(value)
		// Blocks that lie one after another are read once each, so that no file can make the
		// work, or the memory, grow beyond its own size.
		if !ok || len(rest) > 0 || handle.offset < end {
			return damaged("bad block handle")
		}
		end = handle.offset + handle.size
		block, err := readBlock(body, handle)
		if err != nil {
			return fmt.Errorf("block at %d: %w", handle.offset, err)
		}
		err = walkBlock(block, func(key, value []byte) error {
			if !first && bytes.Compare(key, last) <= 0 || bytes.Compare(key, bound) > 0 {
				return damaged("keys out of order")
			}
			first = false
			last = append(last[:0], key...)
			return visit(key, value)
		})
		if err != nil {
			return err
		}
		last = append(last[:0], bound...)
		return nil
	})
}

type blockHandle struct{ offset, size uint64 }

// cutHandle reads a handle from the front of b.
func cutHandle(b []byte) (h blockHandle, rest []byte, ok bool) {
	offset, n := binary.Uvarint(b)
	if n <= 0 {
		return h, nil, false
	}
	size, m := binary.Uvarint(b[n:])
	if m <= 0 {
		return h, nil, false
	}
	return blockHandle{offset, size}, b[n+m:], true
}

// readBlock returns the checked and decompressed block at h.
func readBlock(body []byte, h blockHandle) ([]byte, error) {
	length := uint64(len(body))
	if length < blockTrailerSize || h.size > length-blockTrailerSize || h.offset > length-blockTrailerSize-h.size {
		return nil, damaged("block ends outside the file")
	}
	block := body[h.offset:][:h.size+1] // with the type
	stored := binary.LittleEndian.Uint32(body[h.offset+h.size+1:])
	if mask(crc32.Checksum(block, castagnoli)) != stored {
		return nil, damaged("checksum mismatch")
	}
	kind, block := block[h.size], block[:h.size]
	switch kind {
	case blockRaw:
		return block, nil
	case blockSnappy:
		// Snappy's densest element makes 64 bytes of 3: a greater claim is false, and must not
		// be believed with an allocation.
		n, err := snappy.DecodedLen(block)
		if err != nil || n > min(22*len(block), maxIndexSize) {
			return nil, damaged("bad snappy length")
		}
		block, err = snappy.Decode(nil, block)
		if err != nil {
			return nil, damaged("%v", err)
		}
		return block, nil
	}
	return nil, fmt.Errorf("block of unknown compression type %d", kind)
}

// walkBlock calls visit for every entry of a block. Keys are prefix-compressed: an entry has the number of
// bytes that it shares with the previous key. The restart array behind the entries serves binary
// search, which a full walk does not need.
func walkBlock(block []byte, visit func(key, value []byte) error) error {
	if len(block) < 4 {
		return damaged("block without restart array")
	}
	restarts := uint64(binary.LittleEndian.Uint32(block[len(block)-4:]))
	if restarts > uint64(len(block)-4)/4 {
		return damaged("restart array longer than its block")
	}
	entries := block[:uint64(len(block))-4-4*restarts]

	var key []byte
	keyBytes := 0
	for len(entries) > 0 {
		var shared, unshared, size uint64
		for _, v := range []*uint64{&shared, &unshared, &size} {
			var n int
			*v, n = binary.Uvarint(entries)
			if n <= 0 {
				return damaged("bad entry header")
			}
			entries = entries[n:]
		}
		length := uint64(len(entries))
		if shared > uint64(len(key)) || unshared > length || size > length-unshared {
			return damaged("entry longer than its block")
		}
		key = append(key[:shared], entries[:unshared]...)
		value := entries[unshared:][:size]
		entries = entries[unshared+size:]
		// A writer spells a key out every 16 entries, so keys amount to at most 16 times their
		// bytes on disk. Without a bound they could amount to the square.
		if keyBytes += len(key); keyBytes > 64*len(block) {
			return damaged("keys share too much")
		}
		if err := visit(key, value); err != nil {
			return err
		}
	}
	return nil
}
