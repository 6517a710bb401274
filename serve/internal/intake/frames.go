package intake

// HTTP/2 as far as counting a client's bytes needs it (RFC 9113, section 4.1 and 6).

const (
	preface = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

	frameData    = 0x0
	frameHeaders = 0x1
	frameReset   = 0x3

	flagEndStream = 0x1
	flagPadded    = 0x8
)

// frames follows the frames of one direction of a connection, however its bytes are cut into pieces.
type frames struct {
	skip int // bytes of the client's preface that are still to come

	header  [9]byte
	have    int // bytes of the header
	payload int // bytes of the payload that are still to come
	padding int // bytes at its end that are padding
	padded  bool

	onHeader func(kind, flags byte, stream uint32)
	onData   func(stream uint32, b []byte) // of the payload of a DATA frame, without padding
	onEnd    func(kind, flags byte, stream uint32)
}

func (f *frames) feed(b []byte) {
	for len(b) > 0 {
		if f.skip > 0 {
			n := min(f.skip, len(b))
			f.skip -= n
			b = b[n:]
			continue
		}
		if f.have < len(f.header) {
			n := copy(f.header[f.have:], b)
			f.have += n
			b = b[n:]
			if f.have < len(f.header) {
				return
			}
			f.payload = int(f.header[0])<<16 | int(f.header[1])<<8 | int(f.header[2])
			f.padded = f.kind() == frameData && f.flags()&flagPadded != 0
			f.padding = 0
			f.onHeader(f.kind(), f.flags(), f.stream())
			f.endIfDone()
			continue
		}
		if f.padded {
			f.padded = false
			f.payload--
			f.padding = min(int(b[0]), f.payload)
			b = b[1:]
			f.endIfDone()
			continue
		}
		n := min(f.payload, len(b))
		if data := min(n, f.payload-f.padding); data > 0 && f.kind() == frameData {
			f.onData(f.stream(), b[:data])
		}
		f.payload -= n
		b = b[n:]
		f.endIfDone()
	}
}

func (f *frames) endIfDone() {
	if f.payload <= 0 {
		f.have, f.payload = 0, 0
		f.onEnd(f.kind(), f.flags(), f.stream())
	}
}

func (f *frames) kind() byte  { return f.header[3] }
func (f *frames) flags() byte { return f.header[4] }

func (f *frames) stream() uint32 {
	return (uint32(f.header[5])<<24 | uint32(f.header[6])<<16 | uint32(f.header[7])<<8 | uint32(f.header[8])) &^ (1 << 31)
}
