#include "internal.h"

#include <errno.h>
#include <stdio.h>
#include <time.h>

typedef struct run {
  TF_Session* session;
  const TF_Output* feeds;
  TF_Tensor* const* values;
  int num_feeds;
  int64_t timeout_ms;
  TF_Status* status;
} run;

static TF_Tensor* eval(run* r, TF_Output o);

#define ARITHMETIC(T)                                                                       \
  static void arithmetic_##T(char op, const TF_Tensor* a, const TF_Tensor* b, TF_Tensor* y) { \
    const T *p = a->block->data, *q = b->block->data;                                       \
    T* to = y->block->data;                                                                 \
    int64_t n = elements(y), m = elements(a), k = elements(b);                              \
    for (int64_t i = 0; i < n; i++) {                                                       \
      T u = p[i % m], v = q[i % k];                                                         \
      to[i] = op == '+' ? u + v : op == '-' ? u - v : u * v;                                \
    }                                                                                       \
  }                                                                                         \
  static void product_##T(const TF_Tensor* a, const TF_Tensor* b, TF_Tensor* y) {           \
    const T *p = a->block->data, *q = b->block->data;                                       \
    T* to = y->block->data;                                                                 \
    int64_t rows = a->dims[0], inner = a->dims[1], columns = b->dims[1];                    \
    for (int64_t i = 0; i < rows; i++)                                                      \
      for (int64_t k = 0; k < inner; k++)                                                   \
        for (int64_t j = 0; j < columns; j++)                                               \
          to[i * columns + j] += p[i * inner + k] * q[k * columns + j];                     \
  }
ARITHMETIC(float)
ARITHMETIC(double)
ARITHMETIC(int32_t)
ARITHMETIC(int64_t)

// compute gives op of a and b, '.' being the product of matrices.
static TF_Tensor* compute(run* r, char op, const TF_Tensor* a, const TF_Tensor* b) {
  if (a == NULL || b == NULL) return NULL;
  const TF_Tensor* shape = a->num_dims >= b->num_dims ? a : b;
  int64_t dims[MAX_RANK];
  int rank = shape->num_dims;
  bool fits = a->type == b->type && rank <= MAX_RANK;
  for (int i = 0; i < rank && fits; i++) dims[i] = shape->dims[i];
  if (op == '.') {
    fits = fits && a->num_dims == 2 && b->num_dims == 2 && a->dims[1] == b->dims[0];
    if (fits) dims[1] = b->dims[1];
  } else {
    int64_t m = elements(a), k = elements(b);
    fits = fits && (m > 0 && k > 0 ? (m > k ? m % k : k % m) == 0 : m == k);
  }
  size_t size = a->type == DOUBLE || a->type == INT64 ? 8 : 4;
  fits = fits && (a->type == FLOAT || a->type == DOUBLE || a->type == INT32 || a->type == INT64);
  if (!fits) {
    set(r->status, INVALID, "%s", "Incompatible shapes or types");
    return NULL;
  }
  for (int i = 0; i < rank; i++) size *= (size_t)dims[i];
  TF_Tensor* y = allocate(a->type, dims, rank, size);
  if (y == NULL) {
    out_of_memory(r->status);
    return NULL;
  }
#define APPLY(T) op == '.' ? product_##T(a, b, y) : arithmetic_##T(op, a, b, y)
  switch (a->type) {
    case FLOAT: APPLY(float); break;
    case DOUBLE: APPLY(double); break;
    case INT32: APPLY(int32_t); break;
    case INT64: APPLY(int64_t); break;
  }
#undef APPLY
  return y;
}

static TF_Tensor* shared(run* r, const TF_Tensor* t) {
  TF_Tensor* y = share(t);
  if (y == NULL) out_of_memory(r->status);
  return y;
}

