#include "internal.h"

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

TF_Graph* TF_NewGraph(void) {
  if (injected(__func__, NULL)) return NULL;
  TF_Graph* g = make(FAKETF_GRAPH, sizeof *g);
  if (g != NULL) pthread_mutex_init(&g->mu, NULL);
  return g;
}

void free_operation(TF_Operation* op) {
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

void leave_graph(TF_Graph* g, bool session) {
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

TF_Operation* find(TF_Graph* g, const char* name, size_t length) {
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

bool add_attr(TF_Operation* op, const char* name, size_t name_length, bytes proto) {
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

bool finish(TF_Operation* op, TF_Status* status) {
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
