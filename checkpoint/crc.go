package checkpoint

import "hash/crc32"

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// mask turns a CRC-32C into the form TensorFlow stores, so that a checksum over bytes that hold
// checksums stays meaningful.
func mask(crc uint32) uint32 {
	return (crc>>15 | crc<<17) + 0xa282ead8
}
