package warmup

import (
	"bufio"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io"

	"github.com/tfbert/go/serve/repository"
)

// A recordReader reads a TFRecord file. A record is the length of its data in 8 bytes and their checksum in 4, and the
// data and their checksum in 4.
type recordReader struct {
	from *bufio.Reader
	most uint64 // bytes of a record
}

func newRecordReader(from io.Reader, most uint64) *recordReader {
	return &recordReader{bufio.NewReader(from), most}
}

// next returns the next record, or io.EOF after the last one.
func (r *recordReader) next() ([]byte, error) {
	var header [12]byte
	if _, err := io.ReadFull(r.from, header[:]); err != nil {
		return nil, cutOff(err)
	}
	length := binary.LittleEndian.Uint64(header[:])
	switch {
	case checksum(header[:8]) != binary.LittleEndian.Uint32(header[8:]):
		return nil, repository.Invalidf("the checksum of its length is wrong")
	case length > r.most:
		return nil, repository.Invalidf("it has %d bytes: it may have at most %d", length, r.most)
	}
	data := make([]byte, length+4)
	if _, err := io.ReadFull(r.from, data); err != nil {
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, cutOff(err)
	}
	if checksum(data[:length]) != binary.LittleEndian.Uint32(data[length:]) {
		return nil, repository.Invalidf("the checksum of its data is wrong")
	}
	return data[:length], nil
}

func cutOff(err error) error {
	if errors.Is(err, io.ErrUnexpectedEOF) {
		return repository.Invalidf("the file ends within it")
	}
	return err
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum returns the CRC of bytes in the form in which these files keep it.
func checksum(b []byte) uint32 {
	crc := crc32.Checksum(b, castagnoli)
	return (crc>>15 | crc<<17) + 0xa282ead8
}