// dequeue waits for what never comes: until the time is over or the session is closed.
static void dequeue(run* r) {
  TF_Session* s = r->session;
  struct timespec until;
  clock_gettime(CLOCK_REALTIME, &until);
  until.tv_sec += r->timeout_ms / 1000;
  until.tv_nsec += r->timeout_ms % 1000 * 1000000;
  if (until.tv_nsec >= 1000000000) until.tv_sec++, until.tv_nsec -= 1000000000;
  bool expired = false;
  pthread_mutex_lock(&s->mu);
  while (!s->closed && !expired) {
    if (r->timeout_ms > 0)
      expired = pthread_cond_timedwait(&s->changed, &s->mu, &until) == ETIMEDOUT;
    else
      pthread_cond_wait(&s->changed, &s->mu);
  }
  pthread_mutex_unlock(&s->mu);
  if (expired)
    set(r->status, DEADLINE, "%s", "Timed out waiting for notification");
  else
    set(r->status, CANCELLED, "%s", "Session has been closed.");
}

static void (*_Atomic listener)(const char*);

void TF_RegisterLogListener(void (*l)(const char*)) { atomic_store(&listener, l); }

static void print(const TF_Tensor* t) {
  void (*l)(const char*) = atomic_load(&listener);
  if (l == NULL || t->type != STRING || elements(t) != 1) return;
  char line[512];
  const TF_TString* s = t->block->data;
  snprintf(line, sizeof line, "%.*s\n", (int)TF_StringGetSize(s), TF_StringGetDataPointer(s));
  l(line);
}

static void assign(run* r, TF_Operation* handle, const TF_Tensor* value) {
  TF_Tensor* own = shared(r, value);
  variable* v = own != NULL ? grab(sizeof *v) : NULL;
  if (v == NULL) {
    if (own != NULL) TF_DeleteTensor(own);
    out_of_memory(r->status);
    return;
  }
  *v = (variable){handle, own, NULL};
  pthread_mutex_lock(&r->session->mu);
  v->next = r->session->variables;
  r->session->variables = v;
  pthread_mutex_unlock(&r->session->mu);
}

static TF_Tensor* read_variable(run* r, TF_Operation* handle) {
  pthread_mutex_lock(&r->session->mu);
  variable* v = r->session->variables;
  while (v != NULL && v->handle != handle) v = v->next;
  pthread_mutex_unlock(&r->session->mu);
  if (v != NULL) return shared(r, v->value);
  set(r->status, 9, "Could not find variable %s", handle->name);
  return NULL;
}

// eval gives the value of an output, or NULL with the status set.
static TF_Tensor* eval(run* r, TF_Output o) {
  TF_Operation* op = o.oper;
  for (int i = 0; i < r->num_feeds; i++)
    if (r->feeds[i].oper == op && r->feeds[i].index == o.index) return shared(r, r->values[i]);
  const char* type = op->type;
  if (strcmp(type, "Const") == 0) return shared(r, op->value);
  if (strcmp(type, "Placeholder") == 0) {
    set(r->status, INVALID, "You must feed a value for placeholder tensor '%s'", op->name);
    return NULL;
  }
  if (strcmp(type, "ReadVariableOp") == 0) return read_variable(r, op->inputs[0].oper);
  if (strcmp(type, "QueueDequeueV2") == 0) {
    dequeue(r);
    return NULL;
  }
  TF_Tensor *a = op->num_inputs > 0 ? eval(r, op->inputs[0]) : NULL, *y = NULL;
  if (a == NULL) {
    if (r->status->code == OK) set(r->status, INVALID, "%s has no value", op->name);
    return NULL;
  }
  TF_Tensor* b = op->num_inputs > 1 ? eval(r, op->inputs[1]) : NULL;
  if (strcmp(type, "Identity") == 0) y = shared(r, a);
  if (strcmp(type, "Square") == 0) y = compute(r, '*', a, a);
  if (strcmp(type, "Neg") == 0) {
    TF_Tensor* zero = compute(r, '-', a, a);
    y = compute(r, '-', zero, a);
    if (zero != NULL) TF_DeleteTensor(zero);
  }
  if (strcmp(type, "Sub") == 0) y = compute(r, '-', a, b);
  if (strcmp(type, "Mul") == 0) y = compute(r, '*', a, b);
  if (strcmp(type, "AddV2") == 0) y = compute(r, '+', a, b);
  if (strcmp(type, "MatMul") == 0) y = compute(r, '.', a, b);
  if (a != NULL) TF_DeleteTensor(a);
  if (b != NULL) TF_DeleteTensor(b);
  return y;
}

