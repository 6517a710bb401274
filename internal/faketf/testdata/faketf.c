// A TensorFlow library for tests: it has every function of TensorFlow's C API that package tf uses,
// over a toy of a graph and a session, counts what is alive, and fails where it is told to. It keeps
// the contracts of the real one that matter to a caller: who frees what, also on failure; that a
// graph outlives its deletion while a session is over it; that an output may share the memory of a
// fed tensor. It aborts where a caller breaks them.
#define _GNU_SOURCE
#include "faketf.h"

#include <dlfcn.h>
#include <errno.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "capi.h"

// The definitions below must have the types of the table.
#define DECLARE(result, name, params) result name params;
TFB_REQUIRED(DECLARE)
TFB_OPTIONAL(DECLARE)
#undef DECLARE

enum { OK, CANCELLED, INVALID = 3, DEADLINE = 4, NOT_FOUND = 5, EXISTS = 6, NO_MEMORY = 8 };
enum { FLOAT = 1, DOUBLE = 2, INT32 = 3, STRING = 7, INT64 = 9, RESOURCE = 20 };

// ---- what is alive, and what fails ----

static atomic_long live_objects[FAKETF_KINDS], live_bytes;
static atomic_long calls, fail_call, allocations, fail_allocation;
static atomic_int fail_code, runs, most_runs;
static const char* _Atomic fired;

static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t gate_changed = PTHREAD_COND_INITIALIZER;
static char held_function[64];
static int held_calls;

static void misuse(const char* what) {
  fprintf(stderr, "faketf: %s\n", what);
  abort();
}

static void* grab(size_t size) {
  if (atomic_load(&fail_allocation) > 0 &&
      atomic_fetch_add(&allocations, 1) + 1 == atomic_load(&fail_allocation)) {
    atomic_store(&fired, "an allocation");
    return NULL;
  }
  void* p = NULL;
  if (posix_memalign(&p, 64, size > 0 ? size : 1) != 0) return NULL;
  memset(p, 0, size);
  atomic_fetch_add(&live_bytes, (long)malloc_usable_size(p));
  return p;
}

static void drop(void* p) {
  if (p != NULL) atomic_fetch_sub(&live_bytes, (long)malloc_usable_size(p));
  free(p);
}

static void* make(enum faketf_kind kind, size_t size) {
  void* p = grab(size);
  if (p != NULL) atomic_fetch_add(&live_objects[kind], 1);
  return p;
}

static void unmake(enum faketf_kind kind, void* p) {
  if (p == NULL) misuse("a NULL is deleted");
  atomic_fetch_sub(&live_objects[kind], 1);
  drop(p);
}

static char* copy_text(const char* text) {
  char* p = grab(strlen(text) + 1);
  return p != NULL ? strcpy(p, text) : NULL;
}

struct TF_Status {
  int code;
  char message[400];
};

static void set(TF_Status* status, int code, const char* format, const char* arg) {
  status->code = code;
  if (code == OK)
    status->message[0] = '\0';
  else
    snprintf(status->message, sizeof status->message, format, arg);
}

static void out_of_memory(TF_Status* status) { set(status, NO_MEMORY, "out of memory%s", ""); }

static void api_take_signals(void);

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

static void disturb(const char* function) {
  if (strcmp(function, signals_at) == 0 && atomic_fetch_sub(&signals_after, 1) == 1)
    api_take_signals();
  if (abort_at != NULL && strcmp(function, abort_at) == 0) {
    fprintf(stderr, "F0000 00:00:1795582973.148465   16955 faketf.cc:1] Check failed: %s\n", function);
    abort();
  }
}

