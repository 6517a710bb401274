package pyjson

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"math"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// scramble is the i-th number of SplitMix64 from seed 0.
func scramble(i uint64) uint64 {
	z := (i + 1) * 0x9E3779B97F4A7C15
	z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
	z = (z ^ z>>27) * 0x94D049BB133111EB
	return z ^ z>>31
}

// The digests were made by Python 3.11.7, with mix as above in 64-bit arithmetic:
//
//	h = hashlib.sha256()
//	for i in range(1000000): h.update(json.dumps(FLOAT).encode() + b"\n")
//
// where FLOAT is given with each.
func TestAppendFloatRandom(t *testing.T) {
	for _, tt := range []struct {
		name, digest string
		float        func(i uint64) float64
	}{
		// struct.unpack("<d", struct.pack("<Q", scramble(i)))[0]
		{"any bits", "10c99b83c1b3687fd214549f514d5fb43961ce37fa998c47c83c09759b12448a", func(i uint64) float64 {
			return math.Float64frombits(scramble(i))
		}},
		// (scramble(i)>>11)*2.0**-(scramble(i)%80)
		{"either side of fixed notation", "86d98c8ac09543117edb4d892705ecca5c0c2affef5d1c93b895c06e253050ac",
			func(i uint64) float64 {
				return math.Ldexp(float64(scramble(i)>>11), -int(scramble(i)%80))
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h := sha256.New()
			var buf []byte
			for i := range uint64(1000000) {
				buf = append(AppendFloat(buf[:0], tt.float(i)), '\n')
				h.Write(buf)
			}
			assert.Equal(t, tt.digest, hex.EncodeToString(h.Sum(nil)))
		})
	}
}

func TestAppendFloat(t *testing.T) {
	for want, f := range map[string]float64{
		"0.0": 0, "-0.0": math.Copysign(0, -1), "1.0": 1, "-1.5": -1.5, "0.1": 0.1, "100.0": 100,
		"0.0001": 1e-4, "9.999e-05": 9.999e-5, "1e-05": 1e-5, "1.5e-07": 1.5e-7, "5e-324": math.SmallestNonzeroFloat64,
		"9999999999999998.0": 9999999999999998, "1e+16": 1e16, "1.2345e+18": 1.2345e18, "1e+100": 1e100,
		"1.7976931348623157e+308": math.MaxFloat64, "3.4028234663852886e+38": math.MaxFloat32,
		"0.3333333333333333": 1.0 / 3, "123456789012345.6": 123456789012345.6,
		"NaN": math.NaN(), "Infinity": math.Inf(1), "-Infinity": math.Inf(-1),
	} {
		assert.Equal(t, want, string(AppendFloat(nil, f)))
	}
}

// for i in range(0x110000):
//
//	if not 0xd800 <= i < 0xe000: h.update(json.dumps(chr(i)).encode())
func TestAppendStringEveryCodePoint(t *testing.T) {
	h := sha256.New()
	for r := rune(0); r <= unicode.MaxRune; r++ {
		if utf8.ValidRune(r) {
			h.Write(AppendString(nil, string(r)))
		}
	}
	assert.Equal(t, "7611e22c4e205e3694e080168f7d8539a1c92c81b7b211221d85c196a70d88d3", hex.EncodeToString(h.Sum(nil)))
}

func TestAppendString(t *testing.T) {
	for _, tt := range []struct{ name, in, want string }{
		{"empty", "", `""`},
		{"plain", "a/b<c>&d'", `"a/b<c>&d'"`},
		{"short escapes", "\"\\\n\r\t\b\f", `"\"\\\n\r\t\b\f"`},
		{"control", "\x00\v\x1f\x7f", `"\u0000\u000b\u001f\u007f"`},
		{"BMP", "é\u2028\ufffd", `"\u00e9\u2028\ufffd"`},
		{"astral", "a😀b", `"a\ud83d\ude00b"`},
		{"not UTF-8", "a\xff\xed\xa0\x80", `"a\ufffd\ufffd\ufffd\ufffd"`},
	} {
		t.Run(tt.name, func(t *testing.T) { assert.Equal(t, tt.want, string(AppendString(nil, tt.in))) })
	}
}

func FuzzAppendString(f *testing.F) {
	f.Add("a\"\\\n😀\x00\xff")
	f.Fuzz(func(t *testing.T, s string) {
		got := AppendString(nil, s)
		for _, c := range got {
			require.True(t, ' ' <= c && c <= '~')
		}
		var back string
		require.NoError(t, json.Unmarshal(got, &back))
		require.Equal(t, strings.ToValidUTF8(s, "\ufffd") == s, back == s)
		if utf8.ValidString(s) {
			require.Equal(t, s, back)
		}
	})
}

func FuzzAppendFloat(f *testing.F) {
	f.Add(1e16)
	f.Fuzz(func(t *testing.T, x float64) {
		got := AppendFloat(nil, x)
		if math.IsNaN(x) || math.IsInf(x, 0) {
			return
		}
		var back float64
		require.NoError(t, json.Unmarshal(got, &back))
		require.Equal(t, math.Float64bits(x), math.Float64bits(back), "%s", got)
		require.True(t, strings.ContainsAny(string(got), ".e"), "a float, not an integer: %s", got)
	})
}