static void run_target(run* r, const TF_Operation* op) {
  if (strcmp(op->type, "NoOp") == 0) return;
  bool assigns = strcmp(op->type, "AssignVariableOp") == 0;
  TF_Output from = {(TF_Operation*)op, 0};
  if (op->kind->outputs == 0) from = op->inputs[assigns ? 1 : 0];
  TF_Tensor* t = eval(r, from);
  if (t == NULL) return;
  if (assigns) assign(r, op->inputs[0].oper, t);
  if (strcmp(op->type, "PrintV2") == 0) print(t);
  TF_DeleteTensor(t);
}

// run_metadata says that every operation took a microsecond.
static writer run_metadata(TF_Graph* g) {
  writer device = {0}, steps = {0}, w = {0};
  struct timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  put_text(&device, 1, "/job:localhost/replica:0/task:0/device:CPU:0");
  for (TF_Operation* op = g->operations; op != NULL; op = op->next) {
    writer node = {0};
    put_text(&node, 1, op->name);
    put_number(&node, 2, (uint64_t)now.tv_sec * 1000000);
    put_number(&node, 5, 1);
    put_text(&node, 8, op->type);
    put_message(&device, 2, node);
  }
  put_message(&steps, 1, device);
  put_message(&w, 1, steps);
  put_message(&w, 3, graph_def(g));
  return w;
}

static void run_all(run* r, const TF_Output* fetches, TF_Tensor** values, int n,
                    const TF_Operation* const* targets, int num_targets) {
  for (int i = 0; i < r->num_feeds && r->status->code == OK; i++)
    if (r->feeds[i].oper->output_type != r->values[i]->type)
      set(r->status, INVALID, "The type of %s is not that of its tensor, such as int32",
          r->feeds[i].oper->name);
  for (int i = 0; i < num_targets && r->status->code == OK; i++) run_target(r, targets[i]);
  for (int i = 0; i < n && r->status->code == OK; i++) values[i] = eval(r, fetches[i]);
}

void TF_SessionRun(TF_Session* s, const TF_Buffer* options, const TF_Output* feeds,
                   TF_Tensor* const* feed_values, int num_feeds, const TF_Output* fetches,
                   TF_Tensor** fetch_values, int num_fetches, const TF_Operation* const* targets,
                   int num_targets, TF_Buffer* metadata, TF_Status* status) {
  pthread_mutex_lock(&s->mu);
  bool closed = s->closed;
  s->runs++;
  pthread_mutex_unlock(&s->mu);
  run_begins();

  run r = {s, feeds, feed_values, num_feeds, 0, status};
  for (int i = 0; i < num_fetches; i++) fetch_values[i] = NULL;
  if (injected(__func__, status)) {
    // as it was told to
  } else if (closed) {
    set(status, CANCELLED, "%s", "Session has been closed.");
  } else {
    if (options != NULL)
      r.timeout_ms = (int64_t)first((bytes){options->data, options->length}, 2).value;
    run_all(&r, fetches, fetch_values, num_fetches, targets, num_targets);
    if (status->code == OK && metadata != NULL) into(metadata, run_metadata(s->graph), status);
  }
  run_ends();
  pthread_mutex_lock(&s->mu);
  s->runs--;
  pthread_mutex_unlock(&s->mu);
}
