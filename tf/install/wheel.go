package install

import (
	"archive/zip"
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/csv"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/sync/errgroup"
)

// A wheelFile is an open wheel: a zip archive whose RECORD lists the digest of every member.
type wheelFile struct {
	path    string
	project string // as the wheel spells it: tensorflow_cpu
	version string
	archive *zip.ReadCloser
	record  map[string]recorded
}

// recorded is what RECORD says about a member.
type recorded struct {
	sha256 string // URL-safe base64 without padding
	size   int64
}

// openWheel opens a wheel and reads its RECORD.
func openWheel(path string) (*wheelFile, error) {
	archive, err := zip.OpenReader(path)
	if errors.Is(err, zip.ErrFormat) {
		return nil, fmt.Errorf("%s is not a wheel, or not a whole one: %w", path, err)
	}
	if err != nil {
		return nil, err
	}
	w := &wheelFile{path: path, archive: archive}
	if err := w.readRecord(); err != nil {
		archive.Close()
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return w, nil
}

// Close closes the archive.
func (w *wheelFile) Close() error { return w.archive.Close() }

func (w *wheelFile) readRecord() error {
	var record *zip.File
	for _, f := range w.archive.File {
		if !filepath.IsLocal(f.Name) || strings.Contains(f.Name, `\`) || strings.ContainsFunc(f.Name, unicode.IsControl) {
			return fmt.Errorf("member %q would land outside its folder: refused", f.Name)
		}
		if dir, ok := strings.CutSuffix(path.Dir(f.Name), ".dist-info"); ok && path.Base(f.Name) == "RECORD" {
			if record != nil {
				return errors.New("not a wheel: more than one RECORD")
			}
			record = f
			w.project, w.version, _ = strings.Cut(dir, "-")
		}
	}
	if record == nil || w.version == "" || strings.Contains(w.version, "/") {
		return errors.New("not a wheel: no NAME-VERSION.dist-info/RECORD in it")
	}
	if record.UncompressedSize64 > maxListing {
		return fmt.Errorf("not a wheel: its RECORD is of %d bytes", record.UncompressedSize64)
	}
	r, err := record.Open()
	if err != nil {
		return err
	}
	defer r.Close()
	w.record, err = parseRecord(r)
	return err
}

// maxListing is more than RECORD or METADATA take: TensorFlow's are 2 MB and 40 KB. No member inflates
// beyond the size it declares, or its reader fails.
const maxListing = 8 << 20

// parseRecord reads RECORD: lines of path, algorithm=digest, size.
func parseRecord(r io.Reader) (map[string]recorded, error) {
	rows := csv.NewReader(bufio.NewReader(r))
	rows.FieldsPerRecord = 3
	rows.ReuseRecord = true
	record := make(map[string]recorded)
	for {
		row, err := rows.Read()
		if err == io.EOF {
			return record, nil
		}
		if err != nil {
			return nil, fmt.Errorf("RECORD: %w", err)
		}
		digest, ok := strings.CutPrefix(row[1], "sha256=")
		if !ok {
			continue // RECORD itself has no digest; any other member without one cannot be extracted
		}
		size, err := strconv.ParseInt(row[2], 10, 64)
		if err != nil {
			return nil, fmt.Errorf("RECORD: %s: %w", row[0], err)
		}
		record[strings.Clone(row[0])] = recorded{strings.Clone(digest), size}
	}
}

// arch returns the machine in the file name of the wheel, or "" for any.
func (w *wheelFile) arch() string {
	for _, arch := range []string{"x86_64", "aarch64"} {
		if strings.HasSuffix(w.path, "_"+arch+".whl") {
			return arch
		}
	}
	return ""
}

// needed are the members that an installation consists of: TensorFlow's two libraries, the C API's
// headers and what these include, CUDA's libraries and the compiler parts that XLA calls, and the
// licences.
var needed = []string{
	"tensorflow/libtensorflow_cc.so.*",
	"tensorflow/libtensorflow_framework.so.*",
	"tensorflow/THIRD_PARTY_NOTICES.txt",
	"tensorflow/include/tensorflow/c/*.h",
	"tensorflow/include/tensorflow/c/eager/c_api*.h",
	"tensorflow/include/tensorflow/core/platform/ctstring*.h",
	"tensorflow/include/tensorflow/tsl/platform/ctstring*.h",
	"tensorflow/include/tsl/c/*.h",
	"tensorflow/include/tsl/platform/ctstring*.h",
	"tensorflow/include/xla/tsl/c/*.h",
	"nvidia/*/lib/*.so*",
	"nvidia/cuda_nvcc/bin/*",
	"nvidia/cuda_nvcc/nvvm/*/*",
	"*.dist-info/License.txt",
	"*.dist-info/licenses/*",
}

// members returns the needed members, the largest first, and their size together.
func (w *wheelFile) members() (files []*zip.File, size int64) {
	for _, f := range w.archive.File {
		if slices.ContainsFunc(needed, func(pattern string) bool {
			ok, _ := path.Match(pattern, f.Name)
			return ok
		}) {
			files = append(files, f)
			// What members claim together may be more than there are numbers.
			size += int64(min(f.UncompressedSize64, uint64(math.MaxInt64-size)))
		}
	}
	slices.SortStableFunc(files, func(a, b *zip.File) int {
		return cmp.Compare(b.UncompressedSize64, a.UncompressedSize64)
	})
	return files, size
}

// extract writes the needed members below root, each checked against the archive's CRC and
// RECORD's digest. It calls wrote with the sizes of the pieces as they are written, from several
// goroutines.
func (w *wheelFile) extract(ctx context.Context, root *os.Root, wrote func(n int)) error {
	files, _ := w.members()
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, f := range files {
		g.Go(func() error {
			if err := w.extractMember(ctx, root, f, wrote); err != nil {
				return fmt.Errorf("%s: %s: %w", w.path, f.Name, err)
			}
			return nil
		})
	}
	return g.Wait()
}

var errNotRecorded = errors.New("its content is not what RECORD lists: the wheel is damaged; download it again")

func (w *wheelFile) extractMember(ctx context.Context, root *os.Root, f *zip.File, wrote func(n int)) error {
	want, ok := w.record[f.Name]
	if !ok {
		return errors.New("RECORD has no SHA-256 for it")
	}
	if want.size < 0 || f.UncompressedSize64 != uint64(want.size) {
		return errNotRecorded
	}
	if !f.Mode().IsRegular() {
		return fmt.Errorf("is not a plain file (%v): refused", f.Mode())
	}
	if err := root.MkdirAll(path.Dir(f.Name), 0o755); err != nil {
		return err
	}
	src, err := f.Open()
	if err != nil {
		return err
	}
	defer src.Close()
	mode := os.FileMode(0o644)
	if f.Mode()&0o100 != 0 {
		mode = 0o755 // ptxas
	}
	dst, err := root.OpenFile(f.Name, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer dst.Close()

	digest := sha256.New()
	buf := make([]byte, 1<<20)
	size, err := io.CopyBuffer(io.MultiWriter(dst, digest), &meteredReader{ctx, src, wrote}, buf)
	if err != nil {
		return err
	}
	if got := base64.RawURLEncoding.EncodeToString(digest.Sum(nil)); got != want.sha256 || size != want.size {
		return errNotRecorded
	}
	if err := dst.Sync(); err != nil {
		return err
	}
	return dst.Close()
}

// meteredReader reports what is read from it and ends with its context.
type meteredReader struct {
	ctx  context.Context
	src  io.Reader
	read func(n int)
}

// Read implements io.Reader.
func (r *meteredReader) Read(p []byte) (int, error) {
	if err := context.Cause(r.ctx); err != nil {
		return 0, err
	}
	n, err := r.src.Read(p)
	r.read(n)
	return n, err
}
