// Command licences writes two files about the modules that are linked into the command tfbert:
// docs/licences.md lists their licences, and bin/THIRD_PARTY_NOTICES has the texts, which a release
// must include. It fails if a licence is not allowed, or if a text is unknown or missing. Run it in
// the folder tools: go -C tools run ./licences
package main

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/google/licensecheck"
)

// allowed has the SPDX identifiers of the licences that any module may have.
var allowed = []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT"}

// also allows one more licence for single modules.
var also = map[string]string{
	"codeberg.org/go-fonts/liberation": "OFL-1.1",   // these fonts are linked in unchanged
	"github.com/ajstarks/svgo":         "CC-BY-4.0", // requires that its author and its licence are named
	"github.com/golang/freetype":       "FTL",       // requires credit, which the notices contain
}

// instead names the file with the licence of a module whose other files the scanner cannot judge.
var instead = map[string]string{
	"github.com/ajstarks/svgo":   "LICENSE",          // a second file is a link to this one
	"github.com/golang/freetype": "licenses/ftl.txt", // its LICENSE offers the choice of this and the GPL
}

var (
	licenceName = regexp.MustCompile(`(?i)^(un)?licen[cs]e|^copying`)
	noticeName  = regexp.MustCompile(`(?i)^(notice|patents|copyright)`)
)

// A module is a module that is linked into tfbert, with the licences that were found in it.
type module struct {
	Path    string
	Version string
	Dir     string

	packages []string          // the folders of the linked packages
	licences []string          // SPDX identifiers
	texts    map[string]string // licences and notices, by their paths in Dir
}

func main() {
	if err := run(".."); err != nil {
		fmt.Fprintln(os.Stderr, "licences:", err)
		os.Exit(1)
	}
}

func run(root string) error {
	var modules []*module
	for _, arch := range []string{"amd64", "arm64"} {
		var err error
		if modules, err = linked(modules, root, arch); err != nil {
			return err
		}
	}
	slices.SortFunc(modules, func(a, b *module) int { return cmp.Compare(a.Path, b.Path) })
	var refused []error
	for _, m := range modules {
		refused = append(refused, m.scan())
	}
	if err := errors.Join(refused...); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(root, "docs", "licences.md"), list(modules), 0o666); err != nil {
		return err
	}
	bin := filepath.Join(root, "bin")
	if err := os.MkdirAll(bin, 0o777); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(bin, "THIRD_PARTY_NOTICES"), notices(modules), 0o666)
}

// linked adds the modules that are linked into tfbert on Linux and arch, with the standard library as one of them.
func linked(modules []*module, root, arch string) ([]*module, error) {
	goroot, err := command(root, "go", "env", "GOROOT")
	if err != nil {
		return nil, err
	}
	out, err := command(root, "env", "GOOS=linux", "CGO_ENABLED=1", "GOARCH="+arch,
		"go", "list", "-deps", "-json=Dir,Standard,Module", "./cmd/tfbert")
	if err != nil {
		return nil, err
	}
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p struct {
			Dir      string
			Standard bool
			Module   *struct {
				Path, Version, Dir string
				Main               bool
			}
		}
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return modules, nil
		} else if err != nil {
			return nil, fmt.Errorf("go list: %w", err)
		}
		// The standard library is that of the Go that builds tfbert.
		m := &module{Path: "Go's standard library", Dir: string(bytes.TrimSpace(goroot))}
		switch {
		case p.Standard:
			p.Dir = m.Dir // its subfolders license parts linked only on request, such as BoringCrypto
		case p.Module.Main:
			continue
		default:
			m = &module{Path: p.Module.Path, Version: p.Module.Version, Dir: p.Module.Dir}
		}
		if i := slices.IndexFunc(modules, func(o *module) bool { return o.Path == m.Path }); i >= 0 {
			m = modules[i]
		} else {
			modules = append(modules, m)
		}
		m.packages = append(m.packages, p.Dir)
	}
}

func command(dir, name string, args ...string) ([]byte, error) {
	cmd := exec.Command(name, args...)
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cmd, err)
	}
	return out, nil
}

