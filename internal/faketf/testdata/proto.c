#include "internal.h"

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

void put_number(writer* w, int field, uint64_t v) {
  put_varint(w, (uint64_t)field << 3);
  put_varint(w, v);
}

void put_bytes(writer* w, int field, const void* data, size_t length) {
  put_varint(w, (uint64_t)field << 3 | 2);
  put_varint(w, length);
  put(w, data, length);
}

void put_text(writer* w, int field, const char* text) {
  put_bytes(w, field, text, strlen(text));
}

void put_message(writer* w, int field, writer inner) {
  put_bytes(w, field, inner.data, inner.length);
  w->failed |= inner.failed;
  drop(inner.data);
}

void into(TF_Buffer* b, writer w, TF_Status* status) {
  if (w.failed) {
    drop(w.data);
    if (status != NULL) out_of_memory(status);
    return;
  }
  b->data = w.data;
  b->length = w.length;
}

bool get_varint(bytes* b, uint64_t* v) {
  *v = 0;
  for (int shift = 0; shift < 64 && b->length > 0; shift += 7) {
    uint8_t byte = *b->data++;
    b->length--;
    *v |= (uint64_t)(byte & 0x7f) << shift;
    if (byte < 0x80) return true;
  }
  return false;
}

bool get(bytes* b, field* f, bool* damaged) {
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

field first(bytes b, int number) {
  bool damaged;
  for (field f = {0}; get(&b, &f, &damaged);)
    if (f.number == number) return f;
  return (field){0};
}

bool valid(bytes b) {
  bool damaged = false;
  for (field f; get(&b, &f, &damaged);) continue;
  return !damaged;
}