// injected begins every call that can fail: it waits where the function is held, gives the status
// its OK, and says whether the call must fail, with the status set.
static bool injected(const char* function, TF_Status* status) {
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

// ---- statuses and buffers ----

const char* TF_Version(void) { return "2.0.0-fake"; }

TF_Status* TF_NewStatus(void) {
  if (injected(__func__, NULL)) return NULL;
  return make(FAKETF_STATUS, sizeof(TF_Status));
}

void TF_DeleteStatus(TF_Status* s) { unmake(FAKETF_STATUS, s); }

TF_Code TF_GetCode(const TF_Status* s) { return (TF_Code)s->code; }

const char* TF_Message(const TF_Status* s) { return s->message; }

TF_Buffer* TF_NewBuffer(void) {
  if (injected(__func__, NULL)) return NULL;
  return make(FAKETF_BUFFER, sizeof(TF_Buffer));
}

void TF_DeleteBuffer(TF_Buffer* b) {
  drop((void*)b->data);
  unmake(FAKETF_BUFFER, b);
}

// ---- strings: a length and memory of their own ----

typedef struct text {
  char* data;
  size_t length;
  uint64_t unused;
} text;
_Static_assert(sizeof(text) == sizeof(TF_TString), "text");

void TF_StringInit(TF_TString* s) { memset(s, 0, sizeof *s); }

void TF_StringCopy(TF_TString* s, const char* data, size_t length) {
  text* t = (text*)s;
  drop(t->data);
  // The real function cannot report that there is no memory either: it ends the process.
  void* p = NULL;
  if (posix_memalign(&p, 64, length + 1) != 0) misuse("out of memory");
  atomic_fetch_add(&live_bytes, (long)malloc_usable_size(p));
  if (length > 0) memcpy(p, data, length);
  t->data = p;
  t->length = length;
}

const char* TF_StringGetDataPointer(const TF_TString* s) {
  const text* t = (const text*)s;
  return t->data != NULL ? t->data : "";
}

size_t TF_StringGetSize(const TF_TString* s) { return ((const text*)s)->length; }

void TF_StringDealloc(TF_TString* s) {
  drop(((text*)s)->data);
  TF_StringInit(s);
}

// ---- tensors ----

// A block is the memory of one or more tensors.
typedef struct block {
  atomic_int users;
  void* data;
  size_t length;
  void (*deallocate)(void*, size_t, void*);
  void* arg;
} block;

struct TF_Tensor {
  int type, num_dims;
  int64_t* dims;
  block* block;
};

static void release_data(void* data, size_t length, void* strings) {
  if (strings != NULL)
    for (size_t i = 0; i < length / sizeof(TF_TString); i++) TF_StringDealloc((TF_TString*)data + i);
  drop(data);
}

static void release_block(block* b) {
  if (atomic_fetch_sub(&b->users, 1) > 1) return;
  b->deallocate(b->data, b->length, b->arg);
  drop(b);
}

// over makes a tensor of a block and consumes it, also where it fails.
static TF_Tensor* over(int type, const int64_t* dims, int num_dims, block* b) {
  TF_Tensor* t = make(FAKETF_TENSOR, sizeof *t);
  int64_t* own = grab((size_t)num_dims * sizeof *dims);
  if (t == NULL || own == NULL) {
    if (t != NULL) unmake(FAKETF_TENSOR, t);
    drop(own);
    release_block(b);
    return NULL;
  }
  if (num_dims > 0) memcpy(own, dims, (size_t)num_dims * sizeof *dims);
  *t = (TF_Tensor){type, num_dims, own, b};
  return t;
}

static TF_Tensor* share(const TF_Tensor* t) {
  atomic_fetch_add(&t->block->users, 1);
  return over(t->type, t->dims, t->num_dims, t->block);
}

TF_Tensor* TF_NewTensor(TF_DataType type, const int64_t* dims, int num_dims, void* data,
                        size_t length, void (*deallocate)(void*, size_t, void*), void* arg) {
  block* b = injected(__func__, NULL) ? NULL : grab(sizeof *b);
  if (b == NULL) {
    deallocate(data, length, arg);
    return NULL;
  }
  *b = (block){1, data, length, deallocate, arg};
  return over((int)type, dims, num_dims, b);
}

static TF_Tensor* allocate(int type, const int64_t* dims, int num_dims, size_t length) {
  block* b = grab(sizeof *b);
  void* data = grab(length);
  if (b == NULL || data == NULL) {
    drop(b);
    drop(data);
    return NULL;
  }
  *b = (block){1, data, length, release_data, type == STRING ? b : NULL};
  return over(type, dims, num_dims, b);
}

TF_Tensor* TF_AllocateTensor(TF_DataType type, const int64_t* dims, int num_dims, size_t length) {
  if (injected(__func__, NULL)) return NULL;
  return allocate((int)type, dims, num_dims, length);
}

void TF_DeleteTensor(TF_Tensor* t) {
  release_block(t->block);
  drop(t->dims);
  unmake(FAKETF_TENSOR, t);
}

TF_DataType TF_TensorType(const TF_Tensor* t) { return (TF_DataType)t->type; }

int TF_NumDims(const TF_Tensor* t) { return t->num_dims; }

int64_t TF_Dim(const TF_Tensor* t, int i) { return t->dims[i]; }

size_t TF_TensorByteSize(const TF_Tensor* t) { return t->block->length; }

void* TF_TensorData(const TF_Tensor* t) {
  if (injected(__func__, NULL)) return NULL;
  return t->block->data;
}

static int64_t elements(const TF_Tensor* t) {
  int64_t n = 1;
  for (int i = 0; i < t->num_dims; i++) n *= t->dims[i];
  return n;
}

// ---- protocol buffers ----

typedef struct bytes {
  const uint8_t* data;
  size_t length;
} bytes;

typedef struct writer {
  uint8_t* data;
  size_t length, room;
  bool failed;
} writer;

static void put(writer* w, const void* data, size_t length) {
  if (w->length + length > w->room) {
    size_t room = 2 * (w->length + length) + 64;
    uint8_t* more = w->failed ? NULL : grab(room);
    if (more == NULL) {
      w->failed = true;
      return;
    }
    if (w->length > 0) memcpy(more, w->data, w->length);
    drop(w->data);
    w->data = more;
    w->room = room;
  }
  if (length > 0) memcpy(w->data + w->length, data, length);
  w->length += length;
}

static void put_varint(writer* w, uint64_t v) {
  for (; v >= 0x80; v >>= 7) put(w, &(uint8_t){(uint8_t)(v | 0x80)}, 1);
  put(w, &(uint8_t){(uint8_t)v}, 1);
}

static void put_number(writer* w, int field, uint64_t v) {
  put_varint(w, (uint64_t)field << 3);
  put_varint(w, v);
}

static void put_bytes(writer* w, int field, const void* data, size_t length) {
  put_varint(w, (uint64_t)field << 3 | 2);
  put_varint(w, length);
  put(w, data, length);
}

static void put_text(writer* w, int field, const char* text) {
  put_bytes(w, field, text, strlen(text));
}

// put_message consumes the inner message.
static void put_message(writer* w, int field, writer inner) {
  put_bytes(w, field, inner.data, inner.length);
  w->failed |= inner.failed;
  drop(inner.data);
}

// into hands a message to a buffer.
static void into(TF_Buffer* b, writer w, TF_Status* status) {
  if (w.failed) {
    drop(w.data);
    if (status != NULL) out_of_memory(status);
    return;
  }
  b->data = w.data;
  b->length = w.length;
}

typedef struct field {
  int number, type;
  uint64_t value;
  bytes bytes;
} field;

static bool get_varint(bytes* b, uint64_t* v) {
  *v = 0;
  for (int shift = 0; shift < 64 && b->length > 0; shift += 7) {
    uint8_t byte = *b->data++;
    b->length--;
    *v |= (uint64_t)(byte & 0x7f) << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

// get takes a field from the front. It is false at the end, where *damaged says of which kind.
static bool get(bytes* b, field* f, bool* damaged) {
  if (b->length == 0) return false;
  uint64_t tag, length;
  *damaged = true;
  if (!get_varint(b, &tag)) return false;
  f->number = (int)(tag >> 3);
  f->type = (int)(tag & 7);
  switch (f->type) {
    case 0:
      *damaged = !get_varint(b, &f->value);
      return !*damaged;
    case 1:
    case 5:
      length = f->type == 1 ? 8 : 4;
      break;
    case 2:
      if (!get_varint(b, &length)) return false;
      break;
    default:
      return false;
  }
  if (length > b->length || f->number == 0) return false;
  f->bytes = (bytes){b->data, length};
  b->data += length;
  b->length -= length;
  *damaged = false;
  return true;
}

// first finds the first field of a number, which stands for nothing where it is not there.
static field first(bytes b, int number) {
  bool damaged;
  for (field f = {0}; get(&b, &f, &damaged);)
    if (f.number == number) return f;
  return (field){0};
}

static bool valid(bytes b) {
  bool damaged = false;
  for (field f; get(&b, &f, &damaged);) continue;
  return !damaged;
}

// ---- graphs ----

enum shape { NONE, FROM_ATTR, AS_INPUT, BROADCAST, PRODUCT };

typedef struct kind {
  const char* name;
  int inputs, outputs;
  const char* required;  // an attribute
  enum shape shape;
} kind;

static const kind kinds[] = {
    {"NoOp", 0, 0, NULL, NONE},
    {"Placeholder", 0, 1, "dtype", FROM_ATTR},
    {"Const", 0, 1, "value", FROM_ATTR},
    {"Identity", 1, 1, NULL, AS_INPUT},
    {"Neg", 1, 1, NULL, AS_INPUT},
    {"Square", 1, 1, NULL, AS_INPUT},
    {"Sub", 2, 1, NULL, BROADCAST},
    {"Mul", 2, 1, NULL, BROADCAST},
    {"AddV2", 2, 1, NULL, BROADCAST},
    {"MatMul", 2, 1, NULL, PRODUCT},
    {"ConcatV2", -1, 1, NULL, NONE},
    {"FIFOQueueV2", 0, 1, "component_types", NONE},
    {"QueueDequeueV2", 1, 1, "component_types", NONE},
    {"VarHandleOp", 0, 1, "dtype", NONE},
    {"AssignVariableOp", 2, 0, NULL, NONE},
    {"ReadVariableOp", 1, 1, "dtype", NONE},
    {"PrintV2", 1, 0, NULL, NONE},
};

typedef struct attr {
  char* name;
  uint8_t* proto;
  size_t length;
  struct attr* next;
} attr;

enum { MAX_RANK = 8, MAX_INPUTS = 16 };

struct TF_Operation {
  TF_Graph* graph;
  const kind* kind;
  char *name, *type, *device;
  TF_Output inputs[MAX_INPUTS];
  int num_inputs;
  TF_Operation* controls[MAX_INPUTS];
  int num_controls;
  attr* attrs;
  TF_Tensor* value;     // of a Const
  int output_type;
  int rank;             // of the output, -1 unknown
  int64_t dims[MAX_RANK];
  bool no_input;        // a NULL was added
  bool failed;          // to take what it was given: there was no memory
  TF_Operation* next;
};

struct TF_OperationDescription {
  TF_Operation operation;
};

struct TF_Graph {
  pthread_mutex_t mu;
  TF_Operation* operations;
  int sessions;
  bool deleted;
};

TF_Graph* TF_NewGraph(void) {
  if (injected(__func__, NULL)) return NULL;
  TF_Graph* g = make(FAKETF_GRAPH, sizeof *g);
  if (g != NULL) pthread_mutex_init(&g->mu, NULL);
  return g;
}

static void free_operation(TF_Operation* op) {
  for (attr *a = op->attrs, *next; a != NULL; a = next) {
    next = a->next;
    drop(a->name);
    drop(a->proto);
    drop(a);
  }
  if (op->value != NULL) TF_DeleteTensor(op->value);
  drop(op->name);
  drop(op->type);
  drop(op->device);
  unmake(FAKETF_OPERATION, op);
}

static void free_graph(TF_Graph* g) {
  for (TF_Operation *op = g->operations, *next; op != NULL; op = next) {
    next = op->next;
    free_operation(op);
  }
  pthread_mutex_destroy(&g->mu);
  unmake(FAKETF_GRAPH, g);
}

// leave_graph ends a use of a graph: its owner's, or a session's.
static void leave_graph(TF_Graph* g, bool session) {
  pthread_mutex_lock(&g->mu);
  if (session)
    g->sessions--;
  else if (g->deleted)
    misuse("a graph is deleted twice");
  else
    g->deleted = true;
  bool last = g->deleted && g->sessions == 0;
  pthread_mutex_unlock(&g->mu);
  if (last) free_graph(g);
}

void TF_DeleteGraph(TF_Graph* g) { leave_graph(g, false); }

static TF_Operation* find(TF_Graph* g, const char* name, size_t length) {
  for (TF_Operation* op = g->operations; op != NULL; op = op->next)
    if (strlen(op->name) == length && memcmp(op->name, name, length) == 0) return op;
  return NULL;
}

TF_OperationDescription* TF_NewOperation(TF_Graph* g, const char* type, const char* name) {
  if (injected(__func__, NULL)) return NULL;
  TF_Operation* op = make(FAKETF_OPERATION, sizeof *op);
  if (op == NULL) return NULL;
  op->graph = g;
  op->name = copy_text(name);
  op->type = copy_text(type);
  op->device = copy_text("");
  op->failed = op->name == NULL || op->type == NULL || op->device == NULL;
  return (TF_OperationDescription*)op;
}

void TF_SetDevice(TF_OperationDescription* d, const char* device) {
  TF_Operation* op = &d->operation;
  drop(op->device);
  op->device = copy_text(device);
  op->failed |= op->device == NULL;
}

void TF_AddInput(TF_OperationDescription* d, TF_Output input) {
  TF_Operation* op = &d->operation;
  if (input.oper == NULL) {
    op->no_input = true;
    return;
  }
  if (op->num_inputs == MAX_INPUTS) misuse("too many inputs");
  op->inputs[op->num_inputs++] = input;
}

void TF_AddInputList(TF_OperationDescription* d, const TF_Output* inputs, int n) {
  for (int i = 0; i < n; i++) TF_AddInput(d, inputs[i]);
}

void TF_AddControlInput(TF_OperationDescription* d, TF_Operation* control) {
  TF_Operation* op = &d->operation;
  if (op->num_controls == MAX_INPUTS) misuse("too many control inputs");
  op->controls[op->num_controls++] = control;
}

static bool add_attr(TF_Operation* op, const char* name, size_t name_length, bytes proto) {
  attr* a = grab(sizeof *a);
  if (a != NULL) {
    a->name = grab(name_length + 1);
    a->proto = grab(proto.length);
  }
  if (a == NULL || a->name == NULL || a->proto == NULL) {
    if (a != NULL) {
      drop(a->name);
      drop(a->proto);
    }
    drop(a);
    return false;
  }
  memcpy(a->name, name, name_length);
  if (proto.length > 0) memcpy(a->proto, proto.data, proto.length);
  a->length = proto.length;
  attr** last = &op->attrs;
  while (*last != NULL) last = &(*last)->next;
  *last = a;
  return true;
}

static bytes attr_of(const TF_Operation* op, const char* name) {
  for (attr* a = op->attrs; a != NULL; a = a->next)
    if (strcmp(a->name, name) == 0) return (bytes){a->proto, a->length};
  return (bytes){NULL, 0};
}

static writer shape_proto(int rank, const int64_t* dims) {
  writer shape = {0};
  for (int i = 0; i < rank; i++) {
    writer dim = {0};
    put_number(&dim, 1, (uint64_t)dims[i]);
    put_message(&shape, 2, dim);
  }
  return shape;
}

// tensor_proto writes a tensor as TensorFlow does: one number of int32 as int_val.
static writer tensor_proto(const TF_Tensor* t) {
  writer w = {0};
  put_number(&w, 1, (uint64_t)t->type);
  put_message(&w, 2, shape_proto(t->num_dims, t->dims));
  if (t->type == STRING) {
    const TF_TString* s = t->block->data;
    for (int64_t i = 0; i < elements(t); i++)
      put_bytes(&w, 8, TF_StringGetDataPointer(&s[i]), TF_StringGetSize(&s[i]));
  } else if (t->type == INT32 && elements(t) == 1) {
    put_number(&w, 7, (uint64_t) * (int32_t*)t->block->data);
  } else {
    put_bytes(&w, 4, t->block->data, t->block->length);
  }
  return w;
}

// read_shape gives -1 for a shape of unknown rank.
static int read_shape(bytes b, int64_t* dims) {
  int rank = 0;
  bool damaged;
  for (field f; get(&b, &f, &damaged);) {
    if (f.number == 3 && f.value != 0) return -1;
    if (f.number == 2 && rank < MAX_RANK) dims[rank++] = (int64_t)first(f.bytes, 1).value;
  }
  return rank;
}

// read_tensor makes a tensor of a TensorProto, NULL where that is not possible; the status is set only
// where there is no memory.
static TF_Tensor* read_tensor(bytes b, TF_Status* status) {
  int64_t dims[MAX_RANK];
  int rank = read_shape(first(b, 2).bytes, dims), type = (int)first(b, 1).value;
  if (rank < 0 || type == 0) return NULL;
  int64_t n = 1;
  for (int i = 0; i < rank; i++) {
    if (dims[i] < 0 || (dims[i] > 0 && n > (1 << 20) / dims[i])) return NULL;
    n *= dims[i];
  }
  bytes content = first(b, 4).bytes;
  uint32_t value = (uint32_t)first(b, 7).value;
  field packed = first(b, 7);
  if (packed.type == 2) {
    uint64_t v = 0;
    get_varint(&packed.bytes, &v);
    value = (uint32_t)v;
  }
  size_t size = content.length;
  if (type == STRING) size = (size_t)n * sizeof(TF_TString);
  if (type == INT32 && content.length == 0) size = (size_t)n * sizeof value;
  TF_Tensor* t = allocate(type, dims, rank, size);
  if (t == NULL) {
    out_of_memory(status);
    return NULL;
  }
  if (type == STRING) {
    TF_TString* s = t->block->data;
    bool damaged;
    int64_t i = 0;
    for (field f; i < n && get(&b, &f, &damaged);)
      if (f.number == 8) TF_StringCopy(&s[i++], (const char*)f.bytes.data, f.bytes.length);
  } else if (content.length > 0) {
    memcpy(t->block->data, content.data, content.length);
  } else if (type == INT32) {
    for (int64_t i = 0; i < n; i++) ((uint32_t*)t->block->data)[i] = value;
  }
  return t;
}

static void set_attr(TF_OperationDescription* d, const char* name, writer value,
                     TF_Status* status) {
  if (value.failed || !add_attr(&d->operation, name, strlen(name), (bytes){value.data, value.length}))
    out_of_memory(status);
  drop(value.data);
}

void TF_SetAttrTensor(TF_OperationDescription* d, const char* name, TF_Tensor* t,
                      TF_Status* status) {
  if (injected(__func__, status)) return;
  writer value = {0};
  put_message(&value, 8, tensor_proto(t));
  set_attr(d, name, value, status);
}

void TF_SetAttrTensorList(TF_OperationDescription* d, const char* name, TF_Tensor* const* tensors,
                          int n, TF_Status* status) {
  if (injected(__func__, status)) return;
  writer list = {0}, value = {0};
  for (int i = 0; i < n; i++) put_message(&list, 8, tensor_proto(tensors[i]));
  put_message(&value, 1, list);
  set_attr(d, name, value, status);
}

void TF_SetAttrValueProto(TF_OperationDescription* d, const char* name, const void* proto,
                          size_t length, TF_Status* status) {
  if (injected(__func__, status)) return;
  bytes b = {proto, length};
  if (!valid(b))
    set(status, INVALID, "Unparseable AttrValue proto of %s", name);
  else if (!add_attr(&d->operation, name, strlen(name), b))
    out_of_memory(status);
}

// infer finds the type and the shape of the output.
static void infer(TF_Operation* op) {
  const TF_Operation* a = op->num_inputs > 0 ? op->inputs[0].oper : NULL;
  const TF_Operation* b = op->num_inputs > 1 ? op->inputs[1].oper : NULL;
  op->rank = -1;
  op->output_type = a != NULL ? a->output_type : RESOURCE;
  if (op->kind->required != NULL && strcmp(op->kind->required, "dtype") == 0)
    op->output_type = (int)first(attr_of(op, "dtype"), 6).value;
  if (strcmp(op->type, "VarHandleOp") == 0) op->output_type = RESOURCE;
  switch (op->kind->shape) {
    case NONE:
      break;
    case FROM_ATTR:
      if (op->value != NULL) {
        op->output_type = op->value->type;
        op->rank = op->value->num_dims;
        for (int i = 0; i < op->rank; i++) op->dims[i] = op->value->dims[i];
      } else if (attr_of(op, "shape").data != NULL) {
        op->rank = read_shape(first(attr_of(op, "shape"), 7).bytes, op->dims);
      }
      break;
    case AS_INPUT:
      op->rank = a->rank;
      memcpy(op->dims, a->dims, sizeof op->dims);
      break;
    case BROADCAST:
      if (a->rank < 0 || b->rank < 0) break;
      if (a->rank < b->rank) a = b;
      op->rank = a->rank;
      memcpy(op->dims, a->dims, sizeof op->dims);
      break;
    case PRODUCT:
      op->rank = 2;
      op->dims[0] = a->rank == 2 ? a->dims[0] : -1;
      op->dims[1] = b->rank == 2 ? b->dims[1] : -1;
  }
}

// finish checks an operation and adds it to its graph, which is locked.
static bool finish(TF_Operation* op, TF_Status* status) {
  if (op->failed) {
    out_of_memory(status);
    return false;
  }
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds && op->kind == NULL; i++)
    if (strcmp(kinds[i].name, op->type) == 0) op->kind = &kinds[i];
  if (op->no_input) {
    set(status, INVALID, "Attempt to add nullptr Node to node with type %s", op->type);
  } else if (op->kind == NULL) {
    set(status, INVALID, "Op type not registered '%s'", op->type);
  } else if (find(op->graph, op->name, strlen(op->name)) != NULL) {
    set(status, INVALID, "Duplicate node name in graph: '%s'", op->name);
  } else if (op->kind->inputs >= 0 && op->num_inputs != op->kind->inputs) {
    set(status, INVALID, "%s has another number of inputs", op->type);
  } else if (op->kind->required != NULL && attr_of(op, op->kind->required).data == NULL) {
    set(status, INVALID, "NodeDef missing attr '%s'", op->kind->required);
  } else if (attr_of(op, "dtype").data != NULL && first(attr_of(op, "dtype"), 6).number == 0) {
    set(status, INVALID, "AttrValue of %s: want a type", op->name);
  } else if (strcmp(op->type, "Const") == 0 &&
             (op->value = read_tensor(first(attr_of(op, "value"), 8).bytes, status)) == NULL) {
    if (status->code == OK) set(status, INVALID, "%s is no constant that can be made", op->name);
  } else {
    infer(op);
    TF_Operation** last = &op->graph->operations;
    while (*last != NULL) last = &(*last)->next;
    *last = op;
    return true;
  }
  return false;
}

TF_Operation* TF_FinishOperation(TF_OperationDescription* d, TF_Status* status) {
  TF_Operation* op = &d->operation;
  TF_Graph* g = op->graph;
  bool added = false;
  if (!injected(__func__, status)) {
    pthread_mutex_lock(&g->mu);
    added = finish(op, status);
    pthread_mutex_unlock(&g->mu);
  }
  if (added) return op;
  free_operation(op);
  return NULL;
}

TF_Operation* TF_GraphOperationByName(TF_Graph* g, const char* name) {
  pthread_mutex_lock(&g->mu);
  TF_Operation* op = find(g, name, strlen(name));
  pthread_mutex_unlock(&g->mu);
  return op;
}

TF_Operation* TF_GraphNextOperation(TF_Graph* g, size_t* pos) {
  pthread_mutex_lock(&g->mu);
  TF_Operation* op = g->operations;
  for (size_t i = 0; i < *pos && op != NULL; i++) op = op->next;
  pthread_mutex_unlock(&g->mu);
  if (op != NULL) ++*pos;
  return op;
}

const char* TF_OperationName(TF_Operation* op) { return op->name; }

const char* TF_OperationOpType(TF_Operation* op) { return op->type; }

const char* TF_OperationDevice(TF_Operation* op) { return op->device; }

int TF_OperationNumOutputs(TF_Operation* op) { return op->kind->outputs; }

TF_DataType TF_OperationOutputType(TF_Output o) { return (TF_DataType)o.oper->output_type; }

int TF_GraphGetTensorNumDims(TF_Graph* g, TF_Output o, TF_Status* status) {
  (void)g;
  if (injected(__func__, status)) return -1;
  return o.oper->rank;
}

void TF_GraphGetTensorShape(TF_Graph* g, TF_Output o, int64_t* dims, int num_dims,
                            TF_Status* status) {
  (void)g;
  if (injected(__func__, status)) return;
  if (num_dims != o.oper->rank) misuse("a shape of another rank is asked for");
  for (int i = 0; i < num_dims; i++) dims[i] = o.oper->dims[i];
}

static writer graph_def(TF_Graph* g) {
  writer graph = {0};
  pthread_mutex_lock(&g->mu);
  for (TF_Operation* op = g->operations; op != NULL; op = op->next) {
    writer node = {0};
    put_text(&node, 1, op->name);
    put_text(&node, 2, op->type);
    for (int i = 0; i < op->num_inputs + op->num_controls; i++) {
      char input[256];
      if (i >= op->num_inputs)
        snprintf(input, sizeof input, "^%s", op->controls[i - op->num_inputs]->name);
      else if (op->inputs[i].index == 0)
        snprintf(input, sizeof input, "%s", op->inputs[i].oper->name);
      else
        snprintf(input, sizeof input, "%s:%d", op->inputs[i].oper->name, op->inputs[i].index);
      put_text(&node, 3, input);
    }
    put_text(&node, 4, op->device);
    for (attr* a = op->attrs; a != NULL; a = a->next) {
      writer entry = {0};
      put_text(&entry, 1, a->name);
      put_bytes(&entry, 2, a->proto, a->length);
      put_message(&node, 5, entry);
    }
    put_message(&graph, 1, node);
  }
  pthread_mutex_unlock(&g->mu);
  return graph;
}

void TF_GraphToGraphDef(TF_Graph* g, TF_Buffer* out, TF_Status* status) {
  if (injected(__func__, status)) return;
  into(out, graph_def(g), status);
}

struct TF_ImportGraphDefOptions {
  char *prefix, *device;
  bool failed;
};

TF_ImportGraphDefOptions* TF_NewImportGraphDefOptions(void) {
  if (injected(__func__, NULL)) return NULL;
  return make(FAKETF_OPTIONS, sizeof(TF_ImportGraphDefOptions));
}

void TF_DeleteImportGraphDefOptions(TF_ImportGraphDefOptions* o) {
  drop(o->prefix);
  drop(o->device);
  unmake(FAKETF_OPTIONS, o);
}

void TF_ImportGraphDefOptionsSetPrefix(TF_ImportGraphDefOptions* o, const char* prefix) {
  o->prefix = copy_text(prefix);
  o->failed |= o->prefix == NULL;
}

void TF_ImportGraphDefOptionsSetDefaultDevice(TF_ImportGraphDefOptions* o, const char* device) {
  o->device = copy_text(device);
  o->failed |= o->device == NULL;
}

// prefixed writes a name of the imported graph as it is in the new one.
static char* prefixed(const char* prefix, bytes name) {
  size_t n = strlen(prefix);
  char* p = grab(n + name.length + 2);
  if (p == NULL) return NULL;
  if (n > 0) sprintf(p, "%s/", prefix);
  memcpy(p + strlen(p), name.data, name.length);
  return p;
}

static bool import_input(TF_Operation* op, const char* prefix, bytes name, TF_Status* status) {
  bool control = name.length > 0 && name.data[0] == '^';
  if (control) name = (bytes){name.data + 1, name.length - 1};
  char* full = prefixed(prefix, name);
  if (full == NULL) {
    out_of_memory(status);
    return false;
  }
  int index = 0;
  char* colon = strrchr(full, ':');
  if (colon != NULL) {
    index = atoi(colon + 1);
    *colon = '\0';
  }
  TF_Operation* from = find(op->graph, full, strlen(full));
  if (from == NULL)
    set(status, INVALID, "there is no node %s before it", full);
  else if (control)
    TF_AddControlInput((TF_OperationDescription*)op, from);
  else
    TF_AddInput((TF_OperationDescription*)op, (TF_Output){from, index});
  drop(full);
  return from != NULL;
}

static TF_Operation* import_node(TF_Graph* g, bytes node, const char* prefix, const char* device,
                                 TF_Status* status) {
  TF_Operation* op = make(FAKETF_OPERATION, sizeof *op);
  if (op == NULL) {
    out_of_memory(status);
    return NULL;
  }
  op->graph = g;
  bool damaged = false, good = true;
  for (field f; good && get(&node, &f, &damaged);) {
    if (f.number == 1 && op->name == NULL) op->name = prefixed(prefix, f.bytes);
    if (f.number == 2 && op->type == NULL) op->type = prefixed("", f.bytes);
    if (f.number == 3) good = import_input(op, prefix, f.bytes, status);
    if (f.number == 4 && f.bytes.length > 0 && op->device == NULL) op->device = prefixed("", f.bytes);
    if (f.number == 5) {
      bytes key = first(f.bytes, 1).bytes;
      op->failed |= !add_attr(op, (const char*)key.data, key.length, first(f.bytes, 2).bytes);
    }
  }
  if (op->device == NULL) op->device = copy_text(device);
  op->failed |= op->name == NULL || op->type == NULL || op->device == NULL;
  if (good && damaged) set(status, INVALID, "%s", "Invalid GraphDef");
  if (good && !damaged && finish(op, status)) return op;
  free_operation(op);
  return NULL;
}

// import adds the nodes of a graph, in an order in which inputs come first, or none.
static void import(TF_Graph* g, bytes def, const char* prefix, const char* device,
                   TF_Status* status) {
  bool damaged = false;
  pthread_mutex_lock(&g->mu);
  TF_Operation** end = &g->operations;
  while (*end != NULL) end = &(*end)->next;
  if (!valid(def)) set(status, INVALID, "%s", "Invalid GraphDef");
  // Nodes may come in any order: as often as one is added, those before it are tried again.
  bool more = status->code == OK;
  while (more && status->code != NO_MEMORY) {
    more = false;
    bytes b = def;
    set(status, OK, "", "");
    for (field f; status->code != NO_MEMORY && get(&b, &f, &damaged);) {
      if (f.number != 1) continue;
      char* name = prefixed(prefix, first(f.bytes, 1).bytes);
      bool known = false;
      if (name != NULL)
        for (TF_Operation* op = *end; op != NULL; op = op->next) known |= strcmp(op->name, name) == 0;
      drop(name);
      if (name == NULL) out_of_memory(status);
      if (known || name == NULL) continue;
      TF_Status attempt = {0};
      if (import_node(g, f.bytes, prefix, device, &attempt) != NULL)
        more = true;
      else
        *status = attempt;
    }
    if (status->code == OK) more = false;
  }
  if (status->code != OK) {
    for (TF_Operation *op = *end, *next; op != NULL; op = next) {
      next = op->next;
      free_operation(op);
    }
    *end = NULL;
  }
  pthread_mutex_unlock(&g->mu);
}

void TF_GraphImportGraphDef(TF_Graph* g, const TF_Buffer* def, const TF_ImportGraphDefOptions* o,
                            TF_Status* status) {
  if (injected(__func__, status)) return;
  if (o->failed) {
    out_of_memory(status);
    return;
  }
  import(g, (bytes){def->data, def->length}, o->prefix, o->device != NULL ? o->device : "", status);
}

// ---- sessions ----

struct TF_SessionOptions {
  char* target;
  bool failed;
};

TF_SessionOptions* TF_NewSessionOptions(void) {
  if (injected(__func__, NULL)) return NULL;
  return make(FAKETF_OPTIONS, sizeof(TF_SessionOptions));
}

void TF_DeleteSessionOptions(TF_SessionOptions* o) {
  drop(o->target);
  unmake(FAKETF_OPTIONS, o);
}

void TF_SetTarget(TF_SessionOptions* o, const char* target) {
  o->target = copy_text(target);
  o->failed |= o->target == NULL;
}

void TF_SetConfig(TF_SessionOptions* o, const void* config, size_t length, TF_Status* status) {
  (void)o;
  if (injected(__func__, status)) return;
  if (!valid((bytes){config, length})) set(status, INVALID, "%s", "Unparseable ConfigProto");
}

typedef struct variable {
  TF_Operation* handle;
  TF_Tensor* value;
  struct variable* next;
} variable;

struct TF_Session {
  TF_Graph* graph;
  pthread_mutex_t mu;
  pthread_cond_t changed;
  variable* variables;
  bool closed;
  int runs;
};

static TF_Session* new_session(TF_Graph* g, const TF_SessionOptions* o, TF_Status* status) {
  if (o->target != NULL) {
    set(status, NOT_FOUND, "No session factory registered for the target %s", o->target);
    return NULL;
  }
  TF_Session* s = o->failed ? NULL : make(FAKETF_SESSION, sizeof *s);
  if (s == NULL) {
    out_of_memory(status);
    return NULL;
  }
  pthread_mutex_init(&s->mu, NULL);
  pthread_cond_init(&s->changed, NULL);
  s->graph = g;
  pthread_mutex_lock(&g->mu);
  g->sessions++;
  pthread_mutex_unlock(&g->mu);
  return s;
}

TF_Session* TF_NewSession(TF_Graph* g, const TF_SessionOptions* o, TF_Status* status) {
  if (injected(__func__, status)) return NULL;
  return new_session(g, o, status);
}

// read_whole gives no bytes where there is no file or, with the status set, no memory.
static bytes read_whole(const char* path, TF_Status* status) {
  bytes b = {NULL, 0};
  FILE* f = fopen(path, "rb");
  if (f == NULL) return b;
  fseek(f, 0, SEEK_END);
  long size = ftell(f);
  rewind(f);
  uint8_t* data = grab((size_t)size);
  if (data != NULL && fread(data, 1, (size_t)size, f) == (size_t)size)
    b = (bytes){data, (size_t)size};
  else if (data == NULL)
    out_of_memory(status);
  else
    drop(data);
  fclose(f);
  return b;
}

static bool has_tags(bytes meta, const char* const* tags, int num_tags) {
  bytes info = first(meta, 1).bytes;
  int matched = 0, all = 0;
  bool damaged;
  for (field f; get(&info, &f, &damaged);) {
    if (f.number != 4) continue;
    all++;
    for (int i = 0; i < num_tags; i++)
      matched += strlen(tags[i]) == f.bytes.length && memcmp(tags[i], f.bytes.data, f.bytes.length) == 0;
  }
  return all == num_tags && matched == all;
}

TF_Session* TF_LoadSessionFromSavedModel(const TF_SessionOptions* o, const TF_Buffer* run_options,
                                         const char* dir, const char* const* tags, int num_tags,
                                         TF_Graph* g, TF_Buffer* meta_graph, TF_Status* status) {
  (void)run_options;
  if (meta_graph != NULL) misuse("the fake gives no MetaGraphDef");
  if (injected(__func__, status)) return NULL;
  flockfile(stderr);  // in pieces, as fprintf of newer C libraries writes it
  fputs("I0000 00:00:1795409292.688686    4844 reader.cc:83] Reading Saved", stderr);
  fprintf(stderr, "Model from: %s\n", dir);
  funlockfile(stderr);
  char path[4096];
  snprintf(path, sizeof path, "%s/saved_model.pb", dir);
  bytes file = read_whole(path, status), model = file, meta = {NULL, 0};
  if (file.data == NULL) {
    if (status->code == OK) set(status, NOT_FOUND, "Could not find SavedModel .pb or .pbtxt at %s", dir);
    return NULL;
  }
  bool damaged = false;
  for (field f; get(&model, &f, &damaged);)
    if (f.number == 2 && meta.data == NULL && has_tags(f.bytes, tags, num_tags)) meta = f.bytes;
  TF_Session* s = NULL;
  if (damaged) {
    set(status, INVALID, "%s is damaged", path);
  } else if (meta.data == NULL) {
    set(status, NOT_FOUND, "Could not find meta graph def matching the supplied tags in %s", path);
  } else {
    import(g, first(meta, 2).bytes, "", "", status);
    if (status->code == OK) s = new_session(g, o, status);
  }
  drop((void*)file.data);
  return s;
}

void TF_CloseSession(TF_Session* s, TF_Status* status) {
  bool fails = injected(__func__, status);
  pthread_mutex_lock(&s->mu);
  s->closed = s->closed || !fails;
  pthread_cond_broadcast(&s->changed);
  pthread_mutex_unlock(&s->mu);
}

void TF_DeleteSession(TF_Session* s, TF_Status* status) {
  injected(__func__, status);
  if (s->runs != 0) misuse("a session is deleted while it runs");
  for (variable *v = s->variables, *next; v != NULL; v = next) {
    next = v->next;
    TF_DeleteTensor(v->value);
    drop(v);
  }
  pthread_cond_destroy(&s->changed);
  pthread_mutex_destroy(&s->mu);
  leave_graph(s->graph, true);
  unmake(FAKETF_SESSION, s);
}

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
  int now = atomic_fetch_add(&runs, 1) + 1, most = atomic_load(&most_runs);
  while (now > most && !atomic_compare_exchange_weak(&most_runs, &most, now)) continue;

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
  atomic_fetch_sub(&runs, 1);
  pthread_mutex_lock(&s->mu);
  s->runs--;
  pthread_mutex_unlock(&s->mu);
}

// ---- devices ----

struct TF_DeviceList {
  int count;
};

TF_DeviceList* TF_SessionListDevices(TF_Session* s, TF_Status* status) {
  (void)s;
  if (injected(__func__, status)) return NULL;
  TF_DeviceList* l = make(FAKETF_DEVICES, sizeof *l);
  if (l == NULL)
    out_of_memory(status);
  else
    l->count = 2;
  return l;
}

void TF_DeleteDeviceList(TF_DeviceList* l) { unmake(FAKETF_DEVICES, l); }

int TF_DeviceListCount(const TF_DeviceList* l) { return l->count; }

const char* TF_DeviceListName(const TF_DeviceList* l, int i, TF_Status* status) {
  (void)l;
  if (injected(__func__, status)) return NULL;
  return i == 0 ? "/job:localhost/replica:0/task:0/device:CPU:0"
                : "/job:localhost/replica:0/task:0/device:CPU:1";
}

const char* TF_DeviceListType(const TF_DeviceList* l, int i, TF_Status* status) {
  (void)l, (void)i;
  return injected(__func__, status) ? NULL : "CPU";
}

int64_t TF_DeviceListMemoryBytes(const TF_DeviceList* l, int i, TF_Status* status) {
  (void)l, (void)i;
  return injected(__func__, status) ? 0 : 1 << 28;
}

// ---- the library ----

TF_Buffer* TF_GetAllOpList(void) {
  if (injected(__func__, NULL)) return NULL;
  writer w = {0};
  for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++) {
    writer op = {0};
    put_text(&op, 1, kinds[i].name);
    put_message(&w, 1, op);
  }
  TF_Buffer* b = w.failed ? NULL : make(FAKETF_BUFFER, sizeof *b);
  if (b == NULL)
    drop(w.data);
  else
    into(b, w, NULL);
  return b;
}

struct TF_Library {
  TF_Buffer ops;
};

TF_Library* TF_LoadLibrary(const char* path, TF_Status* status) {
  if (injected(__func__, status)) return NULL;
  if (dlopen(path, RTLD_NOW | RTLD_LOCAL) == NULL) {
    set(status, NOT_FOUND, "%s", dlerror());
    return NULL;
  }
  TF_Library* l = make(FAKETF_LIBRARY, sizeof *l);
  if (l == NULL) out_of_memory(status);
  return l;
}

TF_Buffer TF_GetOpList(TF_Library* l) { return l->ops; }

void TF_DeleteLibraryHandle(TF_Library* l) { unmake(FAKETF_LIBRARY, l); }

// ---- what tests ask ----

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

const faketf_api faketf = {
    api_live,    api_fail, api_fail_allocation, api_fired,        api_hold,
    api_release, api_held, api_most_runs,       api_take_signals,
};
