package main

import (
	"archive/zip"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"google.golang.org/protobuf/proto"

	"github.com/tfbert/go/internal/libtf"
	"github.com/tfbert/go/internal/models"
	"github.com/tfbert/go/internal/npy"
	"github.com/tfbert/go/internal/tfproto"
	"github.com/tfbert/go/savedmodel"
	"github.com/tfbert/go/tf"
)

// commands returns the commands that the scripts have beside testscript's own.
func commands() map[string]func(ts *testscript.TestScript, neg bool, args []string) {
	all := map[string]func(ts *testscript.TestScript, args []string){
		"model":     linkModel,
		"fail":      assertFailure,
		"usage":     assertUsageError,
		"interrupt": interruptCommand,
		"json":      assertJSON,
		"nothing":   assertEmpty,
		"gunzip":    gunzipFile,
		"gzip":      gzipFile,
		"tokens":    compareTokens,
		"digest":    compareDigest,
		"logits":    copyLogits,
		"edit":      editModel,
		"flip":      flipBit,
		"cut":       truncateFile,
		"tmpfs":     mountTmpfs,
		"goproxy":   serveModule,
		"archive":   serveArchive,
	}
	out := make(map[string]func(*testscript.TestScript, bool, []string))
	for name, command := range all {
		out[name] = func(ts *testscript.TestScript, neg bool, args []string) {
			if neg {
				ts.Fatalf("! %s is not supported", name)
			}
			command(ts, args)
		}
	}
	return out
}

// model [NAME [FLAGS...]] sets MODEL to the folder of the bundled model, or makes NAME a link to the one that
// is exported with these flags. All scripts share them.
func linkModel(ts *testscript.TestScript, args []string) {
	if len(args) == 0 {
		dir, err := shared.export()
		ts.Check(err)
		ts.Setenv("MODEL", dir)
		return
	}
	dir, err := shared.export(args[1:]...)
	ts.Check(err)
	ts.Check(os.Symlink(dir, ts.MkAbs(args[0])))
}

func requireUsage(ts *testscript.TestScript, ok bool, usage string) {
	if !ok {
		ts.Fatalf("usage: %s", usage)
	}
}

// fail COMMAND... asserts a failure: exit status 1, nothing on standard output, and on standard
// error one line of ours.
func assertFailure(ts *testscript.TestScript, args []string) {
	requireUsage(ts, len(args) > 0, "fail command...")
	code := exitCode(ts, ts.Exec(args[0], args[1:]...))
	assertError(ts, code, 1, ts.ReadFile("stdout"), ts.ReadFile("stderr"))
}

// usage COMMAND... asserts a usage error: exit status 2, nothing on standard output, and on standard
// error one line of ours and one that points to the help.
func assertUsageError(ts *testscript.TestScript, args []string) {
	requireUsage(ts, len(args) > 0, "usage command...")
	code := exitCode(ts, ts.Exec(args[0], args[1:]...))
	stderr, found := ts.ReadFile("stderr"), false
	if lines := strings.SplitAfter(stderr, "\n"); len(lines) == 3 {
		found = strings.HasPrefix(lines[1], "tfbert: run 'tfbert") &&
			strings.HasSuffix(lines[1], "--help' for what it takes\n")
		stderr = lines[0]
	}
	if !found {
		ts.Fatalf("no line on standard error points to the help")
	}
	assertError(ts, code, 2, ts.ReadFile("stdout"), stderr)
}

func exitCode(ts *testscript.TestScript, err error) int {
	exit := (*exec.ExitError)(nil)
	if err != nil && !errors.As(err, &exit) {
		ts.Fatalf("%v", err)
	}
	if err == nil {
		return 0
	}
	return exit.ExitCode()
}

func assertError(ts *testscript.TestScript, code, wantCode int, stdout, stderr string) {
	switch rest, ours := strings.CutPrefix(stderr, "tfbert: "); {
	case code != wantCode:
		ts.Fatalf("exit status %d, want %d", code, wantCode)
	case stdout != "":
		ts.Fatalf("an error has something on standard output")
	case !ours, strings.Count(rest, "\n") != 1, !strings.HasSuffix(rest, "\n"):
		ts.Fatalf("standard error is not one line that begins with 'tfbert: '")
	case strings.Contains(rest, "tfbert: "), strings.HasPrefix(rest, "Error"), strings.HasSuffix(rest, ".\n"):
		ts.Fatalf("the line on standard error is not in the form of ours")
	}
}

