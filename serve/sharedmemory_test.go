package serve

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"

	"github.com/tfbert/go/internal/fakemodel"
	pb "github.com/tfbert/go/internal/serveproto"
	"github.com/tfbert/go/serve/internal/shm"
	"github.com/tfbert/go/serve/repository"
)

// newShared makes an object of shared memory with a content and returns its key and its path.
func newShared(t *testing.T, content []byte) (key, path string) {
	t.Helper()
	f, err := os.CreateTemp(shm.Dir, "tfbert-test-")
	if err != nil {
		t.Skip("no shared memory: ", err)
	}
	t.Cleanup(func() { _ = os.Remove(f.Name()) })
	_, err = f.Write(content)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	return "/" + filepath.Base(f.Name()), f.Name()
}

func inRegion(name string, offset, size int64) map[string]*pb.InferParameter {
	number := func(n int64) *pb.InferParameter {
		return &pb.InferParameter{ParameterChoice: &pb.InferParameter_Int64Param{Int64Param: n}}
	}
	return map[string]*pb.InferParameter{
		"shared_memory_region":    {ParameterChoice: &pb.InferParameter_StringParam{StringParam: name}},
		"shared_memory_offset":    number(offset),
		"shared_memory_byte_size": number(size),
	}
}

// Inputs come from a region and outputs go to one, over gRPC and HTTP, beside others that do not.
func TestSharedMemory(t *testing.T) {
	f := startServer(t, &setup{serve: Options{ClientSHM: true}})
	c := pb.NewInferenceClient(f.dial(t))
	ids := []int32{2, fakemodel.ID("w1"), 3, fakemodel.ID("w1")}
	content := make([]byte, 256)
	for i, id := range ids {
		binary.LittleEndian.PutUint32(content[16+4*i:], uint32(id))
	}
	key, path := newShared(t, content)
	_, err := c.SystemSharedMemoryRegister(t.Context(), &pb.SystemSharedMemoryRegisterRequest{
		Name: "region", Key: key, Offset: 8, ByteSize: 200,
	})
	require.NoError(t, err)
	status, err := c.SystemSharedMemoryStatus(t.Context(), &pb.SystemSharedMemoryStatusRequest{})
	require.NoError(t, err)
	assert.EqualValues(t, 200, status.GetRegions()["region"].GetByteSize())

	starts, ends := fakemodel.Logits(ids, 1)
	for _, raw := range []bool{true, false} {
		r := tensorRequest(raw, ids...)
		for i, in := range r.Inputs {
			if in.Name != "input_ids" {
				continue
			}
			in.Contents, in.Parameters = nil, inRegion("region", 8, 16)
			if raw {
				r.RawInputContents = append(r.RawInputContents[:i], r.RawInputContents[i+1:]...)
			}
		}
		r.Outputs = []*pb.ModelInferRequest_InferRequestedOutputTensor{
			{Name: "start_logits", Parameters: inRegion("region", 40, 60)}, {Name: "end_logits"},
		}
		response, err := c.ModelInfer(t.Context(), r)
		require.NoError(t, err)
		require.Len(t, response.GetRawOutputContents(), 2, "each has its place")
		assert.Empty(t, response.GetRawOutputContents()[0])
		assert.Equal(t, floats(ends), response.GetRawOutputContents()[1])
		assert.EqualValues(t, 16, response.GetOutputs()[0].GetParameters()["shared_memory_byte_size"].GetInt64Param())
		now, err := os.ReadFile(path)
		require.NoError(t, err)
		assert.Equal(t, floats(starts), now[48:64])
		require.NoError(t, os.WriteFile(path, content, 0o600))
	}
	_, err = c.SystemSharedMemoryUnregister(t.Context(), &pb.SystemSharedMemoryUnregisterRequest{})
	require.NoError(t, err)

	post := func(path, body string) (int, string) {
		r, err := client(t).Post(f.url+path, "application/json", strings.NewReader(body))
		require.NoError(t, err)
		return r.StatusCode, readAll(t, r)
	}
	register := fmt.Sprintf(`{"key":%q,"offset":0,"byte_size":256}`, key)
	code, text := post("/v2/systemsharedmemory/region/web/register", register)
	require.Equal(t, 200, code, text)
	code, text = post("/v2/systemsharedmemory/region/web/register", register)
	assert.Equal(t, 409, code, text)
	r, err := client(t).Get(f.url + "/v2/systemsharedmemory/region/web/status")
	require.NoError(t, err)
	assert.Equal(t, fmt.Sprintf(`[{"name":"web","key":%q,"offset":0,"byte_size":256}]`+"\n", key), readAll(t, r))
	body := strings.Replace(tensorBody, `"data":[2,7,3,9]`, `"parameters":{"shared_memory_region":"web",`+
		`"shared_memory_offset":16,"shared_memory_byte_size":16}`, 1)
	body = strings.TrimSuffix(body, "}") + `,"outputs":[{"name":"start_logits","parameters":` +
		`{"shared_memory_region":"web","shared_memory_byte_size":16}},{"name":"unique_ids"}]}`
	code, text = post("/v2/models/bert/infer", body)
	require.Equal(t, 200, code, text)
	assert.Contains(t, text, `"shape":[1,4],"parameters":{"shared_memory_byte_size":16,"shared_memory_region":"web"}},`+
		`{"name":"unique_ids","datatype":"INT32","shape":[1,1],"data":[5]}`)
	now, err := os.ReadFile(path)
	require.NoError(t, err)
	assert.Equal(t, floats(starts), now[:16])
	code, text = post("/v2/systemsharedmemory/region/web/unregister", "")
	assert.Equal(t, 200, code, text)
	code, text = post("/v2/models/bert/infer", body)
	assert.Equal(t, 404, code)
	assert.Contains(t, text, `there is no shared memory region`)
}

