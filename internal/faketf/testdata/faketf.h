// What tests tell the fake TensorFlow library, and what it tells them.
#ifndef TFBERT_FAKETF_H_
#define TFBERT_FAKETF_H_

// Live objects by kind, and bytes, of everything that the library has allocated and not freed.
enum faketf_kind {
  FAKETF_STATUS,
  FAKETF_BUFFER,
  FAKETF_TENSOR,
  FAKETF_GRAPH,
  FAKETF_OPERATION,  // with those being described
  FAKETF_OPTIONS,
  FAKETF_SESSION,
  FAKETF_DEVICES,
  FAKETF_LIBRARY,
  FAKETF_KINDS
};

typedef struct faketf_live {
  long objects[FAKETF_KINDS];
  long bytes;
} faketf_live;

// The calls that can fail, FAKETF_CALLS of them; an allocation is one more way to fail.
#define FAKETF_FALLIBLE(X)                                                                    \
  X(TF_NewStatus) X(TF_NewBuffer) X(TF_NewTensor) X(TF_AllocateTensor) X(TF_TensorData)       \
  X(TF_NewGraph) X(TF_NewOperation) X(TF_SetAttrTensor) X(TF_SetAttrTensorList)               \
  X(TF_SetAttrValueProto) X(TF_FinishOperation) X(TF_GraphGetTensorNumDims)                   \
  X(TF_GraphGetTensorShape) X(TF_GraphToGraphDef) X(TF_NewImportGraphDefOptions)              \
  X(TF_GraphImportGraphDef) X(TF_NewSessionOptions) X(TF_SetConfig) X(TF_NewSession)          \
  X(TF_LoadSessionFromSavedModel) X(TF_CloseSession) X(TF_DeleteSession) X(TF_SessionRun)     \
  X(TF_SessionListDevices) X(TF_DeviceListName) X(TF_DeviceListType)                          \
  X(TF_DeviceListMemoryBytes) X(TF_GetAllOpList) X(TF_LoadLibrary)

// What the table of functions points to; found by dlsym under the name faketf.
typedef struct faketf_api {
  faketf_live (*live)(void);
  // fail makes the n-th call from now on fail that can, with a status of the code where it has one;
  // fail_allocation the n-th allocation. 0 is none. They count from 1 and disarm each other.
  void (*fail)(long n, int code);
  void (*fail_allocation)(long n);
  // fired gives the function that was made to fail, NULL where none was yet.
  const char* (*fired)(void);
  // hold lets calls of a function wait at their beginning until release; held counts them.
  void (*hold)(const char* function);
  void (*release)(void);
  int (*held)(void);
  // most_runs gives the most calls of TF_SessionRun that there were at once.
  int (*most_runs)(void);
  // take_signals installs handlers of SIGINT and SIGTERM without SA_ONSTACK, which call the handlers
  // there were.
  void (*take_signals)(void);
} faketf_api;

#endif
