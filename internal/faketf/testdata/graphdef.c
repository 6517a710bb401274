#include "internal.h"

#include <stdio.h>
#include <stdlib.h>

writer graph_def(TF_Graph* g) {
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
void import(TF_Graph* g, bytes def, const char* prefix, const char* device,
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
