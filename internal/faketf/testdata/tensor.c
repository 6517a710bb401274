#include "internal.h"

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

// A string is a length and memory of its own.
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
  t->data = grab_surely(length + 1);
  if (length > 0) memcpy(t->data, data, length);
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

TF_Tensor* share(const TF_Tensor* t) {
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

TF_Tensor* allocate(int type, const int64_t* dims, int num_dims, size_t length) {
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

int64_t elements(const TF_Tensor* t) {
  int64_t n = 1;
  for (int i = 0; i < t->num_dims; i++) n *= t->dims[i];
  return n;
}
