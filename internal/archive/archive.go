// Package archive takes models out of archives, as they are downloaded: zip, and tar as it is or packed by gzip or
// bzip2. An archive is known by its first bytes. What it holds is data of a stranger's.
package archive

import (
	"archive/tar"
	"archive/zip"
	"bufio"
	"bytes"
	"compress/bzip2"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/tfbert/go/internal/file"
)

// What an archive may unpack to, so that a small one does not fill the disk. Trained weights hardly shrink;
// only what is all zeros shrinks to a thousandth.
const (
	maxMembers = 4096
	maxGrowth  = 64       // times the size of the archive
	minUnpack  = 64 << 20 // bytes that an archive of any size may unpack to
)

// Split divides a path into an archive and a path in it: "model.zip/bert" into "model.zip" and "bert". ok is false
// if the path does not lead to an archive.
func Split(name string) (archive, inside string, ok bool) {
	rest := ""
	for at := filepath.Clean(name); ; at = filepath.Dir(at) {
		if info, err := os.Stat(at); err == nil {
			return at, rest, info.Mode().IsRegular() && isArchive(file.KindOfPath(at))
		}
		if at == filepath.Dir(at) {
			return "", "", false
		}
		rest = path.Join(filepath.Base(at), rest)
	}
}

func isArchive(k file.Kind) bool {
	return k == file.Zip || k == file.Tar || k == file.Gzip || k == file.Bzip2
}

// An Archive is an open archive whose members have been listed.
type Archive struct {
	name    string
	file    *os.File
	kind    file.Kind
	most    int64 // bytes that it may unpack to
	zip     *zip.Reader
	members []member // of models
	foreign []string // what else people keep models in
}

type member struct {
	path string // clean and slashed
	size int64
	zip  *zip.File // nil in a tar
}

// Open opens an archive and lists the members that belong to models. It refuses one that would unpack to more than
// it should, that names files outside of its folder, or whose models hold links.
func Open(ctx context.Context, name string) (*Archive, error) {
	f, size, err := file.Open(name)
	if err != nil {
		return nil, err
	}
	a := &Archive{name: name, file: f, kind: file.KindOf(f, size), most: minUnpack}
	if size > minUnpack/maxGrowth && size <= math.MaxInt64/maxGrowth {
		a.most = size * maxGrowth
	}
	if a.kind == file.Zip {
		err = a.listZip(size)
	} else {
		err = a.listTar(ctx)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), f.Close())
	}
	return a, nil
}

// Close closes the archive.
func (a *Archive) Close() error { return a.file.Close() }

func (a *Archive) listZip(size int64) (err error) {
	if a.zip, err = zip.NewReader(a.file, size); err != nil {
		return fmt.Errorf("%w: it is damaged or not complete; download it again", err)
	}
	for _, f := range a.zip.File {
		if f.UncompressedSize64 > math.MaxInt64 {
			return a.growth(f.Name)
		}
		if err := a.list(f.Name, f.Mode(), int64(f.UncompressedSize64), f); err != nil {
			return err
		}
	}
	return a.check()
}

// listTar lists a tar. All of it is unpacked for that, so that all of it counts.
func (a *Archive) listTar(ctx context.Context) error {
	err := a.readTar(ctx, func(h *tar.Header, _ io.Reader) error {
		mode := h.FileInfo().Mode()
		if h.Typeflag == tar.TypeLink { // which has the mode of a file, and nothing in it
			mode |= fs.ModeIrregular
		}
		return a.list(h.Name, mode, h.Size, nil)
	})
	if err != nil {
		return err
	}
	return a.check()
}

