package libtf

import (
	"bufio"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
)

// A linker looks shared libraries up as the system's dynamic linker does.
type linker struct {
	dirs []string // LD_LIBRARY_PATH, then those of ld.so.conf, then the built-in ones
}

// systemLinker is this system's.
func systemLinker() linker {
	l := linker{dirs: filepath.SplitList(os.Getenv("LD_LIBRARY_PATH"))}
	l.readConf("/etc/ld.so.conf", 0)
	multiarch := wheelArch() + "-linux-gnu"
	for _, dir := range []string{"/usr/local/lib", "/lib/" + multiarch, "/usr/lib/" + multiarch, "/lib64", "/usr/lib64", "/lib", "/usr/lib"} {
		if !slices.Contains(l.dirs, dir) {
			l.dirs = append(l.dirs, dir)
		}
	}
	return l
}

// readConf adds the folders that an ld.so.conf lists. What cannot be read lists none.
func (l *linker) readConf(path string, depth int) {
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
			l.dirs = append(l.dirs, line)
		}
	}
}

// find returns the path of a library by its name in runpath or the linker's folders.
func (l linker) find(name string, runpath []string) (string, bool) {
	for _, dir := range slices.Concat(runpath, l.dirs) {
		path := filepath.Join(dir, name)
		if checkLibrary(path) == nil { // others, such as 32-bit ones, are passed over
			return path, true
		}
	}
	return "", false
}

// MissingLibrary is a shared library that is needed and not there.
type MissingLibrary struct {
	Name     string `json:"name"`
	NeededBy string `json:"needed_by"`
}

// missing walks over all that the library at path needs.
func (l linker) missing(path string) ([]MissingLibrary, error) {
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
			if found, ok := l.find(name, lib.runpath); ok {
				queue = append(queue, found)
			} else {
				lacking = append(lacking, MissingLibrary{name, filepath.Base(queue[0])})
			}
		}
	}
	return lacking, nil
}

// glibc returns the version of the system's C library.
func (l linker) glibc() (string, error) {
	path, ok := l.find("libc.so.6", nil)
	if !ok {
		if musl, _ := filepath.Glob("/lib/ld-musl-*"); len(musl) > 0 {
			return "", errors.New("this system's C library is musl, TensorFlow's needs glibc: use a distribution such as Debian, Ubuntu or Fedora, or an image made of one")
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
		if number, ok := strings.CutPrefix(v.Name, "GLIBC_"); ok && compareVersions(number, newest) > 0 {
			newest = number
		}
	}
	return newest, nil
}

// A library is what a shared library says of itself.
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

// dynamicStrings returns the strings of a dynamic tag. Unlike elf.File.DynString it does not read
// the whole string table, which is 82 MB in TensorFlow's library.
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
		text, err := bufio.NewReader(io.NewSectionReader(table, int64(offset), int64(table.Size-offset))).ReadString(0)
		if err != nil {
			return nil, fmt.Errorf("%v: %w", tag, err)
		}
		found = append(found, text[:len(text)-1])
	}
	return found, nil
}

// openLibrary opens a shared library for this machine. It reads little, so that a cut file may
// still pass; the loader will tell.
func openLibrary(path string) (*elf.File, error) {
	f, err := elf.Open(path)
	var system *fs.PathError
	switch {
	case errors.As(err, &system):
		return nil, err
	case err != nil:
		return nil, fmt.Errorf("%s: not a shared library, or not a whole one: %w", path, err)
	}
	switch want := machines[runtime.GOARCH]; {
	case f.Machine != want:
		err = fmt.Errorf("%s: is for %v, this machine is %v", path, f.Machine, want)
	case f.Type != elf.ET_DYN:
		err = fmt.Errorf("%s: not a shared library but %v", path, f.Type)
	default:
		return f, nil
	}
	f.Close()
	return nil, err
}

var machines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// checkLibrary tells whether path is a shared library for this machine.
func checkLibrary(path string) error {
	f, err := openLibrary(path)
	if err != nil {
		return err
	}
	return f.Close()
}
