package file

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"regexp"
	"strconv"
	"strings"
)

// A Kind says what a file holds, judged by its content and not by its name. It is the end of a sentence about
// the file, with what to do about it, or "" for a file that could be anything.
type Kind string

// The kinds that people take for a part of a model or of a data set.
const (
	Empty       Kind = "an empty file: its download or copy did not finish"
	LFSPointer  Kind = "a Git LFS pointer, not the file itself: run git lfs pull"
	HTML        Kind = "an HTML page, such as the login or error page of a site: download the file again"
	UTF16       Kind = "text in UTF-16 or UTF-32: save it as UTF-8"
	Table       Kind = "a table of comma or tab separated values (CSV, TSV): convert it to JSON"
	Parquet     Kind = "a Parquet file: convert it to JSON lines"
	Arrow       Kind = "an Arrow file: convert it to JSON lines"
	XML         Kind = "an XML document, such as the error message of a store of files: download the file again"
	AppleDouble Kind = "metadata that macOS keeps beside a file, not the file itself"

	Zip    Kind = "a zip archive: unpack it"
	Gzip   Kind = "a gzip file: unpack it"
	Bzip2  Kind = "a bzip2 file: unpack it"
	Tar    Kind = "a tar archive: unpack it"
	Zstd   Kind = "a Zstandard file: unpack it"
	XZ     Kind = "an xz file: unpack it"
	SevenZ Kind = "a 7-Zip archive: unpack it"
	RAR    Kind = "a RAR archive: unpack it"

	GraphDef     Kind = "a frozen graph, not a SavedModel"
	MetaGraph    Kind = "the .meta file of a checkpoint, which holds a graph and no weights"
	SavedModel   Kind = "the graph of a SavedModel, not a checkpoint"
	TextGraph    Kind = "a graph in text form (.pbtxt), which is not supported: convert it to the binary form (.pb)"
	CheckpointV1 Kind = "a checkpoint of the V1 format (one file, as TensorFlow before 0.12 wrote it), " +
		"which is not supported: restore it and save it again with a tf.train.Saver of version 2"
	Index Kind = "the .index of a checkpoint"

	PyTorch     Kind = "a file of PyTorch, which is not read: save the model as safetensors, as its save_pretrained does"
	Safetensors Kind = "a file of weights in safetensors form, which is exported with the config.json and vocab.txt beside it"
	HDF5        Kind = "an HDF5 file (.h5), in which Keras keeps weights, not a TensorFlow checkpoint"
	NumPy       Kind = "a file of NumPy arrays"
	TFLite      Kind = "a TensorFlow Lite model, not a SavedModel"
)

// IsArchive reports whether a file holds other files or is packed.
func (k Kind) IsArchive() bool { return strings.HasSuffix(string(k), ": unpack it") }

// A KindError reports a file that is something else than it should be.
type KindError struct {
	Path string
	Kind Kind
}

// Error implements error.
func (e *KindError) Error() string { return e.Path + " is " + string(e.Kind) }

// sniffed is the number of bytes that the kind of a file is known by.
const sniffed = 1024

// tableMagic ends a table, the format of the .index and of checkpoints of the V1 format.
const tableMagic = "\x57\xfb\x80\x8b\x24\x75\x47\xdb"

var magics = []struct {
	prefix string
	kind   Kind
}{
	{"version https://git-lfs.github.com/spec/", LFSPointer},
	{"\x00\x05\x16\x07\x00", AppleDouble},
	{"\xff\xfe", UTF16},
	{"\xfe\xff", UTF16},
	{"{\x00", UTF16}, // without a byte order mark: JSON or a vocabulary
	{"[\x00", UTF16},
	{"\x00{", UTF16},
	{"\x00[", UTF16},
	{"PAR1", Parquet},
	{"ARROW1\x00\x00", Arrow},
	{"PK\x03\x04", Zip},
	{"PK\x05\x06", Zip}, // without any member
	{"\x1f\x8b\x08", Gzip},
	{"BZh", Bzip2},
	{"\x28\xb5\x2f\xfd", Zstd},
	{"\xfd7zXZ\x00", XZ},
	{"7z\xbc\xaf\x27\x1c", SevenZ},
	{"Rar!\x1a\x07", RAR},
	{"\x89HDF\r\n\x1a\n", HDF5},
	{"\x93NUMPY", NumPy},
	{"\x80\x02\x8a\x0a\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", PyTorch}, // torch.save before 1.6
	{"\x08\x01\x12", SavedModel},
}

var (
	markup    = regexp.MustCompile(`(?i)^(<!--.*?-->\s*)*<(!doctype html|html|head|body)[\s>]`)
	table     = regexp.MustCompile(`^"?[A-Za-z][\w .]*"?([,;\t]"?[A-Za-z][\w .]*"?)+\r?\n`) // the names of its columns
	textGraph = regexp.MustCompile(`^(#[^\n]*\n|\s)*(saved_model_schema_version\s*:|meta_graphs\s*:?\s*\{|node\s*:?\s*\{\s*name)`)
)

// Sniff returns the kind of a file that begins with head, which is all of the file or a kilobyte of it.
func Sniff(head []byte) Kind {
	for _, m := range magics {
		if bytes.HasPrefix(head, []byte(m.prefix)) {
			if m.kind == Zip {
				return zipKind(head)
			}
			return m.kind
		}
	}
	text := bytes.TrimSpace(bytes.TrimPrefix(head, []byte("\ufeff")))
	switch {
	case len(head) == 0:
		return Empty
	case markup.Match(text):
		return HTML
	case bytes.HasPrefix(text, []byte("<?xml ")):
		if bytes.Contains(bytes.ToLower(text), []byte("<html")) {
			return HTML
		}
		return XML
	case table.Match(text):
		return Table
	case textGraph.Match(text):
		return TextGraph
	case isTar(head):
		return Tar
	case len(head) > 8 && string(head[4:8]) == "TFL3":
		return TFLite
	case len(head) > 10 && binary.LittleEndian.Uint64(head) < 1<<32 && string(head[8:10]) == `{"`:
		return Safetensors
	}
	return graphKind(head)
}

