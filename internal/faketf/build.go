// Package faketf builds and steers a TensorFlow library for tests (testdata): one that counts
// what is alive in it, and fails and waits when a test asks for it.
package faketf

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
)

// Build compiles the library into dir, without the named functions and with the address sanitizer if this program
// has it, and returns its path.
func Build(dir string, without ...string) (string, error) {
	_, file, _, ok := runtime.Caller(0)
	if !ok {
		return "", fmt.Errorf("faketf: no caller information")
	}
	here := filepath.Dir(file)
	lib := filepath.Join(dir, "libfaketf.so")
	args := []string{"-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1", "-g", "-shared", "-fPIC", "-fvisibility=hidden",
		"-I", filepath.Join(here, "..", "..", "tf"), "-o", lib}
	if Sanitized {
		args = append(args, "-fsanitize=address")
	}
	for _, name := range without {
		args = append(args, "-D"+name+"=without_"+name)
	}
	files, err := filepath.Glob(filepath.Join(here, "testdata", "*.c"))
	if err != nil {
		return "", err
	}
	args = append(append(args, files...), "-ldl", "-pthread")
	if out, err := exec.Command("cc", args...).CombinedOutput(); err != nil {
		return "", fmt.Errorf("faketf: cc: %w\n%s", err, out)
	}
	return lib, nil
}

// Environment names the variable that makes a package's tests run with the fake library.
const Environment = "TFBERT_FAKETF"

// Use builds the library if the environment asks for it, and makes it the one that tf.Load("") finds. done removes
// it.
func Use() (done func(), err error) {
	if os.Getenv(Environment) == "" {
		return func() {}, nil
	}
	dir, err := os.MkdirTemp("", "faketf-")
	if err != nil {
		return nil, err
	}
	lib, err := Build(dir)
	if err == nil {
		err = os.Setenv("TFBERT_LIBTENSORFLOW", lib)
	}
	return func() { os.RemoveAll(dir) }, err
}