// interrupt PATTERN COMMAND... runs a command, sends it SIGINT when there is a file that matches
// PATTERN and is not empty, and asserts a failure. Standard output and error are in the files "stdout.txt" and
// "stderr.txt". Unless PATTERN is "stdout.txt", standard output must be empty.
func interruptCommand(ts *testscript.TestScript, args []string) {
	requireUsage(ts, len(args) > 1, "interrupt pattern command...")
	const out = "stdout.txt"
	stdout, err := os.Create(ts.MkAbs(out))
	ts.Check(err)
	defer stdout.Close()
	var stderr bytes.Buffer
	cmd := exec.Command(args[1], args[2:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr = ts.MkAbs("."), stdout, &stderr
	for _, name := range []string{"HOME", "PATH", "TMPDIR", "XDG_CACHE_HOME", libtf.EnvLibrary} {
		cmd.Env = append(cmd.Env, name+"="+ts.Getenv(name))
	}
	ts.Check(cmd.Start())
	for deadline := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		found, _ := filepath.Glob(ts.MkAbs(args[0]))
		// The standard output is there from the beginning; other files are, once the command has come so far.
		if len(found) > 0 && (args[0] != out || notEmpty(found[0])) {
			break
		}
		if time.Now().After(deadline) {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			ts.Fatalf("no %s after a minute: %s", args[0], &stderr)
		}
	}
	ts.Check(cmd.Process.Signal(os.Interrupt))
	code := exitCode(ts, cmd.Wait())
	ts.Check(os.WriteFile(ts.MkAbs("stderr.txt"), stderr.Bytes(), 0o666))
	text := ""
	if args[0] != out {
		text = ts.ReadFile(out)
	}
	assertError(ts, code, 1, text, stderr.String())
}

func notEmpty(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Size() > 0
}

// json FILE asserts that a file, or "stdout", is JSON.
func assertJSON(ts *testscript.TestScript, args []string) {
	requireUsage(ts, len(args) == 1, "json file")
	if !json.Valid([]byte(ts.ReadFile(args[0]))) {
		ts.Fatalf("%s is not JSON", args[0])
	}
}

// nothing PATH... asserts that each is missing or an empty folder.
func assertEmpty(ts *testscript.TestScript, args []string) {
	requireUsage(ts, len(args) > 0, "nothing path...")
	for _, path := range args {
		entries, err := os.ReadDir(ts.MkAbs(path))
		if err != nil && !errors.Is(err, os.ErrNotExist) {
			ts.Fatalf("%v", err)
		}
		if len(entries) > 0 {
			ts.Fatalf("%s holds %v", path, entries)
		}
	}
}

// gunzip FROM TO decompresses a file.
func gunzipFile(ts *testscript.TestScript, args []string) {
	requireUsage(ts, len(args) == 2, "gunzip from to")
	r, err := os.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	defer r.Close()
	z, err := gzip.NewReader(r)
	ts.Check(err)
	b, err := io.ReadAll(z)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), b, 0o666))
}

// gzip FROM TO
func gzipFile(ts *testscript.TestScript, args []string) {
	requireUsage(ts, len(args) == 2, "gzip from to")
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	_, err := z.Write([]byte(ts.ReadFile(args[0])))
	ts.Check(err)
	ts.Check(z.Close())
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), b.Bytes(), 0o666))
}

// tokens GOLDEN LOWER CASED compares what tokenize made of a recording's lines, lower-cased and not,
// with the tokens in it.
func compareTokens(ts *testscript.TestScript, args []string) {
	requireUsage(ts, len(args) == 3, "tokens golden lower cased")
	type line struct {
		Text   string   `json:"text"`
		Tokens []string `json:"tokens"`
		IDs    []int32  `json:"ids"`
		Lower  bool     `json:"lower"`
	}
	read := func(file string) (lines []line) {
		for d := json.NewDecoder(strings.NewReader(ts.ReadFile(file))); d.More(); {
			var l line
			ts.Check(d.Decode(&l))
			lines = append(lines, l)
		}
		return lines
	}
	golden, lower, cased := read(args[0]), read(args[1]), read(args[2])
	if len(golden) == 0 || len(lower) != len(golden) || len(cased) != len(golden) {
		ts.Fatalf("%d and %d lines for %d", len(lower), len(cased), len(golden))
	}
	for i, want := range golden {
		got := cased[i]
		if want.Lower {
			got = lower[i]
			got.Lower = true
		}
		if !reflect.DeepEqual(got, want) {
			ts.Fatalf("line %d is %+v, want %+v", i+1, got, want)
		}
	}
}

