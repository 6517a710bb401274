package file

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.txt")
	require.NoError(t, os.WriteFile(path, []byte("abc"), 0o644))
	data, err := Read(path, 3)
	require.NoError(t, err)
	assert.Equal(t, "abc", string(data))

	_, err = Read(path, 2)
	large, ok := errors.AsType[*SizeError](err)
	require.True(t, ok, "%v", err)
	assert.Equal(t, &SizeError{path, 3, 2}, large)
	assert.EqualError(t, err, path+": 3 bytes is too large for what it should be")

	_, err = Read(path+"x", 2)
	assert.ErrorIs(t, err, fs.ErrNotExist)
}

// A text is read as it is or packed by gzip; what is known to be something else is named.
func TestParse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "vocab.txt")
	parse := func(content string) (string, error) {
		require.NoError(t, os.WriteFile(path, []byte(content), 0o644))
		return Parse(path, func(r io.Reader) (string, error) {
			b, err := io.ReadAll(r)
			return string(b), err
		})
	}
	long := strings.Repeat("long ", 1<<16)
	for _, text := range []string{"", "a", "\n", "\ufeff{}", long} {
		got, err := parse(text)
		require.NoError(t, err)
		assert.Equal(t, text, got)
		got, err = parse(gzipOf(t, text))
		require.NoError(t, err)
		assert.Equal(t, text, got)
	}
	for content, want := range map[string]string{
		"version https://git-lfs.github.com/spec/v1\n": " is a Git LFS pointer, not the file itself: run git lfs pull",
		"<html>":                      " is an HTML page, such as the login or error page of a site: download the file again",
		zipOf(t, "vocab.txt"):         " is a zip archive: unpack it",
		gzipOf(t, "<!DOCTYPE html>"):  ", unpacked, is an HTML page, such as the login or error page of a site: download the file again",
		gzipOf(t, gzipOf(t, "twice")): ", unpacked, is a gzip file: unpack it",
		gzipOf(t, long)[:200]:         ": unexpected EOF",
		"\x1f\x8b\x08":                ": unexpected EOF",
	} {
		_, err := parse(content)
		assert.EqualError(t, err, path+want)
	}
	_, err := parse("<html>")
	assert.ErrorAs(t, err, new(*KindError))
	_, err = Parse("s3://bucket/vocab.txt", func(io.Reader) (int, error) { return 0, nil })
	assert.EqualError(t, err, "open s3://bucket/vocab.txt: s3:// is not supported: give a local path")
}

// A file with a hole claims more bytes than its disk has.
func TestReadHole(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hole")
	require.NoError(t, os.WriteFile(path, nil, 0o644))
	require.NoError(t, os.Truncate(path, 1<<40))
	_, err := Read(path, 1<<20)
	assert.ErrorContains(t, err, "1099511627776 bytes is too large")
}

func TestOpenIrregular(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	require.NoError(t, syscall.Mkfifo(pipe, 0o644))
	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink("/dev/zero", link))
	for _, path := range []string{dir, pipe, link} {
		_, _, err := Open(path)
		irregular, ok := errors.AsType[*IrregularError](err)
		require.True(t, ok, "%v", err)
		assert.Equal(t, path, irregular.Path)
	}
}

func TestPending(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a.txt")
	require.NoError(t, os.WriteFile(path, []byte("old"), 0o600))
	p, err := Create(path)
	require.NoError(t, err)
	assert.Equal(t, path, p.Path())
	_, err = p.Write([]byte("nEw"))
	require.NoError(t, err)
	_, err = p.WriteAt([]byte("e"), 1)
	require.NoError(t, err)
	require.NoError(t, p.Close())
	assert.Equal(t, "old", readText(t, path), "until it is committed")

	require.NoError(t, p.Commit())
	assert.Equal(t, "new", readText(t, path))
	require.NoError(t, p.Abort(), "after a commit it does nothing")
	assert.Equal(t, []string{"a.txt"}, fileNames(t, dir))
	assert.ErrorIs(t, p.Commit(), fs.ErrClosed)

	plain := filepath.Join(dir, "plain")
	require.NoError(t, os.WriteFile(plain, nil, 0o666))
	assert.Equal(t, modeOf(t, plain), modeOf(t, path), "the permissions of a file that is just created")
}

func TestPendingAbort(t *testing.T) {
	dir := t.TempDir()
	p, err := Create(filepath.Join(dir, "a.txt"))
	require.NoError(t, err)
	assert.Len(t, fileNames(t, dir), 1)
	require.NoError(t, p.Abort())
	require.NoError(t, p.Abort())
	assert.Empty(t, fileNames(t, dir))
	assert.ErrorIs(t, p.Commit(), fs.ErrClosed)
}

func TestPendingErrors(t *testing.T) {
	dir := t.TempDir()
	missing := filepath.Join(dir, "none", "a.txt")
	_, err := Create(missing)
	assert.EqualError(t, err, "create "+missing+": no such file or directory")

	folder := filepath.Join(dir, "folder")
	require.NoError(t, os.MkdirAll(filepath.Join(folder, "x"), 0o755))
	p, err := Create(folder)
	require.NoError(t, err)
	assert.EqualError(t, p.Commit(), "write "+folder+": file exists")
	require.NoError(t, p.Abort())
	assert.Equal(t, []string{"folder"}, fileNames(t, dir))

	p, err = Create(filepath.Join(dir, "closed"))
	require.NoError(t, err)
	require.NoError(t, p.File.Close())
	assert.ErrorIs(t, p.Commit(), fs.ErrClosed)
	require.NoError(t, p.Abort())
	assert.Equal(t, []string{"folder"}, fileNames(t, dir))
}

func TestPendingFullDisk(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("/dev/full is Linux's")
	}
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	require.NoError(t, err)
	p := &Pending{File: full, path: "a.txt"}
	_, err = p.Write([]byte("a"))
	assert.EqualError(t, err, "write a.txt: no space left on device")
	require.NoError(t, full.Close())
}

func readText(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(data)
}

func modeOf(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Stat(path)
	require.NoError(t, err)
	return info.Mode()
}

func fileNames(t *testing.T, dir string) (found []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, e := range entries {
		found = append(found, e.Name())
	}
	return found
}
