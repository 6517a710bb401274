//go:build cgo

#define _GNU_SOURCE
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// tfbLogMessage takes a message of the log and says whether it was one.
extern int tfbLogMessage(char* data, size_t size);

#ifdef __GLIBC__

static FILE *real, *capturing;  // the C library's stream, and the one in its place

// in_handler is set while this thread is in tfbLogMessage: what it writes then is not logged again.
static __thread int in_handler;

// may_be_log keeps out of Go what is not TensorFlow's, such as the last words of Go's own C code. It
// knows the beginnings that parseLog takes apart.
static int may_be_log(const char* data, size_t size) {
  static const char warning[] = "WARNING: All log messages before absl::";
  if (size >= sizeof warning && memcmp(data, warning, sizeof warning - 1) == 0) return 1;
  if (size > 0 && memchr("IWEF", data[0], 4) != NULL) data++, size--;
  for (size_t i = 0; i < 4; i++)
    if (i >= size || !isdigit((unsigned char)data[i])) return 0;
  return 1;
}

static void write_all(const char* data, size_t size) {
  for (size_t done = 0; done < size;) {
    ssize_t n = write(STDERR_FILENO, data + done, size - done);
    if (n < 0 && errno != EINTR) return;  // a broken standard error leaves nobody to tell
    if (n > 0) done += (size_t)n;
  }
}

// begun is a message of which the end has not come yet: fprintf of glibc 2.37 and later writes to a
// stream without a buffer in pieces of 128 bytes. The stream's lock guards it.
static char* begun;
static size_t begun_size;

static void pass_begun_on(void) {
  write_all(begun, begun_size);
  begun_size = 0;
}

static ssize_t write_message(void* cookie, const char* data, size_t size) {
  (void)cookie;
  if (size == 0) return 0;
  if (in_handler || (begun_size == 0 && !may_be_log(data, size))) {
    write_all(data, size);
    return (ssize_t)size;
  }
  char* more = realloc(begun, begun_size + size);
  if (more == NULL) {
    pass_begun_on();
    write_all(data, size);
    return (ssize_t)size;
  }
  begun = more;
  memcpy(begun + begun_size, data, size);
  begun_size += size;
  if (data[size - 1] != '\n') return (ssize_t)size;
  in_handler = 1;
  int taken = tfbLogMessage(begun, begun_size);
  in_handler = 0;
  if (taken)
    begun_size = 0;
  else
    pass_begun_on();
  return (ssize_t)size;
}

int tfb_stderr(int capture) {
  if (!capture) {
    __atomic_store_n(&stderr, real, __ATOMIC_RELEASE);
    flockfile(capturing);  // those who write to it hold its lock
    pass_begun_on();
    funlockfile(capturing);
    return 0;
  }
  if (capturing == NULL) {
    // Never closed: a C++ library that was loaded meanwhile keeps it in std::cerr.
    capturing = fopencookie(NULL, "w", (cookie_io_functions_t){.write = write_message});
    if (capturing == NULL) return errno;
    setvbuf(capturing, NULL, _IONBF, 0);  // what is written comes at once
  }
  real = stderr;
  __atomic_store_n(&stderr, capturing, __ATOMIC_RELEASE);
  return 0;
}

#else

int tfb_stderr(int capture) {
  (void)capture;
  return ENOTSUP;
}

#endif
