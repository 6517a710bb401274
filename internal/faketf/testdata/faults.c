#include "internal.h"

#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

static atomic_long live_objects[FAKETF_KINDS], live_bytes;
static atomic_long calls, fail_call, allocations, fail_allocation;
static atomic_int fail_code, runs, most_runs;
static const char* _Atomic fired;

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_changed = PTHREAD_COND_INITIALIZER;
static char held_function[64];
static int held_calls;

void run_begins(void) {
  int now = atomic_fetch_add(&runs, 1) + 1, most = atomic_load(&most_runs);
  while (now > most && !atomic_compare_exchange_weak(&most_runs, &most, now)) continue;
}

void run_ends(void) { atomic_fetch_sub(&runs, 1); }

void misuse(const char* what) {
  fprintf(stderr, "faketf: %s\n", what);
  abort();
}

static void* take(size_t size) {
  void* p = NULL;
  if (posix_memalign(&p, 64, size > 0 ? size : 1) != 0) return NULL;
  memset(p, 0, size);
  atomic_fetch_add(&live_bytes, (long)malloc_usable_size(p));
  return p;
}

void* grab_surely(size_t size) {
  void* p = take(size);
  if (p == NULL) misuse("out of memory");
  return p;
}

void* grab(size_t size) {
  if (atomic_load(&fail_allocation) > 0 &&
      atomic_fetch_add(&allocations, 1) + 1 == atomic_load(&fail_allocation)) {
    atomic_store(&fired, "an allocation");
    return NULL;
  }
  return take(size);
}

void drop(void* p) {
  if (p != NULL) atomic_fetch_sub(&live_bytes, (long)malloc_usable_size(p));
  free(p);
}

void* make(enum faketf_kind kind, size_t size) {
  void* p = grab(size);
  if (p != NULL) atomic_fetch_add(&live_objects[kind], 1);
  return p;
}

void unmake(enum faketf_kind kind, void* p) {
  if (p == NULL) misuse("a NULL is deleted");
  atomic_fetch_sub(&live_objects[kind], 1);
  drop(p);
}

char* copy_text(const char* text) {
  char* p = grab(strlen(text) + 1);
  return p != NULL ? strcpy(p, text) : NULL;
}

void set(TF_Status* status, int code, const char* format, const char* arg) {
  status->code = code;
  if (code == OK)
    status->message[0] = '\0';
  else
    snprintf(status->message, sizeof status->message, format, arg);
}

void out_of_memory(TF_Status* status) { set(status, NO_MEMORY, "out of memory%s", ""); }

// What a program that cannot call the table may ask for in its environment: the function that takes
// the signals, with FUNCTION:N at its N-th call, and that which ends the process with a message as
// Abseil's CHECK does.
static char signals_at[64];
static atomic_int signals_after;
static const char* abort_at;

__attribute__((constructor)) static void read_environment(void) {
  const char* at = getenv("FAKETF_SIGNALS");
  int n = 1;
  if (at != NULL) sscanf(at, "%63[^:]:%d", signals_at, &n);
  atomic_store(&signals_after, n);
  abort_at = getenv("FAKETF_ABORT");
}

static struct sigaction before[NSIG];

static void on_signal(int sig, siginfo_t* info, void* context) {
  // The frame of a C++ runtime's handler; it fits no goroutine's stack.
  volatile char frame[1 << 14];
  frame[0] = (char)sig;
  frame[sizeof frame - 1] = frame[0];
  if (before[sig].sa_flags & SA_SIGINFO)
    before[sig].sa_sigaction(sig, info, context);
  else if (before[sig].sa_handler != SIG_DFL && before[sig].sa_handler != SIG_IGN)
    before[sig].sa_handler(sig);
}

static void api_take_signals(void) {
  struct sigaction action = {.sa_sigaction = on_signal, .sa_flags = SA_SIGINFO | SA_RESTART};
  sigfillset(&action.sa_mask);
  sigaction(SIGINT, &action, &before[SIGINT]);
  sigaction(SIGTERM, &action, &before[SIGTERM]);
}

static void disturb(const char* function) {
  if (strcmp(function, signals_at) == 0 && atomic_fetch_sub(&signals_after, 1) == 1)
    api_take_signals();
  if (abort_at != NULL && strcmp(function, abort_at) == 0) {
    fprintf(stderr, "F0000 00:00:1795582973.148465   16955 faketf.cc:1] Check failed: %s\n", function);
    abort();
  }
}

bool injected(const char* function, TF_Status* status) {
  pthread_mutex_lock(&gate);
  if (strcmp(function, held_function) == 0) {
    held_calls++;
    while (strcmp(function, held_function) == 0) pthread_cond_wait(&gate_changed, &gate);
    held_calls--;
  }
  pthread_mutex_unlock(&gate);
  disturb(function);
  if (status != NULL) set(status, OK, "", "");
  if (atomic_load(&fail_call) == 0 || atomic_fetch_add(&calls, 1) + 1 != atomic_load(&fail_call))
    return false;
  atomic_store(&fired, function);
  if (status != NULL) set(status, atomic_load(&fail_code), "%s fails as it was told to", function);
  return true;
}

static faketf_live api_live(void) {
  faketf_live l;
  for (int i = 0; i < FAKETF_KINDS; i++) l.objects[i] = atomic_load(&live_objects[i]);
  l.bytes = atomic_load(&live_bytes);
  return l;
}

static void arm(long call, int code, long allocation) {
  atomic_store(&fail_call, 0);
  atomic_store(&fail_allocation, 0);
  atomic_store(&fired, NULL);
  atomic_store(&calls, 0);
  atomic_store(&allocations, 0);
  atomic_store(&fail_code, code);
  atomic_store(&fail_call, call);
  atomic_store(&fail_allocation, allocation);
}

static void api_fail(long n, int code) { arm(n, code, 0); }

static void api_fail_allocation(long n) { arm(0, 0, n); }

static const char* api_fired(void) { return atomic_load(&fired); }

static void api_hold(const char* function) {
  pthread_mutex_lock(&gate);
  snprintf(held_function, sizeof held_function, "%s", function);
  pthread_cond_broadcast(&gate_changed);
  pthread_mutex_unlock(&gate);
}

static void api_release(void) { api_hold(""); }

static int api_held(void) {
  pthread_mutex_lock(&gate);
  int n = held_calls;
  pthread_mutex_unlock(&gate);
  return n;
}

static int api_most_runs(void) { return atomic_exchange(&most_runs, 0); }

EXPORT const faketf_api faketf = {
    api_live,    api_fail, api_fail_allocation, api_fired,        api_hold,
    api_release, api_held, api_most_runs,       api_take_signals,
};
