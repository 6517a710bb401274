#include "internal.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>

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
