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

int tfb_load(const char* path, char** message) {
  *message = NULL;
  // RTLD_NOW: an unresolved symbol is an error here, not an abort in the middle of a run.
  void* handle = dlopen(path, RTLD_NOW | RTLD_LOCAL);
  if (handle == NULL) {
    *message = strdup(dlerror());
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
  if (tf.TF_Version == NULL) {
    *message = strdup("not a TensorFlow library: it has no TF_Version");
  } else if (used > 0) {
    char text[1400];
    snprintf(text, sizeof text, "TensorFlow %s lacks symbols that tfbert needs:%s", tf.TF_Version(),
             missing);
    *message = strdup(text);
  }
  if (*message != NULL) {
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

static const tfb_error ok = {0, NULL};

static tfb_error fail(int code, const char* message) {
  return (tfb_error){code, strdup(message)};
}

// take consumes a status.
static tfb_error take(TF_Status* status) {
  tfb_error e = ok;
  if (tf.TF_GetCode(status) != TF_OK) e = fail((int)tf.TF_GetCode(status), tf.TF_Message(status));
  tf.TF_DeleteStatus(status);
  return e;
}

// take_buffer copies a buffer's bytes out and consumes it.
static tfb_error take_buffer(TF_Buffer* buffer, tfb_bytes* out) {
  out->data = NULL;
  out->length = buffer->length;
  if (buffer->length > 0) {
    out->data = malloc(buffer->length);
    if (out->data != NULL) memcpy(out->data, buffer->data, buffer->length);
  }
  tf.TF_DeleteBuffer(buffer);
  if (out->length > 0 && out->data == NULL) return fail(8, "out of memory");
  return ok;
}

// ---- tensors ----

TF_Tensor* tfb_tensor_new(int dtype, const int64_t* dims, int num_dims, const void* data,
                          size_t length) {
  TF_Tensor* t = tf.TF_AllocateTensor((TF_DataType)dtype, dims, num_dims, length);
  if (t == NULL) return NULL;
  if (tf.TF_TensorByteSize(t) != length) {
    tf.TF_DeleteTensor(t);
    return NULL;
  }
  if (length > 0) memcpy(tf.TF_TensorData(t), data, length);
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

void tfb_string_lengths(const TF_Tensor* t, uint64_t* lengths, size_t n) {
  const TF_TString* strings = tf.TF_TensorData(t);
  for (size_t i = 0; i < n; i++) lengths[i] = tf.TF_StringGetSize(&strings[i]);
}

void tfb_string_copy(const TF_Tensor* t, char* blob, size_t n) {
  const TF_TString* strings = tf.TF_TensorData(t);
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
  // A description can only be freed by finishing it, so a bad attribute is remembered and the
  // operation finished all the same; that it fails too is then of no interest.
  TF_OperationDescription* d = tf.TF_NewOperation(g, type, name);
  if (device[0] != '\0') tf.TF_SetDevice(d, device);
  for (int i = 0; i < num_inputs; i++) {
    if (inputs[i].is_list)
      tf.TF_AddInputList(d, outputs + inputs[i].first, inputs[i].count);
    else
      tf.TF_AddInput(d, outputs[inputs[i].first]);
  }
  for (int i = 0; i < num_controls; i++) tf.TF_AddControlInput(d, controls[i]);
  tfb_error first = ok;
  for (int i = 0; i < num_attrs && first.code == 0; i++) {
    const tfb_attr* a = &attrs[i];
    TF_Status* status = tf.TF_NewStatus();
    if (a->first < 0)
      tf.TF_SetAttrValueProto(d, a->name, protos + a->proto_offset, a->proto_length, status);
    else if (a->is_list)
      tf.TF_SetAttrTensorList(d, a->name, tensors + a->first, a->count, status);
    else
      tf.TF_SetAttrTensor(d, a->name, tensors[a->first], status);
    first = take(status);
  }
  TF_Status* status = tf.TF_NewStatus();
  *result = tf.TF_FinishOperation(d, status);
  if (first.code != 0) {
    tf.TF_DeleteStatus(status);
    return first;
  }
  return take(status);
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
  *num_dims = tf.TF_GraphGetTensorNumDims(g, output, status);
  if (tf.TF_GetCode(status) == TF_OK && *num_dims > 0 && *num_dims <= max_dims)
    tf.TF_GraphGetTensorShape(g, output, dims, *num_dims, status);
  return take(status);
}

tfb_error tfb_graph_export(TF_Graph* g, tfb_bytes* out) {
  TF_Status* status = tf.TF_NewStatus();
  TF_Buffer* buffer = tf.TF_NewBuffer();
  tf.TF_GraphToGraphDef(g, buffer, status);
  tfb_error e = take(status);
  if (e.code != 0) {
    tf.TF_DeleteBuffer(buffer);
    return e;
  }
  return take_buffer(buffer, out);
}

tfb_error tfb_graph_import(TF_Graph* g, const void* def, size_t length, const char* prefix,
                           const char* device) {
  TF_Status* status = tf.TF_NewStatus();
  TF_Buffer buffer = {def, length, NULL};
  TF_ImportGraphDefOptions* options = tf.TF_NewImportGraphDefOptions();
  tf.TF_ImportGraphDefOptionsSetPrefix(options, prefix);
  if (device[0] != '\0') tf.TF_ImportGraphDefOptionsSetDefaultDevice(options, device);
  tf.TF_GraphImportGraphDef(g, &buffer, options, status);
  tf.TF_DeleteImportGraphDefOptions(options);
  return take(status);
}

// ---- sessions ----

static TF_SessionOptions* session_options(const char* target, const void* config, size_t length,
                                          TF_Status* status) {
  TF_SessionOptions* options = tf.TF_NewSessionOptions();
  if (target[0] != '\0') tf.TF_SetTarget(options, target);
  if (length > 0) tf.TF_SetConfig(options, config, length, status);
  return options;
}

tfb_error tfb_session_new(TF_Graph* g, const char* target, const void* config, size_t length,
                          TF_Session** session) {
  TF_Status* status = tf.TF_NewStatus();
  TF_SessionOptions* options = session_options(target, config, length, status);
  *session = NULL;
  if (tf.TF_GetCode(status) == TF_OK) *session = tf.TF_NewSession(g, options, status);
  tf.TF_DeleteSessionOptions(options);
  return take(status);
}

tfb_error tfb_session_load(TF_Graph* g, const char* dir, const char* const* tags, int num_tags,
                           const char* target, const void* config, size_t length,
                           TF_Session** session) {
  TF_Status* status = tf.TF_NewStatus();
  TF_SessionOptions* options = session_options(target, config, length, status);
  *session = NULL;
  // No buffer for the MetaGraphDef: it would hold all of the graph's constants once more.
  if (tf.TF_GetCode(status) == TF_OK)
    *session =
        tf.TF_LoadSessionFromSavedModel(options, NULL, dir, tags, num_tags, g, NULL, status);
  tf.TF_DeleteSessionOptions(options);
  return take(status);
}

tfb_error tfb_session_delete(TF_Session* s) {
  TF_Status* status = tf.TF_NewStatus();
  tf.TF_CloseSession(s, status);
  tfb_error e = take(status);
  status = tf.TF_NewStatus();
  tf.TF_DeleteSession(s, status);
  if (e.code != 0) {
    tf.TF_DeleteStatus(status);
    return e;
  }
  return take(status);
}

tfb_error tfb_session_run(TF_Session* s, const void* options, size_t options_length,
                          const TF_Output* feeds, TF_Tensor* const* feed_values, int num_feeds,
                          const TF_Output* fetches, TF_Tensor** fetch_values, int num_fetches,
                          TF_Operation* const* targets, int num_targets, tfb_bytes* metadata) {
  TF_Status* status = tf.TF_NewStatus();
  TF_Buffer run_options = {options, options_length, NULL};
  TF_Buffer* run_metadata = metadata != NULL ? tf.TF_NewBuffer() : NULL;
  tf.TF_SessionRun(s, options_length > 0 ? &run_options : NULL, feeds, feed_values, num_feeds,
                   fetches, fetch_values, num_fetches, (const TF_Operation* const*)targets,
                   num_targets, run_metadata, status);
  tfb_error e = take(status);
  if (run_metadata != NULL) {
    if (e.code == 0)
      e = take_buffer(run_metadata, metadata);
    else
      tf.TF_DeleteBuffer(run_metadata);
  }
  if (e.code != 0) {
    for (int i = 0; i < num_fetches; i++) {
      if (fetch_values[i] != NULL) tf.TF_DeleteTensor(fetch_values[i]);
      fetch_values[i] = NULL;
    }
  }
  return e;
}

tfb_error tfb_session_devices(TF_Session* s, TF_DeviceList** list, int* count) {
  TF_Status* status = tf.TF_NewStatus();
  *list = tf.TF_SessionListDevices(s, status);
  tfb_error e = take(status);
  *count = e.code == 0 ? tf.TF_DeviceListCount(*list) : 0;
  return e;
}

tfb_error tfb_device(const TF_DeviceList* list, int i, const char** name, const char** type,
                     int64_t* memory) {
  TF_Status* status = tf.TF_NewStatus();
  *name = tf.TF_DeviceListName(list, i, status);
  if (tf.TF_GetCode(status) == TF_OK) *type = tf.TF_DeviceListType(list, i, status);
  if (tf.TF_GetCode(status) == TF_OK) *memory = tf.TF_DeviceListMemoryBytes(list, i, status);
  return take(status);
}

void tfb_devices_delete(TF_DeviceList* list) { tf.TF_DeleteDeviceList(list); }

// ---- the library ----

tfb_error tfb_op_list(tfb_bytes* out) { return take_buffer(tf.TF_GetAllOpList(), out); }

tfb_error tfb_load_library(const char* path, tfb_bytes* op_list) {
  TF_Status* status = tf.TF_NewStatus();
  TF_Library* library = tf.TF_LoadLibrary(path, status);
  tfb_error e = take(status);
  if (e.code != 0) return e;
  TF_Buffer ops = tf.TF_GetOpList(library);  // borrowed from the library
  op_list->length = ops.length;
  op_list->data = malloc(ops.length > 0 ? ops.length : 1);
  if (op_list->data != NULL) memcpy(op_list->data, ops.data, ops.length);
  tf.TF_DeleteLibraryHandle(library);  // the code stays loaded
  if (op_list->data == NULL) return fail(8, "out of memory");
  return ok;
}

extern void tfbLogLine(char* line);

static void log_line(const char* line) { tfbLogLine((char*)line); }

int tfb_log_register(void) {
  if (tf.TF_RegisterLogListener == NULL) return 0;
  tf.TF_RegisterLogListener(log_line);
  return 1;
}
