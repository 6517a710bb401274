// Command licences lists the licences of all that is linked into the command tfbert, in
// docs/licences.md, and gathers their texts, which a release has to come with, in
// bin/THIRD_PARTY_NOTICES. A licence that is not allowed is an error, and so is a text that is not
// known or not there. It runs in the folder tools: go -C tools run ./licences
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

// allowed are the licences, by their SPDX identifiers, that any module may have.
var allowed = []string{"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT"}

// also allows single modules one more.
var also = map[string]string{
	"codeberg.org/go-fonts/liberation": "OFL-1.1",   // fonts, which are linked in unchanged
	"github.com/ajstarks/svgo":         "CC-BY-4.0", // wants its author and its licence named
	"github.com/golang/freetype":       "FTL",       // wants credit, which the notices give
}

// instead names the file that has the licence of a module whose other files the scanner cannot judge.
var instead = map[string]string{
	"github.com/ajstarks/svgo":   "LICENSE",          // beside it is a link to the same
	"github.com/golang/freetype": "licenses/ftl.txt", // its LICENSE offers this or the GPL
}

var (
	licenceName = regexp.MustCompile(`(?i)^(un)?licen[cs]e|^copying`)
	noticeName  = regexp.MustCompile(`(?i)^(notice|patents|copyright)`)
)

// A module is one that is linked into tfbert, with what was found in it.
type module struct {
	Path    string
	Version string
	Dir     string

	packages []string          // the folders of the packages that are linked in
	licences []string          // identifiers
	texts    map[string]string // licences and notices, by their names in Dir
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

// linked adds the modules that are in tfbert on Linux and arch. The standard library is one of them.
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
		m := &module{Path: "Go's standard library", Dir: string(bytes.TrimSpace(goroot))} // of the Go that builds tfbert
		switch {
		case p.Standard:
			p.Dir = m.Dir // folders below have licences of what is only linked in on request, such as BoringCrypto
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

// scan reads the licences in the folders of the linked packages and in those above them, for a part
// of a module may have a licence of its own.
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
		return fmt.Errorf("%s %s has no licence", m.Path, m.Version)
	}
	m.licences = slices.Sorted(maps.Keys(found))
	for _, id := range m.licences {
		if !slices.Contains(allowed, id) && id != also[m.Path] {
			return fmt.Errorf("%s %s has the licence %s, which is not allowed (tools/licences/main.go)", m.Path, m.Version, id)
		}
	}
	return nil
}

// read keeps a text, and adds the licences in it to found where it must be one.
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
	if known.Percent < 95 { // the rest may be terms of their own; of the known ones here the least has 98
		return fmt.Errorf("%s %s: %s is no licence that is known", m.Path, m.Version, name)
	}
	for _, match := range known.Match {
		found[match.ID] = true
	}
	return nil
}

// list is the table of docs/licences.md.
func list(modules []*module) []byte {
	var b bytes.Buffer
	b.WriteString(`# Licences

What is linked into the command ` + "`tfbert`" + ` for Linux, and the licences of the linked packages as their
texts say. ` + "`make licences`" + ` writes this list, and the texts, which a copy of the program has to come with,
into ` + "`bin/THIRD_PARTY_NOTICES`" + `; it refuses a licence that [its list](../tools/licences/main.go) does not
allow. libtensorflow and CUDA's libraries are not in the program: ` + "`tfbert lib install`" + ` downloads them, with
licences of their own.

| module | version | licences |
| --- | --- | --- |
`)
	for _, m := range modules {
		fmt.Fprintf(&b, "| %s | %s | %s |\n", m.Path, cmp.Or(m.Version, "–"), strings.Join(m.licences, ", "))
	}
	return b.Bytes()
}

// notices has every text once, under the names of the files that have it.
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
