// Package shm has the regions of system shared memory that clients of this machine register, to send and receive
// tensors in them.
//
// Regions are read and written through their files, not mapped: a client may make its file smaller at any time, which
// would end a process that has it mapped.
package shm

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/tfbert/go/serve/repository"
)

// Dir is where Linux keeps shared memory.
const Dir = "/dev/shm"

const (
	mostRegions = 256
	mostBytes   = 128 << 20 // in requests under way
)

// A Region is a part of an object of shared memory.
type Region struct {
	Name         string // by which requests use it
	Key          string // the name of the object, as for shm_open
	Offset, Size uint64

	file  *os.File
	users int
	gone  bool
}

// Regions are those that are registered. Its methods may be called by many goroutines at once.
type Regions struct {
	dir string

	mu   sync.Mutex
	list map[string]*Region
	used int64 // bytes of requests under way
}

// New returns Regions of the objects in a folder.
func New(dir string) *Regions { return &Regions{dir: dir, list: map[string]*Region{}} }

// Register registers a region of an object that exists.
func (r *Regions) Register(name, key string, offset, size uint64) error {
	f, err := r.open(key)
	if err != nil {
		return err
	}
	if err := r.add(&Region{Name: name, Key: key, Offset: offset, Size: size, file: f}); err != nil {
		return errors.Join(err, f.Close())
	}
	return nil
}

func (r *Regions) add(region *Region) error {
	info, err := region.file.Stat()
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	total := uint64(max(0, info.Size()))
	switch _, twice := r.list[region.Name]; {
	case !info.Mode().IsRegular():
		return repository.Invalidf("%.100q is not shared memory", region.Key)
	case region.Size == 0 || region.Offset > total || region.Size > total-region.Offset:
		return repository.Invalidf("%d bytes at offset %d are not within shared memory %.100q, which has %d",
			region.Size, region.Offset, region.Key, total)
	case region.Name == "":
		return repository.Invalidf("the region does not have a name")
	case twice:
		return repository.Errorf(codes.AlreadyExists, "shared memory region %.100q is already registered", region.Name)
	case len(r.list) == mostRegions:
		return repository.Errorf(codes.ResourceExhausted, "there are %d regions, as many as there may be", mostRegions)
	}
	r.list[region.Name] = region
	return nil
}

// open opens an object by its key, and nothing else on the machine.
func (r *Regions) open(key string) (*os.File, error) {
	name := strings.TrimPrefix(key, "/")
	if name == "" || strings.HasPrefix(name, ".") || strings.ContainsAny(name, "/\\\x00") || len(name) > 255 {
		return nil, repository.Invalidf("%.100q is not the name of shared memory", key)
	}
	f, err := openFile(filepath.Join(r.dir, name))
	var path *fs.PathError
	if errors.As(err, &path) {
		e := repository.Invalidf("shared memory %.100q cannot be opened: %v", key, path.Err)
		e.Cause = err
		return nil, e
	}
	return f, err
}

// Unregister forgets a region, or all if the name is "". One that is not there is no error, as with Triton. Requests
// under way keep it until they end.
func (r *Regions) Unregister(name string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	var err error
	for n, region := range r.list {
		if name != "" && n != name {
			continue
		}
		delete(r.list, n)
		if region.gone = true; region.users == 0 {
			err = errors.Join(err, region.file.Close())
		}
	}
	return err
}

// Status returns a region, or all in the order of their names if the name is "".
func (r *Regions) Status(name string) ([]Region, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var list []Region
	for _, n := range slices.Sorted(maps.Keys(r.list)) {
		if name == "" || n == name {
			list = append(list, *r.list[n])
		}
	}
	if name != "" && list == nil {
		return nil, errUnknown(name)
	}
	return list, nil
}

func errUnknown(name string) error {
	return repository.Errorf(codes.NotFound, "there is no shared memory region %.100q", name)
}

// A Part is a part of a region, for one tensor of a request.
type Part struct {
	all          *Regions
	region       *Region
	offset, size int64
}

// Take returns a part of a region, which stays until it is released.
func (r *Regions) Take(name string, offset, size int64) (*Part, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	region := r.list[name]
	switch {
	case region == nil:
		return nil, errUnknown(name)
	case offset < 0 || size < 0 || uint64(offset) > region.Size || uint64(size) > region.Size-uint64(offset):
		return nil, repository.Invalidf("%d bytes at offset %d are not within shared memory region %.100q, which has %d",
			size, offset, name, region.Size)
	case size > mostBytes:
		return nil, repository.Invalidf("a tensor in shared memory may have at most %d bytes", mostBytes)
	case r.used+size > mostBytes:
		e := repository.Errorf(codes.ResourceExhausted, "too much shared memory is in use by other requests")
		e.RetryAfter = time.Second
		return nil, e
	}
	r.used += size
	region.users++
	return &Part{r, region, offset, size}, nil
}

// Size returns the bytes of a part.
func (p *Part) Size() int64 { return p.size }

// Read returns what a part holds.
func (p *Part) Read() ([]byte, error) {
	data := make([]byte, p.size)
	_, err := p.region.file.ReadAt(data, int64(p.region.Offset)+p.offset)
	if errors.Is(err, io.EOF) {
		return nil, repository.Invalidf("shared memory region %.100q has become smaller", p.region.Name)
	}
	return data, err
}

// Write puts data at the beginning of a part, which must be large enough.
func (p *Part) Write(data []byte) error {
	info, err := p.region.file.Stat()
	at := int64(p.region.Offset) + p.offset
	switch {
	case err != nil:
		return err
	case int64(len(data)) > p.size:
		return repository.Invalidf("the part of shared memory region %.100q has %d bytes, the tensor %d",
			p.region.Name, p.size, len(data))
	case info.Size() < at+int64(len(data)): // writing would make it larger
		return repository.Invalidf("shared memory region %.100q has become smaller", p.region.Name)
	}
	_, err = p.region.file.WriteAt(data, at)
	return err
}

// Release ends the use of a part.
func (p *Part) Release() {
	p.all.mu.Lock()
	defer p.all.mu.Unlock()
	p.all.used -= p.size
	if p.region.users--; p.region.users == 0 && p.region.gone {
		_ = p.region.file.Close()
	}
}
