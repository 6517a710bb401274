// What the files of the fake library share. It has every function of TensorFlow's C API that package tf
// uses, over a toy of a graph and a session, counts what is alive, and fails where it is told to. It
// keeps the contracts of the real one that matter to a caller: who frees what, also on failure; that a
// graph outlives its deletion while a session is over it; that an output may share the memory of a fed
// tensor. It aborts where a caller breaks them.
#ifndef TFBERT_FAKETF_INTERNAL_H_
#define TFBERT_FAKETF_INTERNAL_H_

#define _GNU_SOURCE
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include "capi.h"
#include "faketf.h"

#define EXPORT __attribute__((visibility("default")))  // all else is hidden

// The definitions must have the types of the table.
#define DECLARE(result, name, params) EXPORT result name params;
TFB_REQUIRED(DECLARE)
TFB_OPTIONAL(DECLARE)
#undef DECLARE

enum { OK, CANCELLED, INVALID = 3, DEADLINE = 4, NOT_FOUND = 5, EXISTS = 6, NO_MEMORY = 8 };
enum { FLOAT = 1, DOUBLE = 2, INT32 = 3, STRING = 7, INT64 = 9, RESOURCE = 20 };

// ---- faults.c: what is alive, and what fails ----

struct TF_Status {
  int code;
  char message[400];
};

void misuse(const char* what);

// All memory comes from here: zeroed, counted, and not there where an allocation is to fail.
void* grab(size_t size);
void* grab_surely(size_t size);
void drop(void* p);

// Objects of a kind are counted as well.
void* make(enum faketf_kind kind, size_t size);
void unmake(enum faketf_kind kind, void* p);
char* copy_text(const char* text);

void set(TF_Status* status, int code, const char* format, const char* arg);
void out_of_memory(TF_Status* status);

// injected begins every call that can fail: it waits where the function is held, gives the status
// its OK, and says whether the call must fail, with the status set.
bool injected(const char* function, TF_Status* status);

// Calls of TF_SessionRun are counted between these.
void run_begins(void);
void run_ends(void);

// ---- tensor.c: buffers, strings and tensors ----

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

TF_Tensor* share(const TF_Tensor* t);
TF_Tensor* allocate(int type, const int64_t* dims, int num_dims, size_t length);
int64_t elements(const TF_Tensor* t);

// ---- proto.c: protocol buffers ----

typedef struct bytes {
  const uint8_t* data;
  size_t length;
} bytes;

typedef struct writer {
  uint8_t* data;
  size_t length, room;
  bool failed;
} writer;

typedef struct field {
  int number, type;
  uint64_t value;
  bytes bytes;
} field;

void put_number(writer* w, int field, uint64_t v);
void put_bytes(writer* w, int field, const void* data, size_t length);
void put_text(writer* w, int field, const char* text);

// put_message consumes the inner message.
void put_message(writer* w, int field, writer inner);

// into hands a message to a buffer.
void into(TF_Buffer* b, writer w, TF_Status* status);

bool get_varint(bytes* b, uint64_t* v);

// get takes a field from the front. It is false at the end, where *damaged says of which kind.
bool get(bytes* b, field* f, bool* damaged);

// first finds the first field of a number, which stands for nothing where it is not there.
field first(bytes b, int number);
bool valid(bytes b);

// ---- graph.c and graphdef.c: operations ----

enum shape { NONE, FROM_ATTR, AS_INPUT, BROADCAST, PRODUCT };

typedef struct kind {
  const char* name;
  int inputs, outputs;
  const char* required;  // an attribute
  enum shape shape;
} kind;

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

void free_operation(TF_Operation* op);

// leave_graph ends a use of a graph: its owner's, or a session's.
void leave_graph(TF_Graph* g, bool session);
TF_Operation* find(TF_Graph* g, const char* name, size_t length);
bool add_attr(TF_Operation* op, const char* name, size_t name_length, bytes proto);

// finish checks an operation and adds it to its graph, which is locked.
bool finish(TF_Operation* op, TF_Status* status);

writer graph_def(TF_Graph* g);

// import adds the nodes of a graph, in an order in which inputs come first, or none.
void import(TF_Graph* g, bytes def, const char* prefix, const char* device, TF_Status* status);

// ---- session.c and run.c ----

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

#endif
