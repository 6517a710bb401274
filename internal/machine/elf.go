package machine

import (
	"bufio"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tfbert/go/internal/libtf"
)

// MissingLibrary is a shared library that another one needs and that is missing.
type MissingLibrary struct {
	Name     string `json:"name"`
	NeededBy string `json:"needed_by"`
}

// missing returns the libraries that the library at path needs, directly or not, and that l does not find.
func missing(l libtf.Linker, path string) ([]MissingLibrary, error) {
	var lacking []MissingLibrary
	seen := make(map[string]bool)
	for queue := []string{path}; len(queue) > 0; queue = queue[1:] {
		lib, err := readLibrary(queue[0])
		if err != nil {
			return nil, err
		}
		for _, name := range lib.needed {
			if seen[name] {
				continue
			}
			seen[name] = true
			if found, ok := l.Find(name, lib.runpath); ok {
				queue = append(queue, found)
			} else {
				lacking = append(lacking, MissingLibrary{name, filepath.Base(queue[0])})
			}
		}
	}
	return lacking, nil
}

// Glibc returns the version of the system's C library.
func Glibc() (string, error) { return glibc(libtf.SystemLinker()) }

func glibc(l libtf.Linker) (string, error) {
	path, ok := l.Find("libc.so.6", nil)
	if !ok {
		if musl, _ := filepath.Glob("/lib/ld-musl-*"); len(musl) > 0 {
			return "", errors.New("this system's C library is musl, and TensorFlow needs glibc: " +
				"use a distribution such as Debian, Ubuntu or Fedora, or an image made of one")
		}
		return "", errors.New("no glibc (libc.so.6) found, which TensorFlow's library needs")
	}
	f, err := openLibrary(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	versions, err := f.DynamicVersions()
	if err != nil {
		return "", fmt.Errorf("%s: %w", path, err)
	}
	var newest string
	for _, v := range versions {
		if number, ok := strings.CutPrefix(v.Name, "GLIBC_"); ok && libtf.CompareVersions(number, newest) > 0 {
			newest = number
		}
	}
	return newest, nil
}

// A library is what the header of a shared library asks for.
type library struct {
	needed  []string // names
	runpath []string // folders to look for them in
}

// readLibrary reads the needs of a shared library.
func readLibrary(path string) (library, error) {
	f, err := openLibrary(path)
	if err != nil {
		return library{}, err
	}
	defer f.Close()
	var lib library
	if lib.needed, err = dynamicStrings(f, elf.DT_NEEDED); err != nil {
		return library{}, fmt.Errorf("%s: %w", path, err)
	}
	origin := strings.NewReplacer("$ORIGIN", filepath.Dir(path), "${ORIGIN}", filepath.Dir(path))
	for _, tag := range []elf.DynTag{elf.DT_RUNPATH, elf.DT_RPATH} {
		entries, err := dynamicStrings(f, tag)
		if err != nil {
			return library{}, fmt.Errorf("%s: %w", path, err)
		}
		for _, entry := range entries {
			for dir := range strings.SplitSeq(entry, ":") {
				dir = origin.Replace(dir)
				if !slices.Contains(lib.runpath, dir) { // TensorFlow repeats some a hundred times
					lib.runpath = append(lib.runpath, dir)
				}
			}
		}
	}
	return lib, nil
}

// dynamicStrings returns the strings of a dynamic tag. Unlike elf.File.DynString it does not read the whole
// string table, which has 82 MB in TensorFlow's library.
func dynamicStrings(f *elf.File, tag elf.DynTag) ([]string, error) {
	dynamic := f.SectionByType(elf.SHT_DYNAMIC)
	if dynamic == nil || int(dynamic.Link) >= len(f.Sections) {
		return nil, nil
	}
	offsets, err := f.DynValue(tag)
	if err != nil {
		return nil, err
	}
	table := f.Sections[dynamic.Link]
	var found []string
	for _, offset := range offsets {
		if offset >= table.Size {
			return nil, fmt.Errorf("%v lies outside the string table", tag)
		}
		rest := io.NewSectionReader(table, int64(offset), int64(table.Size-offset))
		text, err := bufio.NewReader(rest).ReadString(0)
		if err != nil {
			return nil, fmt.Errorf("%v: %w", tag, err)
		}
		found = append(found, text[:len(text)-1])
	}
	return found, nil
}

// openLibrary opens a shared library for this machine.
func openLibrary(path string) (*elf.File, error) {
	if err := libtf.CheckLibrary(path); err != nil {
		return nil, err
	}
	f, err := elf.Open(path)
	var system *fs.PathError
	if err != nil && !errors.As(err, &system) {
		err = fmt.Errorf("%s: not a shared library, or not a whole one: %w", path, err)
	}
	return f, err
}
