package warmup

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A length is checked before memory is taken for it.
func TestLongRecord(t *testing.T) {
	header := binary.LittleEndian.AppendUint64(nil, 1<<62)
	header = binary.LittleEndian.AppendUint32(header, checksum(header))
	_, err := newRecordReader(bytes.NewReader(header), 1<<20).next()
	assert.ErrorContains(t, err, "it may have at most 1048576")
}

// Whatever a file holds, reading ends and no record is longer than it may be.
func FuzzRecords(f *testing.F) {
	text, err := os.ReadFile("testdata/tf_serving_warmup_requests")
	require.NoError(f, err)
	f.Add(text)
	f.Add(text[:20])
	f.Fuzz(func(t *testing.T, text []byte) {
		r := newRecordReader(bytes.NewReader(text), 1<<10)
		for {
			record, err := r.next()
			if err != nil {
				if !errors.Is(err, io.EOF) {
					assert.NotEmpty(t, err.Error())
				}
				return
			}
			assert.LessOrEqual(t, len(record), 1<<10)
		}
	})
}