// zipKind tells an archive from the files of other programs that are zips, by its first member.
func zipKind(head []byte) Kind {
	if len(head) < 30 {
		return Zip
	}
	end := 30 + int(binary.LittleEndian.Uint16(head[26:]))
	name := string(head[30:min(end, len(head))])
	switch {
	case strings.HasSuffix(name, "/data.pkl"):
		return PyTorch
	case strings.HasSuffix(name, ".npy"):
		return NumPy
	}
	return Zip
}

// isTar reports whether a file begins with the header of a tar, of any age, which is known by its checksum.
func isTar(head []byte) bool {
	if len(head) < 512 || head[0] == 0 {
		return false
	}
	sum := 8 * int64(' ')
	for i, b := range head[:512] {
		if i < 148 || i >= 156 {
			sum += int64(b)
		}
	}
	want, err := strconv.ParseInt(strings.Trim(string(head[148:156]), " \x00"), 8, 64)
	return err == nil && sum == want
}

// graphKind tells the graphs of TensorFlow apart, which have no magic number: a GraphDef begins with a node, whose
// name comes first, a MetaGraphDef with a description that begins with a list of operations.
func graphKind(head []byte) Kind {
	first, inside, ok := cutField(head, 0x0a)
	if !ok || first < 4 || len(inside) < 4 {
		return ""
	}
	if inside[0] == 0x12 {
		if n, list, ok := cutField(inside, 0x12); ok && n < first && len(list) > 0 && list[0] == 0x0a {
			return MetaGraph
		}
	}
	n, name, ok := cutField(inside, 0x0a)
	if !ok || n >= first || n >= uint64(len(name)) || !isWord(name[:n]) {
		return ""
	}
	if n, op, ok := cutField(name[n:], 0x12); ok && n <= uint64(len(op)) && isWord(op[:n]) && op[0] >= 'A' && op[0] <= 'Z' {
		return GraphDef
	}
	return ""
}

// cutField cuts the tag and the length of a field of bytes off b.
func cutField(b []byte, tag byte) (n uint64, rest []byte, ok bool) {
	if len(b) < 2 || b[0] != tag {
		return 0, nil, false
	}
	n, size := binary.Uvarint(b[1:])
	if size <= 0 || n == 0 {
		return 0, nil, false
	}
	return n, b[1+size:], true
}

func isWord(b []byte) bool {
	for _, c := range b {
		if c <= ' ' || c > '~' {
			return false
		}
	}
	return len(b) > 0
}

// KindOf returns the kind of an open file. A file that cannot be read could be anything.
func KindOf(f io.ReaderAt, size int64) Kind {
	head := make([]byte, min(size, sniffed))
	if n, err := f.ReadAt(head, 0); n < len(head) && err != nil {
		return ""
	}
	if kind := Sniff(head); kind != "" {
		return kind
	}
	tail := make([]byte, len(tableMagic))
	if size < 48 {
		return ""
	}
	if _, err := f.ReadAt(tail, size-int64(len(tail))); err != nil || string(tail) != tableMagic {
		return ""
	}
	return tableKind(head)
}

// tableKind tells an index from a V1 checkpoint by the value of the first key, which is empty in both: that of an
// index begins with a number, that of a V1 checkpoint with a list. The block may be compressed: then a few bytes
// stand before the key.
func tableKind(head []byte) Kind {
	at := bytes.Index(head[:min(len(head), 8)], []byte{0, 0})
	if at < 0 {
		return ""
	}
	_, n := binary.Uvarint(head[at+2:])
	if n > 0 && at+2+n < len(head) && head[at+2+n] == 0x0a {
		return CheckpointV1
	}
	return Index
}

// KindOfPath returns the kind of the file at path. What is not a plain file, or cannot be read, could be anything.
func KindOfPath(path string) Kind {
	f, size, err := Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	return KindOf(f, size)
}

// partial matches the names of downloads that have not finished.
var partial = regexp.MustCompile(`(?i)\.(part|partial|crdownload|download|opdownload|aria2)$`)

// IsPartial reports whether a browser or a download manager has given a file its name for a download under way.
func IsPartial(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && partial.MatchString(path)
}

// A RemoteError reports a path with the scheme of a URL: only files on this machine's own file systems are read
// and written.
type RemoteError struct{ Path, Scheme string }

// Error implements error.
func (e *RemoteError) Error() string { return e.Scheme + " is not supported: give a local path" }

var scheme = regexp.MustCompile(`^[A-Za-z][A-Za-z0-9+.-]*:/{2}`)

// CheckLocal returns a [*RemoteError] for a path such as gs://bucket/model.
func CheckLocal(path string) error {
	if s := scheme.FindString(strings.TrimSpace(path)); s != "" {
		return &RemoteError{path, strings.ToLower(s)}
	}
	return nil
}

// IsHidden reports whether a file or folder of this name is kept from view, and so no part of a model: what macOS
// puts beside the files (._NAME, .DS_Store, __MACOSX), and the folders of programs.
func IsHidden(name string) bool {
	return strings.HasPrefix(name, ".") && name != "." && name != ".." || name == "__MACOSX"
}
