package tf

import (
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/tfbert/go/internal/libtf"
)

// The loaded library is the package's only state, because dlopen is for the whole process.
var library struct {
	mu     sync.Mutex
	loaded atomic.Bool
	asked  string // the path given to the Load that succeeded
}

// Load opens libtensorflow, once per process: later calls with "", the same path or the path of the
// loaded library do nothing. If path is "", Load opens the first of these that there is: the library that
// $TFBERT_LIBTENSORFLOW names, the one that `tfbert lib install` put into the user's cache, the one of the
// active Python environment, and the one that the system's linker finds. After an error, Load may be
// called again with another path.
func Load(path string) error {
	library.mu.Lock()
	defer library.mu.Unlock()
	if library.loaded.Load() {
		if path == "" || path == library.asked || path == capiLibraryPath() {
			return nil
		}
		return fmt.Errorf("load %s: %s is loaded already, and a process can hold only one TensorFlow",
			path, capiLibraryPath())
	}
	file := path
	if file == "" {
		var err error
		if file, err = libtf.Path(); err != nil {
			return fmt.Errorf("load: %w", err)
		}
	}
	if err := capiLoad(file); err != nil {
		return fmt.Errorf("load %s: %w", file, err)
	}
	library.asked = path
	library.loaded.Store(true)
	fixSignals()
	if logger.Load() != nil {
		capiLogRegister()
	}
	return nil
}

// Loaded reports whether Load has succeeded.
func Loaded() bool { return library.loaded.Load() }

// Version returns the version of the library, such as "2.21.0", or "" before Load.
func Version() string {
	if !Loaded() {
		return ""
	}
	return capiVersion()
}

// Path returns the path of the loaded library, or "" before Load.
func Path() string {
	if !Loaded() {
		return ""
	}
	return capiLibraryPath()
}

// fixSignals adds the flag SA_ONSTACK to the signal handlers that foreign code installed without it, and
// returns how many there were. A Go program dies at a signal that such a handler takes on a goroutine's
// stack. CUDA is known to install them. Load calls fixSignals, and so does every session after its first
// run, when the driver is up.
func fixSignals() int { return capiSetOnStack() }

// OpList returns the serialized OpList of all operations that the library knows.
func OpList() ([]byte, error) {
	if !Loaded() {
		return nil, ErrNotLoaded
	}
	return capiOpList()
}

// LoadLibrary loads a shared library of custom operations and kernels and returns its serialized
// OpList. It stays loaded.
func LoadLibrary(path string) (opList []byte, err error) {
	if !Loaded() {
		return nil, ErrNotLoaded
	}
	return capiLoadLibrary(path)
}

// Counts are the numbers of open C objects.
type Counts struct{ Tensors, Graphs, Sessions int64 }

var alive struct{ tensors, graphs, sessions atomic.Int64 }

// Alive counts the tensors, graphs and sessions that are neither closed nor collected.
func Alive() Counts {
	return Counts{alive.tensors.Load(), alive.graphs.Load(), alive.sessions.Load()}
}
