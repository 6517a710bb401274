//go:build cgo && unix

#define _GNU_SOURCE
#include "capi.h"

#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static struct {
#define FIELD(result, name, params) result(*name) params;
  TFB_REQUIRED(FIELD)
  TFB_OPTIONAL(FIELD)
#undef FIELD
} tf;

static char library_path[4096];

int tfb_load(const char* path, char* message, size_t size) {
  // RTLD_NOW: an unresolved symbol is an error here, not an abort in the middle of a run.
  void* handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (handle == NULL) {
    snprintf(message, size, "%s", dlerror());
    return -1;
  }
  char missing[1024] = "";
  size_t used = 0;
#define LOOKUP(name) *(void**)&tf.name = dlsym(handle, #name);
#define REQUIRE(result, name, params)                                              \
  LOOKUP(name)                                                                     \
  if (tf.name == NULL && used < sizeof missing)                                    \
    used += (size_t)snprintf(missing + used, sizeof missing - used, " %s", #name);
#define ALLOW(result, name, params) LOOKUP(name)
  TFB_REQUIRED(REQUIRE)
  TFB_OPTIONAL(ALLOW)
#undef ALLOW
#undef REQUIRE
#undef LOOKUP
  if (tf.TF_Version == NULL || used > 0) {
    if (tf.TF_Version == NULL)
      snprintf(message, size, "not a TensorFlow library: it has no TF_Version");
    else
      snprintf(message, size, "TensorFlow %s lacks symbols that tfbert needs:%s", tf.TF_Version(),
               missing);
    memset(&tf, 0, sizeof tf);
    dlclose(handle);
    return -1;
  }
  Dl_info info;
  if (dladdr((void*)tf.TF_Version, &info) != 0 && info.dli_fname != NULL)
    snprintf(library_path, sizeof library_path, "%s", info.dli_fname);
  return 0;
}

const char* tfb_version(void) { return tf.TF_Version(); }

const char* tfb_library_path(void) { return library_path; }

// malloc_trim and mallopt are glibc's own, so they are looked up.

int tfb_trim(void) {
  int (*trim)(size_t) = NULL;
  *(void**)&trim = dlsym(RTLD_DEFAULT, "malloc_trim");
  return trim != NULL ? trim(0) : 0;
}

void tfb_limit_arenas(int most) {
  enum { arena_max = -8 };  // M_ARENA_MAX
  void* glibc = dlsym(RTLD_DEFAULT, "malloc_trim");
  int (*option)(int, int) = NULL;
  *(void**)&option = dlsym(RTLD_DEFAULT, "mallopt");
  if (glibc != NULL && option != NULL) option(arena_max, most);
}

int tfb_set_onstack(void) {
  int changed = 0;
  for (int sig = 1; sig < NSIG; sig++) {
    struct sigaction action;
    if (sigaction(sig, NULL, &action) != 0) continue;
    int handled = (action.sa_flags & SA_SIGINFO) ||
                  (action.sa_handler != SIG_DFL && action.sa_handler != SIG_IGN);
    if (!handled || (action.sa_flags & SA_ONSTACK)) continue;
    action.sa_flags |= SA_ONSTACK;
    if (sigaction(sig, &action, NULL) == 0) changed++;
  }
  return changed;
}

// ---- errors and buffers ----

static const tfb_error ok = {TF_OK, NULL, NULL};
static const tfb_error no_memory = {TF_RESOURCE_EXHAUSTED, "out of memory", NULL};

// NEED gives up where the library lacks the function of a feature.
#define NEED(name)                                                                               \
  if (tf.name == NULL)                                                                           \
    return (tfb_error) { TF_UNIMPLEMENTED, "this TensorFlow library has no " #name, NULL }

// take consumes a status: an error keeps it.
static tfb_error take(TF_Status* status) {
  TF_Code code = tf.TF_GetCode(status);
  if (code != TF_OK) return (tfb_error){(int)code, tf.TF_Message(status), status};
  tf.TF_DeleteStatus(status);
  return ok;
}

// take_made is take for a call that makes something: that there is nothing is an error as well.
static tfb_error take_made(TF_Status* status, const void* made) {
  tfb_error e = take(status);
  if (e.code == TF_OK && made == NULL) return no_memory;
  return e;
}

void tfb_status_delete(TF_Status* status) { tf.TF_DeleteStatus(status); }

void tfb_buffer_delete(TF_Buffer* buffer) { tf.TF_DeleteBuffer(buffer); }

// ---- tensors ----

TF_Tensor* tfb_tensor_new(int dtype, const int64_t* dims, int num_dims, const void* data,
                          size_t length) {
  TF_Tensor* t = tf.TF_AllocateTensor((TF_DataType)dtype, dims, num_dims, length);
  if (t == NULL) return NULL;
  void* to = tf.TF_TensorData(t);
  if (tf.TF_TensorByteSize(t) != length || (length > 0 && to == NULL)) {
    tf.TF_DeleteTensor(t);
    return NULL;
  }
  if (length > 0) memcpy(to, data, length);
  return t;
}

static void free_strings(void* data, size_t length, void* arg) {
  (void)arg;
  TF_TString* strings = data;
  for (size_t i = 0; i < length / sizeof *strings; i++) tf.TF_StringDealloc(&strings[i]);
  free(data);
}

// The strings are freed by the tensor's deallocator and not at tfb_tensor_delete, because an
// output of a run may share the buffer of a fed tensor and outlive it.
TF_Tensor* tfb_string_tensor_new(const int64_t* dims, int num_dims, const char* blob,
                                 const uint64_t* lengths, size_t n) {
  size_t size = n * sizeof(TF_TString);
  void* memory = NULL;
  if (posix_memalign(&memory, 64, size > 0 ? size : 64) != 0) return NULL;
  TF_TString* strings = memory;
  for (size_t i = 0; i < n; i++) {
    tf.TF_StringInit(&strings[i]);
    tf.TF_StringCopy(&strings[i], blob, lengths[i]);
    blob += lengths[i];
  }
  // TF_NewTensor owns the memory from here on: where it fails it has called the deallocator.
  return tf.TF_NewTensor(TF_STRING, dims, num_dims, memory, size, free_strings, NULL);
}

void tfb_tensor_delete(TF_Tensor* t) { tf.TF_DeleteTensor(t); }

void tfb_tensor_inspect(const TF_Tensor* t, tfb_tensor_info* info) {
  info->dtype = (int)tf.TF_TensorType(t);
  info->num_dims = tf.TF_NumDims(t);
  info->length = tf.TF_TensorByteSize(t);
  info->data = tf.TF_TensorData(t);
}

void tfb_tensor_dims(const TF_Tensor* t, int64_t* dims, int num_dims) {
  for (int i = 0; i < num_dims; i++) dims[i] = tf.TF_Dim(t, i);
}

void tfb_string_lengths(const TF_TString* strings, uint64_t* lengths, size_t n) {
  for (size_t i = 0; i < n; i++) lengths[i] = tf.TF_StringGetSize(&strings[i]);
}

void tfb_string_copy(const TF_TString* strings, char* blob, size_t n) {
  for (size_t i = 0; i < n; i++) {
    size_t length = tf.TF_StringGetSize(&strings[i]);
    memcpy(blob, tf.TF_StringGetDataPointer(&strings[i]), length);
    blob += length;
  }
}

// ---- graphs ----

TF_Graph* tfb_graph_new(void) { return tf.TF_NewGraph(); }

void tfb_graph_delete(TF_Graph* g) { tf.TF_DeleteGraph(g); }

tfb_error tfb_graph_add(TF_Graph* g, const char* type, const char* name, const char* device,
                        const TF_Output* outputs, const tfb_input_list* inputs, int num_inputs,
                        TF_Operation* const* controls, int num_controls, const tfb_attr* attrs,
                        int num_attrs, const char* protos, TF_Tensor* const* tensors,
                        TF_Operation** result) {
  *result = NULL;
  TF_Status* attributes = tf.TF_NewStatus();
  if (attributes == NULL) return no_memory;
  TF_Status* finish = tf.TF_NewStatus();
  TF_OperationDescription* d = finish != NULL ? tf.TF_NewOperation(g, type, name) : NULL;
  if (d == NULL) {
    tf.TF_DeleteStatus(attributes);
    if (finish != NULL) tf.TF_DeleteStatus(finish);
    return no_memory;
  }
  if (device[0] != '\0') tf.TF_SetDevice(d, device);
  for (int i = 0; i < num_inputs; i++) {
    if (inputs[i].is_list)
      tf.TF_AddInputList(d, outputs + inputs[i].first, inputs[i].count);
    else
      tf.TF_AddInput(d, outputs[inputs[i].first]);
  }
  for (int i = 0; i < num_controls; i++) tf.TF_AddControlInput(d, controls[i]);
  for (int i = 0; i < num_attrs && tf.TF_GetCode(attributes) == TF_OK; i++) {
    const tfb_attr* a = &attrs[i];
    if (a->first < 0)
      tf.TF_SetAttrValueProto(d, a->name, protos + a->proto_offset, a->proto_length, attributes);
    else if (a->is_list)
      tf.TF_SetAttrTensorList(d, a->name, tensors + a->first, a->count, attributes);
    else
      tf.TF_SetAttrTensor(d, a->name, tensors[a->first], attributes);
  }
  // A description can only be freed by finishing it. So that this fails and leaves the graph as it
  // was also where the attribute has a default, it gets an input that it must refuse.
  if (tf.TF_GetCode(attributes) != TF_OK) tf.TF_AddInput(d, (TF_Output){NULL, 0});
  *result = tf.TF_FinishOperation(d, finish);
  if (tf.TF_GetCode(attributes) != TF_OK) {
    tf.TF_DeleteStatus(finish);
    return take(attributes);
  }
  tf.TF_DeleteStatus(attributes);
  return take_made(finish, *result);
}

TF_Operation* tfb_graph_operation(TF_Graph* g, const char* name) {
  return tf.TF_GraphOperationByName(g, name);
}

TF_Operation* tfb_graph_next(TF_Graph* g, size_t* pos) { return tf.TF_GraphNextOperation(g, pos); }

const char* tfb_operation_name(TF_Operation* op) { return tf.TF_OperationName(op); }

const char* tfb_operation_type(TF_Operation* op) { return tf.TF_OperationOpType(op); }

const char* tfb_operation_device(TF_Operation* op) { return tf.TF_OperationDevice(op); }

int tfb_operation_num_outputs(TF_Operation* op) { return tf.TF_OperationNumOutputs(op); }

int tfb_output_type(TF_Operation* op, int index) {
  return (int)tf.TF_OperationOutputType((TF_Output){op, index});
}

tfb_error tfb_output_shape(TF_Graph* g, TF_Operation* op, int index, int64_t* dims, int max_dims,
                           int* num_dims) {
  TF_Output output = {op, index};
  TF_Status* status = tf.TF_NewStatus();
  if (status == NULL) return no_memory;
  *num_dims = tf.TF_GraphGetTensorNumDims(g, output, status);
  if (tf.TF_GetCode(status) == TF_OK && *num_dims > 0 && *num_dims <= max_dims)
    tf.TF_GraphGetTensorShape(g, output, dims, *num_dims, status);
  return take(status);
}

tfb_error tfb_graph_export(TF_Graph* g, TF_Buffer** out) {
  *out = tf.TF_NewBuffer();
  if (*out == NULL) return no_memory;
  TF_Status* status = tf.TF_NewStatus();
  tfb_error e = no_memory;
  if (status != NULL) {
    tf.TF_GraphToGraphDef(g, *out, status);
    e = take(status);
  }
  if (e.code != TF_OK) tf.TF_DeleteBuffer(*out);
  return e;
}

tfb_error tfb_graph_import(TF_Graph* g, const void* def, size_t length, const char* prefix,
                           const char* device) {
  TF_Status* status = tf.TF_NewStatus();
  if (status == NULL) return no_memory;
  TF_ImportGraphDefOptions* options = tf.TF_NewImportGraphDefOptions();
  if (options != NULL) {
    TF_Buffer buffer = {def, length, NULL};
    tf.TF_ImportGraphDefOptionsSetPrefix(options, prefix);
    if (device[0] != '\0') tf.TF_ImportGraphDefOptionsSetDefaultDevice(options, device);
    tf.TF_GraphImportGraphDef(g, &buffer, options, status);
    tf.TF_DeleteImportGraphDefOptions(options);
  }
  return take_made(status, options);
}

// ---- sessions ----

// session_options gives NULL where there is no memory or the status is an error.
static TF_SessionOptions* session_options(const char* target, const void* config, size_t length,
                                          TF_Status* status) {
  TF_SessionOptions* options = tf.TF_NewSessionOptions();
  if (options == NULL) return NULL;
  if (target[0] != '\0') tf.TF_SetTarget(options, target);
  if (length > 0) tf.TF_SetConfig(options, config, length, status);
  if (tf.TF_GetCode(status) == TF_OK) return options;
  tf.TF_DeleteSessionOptions(options);
  return NULL;
}

// take_session keeps the status with a session that was made.
static tfb_error take_session(TF_Status* status, tfb_session* session) {
  if (session->session == NULL) return take_made(status, NULL);
  session->status = status;
  return ok;
}

tfb_error tfb_session_new(TF_Graph* g, const char* target, const void* config, size_t length,
                          tfb_session* session) {
  session->session = NULL;
  if (target[0] != '\0') NEED(TF_SetTarget);
  TF_Status* status = tf.TF_NewStatus();
  if (status == NULL) return no_memory;
  TF_SessionOptions* options = session_options(target, config, length, status);
  if (options != NULL) {
    session->session = tf.TF_NewSession(g, options, status);
    tf.TF_DeleteSessionOptions(options);
  }
  return take_session(status, session);
}

tfb_error tfb_session_load(TF_Graph* g, const char* dir, const char* const* tags, int num_tags,
                           const char* target, const void* config, size_t length,
                           tfb_session* session) {
  session->session = NULL;
  if (target[0] != '\0') NEED(TF_SetTarget);
  TF_Status* status = tf.TF_NewStatus();
  if (status == NULL) return no_memory;
  TF_SessionOptions* options = session_options(target, config, length, status);
  if (options != NULL) {
    // No buffer for the MetaGraphDef: it would hold all of the graph's constants once more.
    session->session =
        tf.TF_LoadSessionFromSavedModel(options, NULL, dir, tags, num_tags, g, NULL, status);
    tf.TF_DeleteSessionOptions(options);
  }
  return take_session(status, session);
}

tfb_error tfb_session_close(tfb_session session) {
  tf.TF_CloseSession(session.session, session.status);
  return (tfb_error){(int)tf.TF_GetCode(session.status), tf.TF_Message(session.status), NULL};
}

tfb_error tfb_session_delete(tfb_session session) {
  tf.TF_DeleteSession(session.session, session.status);
  return take(session.status);
}

tfb_error tfb_session_run(TF_Session* s, const void* options, size_t options_length,
                          const TF_Output* feeds, TF_Tensor* const* feed_values, int num_feeds,
                          const TF_Output* fetches, TF_Tensor** fetch_values, int num_fetches,
                          TF_Operation* const* targets, int num_targets, TF_Buffer** metadata) {
  TF_Status* status = tf.TF_NewStatus();
  if (status == NULL) return no_memory;
  if (metadata != NULL && (*metadata = tf.TF_NewBuffer()) == NULL) {
    tf.TF_DeleteStatus(status);
    return no_memory;
  }
  TF_Buffer run_options = {options, options_length, NULL};
  tf.TF_SessionRun(s, options_length > 0 ? &run_options : NULL, feeds, feed_values, num_feeds,
                   fetches, fetch_values, num_fetches, (const TF_Operation* const*)targets,
                   num_targets, metadata != NULL ? *metadata : NULL, status);
  tfb_error e = take(status);
  if (e.code == TF_OK) return ok;
  if (metadata != NULL) tf.TF_DeleteBuffer(*metadata);
  for (int i = 0; i < num_fetches; i++) {
    if (fetch_values[i] != NULL) tf.TF_DeleteTensor(fetch_values[i]);
    fetch_values[i] = NULL;
  }
  return e;
}

tfb_error tfb_session_devices(TF_Session* s, TF_DeviceList** list, int* count) {
  NEED(TF_SessionListDevices);
  NEED(TF_DeleteDeviceList);
  NEED(TF_DeviceListCount);
  NEED(TF_DeviceListName);
  NEED(TF_DeviceListType);
  NEED(TF_DeviceListMemoryBytes);
  TF_Status* status = tf.TF_NewStatus();
  if (status == NULL) return no_memory;
  *list = tf.TF_SessionListDevices(s, status);
  tfb_error e = take_made(status, *list);
  *count = e.code == TF_OK ? tf.TF_DeviceListCount(*list) : 0;
  return e;
}

tfb_error tfb_device(const TF_DeviceList* list, int i, const char** name, const char** type,
                     int64_t* memory) {
  TF_Status* status = tf.TF_NewStatus();
  if (status == NULL) return no_memory;
  *name = tf.TF_DeviceListName(list, i, status);
  if (tf.TF_GetCode(status) == TF_OK) *type = tf.TF_DeviceListType(list, i, status);
  if (tf.TF_GetCode(status) == TF_OK) *memory = tf.TF_DeviceListMemoryBytes(list, i, status);
  return take(status);
}

void tfb_devices_delete(TF_DeviceList* list) { tf.TF_DeleteDeviceList(list); }

// ---- the library ----

tfb_error tfb_op_list(TF_Buffer** out) {
  NEED(TF_GetAllOpList);
  *out = tf.TF_GetAllOpList();
  return *out != NULL ? ok : no_memory;
}

tfb_error tfb_load_library(const char* path, TF_Library** library, TF_Buffer* op_list) {
  NEED(TF_LoadLibrary);
  NEED(TF_GetOpList);
  NEED(TF_DeleteLibraryHandle);
  TF_Status* status = tf.TF_NewStatus();
  if (status == NULL) return no_memory;
  *library = tf.TF_LoadLibrary(path, status);
  tfb_error e = take_made(status, *library);
  if (e.code == TF_OK) *op_list = tf.TF_GetOpList(*library);
  return e;
}

void tfb_library_delete(TF_Library* library) { tf.TF_DeleteLibraryHandle(library); }

extern void tfbLogLine(char* line);

static void log_line(const char* line) { tfbLogLine((char*)line); }

int tfb_log_register(void) {
  if (tf.TF_RegisterLogListener == NULL) return 0;
  tf.TF_RegisterLogListener(log_line);
  return 1;
}
