package tf

// TrimMemory gives memory that TensorFlow has freed back to the system, as far as the C library can: glibc keeps it for
// later otherwise. It takes milliseconds. Elsewhere it does nothing.
func TrimMemory() { capiTrim() }

// LimitArenas bounds the parts of glibc's heap, between which threads are spread and each of which keeps what was
// freed in it. It applies to parts that are made later, so call it before Load. Elsewhere it does nothing.
func LimitArenas(n int) { capiLimitArenas(n) }
