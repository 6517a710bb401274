// The C side of package tf: TensorFlow's C API behind a table of function pointers that dlopen
// fills, and one function of our own for each action, so that a Go call crosses once.
//
// The declarations are our own, so that no TensorFlow header is needed to build; a test compiles
// them against the real ones (TFBERT_REAL_HEADERS).
#ifndef TFBERT_CAPI_H_
#define TFBERT_CAPI_H_

#include <stddef.h>
#include <stdint.h>

#ifndef TFBERT_REAL_HEADERS
typedef struct TF_Status TF_Status;
typedef struct TF_Tensor TF_Tensor;
typedef struct TF_Graph TF_Graph;
typedef struct TF_Operation TF_Operation;
typedef struct TF_OperationDescription TF_OperationDescription;
typedef struct TF_Session TF_Session;
typedef struct TF_SessionOptions TF_SessionOptions;
typedef struct TF_ImportGraphDefOptions TF_ImportGraphDefOptions;
typedef struct TF_DeviceList TF_DeviceList;
typedef struct TF_Library TF_Library;
typedef enum TF_Code {
  TF_OK = 0,
  TF_RESOURCE_EXHAUSTED = 8,
  TF_UNIMPLEMENTED = 12,
  TF_INTERNAL = 13,
} TF_Code;
typedef enum TF_DataType { TF_FLOAT = 1, TF_STRING = 7 } TF_DataType;
typedef struct TF_Buffer {
  const void* data;
  size_t length;
  void (*data_deallocator)(void* data, size_t length);
} TF_Buffer;
typedef struct TF_Output {
  TF_Operation* oper;
  int index;
} TF_Output;
// A string inside a tensor: 24 bytes whose layout is TensorFlow's own business.
typedef struct TF_TString {
  uint64_t opaque[3];
} TF_TString;
#endif

// X(result, name, parameters): the functions without which nothing works.
#define TFB_REQUIRED(X)                                                                          \
  X(const char*, TF_Version, (void))                                                             \
  X(TF_Status*, TF_NewStatus, (void))                                                            \
  X(void, TF_DeleteStatus, (TF_Status*))                                                         \
  X(TF_Code, TF_GetCode, (const TF_Status*))                                                     \
  X(const char*, TF_Message, (const TF_Status*))                                                 \
  X(TF_Buffer*, TF_NewBuffer, (void))                                                            \
  X(void, TF_DeleteBuffer, (TF_Buffer*))                                                         \
  X(TF_Tensor*, TF_NewTensor,                                                                    \
    (TF_DataType, const int64_t*, int, void*, size_t, void (*)(void*, size_t, void*), void*))    \
  X(TF_Tensor*, TF_AllocateTensor, (TF_DataType, const int64_t*, int, size_t))                   \
  X(void, TF_DeleteTensor, (TF_Tensor*))                                                         \
  X(TF_DataType, TF_TensorType, (const TF_Tensor*))                                              \
  X(int, TF_NumDims, (const TF_Tensor*))                                                         \
  X(int64_t, TF_Dim, (const TF_Tensor*, int))                                                    \
  X(size_t, TF_TensorByteSize, (const TF_Tensor*))                                               \
  X(void*, TF_TensorData, (const TF_Tensor*))                                                    \
  X(void, TF_StringInit, (TF_TString*))                                                          \
  X(void, TF_StringCopy, (TF_TString*, const char*, size_t))                                     \
  X(const char*, TF_StringGetDataPointer, (const TF_TString*))                                   \
  X(size_t, TF_StringGetSize, (const TF_TString*))                                               \
  X(void, TF_StringDealloc, (TF_TString*))                                                       \
  X(TF_Graph*, TF_NewGraph, (void))                                                              \
  X(void, TF_DeleteGraph, (TF_Graph*))                                                           \
  X(TF_OperationDescription*, TF_NewOperation, (TF_Graph*, const char*, const char*))            \
  X(void, TF_SetDevice, (TF_OperationDescription*, const char*))                                 \
  X(void, TF_AddInput, (TF_OperationDescription*, TF_Output))                                    \
  X(void, TF_AddInputList, (TF_OperationDescription*, const TF_Output*, int))                    \
  X(void, TF_AddControlInput, (TF_OperationDescription*, TF_Operation*))                         \
  X(void, TF_SetAttrTensor,                                                                      \
    (TF_OperationDescription*, const char*, TF_Tensor*, TF_Status*))                             \
  X(void, TF_SetAttrTensorList,                                                                  \
    (TF_OperationDescription*, const char*, TF_Tensor* const*, int, TF_Status*))                 \
  X(void, TF_SetAttrValueProto,                                                                  \
    (TF_OperationDescription*, const char*, const void*, size_t, TF_Status*))                    \
  X(TF_Operation*, TF_FinishOperation, (TF_OperationDescription*, TF_Status*))                   \
  X(TF_Operation*, TF_GraphOperationByName, (TF_Graph*, const char*))                            \
  X(TF_Operation*, TF_GraphNextOperation, (TF_Graph*, size_t*))                                  \
  X(const char*, TF_OperationName, (TF_Operation*))                                              \
  X(const char*, TF_OperationOpType, (TF_Operation*))                                            \
  X(const char*, TF_OperationDevice, (TF_Operation*))                                            \
  X(int, TF_OperationNumOutputs, (TF_Operation*))                                                \
  X(TF_DataType, TF_OperationOutputType, (TF_Output))                                            \
  X(int, TF_GraphGetTensorNumDims, (TF_Graph*, TF_Output, TF_Status*))                           \
  X(void, TF_GraphGetTensorShape, (TF_Graph*, TF_Output, int64_t*, int, TF_Status*))             \
  X(void, TF_GraphToGraphDef, (TF_Graph*, TF_Buffer*, TF_Status*))                               \
  X(TF_ImportGraphDefOptions*, TF_NewImportGraphDefOptions, (void))                              \
  X(void, TF_DeleteImportGraphDefOptions, (TF_ImportGraphDefOptions*))                           \
  X(void, TF_ImportGraphDefOptionsSetPrefix, (TF_ImportGraphDefOptions*, const char*))           \
  X(void, TF_ImportGraphDefOptionsSetDefaultDevice, (TF_ImportGraphDefOptions*, const char*))    \
  X(void, TF_GraphImportGraphDef,                                                                \
    (TF_Graph*, const TF_Buffer*, const TF_ImportGraphDefOptions*, TF_Status*))                  \
  X(TF_SessionOptions*, TF_NewSessionOptions, (void))                                            \
  X(void, TF_DeleteSessionOptions, (TF_SessionOptions*))                                         \
  X(void, TF_SetConfig, (TF_SessionOptions*, const void*, size_t, TF_Status*))                   \
  X(TF_Session*, TF_NewSession, (TF_Graph*, const TF_SessionOptions*, TF_Status*))               \
  X(TF_Session*, TF_LoadSessionFromSavedModel,                                                   \
    (const TF_SessionOptions*, const TF_Buffer*, const char*, const char* const*, int,           \
     TF_Graph*, TF_Buffer*, TF_Status*))                                                         \
  X(void, TF_CloseSession, (TF_Session*, TF_Status*))                                            \
  X(void, TF_DeleteSession, (TF_Session*, TF_Status*))                                           \
  X(void, TF_SessionRun,                                                                         \
    (TF_Session*, const TF_Buffer*, const TF_Output*, TF_Tensor* const*, int, const TF_Output*,  \
     TF_Tensor**, int, const TF_Operation* const*, int, TF_Buffer*, TF_Status*))

