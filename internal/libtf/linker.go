package libtf

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/tfbert/go/internal/file"
)

// A Linker looks shared libraries up as the system's dynamic linker does.
type Linker struct {
	Dirs []string // LD_LIBRARY_PATH, then those of ld.so.conf, then the built-in ones
}

// SystemLinker returns the dynamic linker of this system.
func SystemLinker() Linker {
	l := Linker{Dirs: filepath.SplitList(os.Getenv("LD_LIBRARY_PATH"))}
	l.readConf("/etc/ld.so.conf", 0)
	multiarch := Arch() + "-linux-gnu"
	for _, dir := range []string{
		"/usr/local/lib", "/lib/" + multiarch, "/usr/lib/" + multiarch, "/lib64", "/usr/lib64", "/lib", "/usr/lib",
	} {
		if !slices.Contains(l.Dirs, dir) {
			l.Dirs = append(l.Dirs, dir)
		}
	}
	return l
}

// readConf adds the folders that an ld.so.conf lists. It ignores a file that it cannot read.
func (l *Linker) readConf(path string, depth int) {
	f, err := os.Open(path)
	if err != nil || depth > 8 { // files that include one another
		return
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		line, _, _ := strings.Cut(lines.Text(), "#")
		line = strings.TrimSpace(line)
		if pattern, ok := strings.CutPrefix(line, "include "); ok {
			pattern = strings.TrimSpace(pattern)
			if !filepath.IsAbs(pattern) {
				pattern = filepath.Join(filepath.Dir(path), pattern)
			}
			included, _ := filepath.Glob(pattern)
			for _, path := range included {
				l.readConf(path, depth+1)
			}
		} else if filepath.IsAbs(line) {
			l.Dirs = append(l.Dirs, line)
		}
	}
}

// Find returns the path of the library called name in the folders of runpath or of the linker.
func (l Linker) Find(name string, runpath []string) (string, bool) {
	for _, dir := range slices.Concat(runpath, l.Dirs) {
		path := filepath.Join(dir, name)
		if CheckLibrary(path) == nil { // a 32-bit library, say, is passed over
			return path, true
		}
	}
	return "", false
}

// Values in the header of an ELF file. Package debug/elf has them, but every program that uses package tf
// would link it.
const (
	elfHeaderSize = 64
	elfProgram    = 2 // ET_EXEC
	elfShared     = 3 // ET_DYN
)

// elfMachines holds the number of a machine by its GOARCH.
var elfMachines = map[string]uint16{"amd64": 62, "arm64": 183}

// CheckLibrary returns an error if path is not a shared library for this machine. It reads only the
// header. It finds out that a file is cut short by the table of the sections, which is at the end.
func CheckLibrary(path string) error {
	f, size, err := file.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	var h [elfHeaderSize]byte
	switch _, err := io.ReadFull(f, h[:]); {
	case errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || err == nil && string(h[:4]) != "\x7fELF":
		return fmt.Errorf("%s: not a shared library, or not a whole one", path)
	case err != nil:
		return err
	}
	le := binary.LittleEndian
	kind, machine := le.Uint16(h[16:]), le.Uint16(h[18:])
	switch {
	case h[4] != 2 || h[5] != 1 || machine != elfMachines[runtime.GOARCH]: // 64 bits, little-endian
		return fmt.Errorf("%s: not for this machine, which is %s", path, Arch())
	case kind == elfProgram:
		return fmt.Errorf("%s: not a shared library but a program", path)
	case kind != elfShared:
		return fmt.Errorf("%s: not a shared library (ELF type %d)", path, kind)
	}
	sections := uint64(le.Uint16(h[58:])) * uint64(le.Uint16(h[60:]))
	if offset := le.Uint64(h[40:]); offset > uint64(size) || sections > uint64(size)-offset {
		return fmt.Errorf("%s: not a shared library, or not a whole one", path)
	}
	return nil
}