// digest NPZ META compares the digest of the features in an archive with that in a recording's settings.
func compareDigest(ts *testscript.TestScript, args []string) {
	requireUsage(ts, len(args) == 2, "digest npz meta")
	var meta struct {
		Features       int    `json:"features"`
		FeaturesSHA256 string `json:"features_sha256"`
	}
	ts.Check(json.Unmarshal([]byte(ts.ReadFile(args[1])), &meta))
	z, err := zip.OpenReader(ts.MkAbs(args[0]))
	ts.Check(err)
	defer z.Close()
	rows := make(map[string][][]byte) // of each array
	for _, f := range z.File {
		r, err := f.Open()
		ts.Check(err)
		b, err := io.ReadAll(r)
		ts.Check(err)
		ts.Check(r.Close())
		array, err := npy.NewReader(bytes.NewReader(b))
		ts.Check(err)
		size := 4
		if len(array.Shape) == 2 {
			size *= array.Shape[1]
		}
		if array.DType != npy.Int32 || array.Shape[0] != meta.Features {
			ts.Fatalf("%s is %s %v", f.Name, array.DType, array.Shape)
		}
		rows[f.Name] = slices.Collect(slices.Chunk(b[len(b)-size*meta.Features:], size))
	}
	h := sha256.New()
	for i := range meta.Features {
		for _, name := range []string{"input_ids.npy", "input_mask.npy", "segment_ids.npy"} {
			h.Write(rows[name][i])
		}
	}
	if got := fmt.Sprintf("%x", h.Sum(nil)); got != meta.FeaturesSHA256 {
		ts.Fatalf("features_sha256 is %s, want %s", got, meta.FeaturesSHA256)
	}
	for i, id := range rows["unique_ids.npy"] {
		if got := binary.LittleEndian.Uint32(id); got != 1000000000+uint32(i) {
			ts.Fatalf("unique id %d is %d", i, got)
		}
	}
}

// logits FROM TO WINDOWS [VALUE] copies the logits of windows, and begins again where they end. VALUE replaces
// one of them.
func copyLogits(ts *testscript.TestScript, args []string) {
	requireUsage(ts, len(args) == 3 || len(args) == 4, "logits from to windows [value]")
	windows, err := strconv.Atoi(args[2])
	ts.Check(err)
	f, err := os.Open(ts.MkAbs(args[0]))
	ts.Check(err)
	defer f.Close()
	r, err := npy.NewReader(f)
	ts.Check(err)
	stored := make([]float32, r.Shape[0]*r.Shape[1]*r.Shape[2])
	ts.Check(r.ReadFloat32s(stored))
	if len(args) == 4 {
		v, err := strconv.ParseFloat(args[3], 32)
		ts.Check(err)
		stored[r.Shape[1]*r.Shape[2]+3] = float32(v) // the second window's fourth start
	}
	w, err := npy.Create(ts.MkAbs(args[1]), npy.Float32, r.Shape[1:]...)
	ts.Check(err)
	row := r.Shape[1] * r.Shape[2]
	for i := range windows {
		at := i % r.Shape[0] * row
		ts.Check(w.WriteFloat32s(stored[at : at+row]))
	}
	ts.Check(w.Close())
}

// edit MODEL WHAT makes a copy of a SavedModel in the folder WHAT, with another tag, another name of its
// signature, another type or shape of input_ids, or more nodes, which read a file.
func editModel(ts *testscript.TestScript, args []string) {
	requireUsage(ts, len(args) == 2, "edit model (tag|signature|type|shape|file)")
	var m tfproto.SavedModel
	ts.Check(proto.Unmarshal([]byte(ts.ReadFile(filepath.Join(args[0], savedmodel.GraphFile))), &m))
	graph := m.MetaGraphs[0]
	input := graph.SignatureDef[savedmodel.DefaultSignature].Inputs["input_ids"]
	switch args[1] {
	case "tag":
		graph.MetaInfoDef.Tags = []string{"train"}
	case "signature":
		graph.SignatureDef = map[string]*tfproto.SignatureDef{"another": graph.SignatureDef[savedmodel.DefaultSignature]}
	case "type":
		input.Dtype = int32(tf.Int64)
	case "shape":
		input.TensorShape.Dim = input.TensorShape.Dim[:1]
	case "file":
		name := &tfproto.NodeDef{Name: "file/name", Op: "Placeholder", Attr: map[string]*tfproto.AttrValue{
			"dtype": {Value: &tfproto.AttrValue_Type{Type: int32(tf.String)}}}}
		graph.GraphDef.Node = append(graph.GraphDef.Node, name)
		for i := range 5 {
			graph.GraphDef.Node = append(graph.GraphDef.Node, &tfproto.NodeDef{
				Name: fmt.Sprintf("file/%d", i), Op: "ReadFile", Input: []string{"file/name"}})
		}
	default:
		ts.Fatalf("edit what?")
	}
	b, err := proto.Marshal(&m)
	ts.Check(err)
	dir := ts.MkAbs(args[1])
	ts.Check(os.Mkdir(dir, 0o777))
	ts.Check(os.WriteFile(filepath.Join(dir, savedmodel.GraphFile), b, 0o666))
	for _, name := range []string{"variables", savedmodel.ExtraAssetsDir} {
		ts.Check(os.Symlink(filepath.Join(args[0], name), filepath.Join(dir, name)))
	}
}