func floats(list []float32) (b []byte) {
	for _, x := range list {
		b, _ = binary.Append(b, binary.LittleEndian, x)
	}
	return b
}

// A key is the name of an object, and never leads to another file.
func TestSharedMemoryKeys(t *testing.T) {
	f := startServer(t, &setup{serve: Options{ClientSHM: true}})
	c := pb.NewInferenceClient(f.dial(t))
	key, path := newShared(t, make([]byte, 100))
	secret := filepath.Join(t.TempDir(), "secret")
	require.NoError(t, os.WriteFile(secret, make([]byte, 100), 0o600))
	link, pipe, folder := path+"-link", path+"-pipe", path+"-folder"
	require.NoError(t, os.Symlink(secret, link))
	require.NoError(t, syscall.Mkfifo(pipe, 0o600))
	require.NoError(t, os.Mkdir(folder, 0o700))
	t.Cleanup(func() { _, _, _ = os.Remove(link), os.Remove(pipe), os.Remove(folder) })
	for _, tt := range []struct {
		key          string
		offset, size uint64
		message      string
	}{
		{"", 0, 1, "is not the name of shared memory"},
		{"/", 0, 1, "is not the name"},
		{"..", 0, 1, "is not the name"},
		{"/../" + filepath.Base(path), 0, 1, "is not the name"},
		{"../.." + secret, 0, 1, "is not the name"},
		{secret, 0, 1, "is not the name"},
		{"//" + filepath.Base(path), 0, 1, "is not the name"},
		{key + "\x00", 0, 1, "is not the name"},
		{strings.Repeat("x", 300), 0, 1, "is not the name"},
		{key + "-none", 0, 1, "no such file"},
		{key + "-link", 0, 1, "cannot be opened"},
		{key + "-pipe", 0, 1, "is not shared memory"},
		{key + "-folder", 0, 1, "cannot be opened"},
		{key, 0, 0, "0 bytes at offset 0 are not within"},
		{key, 0, 101, "not within"},
		{key, 100, 1, "not within"},
		{key, 1 << 63, 1 << 63, "not within"},
		{key, 1, 1<<64 - 1, "not within"},
	} {
		_, err := c.SystemSharedMemoryRegister(t.Context(), &pb.SystemSharedMemoryRegisterRequest{
			Name: "r", Key: tt.key, Offset: tt.offset, ByteSize: tt.size,
		})
		requireCode(t, codes.InvalidArgument, tt.message, err)
		assert.NotContains(t, err.Error(), shm.Dir)
	}
	for n := range 257 {
		_, err := c.SystemSharedMemoryRegister(t.Context(), &pb.SystemSharedMemoryRegisterRequest{
			Name: fmt.Sprint(n), Key: key, ByteSize: 1,
		})
		if n < 256 {
			require.NoError(t, err)
			continue
		}
		requireCode(t, codes.ResourceExhausted, "as many as there may be", err)
	}
}