// scan reads the licences in the folders of the linked packages and in the folders above them, because
// a part of a module may have a licence of its own.
func (m *module) scan() error {
	m.texts = map[string]string{}
	found := map[string]bool{}
	seen := map[string]bool{}
	for _, dir := range m.packages {
		for ; !seen[dir]; dir = filepath.Dir(dir) {
			seen[dir] = true
			entries, err := os.ReadDir(dir)
			if err != nil {
				return err
			}
			for _, e := range entries {
				licence := licenceName.MatchString(e.Name())
				if !e.Type().IsRegular() || filepath.Ext(e.Name()) == ".go" || !licence && !noticeName.MatchString(e.Name()) {
					continue
				}
				if err := m.read(filepath.Join(dir, e.Name()), licence && instead[m.Path] == "", found); err != nil {
					return err
				}
			}
			if dir == m.Dir {
				break
			}
		}
	}
	if name := instead[m.Path]; name != "" {
		if err := m.read(filepath.Join(m.Dir, name), true, found); err != nil {
			return err
		}
	}
	if len(found) == 0 {
		return fmt.Errorf("%s %s does not have a licence", m.Path, m.Version)
	}
	m.licences = slices.Sorted(maps.Keys(found))
	for _, id := range m.licences {
		if !slices.Contains(allowed, id) && id != also[m.Path] {
			return fmt.Errorf("%s %s: the licence %s is not allowed by tools/licences/main.go", m.Path, m.Version, id)
		}
	}
	return nil
}

// read keeps the text at path. If the text has to be a licence, read adds the licences in it to found.
func (m *module) read(path string, licence bool, found map[string]bool) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	name, err := filepath.Rel(m.Dir, path)
	if err != nil {
		return err
	}
	m.texts[filepath.ToSlash(name)] = string(text)
	if !licence {
		return nil
	}
	known := licensecheck.Scan(text)
	if known.Percent < 95 { // the rest may be further terms; every licence in use today reaches 98
		return fmt.Errorf("%s %s: %s is not a known licence", m.Path, m.Version, name)
	}
	for _, match := range known.Match {
		found[match.ID] = true
	}
	return nil
}

// list returns the text of docs/licences.md.
func list(modules []*module) []byte {
	var b bytes.Buffer
	b.WriteString(`# Licences

The table lists the modules that are linked into the command ` + "`tfbert`" + ` for Linux, with the licences of the
linked packages. ` + "`make licences`" + ` writes this list, and writes the texts of the licences, which every copy of
the program must include, to ` + "`bin/THIRD_PARTY_NOTICES`" + `. It fails if a module has a licence that
[its list](../tools/licences/main.go) does not allow. libtensorflow and CUDA's libraries are not part of the program:
` + "`tfbert lib install`" + ` downloads them, and they have licences of their own.

| module | version | licences |
| --- | --- | --- |
`)
	for _, m := range modules {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", m.Path, cmp.Or(m.Version, "–"), strings.Join(m.licences, ", "))
	}
	return b.Bytes()
}

// notices returns the text of bin/THIRD_PARTY_NOTICES: every text once, under the names of the files that contain it.
func notices(modules []*module) []byte {
	var texts []string
	files := map[string][]string{}
	for _, m := range modules {
		for _, name := range slices.Sorted(maps.Keys(m.texts)) {
			text := m.texts[name]
			if files[text] == nil {
				texts = append(texts, text)
			}
			files[text] = append(files[text], strings.TrimSpace(m.Path+" "+m.Version)+": "+name)
		}
	}
	var b bytes.Buffer
	b.WriteString("tfbert contains the software below, unchanged, under these licences.\n" +
		"It is based in part on the work of the FreeType Team.\n")
	rule := strings.Repeat("=", 80)
	for _, text := range texts {
		fmt.Fprintf(&b, "\n%s\n%s\n%s\n\n%s\n", rule, strings.Join(files[text], "\n"), rule, strings.TrimRight(text, "\n"))
	}
	return b.Bytes()
}
