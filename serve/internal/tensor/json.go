package tensor

import (
	"bytes"
	"encoding/base64"
	"io"
	"math"
	"slices"
	"strconv"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
	"google.golang.org/grpc/codes"

	"github.com/tfbert/go/serve/repository"
)

// ReadFlat reads a tensor's elements from a JSON array, at whatever depth they stand, as in the Open
// Inference Protocol.
func ReadFlat(t *repository.Tensor, data jsontext.Value) error {
	if len(data) == 0 {
		return repository.Invalidf("input %q does not have data", t.Name)
	}
	if data.Kind() != '[' {
		return repository.Invalidf("the data of input %q must be an array", t.Name)
	}
	d := jsontext.NewDecoder(bytes.NewBuffer(data)) // it is read in place
	for {
		token, err := d.ReadToken()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		if kind := token.Kind(); kind == '[' || kind == ']' {
			continue
		}
		if err := readElement(t, token); err != nil {
			return err
		}
	}
}

// mostStrings is more than a request can have questions. As strings, 8 MiB of "", would be many times as much.
const mostStrings = 8 << 10

// mostNumbers of a tensor in JSON are 1024 windows of 1024 word pieces.
const mostNumbers = 1 << 20

func readElement(t *repository.Tensor, token jsontext.Token) error {
	switch kind := token.Kind(); {
	case kind == '0' && len(t.Int32s) == mostNumbers:
		return repository.Invalidf("input %q has more than %d numbers", t.Name, mostNumbers)
	case kind == '0' && (t.Type == repository.Int32 || t.Type == repository.Int64):
		n, err := strconv.ParseInt(token.String(), 10, 32)
		if err != nil {
			return repository.Invalidf("input %q holds %s: it must hold whole numbers of 32 bits", t.Name, token)
		}
		t.Int32s = append(t.Int32s, int32(n))
	case kind == '"' && t.Type == repository.Bytes && len(t.Strings) == mostStrings:
		return repository.Invalidf("input %q has more than %d strings", t.Name, mostStrings)
	case kind == '"' && t.Type == repository.Bytes:
		t.Strings = append(t.Strings, token.String())
	case t.Type == repository.Int32 || t.Type == repository.Int64 || t.Type == repository.Bytes:
		return repository.Invalidf("input %q is %s and holds %s", t.Name, t.Type, kind)
	}
	return nil
}

// ReadNested adds the elements of a nested JSON array to a tensor and returns the array's shape, as in
// TensorFlow Serving. An object {"b64": ...} stands for bytes.
func ReadNested(t *repository.Tensor, value jsontext.Value) ([]int64, error) {
	return readArray(t, jsontext.NewDecoder(bytes.NewBuffer(value)))
}

// mostDimensions is more than any input has.
const mostDimensions = 8

func readArray(t *repository.Tensor, d *jsontext.Decoder) ([]int64, error) {
	switch d.PeekKind() {
	case '[':
		if d.StackDepth() == mostDimensions {
			return nil, repository.Invalidf("%q has more than %d dimensions", t.Name, mostDimensions)
		}
		if _, err := d.ReadToken(); err != nil {
			return nil, err
		}
		var inner []int64
		n := int64(0)
		for ; d.PeekKind() != ']'; n++ {
			shape, err := readArray(t, d)
			if err != nil {
				return nil, err
			}
			if n == 0 {
				inner = shape
			} else if !slices.Equal(shape, inner) {
				return nil, repository.Invalidf("%q is ragged: an array of shape %v stands beside one of %v",
					t.Name, shape, inner)
			}
		}
		_, err := d.ReadToken()
		return append([]int64{n}, inner...), err
	case '{':
		return nil, readBase64(t, d)
	}
	token, err := d.ReadToken()
	if err != nil {
		return nil, err
	}
	return nil, readElement(t, token)
}

func readBase64(t *repository.Tensor, d *jsontext.Decoder) error {
	var encoded struct {
		B64 *string `json:"b64"`
	}
	err := json.UnmarshalDecode(d, &encoded, json.RejectUnknownMembers(true))
	if err != nil || encoded.B64 == nil || t.Type != repository.Bytes {
		return repository.Invalidf(`%q holds an object: only strings may be one, {"b64": "…"}`, t.Name)
	}
	b, err := base64.StdEncoding.DecodeString(*encoded.B64)
	if err != nil {
		return repository.Invalidf("%q holds a string that is not valid base64: %v", t.Name, err)
	}
	if len(t.Strings) == mostStrings {
		return repository.Invalidf("input %q has more than %d strings", t.Name, mostStrings)
	}
	t.Strings = append(t.Strings, string(b))
	return nil
}

// Flat returns a tensor's elements as a flat JSON array.
func Flat(t *repository.Tensor) (jsontext.Value, error) {
	var v any = t.Strings
	switch t.Type {
	case repository.Int32, repository.Int64:
		v = t.Int32s
	case repository.Float32:
		v = t.Float32s
		for _, x := range t.Float32s {
			if math.IsNaN(float64(x)) || math.IsInf(float64(x), 0) {
				return nil, repository.Errorf(codes.Internal,
					"output %q holds %v, which JSON does not have: ask for binary data, and doubt the model's weights",
					t.Name, x)
			}
		}
	}
	return json.Marshal(v)
}

// AppendRow appends a row as JSON: an element of a vector, or an array of the elements in a row of a matrix.
// It writes numbers that JSON does not have as TensorFlow Serving does: NaN, Infinity.
func AppendRow(b []byte, t *repository.Tensor, row int) []byte {
	if len(t.Shape) == 1 {
		return appendElement(b, t, row)
	}
	width := int(t.Shape[1])
	b = append(b, '[')
	for i := row * width; i < (row+1)*width; i++ {
		if i > row*width {
			b = append(b, ',')
		}
		b = appendElement(b, t, i)
	}
	return append(b, ']')
}

func appendElement(b []byte, t *repository.Tensor, i int) []byte {
	switch {
	case t.Int32s != nil:
		return strconv.AppendInt(b, int64(t.Int32s[i]), 10)
	case t.Strings != nil:
		b, _ = jsontext.AppendQuote(b, t.Strings[i])
		return b
	}
	switch v := float64(t.Float32s[i]); {
	case math.IsNaN(v):
		return append(b, "NaN"...)
	case math.IsInf(v, 1):
		return append(b, "Infinity"...)
	case math.IsInf(v, -1):
		return append(b, "-Infinity"...)
	default:
		return strconv.AppendFloat(b, v, 'g', -1, 32)
	}
}