// A request reaches nothing outside of its region, and a region that becomes smaller fails the request alone.
func TestSharedMemoryBounds(t *testing.T) {
	f := startServer(t, &setup{serve: Options{ClientSHM: true, MaxRequestBytes: 1 << 20}})
	c := pb.NewInferenceClient(f.dial(t))
	key, path := newShared(t, make([]byte, 2<<20))
	_, err := c.SystemSharedMemoryRegister(t.Context(), &pb.SystemSharedMemoryRegisterRequest{
		Name: "r", Key: key, ByteSize: 2 << 20,
	})
	require.NoError(t, err)
	ask := func(input, output map[string]*pb.InferParameter, change func(*pb.ModelInferRequest)) error {
		r := tensorRequest(false, 2, 7, 3, 9)
		if input != nil {
			r.Inputs[0].Contents, r.Inputs[0].Parameters = nil, input
		}
		if output != nil {
			r.Outputs = []*pb.ModelInferRequest_InferRequestedOutputTensor{{Name: "start_logits", Parameters: output}}
		}
		if change != nil {
			change(r)
		}
		_, err := c.ModelInfer(t.Context(), r)
		return err
	}
	without := func(name string) map[string]*pb.InferParameter {
		p := inRegion("r", 0, 16)
		delete(p, name)
		return p
	}
	require.NoError(t, ask(inRegion("r", 0, 16), inRegion("r", 16, 16), nil))
	for _, tt := range []struct {
		input, output map[string]*pb.InferParameter
		code          codes.Code
		message       string
	}{
		{inRegion("r", 2<<20-15, 16), nil, codes.InvalidArgument, "are not within shared memory region"},
		{inRegion("r", -1, 16), nil, codes.InvalidArgument, "are not within"},
		{inRegion("r", 0, -1), nil, codes.InvalidArgument, "are not within"},
		{inRegion("r", 1<<62, 1<<62), nil, codes.InvalidArgument, "are not within"},
		{inRegion("r", 0, 1<<20+1), nil, codes.InvalidArgument, "have more than 1048576 bytes"},
		{inRegion("r", 0, 15), nil, codes.InvalidArgument, "an element of INT32 has 4"},
		{inRegion("r", 0, 20), nil, codes.InvalidArgument, "but 5 elements"},
		{inRegion("x", 0, 16), nil, codes.NotFound, "there is no shared memory region"},
		{without("shared_memory_region"), nil, codes.InvalidArgument, "needs both"},
		{without("shared_memory_byte_size"), nil, codes.InvalidArgument, "needs both"},
		{nil, inRegion("r", 0, 15), codes.InvalidArgument, `has 15 bytes, the tensor 16`},
		{nil, inRegion("r", 2<<20, 16), codes.InvalidArgument, "are not within"},
	} {
		requireCode(t, tt.code, tt.message, ask(tt.input, tt.output, nil))
	}
	requireCode(t, codes.InvalidArgument, "contents beside those in shared memory",
		ask(inRegion("r", 0, 16), nil, func(r *pb.ModelInferRequest) {
			r.Inputs[0].Contents = &pb.InferTensorContents{IntContents: []int32{1}}
		}))

	require.NoError(t, os.Truncate(path, 8))
	requireCode(t, codes.InvalidArgument, "has become smaller", ask(inRegion("r", 0, 16), nil, nil))
	requireCode(t, codes.InvalidArgument, "has become smaller", ask(nil, inRegion("r", 0, 16), nil))
	info, err := os.Stat(path)
	require.NoError(t, err)
	assert.EqualValues(t, 8, info.Size())
}

