package transport

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"reflect"
	"strings"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"

	"github.com/tfbert/go/serve/repository"
)

// EncodeJSON writes v as JSON on a line.
func EncodeJSON(w io.Writer, v any) error {
	if err := json.MarshalWrite(w, v, json.Deterministic(true)); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// ReadJSON decodes the body of a request.
func (h *Host) ReadJSON(r *http.Request, v any, opts ...json.Options) error {
	body, err := h.ReadBody(r)
	if err != nil {
		return err
	}
	return DecodeJSON(body, v, opts...)
}

// DecodeJSON decodes JSON. Its errors are in terms of JSON, for clients.
func DecodeJSON(text []byte, v any, opts ...json.Options) error {
	err := json.Unmarshal(text, v, opts...)
	if err == nil {
		return nil
	}
	var known *repository.Error
	var semantic *json.SemanticError
	var syntactic *jsontext.SyntacticError
	var message string
	switch {
	case errors.As(err, &known):
		return known
	case errors.As(err, &syntactic):
		message = "the request is not JSON: " + strings.TrimPrefix(syntactic.Error(), "jsontext: ")
	case errors.As(err, &semantic) && errors.Is(err, json.ErrUnknownName):
		message = "the request has an unknown key: " + key(semantic.JSONPointer)
	case errors.As(err, &semantic) && semantic.JSONPointer != "":
		message = key(semantic.JSONPointer) + " must be " + article(semantic.GoType)
	case errors.As(err, &semantic):
		message = "the request must be " + article(semantic.GoType)
	default:
		message = err.Error()
	}
	return repository.Invalidf("%s", message)
}

// Members calls f for the members of a valid JSON object, and not at all for null. The values are parts of the text,
// not copies of them.
func Members(text jsontext.Value, f func(name string, value jsontext.Value) error) error {
	d := jsontext.NewDecoder(bytes.NewBuffer(text)) // a decoder reads a bytes.Buffer in place
	if _, err := d.ReadToken(); err != nil || text.Kind() != '{' {
		return err
	}
	for d.PeekKind() != '}' {
		token, err := d.ReadToken()
		if err != nil {
			return err
		}
		name := token.String()
		value, err := d.ReadValue()
		if err != nil {
			return err
		}
		end := d.InputOffset()
		if err := f(name, text[end-int64(len(value)):end]); err != nil {
			return err
		}
	}
	return nil
}

// A Bounded is an array that may not have more elements than a request needs: as structs, 8 MiB of "{},"
// would be gigabytes.
type Bounded[T any] []T

const mostElements = 1024

// UnmarshalJSONFrom implements json.UnmarshalerFrom.
func (b *Bounded[T]) UnmarshalJSONFrom(d *jsontext.Decoder) error {
	*b = nil
	if d.PeekKind() != '[' {
		return json.UnmarshalDecode(d, (*[]T)(b)) // null, or an error about the type
	}
	if _, err := d.ReadToken(); err != nil {
		return err
	}
	for d.PeekKind() != ']' {
		if len(*b) == mostElements {
			return repository.Invalidf("%s has more than %d elements", key(d.StackPointer().Parent()), mostElements)
		}
		var v T
		if err := json.UnmarshalDecode(d, &v); err != nil {
			return err
		}
		*b = append(*b, v)
	}
	_, err := d.ReadToken()
	return err
}

// key returns a pointer into JSON in readable form.
func key(p jsontext.Pointer) string {
	var b strings.Builder
	for token := range p.Tokens() {
		if b.Len() > 0 {
			b.WriteByte('.')
		}
		b.WriteString(token)
	}
	return b.String()
}

// article returns the JSON type that a Go type is decoded from, with its article.
func article(t reflect.Type) string {
	if t == nil {
		return "something else"
	}
	switch t.Kind() {
	case reflect.Pointer:
		return article(t.Elem())
	case reflect.String:
		return "a string"
	case reflect.Bool:
		return "true or false"
	case reflect.Int, reflect.Int32, reflect.Int64:
		return "a whole number"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Slice, reflect.Array:
		return "an array"
	}
	return "an object"
}
