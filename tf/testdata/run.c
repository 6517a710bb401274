// The calls of TestRunBesideC, in C: the program loads the TensorFlow library that its first argument
// names, makes the same graph and a session with the configuration of the second argument (in
// hexadecimal), and for each line with a number on its standard input runs the session that often
// and prints the median time of a run in nanoseconds.
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../capi.h"

enum { PAIRS = 2, ELEMENTS = 8, INT32 = 3 };

static struct {
#define FIELD(result, name, params) result(*name) params;
  TFB_REQUIRED(FIELD)
#undef FIELD
} tf;

static TF_Status* status;

static void check(const char* what) {
  if (tf.TF_GetCode(status) == TF_OK) return;
  fprintf(stderr, "%s: %s\n", what, tf.TF_Message(status));
  exit(1);
}

static TF_Output placeholder(TF_Graph* g, const char* name) {
  TF_OperationDescription* d = tf.TF_NewOperation(g, "Placeholder", name);
  const char dtype[] = {0x30, INT32};  // AttrValue.type
  tf.TF_SetAttrValueProto(d, "dtype", dtype, sizeof dtype, status);
  check("placeholder");
  TF_Output o = {tf.TF_FinishOperation(d, status), 0};
  check("placeholder");
  return o;
}

static TF_Output sum(TF_Graph* g, const char* name, TF_Output a, TF_Output b) {
  TF_OperationDescription* d = tf.TF_NewOperation(g, "AddV2", name);
  tf.TF_AddInput(d, a);
  tf.TF_AddInput(d, b);
  TF_Output o = {tf.TF_FinishOperation(d, status), 0};
  check("sum");
  return o;
}

static TF_Tensor* ones(void) {
  const int64_t shape[] = {ELEMENTS};
  TF_Tensor* t = tf.TF_AllocateTensor((TF_DataType)INT32, shape, 1, ELEMENTS * sizeof(int32_t));
  for (int i = 0; i < ELEMENTS; i++) ((int32_t*)tf.TF_TensorData(t))[i] = 1;
  return t;
}

static long long now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int ascending(const void* a, const void* b) {
  long long x = *(const long long*)a, y = *(const long long*)b;
  return (x > y) - (x < y);
}

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  void* library = dlopen(argv[1], RTLD_NOW | RTLD_LOCAL);
  if (library == NULL) {
    fprintf(stderr, "%s\n", dlerror());
    return 1;
  }
#define LOOKUP(result, name, params) *(void**)&tf.name = dlsym(library, #name);
  TFB_REQUIRED(LOOKUP)
#undef LOOKUP
  status = tf.TF_NewStatus();
  TF_Graph* g = tf.TF_NewGraph();
  TF_Output feeds[2 * PAIRS], fetches[PAIRS];
  TF_Tensor* values[2 * PAIRS];
  for (int i = 0; i < PAIRS; i++) {
    char name[3][8];
    snprintf(name[0], sizeof name[0], "a%d", i);
    snprintf(name[1], sizeof name[1], "b%d", i);
    snprintf(name[2], sizeof name[2], "sum%d", i);
    feeds[2 * i] = placeholder(g, name[0]);
    feeds[2 * i + 1] = placeholder(g, name[1]);
    fetches[i] = sum(g, name[2], feeds[2 * i], feeds[2 * i + 1]);
    values[2 * i] = ones();
    values[2 * i + 1] = ones();
  }
  unsigned char config[64];
  size_t length = strlen(argv[2]) / 2;
  for (size_t i = 0; i < length && i < sizeof config; i++) sscanf(argv[2] + 2 * i, "%2hhx", &config[i]);
  TF_SessionOptions* options = tf.TF_NewSessionOptions();
  tf.TF_SetConfig(options, config, length, status);
  check("configuration");
  TF_Session* session = tf.TF_NewSession(g, options, status);
  check("session");
  TF_Status* run = tf.TF_NewStatus();
  for (int n; scanf("%d", &n) == 1 && n > 0;) {
    long long* times = malloc((size_t)n * sizeof *times);
    for (int i = 0; i < n; i++) {
      TF_Tensor* results[PAIRS] = {NULL};
      long long start = now();
      tf.TF_SessionRun(session, NULL, feeds, values, 2 * PAIRS, fetches, results, PAIRS, NULL, 0,
                       NULL, run);
      for (int k = 0; k < PAIRS; k++)
        if (results[k] != NULL) tf.TF_DeleteTensor(results[k]);
      times[i] = now() - start;
      if (tf.TF_GetCode(run) != TF_OK) {
        fprintf(stderr, "run: %s\n", tf.TF_Message(run));
        return 1;
      }
    }
    qsort(times, (size_t)n, sizeof *times, ascending);
    printf("%lld\n", times[n / 2]);
    fflush(stdout);
    free(times);
  }
  return 0;
}