// list notes a member if it belongs to a model.
func (a *Archive) list(name string, mode fs.FileMode, size int64, z *zip.File) error {
	// Some archivers write backslashes, and tar a "./" in front.
	clean := path.Clean(strings.ReplaceAll(name, `\`, "/"))
	if !filepath.IsLocal(filepath.FromSlash(clean)) || strings.ContainsFunc(clean, unicode.IsControl) {
		return fmt.Errorf("member %q would land outside its folder: refused", name)
	}
	if mode.IsDir() || slices.ContainsFunc(strings.Split(clean, "/"), file.IsHidden) {
		return nil
	}
	if !wanted(clean) {
		const most = 4
		if foreign(clean) && len(a.foreign) < most {
			a.foreign = append(a.foreign, clean)
		}
		return nil
	}
	switch {
	case !mode.IsRegular():
		return fmt.Errorf("%s is not a plain file (%v): refused", name, mode)
	case len(a.members) == maxMembers:
		return fmt.Errorf("more than %d files of models in this archive: refused", maxMembers)
	case size < 0:
		return a.growth(name)
	case z != nil && z.Flags&1 != 0:
		return fmt.Errorf("%s is encrypted: unpack it with its password", name)
	}
	a.members = append(a.members, member{clean, size, z})
	return nil
}

// check refuses what the members' own sizes and names are wrong in.
func (a *Archive) check() error {
	left, seen := a.most, map[string]bool{}
	for _, m := range a.members {
		if m.size > left {
			return a.growth(m.path)
		}
		left -= m.size
		if seen[m.path] {
			return fmt.Errorf("%s is in this archive twice: refused", m.path)
		}
		seen[m.path] = true
	}
	return nil
}

func (a *Archive) growth(member string) error {
	return fmt.Errorf("%s: this archive unpacks to more than %d bytes, which no model of its size does: "+
		"unpack it yourself if it is right", member, a.most)
}

// readTar calls visit for each member of a tar.
func (a *Archive) readTar(ctx context.Context, visit func(*tar.Header, io.Reader) error) error {
	var r io.Reader = bufio.NewReaderSize(io.NewSectionReader(a.file, 0, math.MaxInt64), 1<<18)
	switch a.kind {
	case file.Gzip:
		z, err := gzip.NewReader(r)
		if err != nil {
			return notComplete(err)
		}
		r = z
	case file.Bzip2:
		r = bzip2.NewReader(r)
	}
	limited := &limitedReader{ctx: ctx, r: r, left: a.most}
	unpacked := bufio.NewReaderSize(limited, 1<<16)
	const block = 512
	switch head, err := unpacked.Peek(block); {
	case err != nil && err != io.EOF:
		return notComplete(err)
	case file.Sniff(head) != file.Tar && len(bytes.Trim(head, "\x00")) > 0:
		return errors.New("it is packed, but not an archive: unpack it")
	}
	t := tar.NewReader(unpacked)
	for first := true; ; first = false {
		h, err := t.Next()
		switch {
		case err == io.EOF && first:
			return errors.New("it holds nothing")
		case err == io.EOF:
			return nil
		case limited.left < 0:
			return a.growth("it")
		case err != nil:
			return notComplete(err)
		case h.Typeflag == tar.TypeXGlobalHeader:
			continue
		}
		if h.Size > limited.left { // of a sparse file this is more than there is to read
			return a.growth(h.Name)
		}
		if err := visit(h, t); err != nil {
			return err
		}
	}
}

func notComplete(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return err
	}
	return fmt.Errorf("%w: it is damaged or not complete; download it again", err)
}

// wanted reports whether a member belongs to a model, by its path.
func wanted(p string) bool {
	name, parent := path.Base(p), path.Base(path.Dir(p))
	switch {
	case name == configFile || name == vocabFile || name == stateFile || name == graphFile || name == textGraphFile:
		return true
	case name == weightsFile || name == huggingFaceConfig:
		return true
	case strings.HasSuffix(name, indexSuffix), strings.Contains(name, dataPart):
		return true
	}
	return parent == "variables" || parent == "assets" || parent == "assets.extra"
}

// foreign reports whether a member is an archive or a model that is not read, by its name.
func foreign(p string) bool {
	switch strings.ToLower(path.Ext(p)) {
	case ".zip", ".gz", ".tgz", ".tar", ".bz2", ".xz", ".zst", ".7z", ".rar", ".bin", ".pt", ".pth", ".safetensors",
		".h5", ".hdf5", ".keras", ".pb", ".onnx", ".tflite", ".msgpack", ".ot", ".ckpt":
		return true
	}
	return false
}

// extract writes members to files below dir.
func (a *Archive) extract(ctx context.Context, dir string, to map[string]string) error {
	if err := os.MkdirAll(dir, 0o777); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	sizes := map[string]int64{}
	for _, m := range a.members {
		sizes[m.path] = m.size
	}
	write := func(name string, r io.Reader) error {
		if err := writeFile(root, to[name], &limitedReader{ctx: ctx, r: r, left: sizes[name]}); err != nil {
			return fmt.Errorf("%s: %s: %w", a.name, name, err)
		}
		return nil
	}
	if a.zip == nil {
		return a.readTar(ctx, func(h *tar.Header, r io.Reader) error {
			name := path.Clean(strings.ReplaceAll(h.Name, `\`, "/"))
			if to[name] == "" || !h.FileInfo().Mode().IsRegular() {
				return nil
			}
			return write(name, r)
		})
	}
	for _, m := range a.members {
		if to[m.path] == "" {
			continue
		}
		r, err := m.zip.Open()
		if err != nil {
			return fmt.Errorf("%s: %s: %w", a.name, m.path, err)
		}
		if err := errors.Join(write(m.path, r), r.Close()); err != nil {
			return err
		}
	}
	return nil
}

func writeFile(root *os.Root, name string, r io.Reader) error {
	if err := root.MkdirAll(filepath.Dir(name), 0o777); err != nil {
		return err
	}
	w, err := root.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o666)
	if err != nil {
		return err
	}
	_, err = io.Copy(w, r)
	return errors.Join(err, w.Close())
}

// limitedReader reads until its context ends, and fails beyond a number of bytes.
type limitedReader struct {
	ctx  context.Context
	r    io.Reader
	left int64
}

var errMore = errors.New("it holds more than it says or should")

func (l *limitedReader) Read(p []byte) (int, error) {
	if err := l.ctx.Err(); err != nil {
		return 0, err
	}
	if l.left < 0 {
		return 0, errMore
	}
	n, err := l.r.Read(p)
	if l.left -= int64(n); l.left < 0 {
		return 0, errMore
	}
	return n, err
}

// Base returns the name of an archive without the endings of its kind.
func Base(name string) string {
	base := filepath.Base(name)
	for _, ending := range []string{".zip", ".gz", ".bz2", ".tgz", ".tbz2", ".tar"} {
		if cut := len(base) - len(ending); cut > 0 && strings.EqualFold(base[cut:], ending) {
			base = base[:cut]
		}
	}
	return base
}