// The functions of one feature each: a library may lack them, and then only that feature fails.
#define TFB_OPTIONAL(X)                                                                          \
  X(void, TF_SetTarget, (TF_SessionOptions*, const char*))                                       \
  X(TF_DeviceList*, TF_SessionListDevices, (TF_Session*, TF_Status*))                            \
  X(void, TF_DeleteDeviceList, (TF_DeviceList*))                                                 \
  X(int, TF_DeviceListCount, (const TF_DeviceList*))                                             \
  X(const char*, TF_DeviceListName, (const TF_DeviceList*, int, TF_Status*))                     \
  X(const char*, TF_DeviceListType, (const TF_DeviceList*, int, TF_Status*))                     \
  X(int64_t, TF_DeviceListMemoryBytes, (const TF_DeviceList*, int, TF_Status*))                  \
  X(TF_Buffer*, TF_GetAllOpList, (void))                                                         \
  X(TF_Library*, TF_LoadLibrary, (const char*, TF_Status*))                                      \
  X(TF_Buffer, TF_GetOpList, (TF_Library*))                                                      \
  X(void, TF_DeleteLibraryHandle, (TF_Library*)) \
  X(void, TF_RegisterLogListener, (void (*)(const char*)))

// A failed call, whose code is not 0. The message is the status's, which the caller deletes, or a
// constant where there is no status.
typedef struct tfb_error {
  int code;
  const char* message;
  TF_Status* status;
} tfb_error;

// tfb_load opens the library and fills the table. On failure it returns -1 and writes why. It must
// not be called again once it has succeeded.
int tfb_load(const char* path, char* message, size_t size);
const char* tfb_version(void);
// tfb_library_path is the file that the library was really loaded from.
const char* tfb_library_path(void);
// tfb_set_onstack gives SA_ONSTACK to the signal handlers that lack it and returns how many it
// changed: Go dies at a signal whose foreign handler runs on a goroutine's stack.
int tfb_trim(void); // whether any memory went back
void tfb_limit_arenas(int most);
int tfb_set_onstack(void);

void tfb_status_delete(TF_Status* status);
void tfb_buffer_delete(TF_Buffer* buffer);

