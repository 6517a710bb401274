// Package doctest holds the documents to what they say: their Go programs compile, their links lead somewhere.
package doctest

import (
	"fmt"
	"go/format"
	"go/parser"
	"go/token"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"unicode"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/testenv"
)

// foreign are the modules of other bindings, whose programs docs/migrating.md shows beside ours. They are no
// dependencies of this module and need TensorFlow to be linked, so that their programs are parsed only.
var foreign = []string{
	"github.com/galeone/tensorflow", "github.com/galeone/tfgo", "github.com/wamuir/graft", "github.com/tensorflow/tensorflow",
}

// documents returns the text of every document by its path below the module's root.
func documents(t *testing.T, root string) map[string]string {
	t.Helper()
	texts := map[string]string{}
	for _, pattern := range []string{"*.md", "docs/*.md", "testdata/models/*/*.md"} {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		require.NoError(t, err)
		for _, path := range paths {
			text, err := os.ReadFile(path)
			require.NoError(t, err)
			name, err := filepath.Rel(root, path)
			require.NoError(t, err)
			texts[name] = string(text)
		}
	}
	for _, name := range []string{"README.md", "SECURITY.md", "docs/migrating.md"} {
		require.Contains(t, texts, name)
	}
	return texts
}

var goBlock = regexp.MustCompile("(?ms)^```go\n(.*?)^```$")

// TestPrograms compiles the Go programs of the documents. The rule is that every block marked as Go is a whole program,
// formatted by gofmt, and that a reader who pastes it into a module of their own can build it: all are vetted in a
// module that requires this one, where internal packages are out of reach.
func TestPrograms(t *testing.T) {
	root := testenv.Root(t)
	outside := t.TempDir()
	programs := 0
	for name, text := range documents(t, root) {
		for _, at := range goBlock.FindAllStringSubmatchIndex(text, -1) {
			place := fmt.Sprintf("%s:%d", name, strings.Count(text[:at[2]], "\n")+1)
			source := []byte(text[at[2]:at[3]])
			file, err := parser.ParseFile(token.NewFileSet(), place, source, 0)
			if !assert.NoError(t, err, "a block of Go is a whole program") {
				continue
			}
			assert.Equal(t, "main", file.Name.Name, place)
			formatted, err := format.Source(source)
			require.NoError(t, err, place)
			assert.Equal(t, string(formatted), string(source), "%s is not formatted by gofmt", place)

			var paths []string
			for _, spec := range file.Imports {
				path, err := strconv.Unquote(spec.Path.Value)
				require.NoError(t, err, place)
				paths = append(paths, path)
			}
			if ofAnotherBinding(paths) {
				continue
			}
			programs++
			folder := filepath.Join(outside, fmt.Sprintf("program%d", programs))
			require.NoError(t, os.Mkdir(folder, 0o700))
			// The directive makes the compiler name the document's line.
			line := fmt.Sprintf("//line %s\n", filepath.Join(root, place))
			require.NoError(t, os.WriteFile(filepath.Join(folder, "main.go"), append([]byte(line), source...), 0o600))
		}
	}
	require.Greater(t, programs, 3)

	vet := testenv.OutsideModule(t, outside)("vet", "./...")
	output, err := vet.CombinedOutput()
	assert.NoError(t, err, string(output))
}

func ofAnotherBinding(imports []string) bool {
	for _, path := range imports {
		for _, m := range foreign {
			if path == m || strings.HasPrefix(path, m+"/") {
				return true
			}
		}
	}
	return false
}

var (
	code    = regexp.MustCompile("(?ms)^```.*?^```$|`[^`\n]*`")
	link    = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	heading = regexp.MustCompile(`(?m)^#{1,6} +(.+?) *$`)
	fence   = regexp.MustCompile("(?ms)^```.*?^```$")
)

// TestLinks follows every link between the documents, and to files and folders of the repository.
func TestLinks(t *testing.T) {
	root := testenv.Root(t)
	texts := documents(t, root)
	links := 0
	for name, text := range texts {
		for _, m := range link.FindAllStringSubmatch(code.ReplaceAllString(text, ""), -1) {
			target, err := url.Parse(m[1])
			require.NoError(t, err, "%s: %s", name, m[1])
			if target.IsAbs() {
				continue
			}
			links++
			to := name
			if target.Path != "" {
				to = filepath.Join(filepath.Dir(name), filepath.FromSlash(target.Path))
			}
			_, err = os.Stat(filepath.Join(root, to))
			assert.NoError(t, err, "%s links to %s", name, m[1])
			if target.Fragment != "" {
				assert.Contains(t, anchors(texts[to]), target.Fragment, "%s links to %s", name, m[1])
			}
		}
	}
	assert.Greater(t, links, 20)
}

// anchors returns the names by which GitHub reaches the headings of a document.
func anchors(text string) []string {
	var names []string
	times := map[string]int{}
	for _, m := range heading.FindAllStringSubmatch(fence.ReplaceAllString(text, ""), -1) {
		name := strings.Map(func(r rune) rune {
			switch {
			case unicode.IsLetter(r), unicode.IsDigit(r), r == '-', r == '_':
				return unicode.ToLower(r)
			case r == ' ':
				return '-'
			}
			return -1
		}, m[1])
		times[name]++
		if n := times[name] - 1; n > 0 {
			name += "-" + strconv.Itoa(n)
		}
		names = append(names, name)
	}
	return names
}