// Regions may go while requests use them.
func TestSharedMemoryUnregister(t *testing.T) {
	f := startServer(t, &setup{serve: Options{ClientSHM: true}})
	c := pb.NewInferenceClient(f.dial(t))
	key, _ := newShared(t, make([]byte, 1024))
	var group sync.WaitGroup
	for range 4 {
		group.Go(func() {
			for range 30 {
				_, _ = c.SystemSharedMemoryRegister(t.Context(), &pb.SystemSharedMemoryRegisterRequest{
					Name: "r", Key: key, ByteSize: 1024,
				})
				r := tensorRequest(false, 2, 7, 3, 9)
				r.Inputs[0].Contents, r.Inputs[0].Parameters = nil, inRegion("r", 0, 16)
				r.Outputs = []*pb.ModelInferRequest_InferRequestedOutputTensor{
					{Name: "start_logits", Parameters: inRegion("r", 16, 16)},
				}
				if _, err := c.ModelInfer(t.Context(), r); err != nil {
					requireCode(t, codes.NotFound, "there is no shared memory region", err)
				}
				_, err := c.SystemSharedMemoryUnregister(t.Context(), &pb.SystemSharedMemoryUnregisterRequest{Name: "r"})
				assert.NoError(t, err)
			}
		})
	}
	group.Wait()
}

// Shared memory is off by default, for clients of this machine alone, and needs the admin token. CUDA's is refused by
// name.
func TestSharedMemoryRefused(t *testing.T) {
	paths := []struct{ method, path string }{
		{"GET", "status"}, {"GET", "region/r/status"}, {"POST", "region/r/register"}, {"POST", "unregister"},
		{"POST", "region/r/unregister"},
	}
	off := newFixture(t, &setup{})
	on := newFixture(t, &setup{serve: Options{ClientSHM: true, AdminToken: "x"}})
	body := []byte(`{"key":"x","byte_size":1}`)
	for _, p := range paths {
		requireError(t, 501, "shared memory is not supported", off.ask(p.method, "/v2/systemsharedmemory/"+p.path, body))
		requireError(t, 501, "CUDA shared memory is not supported", off.ask(p.method, "/v2/cudasharedmemory/"+p.path, body))
		requireError(t, 401, "admin token", on.ask(p.method, "/v2/systemsharedmemory/"+p.path, body))
		// httptest's client has another address.
		w := on.ask(p.method, "/v2/systemsharedmemory/"+p.path, body, "Authorization: Bearer x")
		requireError(t, http.StatusForbidden, "for clients of this machine", w)
	}
	shared := strings.Replace(tensorBody, `"data":[2,7,3,9]`,
		`"parameters":{"shared_memory_region":"r","shared_memory_byte_size":16}`, 1)
	requireError(t, 501, "shared memory is not supported", off.ask("POST", "/v2/models/bert/infer", []byte(shared)))
	requireError(t, 403, "for clients of this machine", on.ask("POST", "/v2/models/bert/infer", []byte(shared)))
	assert.NotContains(t, off.ask("GET", "/v2", nil).Body.String(), "system_shared_memory")
	assert.Contains(t, on.ask("GET", "/v2", nil).Body.String(), "system_shared_memory")

	f := startServer(t, &setup{repo: repository.Options{}})
	c := pb.NewInferenceClient(f.dial(t))
	for _, call := range []func() error{
		func() error {
			_, err := c.CudaSharedMemoryStatus(t.Context(), &pb.CudaSharedMemoryStatusRequest{})
			return err
		},
		func() error {
			_, err := c.CudaSharedMemoryRegister(t.Context(), &pb.CudaSharedMemoryRegisterRequest{})
			return err
		},
		func() error {
			_, err := c.CudaSharedMemoryUnregister(t.Context(), &pb.CudaSharedMemoryUnregisterRequest{})
			return err
		},
	} {
		requireCode(t, codes.Unimplemented, "CUDA shared memory is not supported", call())
	}
	_, err := c.SystemSharedMemoryStatus(t.Context(), &pb.SystemSharedMemoryStatusRequest{})
	requireCode(t, codes.Unimplemented, "shared memory is not supported", err)
}