typedef struct tfb_tensor_info {
  int dtype;
  int num_dims;
  void* data;
  size_t length;
} tfb_tensor_info;

// tfb_tensor_new copies data into a tensor of TensorFlow's own memory.
TF_Tensor* tfb_tensor_new(int dtype, const int64_t* dims, int num_dims, const void* data,
                          size_t length);
// tfb_string_tensor_new builds a string tensor from n strings laid end to end in blob.
TF_Tensor* tfb_string_tensor_new(const int64_t* dims, int num_dims, const char* blob,
                                 const uint64_t* lengths, size_t n);
void tfb_tensor_delete(TF_Tensor* t);
void tfb_tensor_inspect(const TF_Tensor* t, tfb_tensor_info* info);
void tfb_tensor_dims(const TF_Tensor* t, int64_t* dims, int num_dims);
// tfb_string_lengths gives the length of each of n strings; tfb_string_copy lays them end to end.
void tfb_string_lengths(const TF_TString* strings, uint64_t* lengths, size_t n);
void tfb_string_copy(const TF_TString* strings, char* blob, size_t n);

TF_Graph* tfb_graph_new(void);
void tfb_graph_delete(TF_Graph* g);
// tfb_input_list is one input of an operation: a list of outputs, or one that is not a list.
typedef struct tfb_input_list {
  int first;  // index into the outputs
  int count;
  int is_list;
} tfb_input_list;
// tfb_attr is one attribute: a serialized AttrValue, or tensors.
typedef struct tfb_attr {
  const char* name;
  int first;  // index into the tensors, -1 for a proto
  int count;
  int is_list;
  size_t proto_offset;
  size_t proto_length;
} tfb_attr;
tfb_error tfb_graph_add(TF_Graph* g, const char* type, const char* name, const char* device,
                        const TF_Output* outputs, const tfb_input_list* inputs, int num_inputs,
                        TF_Operation* const* controls, int num_controls, const tfb_attr* attrs,
                        int num_attrs, const char* protos, TF_Tensor* const* tensors,
                        TF_Operation** result);
TF_Operation* tfb_graph_operation(TF_Graph* g, const char* name);
TF_Operation* tfb_graph_next(TF_Graph* g, size_t* pos);
const char* tfb_operation_name(TF_Operation* op);
const char* tfb_operation_type(TF_Operation* op);
const char* tfb_operation_device(TF_Operation* op);
int tfb_operation_num_outputs(TF_Operation* op);
int tfb_output_type(TF_Operation* op, int index);
// tfb_output_shape gives -1 dimensions for an unknown rank.
tfb_error tfb_output_shape(TF_Graph* g, TF_Operation* op, int index, int64_t* dims, int max_dims,
                           int* num_dims);
// tfb_graph_export, like the others that give a buffer, leaves it to the caller to delete.
tfb_error tfb_graph_export(TF_Graph* g, TF_Buffer** out);
tfb_error tfb_graph_import(TF_Graph* g, const void* def, size_t length, const char* prefix,
                           const char* device);

// tfb_session is a session with the status that closing and deleting it take, made with it so that
// these cannot fail for want of one.
typedef struct tfb_session {
  TF_Session* session;
  TF_Status* status;
} tfb_session;
tfb_error tfb_session_new(TF_Graph* g, const char* target, const void* config, size_t length,
                          tfb_session* session);
tfb_error tfb_session_load(TF_Graph* g, const char* dir, const char* const* tags, int num_tags,
                           const char* target, const void* config, size_t length,
                           tfb_session* session);
// tfb_session_close cancels the runs that can be: those that wait in a queue, not those that compute.
// Its message lives until the session is deleted.
tfb_error tfb_session_close(tfb_session session);
// tfb_session_delete deletes the session, which no run is using, also where it gives an error.
tfb_error tfb_session_delete(tfb_session session);
tfb_error tfb_session_run(TF_Session* s, const void* options, size_t options_length,
                          const TF_Output* feeds, TF_Tensor* const* feed_values, int num_feeds,
                          const TF_Output* fetches, TF_Tensor** fetch_values, int num_fetches,
                          TF_Operation* const* targets, int num_targets, TF_Buffer** metadata);
tfb_error tfb_session_devices(TF_Session* s, TF_DeviceList** list, int* count);
tfb_error tfb_device(const TF_DeviceList* list, int i, const char** name, const char** type,
                     int64_t* memory);
void tfb_devices_delete(TF_DeviceList* list);

tfb_error tfb_op_list(TF_Buffer** out);
// tfb_load_library lends the list of operations until tfb_library_delete, which leaves the code
// loaded.
tfb_error tfb_load_library(const char* path, TF_Library** library, TF_Buffer* op_list);
void tfb_library_delete(TF_Library* library);
// tfb_log_register makes the library hand its lines to tfbLogLine; 0 where it cannot.
int tfb_log_register(void);

#endif  // TFBERT_CAPI_H_
