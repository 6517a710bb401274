//go:build cgo && unix

package tf_test

import (
	"os"
	"os/exec"
	"regexp"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/tfbert/go/internal/faketf"
	"github.com/tfbert/go/internal/testenv"
	"github.com/tfbert/go/tf"
)

// loadFake returns the fake library, or skips a test that needs what the real one cannot do.
func loadFake(t testing.TB) faketf.Library {
	t.Helper()
	if os.Getenv(faketf.Environment) == "" {
		t.Skip("this is for the fake library: TestFakeLibrary runs it")
	}
	loadLibrary(t)
	l, ok := faketf.Find(tf.Path())
	require.True(t, ok)
	t.Cleanup(func() {
		l.Release()
		l.Fail(0, 0)
	})
	return l
}

// TestFakeLibrary runs all tests of the package once more, over the fake library, and holds which of
// them are left out there.
func TestFakeLibrary(t *testing.T) {
	if os.Getenv(faketf.Environment) != "" {
		t.Skip("it is the library already")
	}
	if _, err := exec.LookPath("cc"); err != nil {
		testenv.Missing(t, "cc", "no C compiler here")
	}
	cmd := exec.Command(os.Args[0], "-test.v", "-test.short", "-test.timeout=5m")
	cmd.Env = append(os.Environ(), faketf.Environment+"=1", "TFBERT_REQUIRE=")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	var skipped []string
	for _, m := range regexp.MustCompile(`(?m)^--- SKIP: (\w+)`).FindAllSubmatch(out, -1) {
		skipped = append(skipped, string(m[1]))
	}
	assert.ElementsMatch(t, []string{
		"TestFakeLibrary", "TestLoadHelper", // not for themselves
		// of the real library
		"TestDeclarationsMatchHeaders", "TestLoadLibraryRegisters", "TestLoadVariables", "TestStringTensorsDoNotLeak",
		"TestRunBesideC", "TestLeaks", // measurements
	}, skipped)
}

// eventually waits for what other goroutines and threads do.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for range 3000 {
		if ok() {
			return
		}
		runtime.GC() // for cleanups, too
		time.Sleep(time.Millisecond)
	}
	require.Fail(t, "it does not happen: "+what)
}

// assertNoneAlive is what lives in the library when all is closed: what it keeps for itself is not counted.
func assertNoneAlive(t testing.TB, l faketf.Library) {
	t.Helper()
	eventually(t, "nothing is alive", func() bool { return l.Live() == faketf.Live{} })
}

// Each feature that a library lacks fails alone, with an error that names what is missing.
func TestMissingFeatures(t *testing.T) {
	lib, err := faketf.Build(t.TempDir(), "TF_SessionListDevices", "TF_GetAllOpList", "TF_LoadLibrary", "TF_SetTarget",
		"TF_RegisterLogListener")
	require.NoError(t, err)
	runTestAlone(t, "TestMissingFeaturesHelper", "TFBERT_TEST_FEATURES="+lib, "TFBERT_LIBTENSORFLOW="+lib,
		faketf.Environment+"=")
}

func TestMissingFeaturesHelper(t *testing.T) {
	lib := os.Getenv("TFBERT_TEST_FEATURES")
	if lib == "" {
		return // helper of TestMissingFeatures
	}
	require.NoError(t, tf.Load(lib))
	g := newGraph(t)
	x := addPlaceholder(t, g, "x", tf.Float)
	s := newSession(t, g)
	assert.Equal(t, []float32{2}, fetchOne[float32](t, s, x, tf.Feed{Output: x, Tensor: newTensor(t, nil, float32(2))}))

	missing := func(err error, name string) {
		t.Helper()
		assert.Equal(t, tf.Unimplemented, tf.ErrCode(err))
		assert.ErrorContains(t, err, "this TensorFlow library has no "+name)
	}
	_, err := s.Devices()
	missing(err, "TF_SessionListDevices")
	_, err = tf.OpList()
	missing(err, "TF_GetAllOpList")
	_, err = tf.LoadLibrary("x.so")
	missing(err, "TF_LoadLibrary")
	_, err = tf.NewSession(g, &tf.SessionOptions{Target: "grpc://host"})
	missing(err, "TF_SetTarget")
}