// flip FILE OFFSET changes a bit.
func flipBit(ts *testscript.TestScript, args []string) {
	requireUsage(ts, len(args) == 2, "flip file offset")
	offset, err := strconv.Atoi(args[1])
	ts.Check(err)
	b := []byte(ts.ReadFile(args[0]))
	b[offset] ^= 1 << 3
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), b, 0o666))
}

// cut FILE SIZE shortens a file.
func truncateFile(ts *testscript.TestScript, args []string) {
	requireUsage(ts, len(args) == 2, "cut file size")
	size, err := strconv.ParseInt(args[1], 10, 64)
	ts.Check(err)
	ts.Check(os.Truncate(ts.MkAbs(args[0]), size))
}

// tmpfs DIR SIZE mounts a small disk.
func mountTmpfs(ts *testscript.TestScript, args []string) {
	requireUsage(ts, len(args) == 2, "tmpfs dir size")
	dir := ts.MkAbs(args[0])
	ts.Check(os.Mkdir(dir, 0o777))
	ts.Check(mount(dir, args[1]))
	ts.Defer(func() { ts.Check(unmount(dir)) })
}

func mount(dir, size string) error {
	return exec.Command("mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", dir).Run()
}

func unmount(dir string) error { return exec.Command("umount", dir).Run() }

// canMount reports whether tmpfs works, which takes Linux and root's rights.
var canMount = sync.OnceValue(func() bool {
	dir, err := os.MkdirTemp("", "tfbert-tmpfs")
	if err != nil {
		return false
	}
	defer os.Remove(dir)
	return mount(dir, "16k") == nil && unmount(dir) == nil
})

// goproxy DIR makes DIR a proxy of Go modules that holds the bundled model, and GOPROXY its address.
func serveModule(ts *testscript.TestScript, args []string) {
	requireUsage(ts, len(args) == 1, "goproxy dir")
	dir := filepath.Join(ts.MkAbs(args[0]), filepath.FromSlash(models.Bundled.Path), "@v")
	ts.Check(os.MkdirAll(dir, 0o777))
	f, err := os.Create(filepath.Join(dir, models.Bundled.Version.Version+".zip"))
	ts.Check(err)
	z := zip.NewWriter(f)
	from := filepath.Dir(ts.Getenv("CKPT"))
	ts.Check(filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(from, path)
		if err != nil {
			return err
		}
		w, err := z.CreateHeader(&zip.FileHeader{Name: models.Bundled.String() + "/" + filepath.ToSlash(rel)}) // not packed
		if err != nil {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	}))
	ts.Check(errors.Join(z.Close(), f.Close()))
	server := httptest.NewServer(http.FileServer(http.Dir(ts.MkAbs(args[0]))))
	ts.Defer(server.Close)
	ts.Setenv("GOPROXY", server.URL)
}

// archive serves a zip of a small model of transformers over HTTPS. ARCHIVE is its address, SUM its SHA-256, and
// SSL_CERT_FILE the certificate to trust.
func serveArchive(ts *testscript.TestScript, args []string) {
	requireUsage(ts, len(args) == 0, "archive")
	var packed bytes.Buffer
	z := zip.NewWriter(&packed)
	model := filepath.Join(ts.Getenv("GOLDEN"), "..", "..", "tfbert", "testdata", "transformers")
	ts.Check(z.AddFS(os.DirFS(model)))
	ts.Check(z.Close())
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeContent(w, r, "qa.zip", time.Time{}, bytes.NewReader(packed.Bytes()))
	}))
	ts.Defer(server.Close)
	certificate := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	ts.Check(os.WriteFile(ts.MkAbs("server.pem"), certificate, 0o666))
	ts.Setenv("SSL_CERT_FILE", ts.MkAbs("server.pem"))
	ts.Setenv("ARCHIVE", server.URL+"/org/qa/versions/1/zip")
	ts.Setenv("SUM", fmt.Sprintf("%x", sha256.Sum256(packed.Bytes())))
}
