/* As much of the Arrow C data interface as this example needs: columns of 64-bit integers, copies of schemas, batches.
 * https://arrow.apache.org/docs/format/CDataInterface.html */
#ifndef EXAMPLE_ARROW_H
#define EXAMPLE_ARROW_H

#include "plugin.h"

static inline void free_schema(struct ArrowSchema *schema) {
  for (int64_t i = 0; i < schema->n_children; i++) {
    if (schema->children[i] && schema->children[i]->release) schema->children[i]->release(schema->children[i]);
    free(schema->children[i]);
  }
  if (schema->dictionary && schema->dictionary->release) schema->dictionary->release(schema->dictionary);
  free(schema->dictionary);
  free(schema->children);
  free((char *)schema->format);
  free((char *)schema->name);
  free((char *)schema->metadata);
  schema->release = NULL;
}

/* A schema with room for children, which are still to be made. */
static inline bool make_schema(struct ArrowSchema *out, const char *format, const char *name, int64_t flags, int64_t n_children) {
  memset(out, 0, sizeof *out);
  out->release = free_schema;
  out->format = copy_text(slice(format));
  out->name = copy_text(slice(name ? name : ""));
  out->flags = flags;
  out->children = n_children ? calloc((size_t)n_children, sizeof *out->children) : NULL;
  if (!out->format || !out->name || (n_children && !out->children)) return false;
  for (; out->n_children < n_children; out->n_children++)
    if (!(out->children[out->n_children] = calloc(1, sizeof **out->children))) return false;
  return true;
}

/* Metadata is a count, then for each entry two texts, each behind its length. Roles of columns are there: a copy keeps them. */
static inline size_t metadata_length(const char *metadata) {
  int32_t texts, length;
  size_t at = sizeof texts;
  memcpy(&texts, metadata, sizeof texts);
  for (texts *= 2; texts > 0; texts--) {
    memcpy(&length, metadata + at, sizeof length);
    at += sizeof length + (size_t)length;
  }
  return at;
}

/* The copy has room for `more` children behind those of the original. */
static inline bool copy_schema(struct ArrowSchema *out, const struct ArrowSchema *from, int64_t more) {
  if (!make_schema(out, from->format, from->name, from->flags, from->n_children + more)) return false;
  if (from->metadata) {
    struct StandpipeSlice bytes = {(const uint8_t *)from->metadata, metadata_length(from->metadata)};
    if (!(out->metadata = copy_text(bytes))) return false;
  }
  if (from->dictionary) {
    if (!(out->dictionary = calloc(1, sizeof *out->dictionary)) || !copy_schema(out->dictionary, from->dictionary, 0)) return false;
  }
  for (int64_t i = 0; i < from->n_children; i++)
    if (!copy_schema(out->children[i], from->children[i], 0)) return false;
  return true;
}

static inline void free_array(struct ArrowArray *array) {
  for (int64_t i = 0; i < array->n_children; i++) {
    if (array->children[i] && array->children[i]->release) array->children[i]->release(array->children[i]);
    free(array->children[i]);
  }
  free(array->children);
  if (array->buffers && array->n_buffers > 1) free((void *)array->buffers[1]);
  free(array->buffers);
  array->release = NULL;
}

/* An array with room for children, which are still to be made or moved there. */
static inline bool make_array(struct ArrowArray *out, int64_t length, int64_t n_buffers, int64_t n_children) {
  memset(out, 0, sizeof *out);
  out->release = free_array;
  out->length = length;
  out->n_buffers = n_buffers;
  out->buffers = calloc((size_t)n_buffers, sizeof *out->buffers);
  out->children = n_children ? calloc((size_t)n_children, sizeof *out->children) : NULL;
  if (!out->buffers || (n_children && !out->children)) return false;
  for (; out->n_children < n_children; out->n_children++)
    if (!(out->children[out->n_children] = calloc(1, sizeof **out->children))) return false;
  return true;
}

/* A column of `length` integers, to be filled; NULL if there is no memory. */
static inline int64_t *make_integers(struct ArrowArray *out, int64_t length) {
  if (!make_array(out, length, 2, 0)) return NULL;
  /* At least one: no buffer is null. */
  int64_t *values = calloc((size_t)length + 1, sizeof *values);
  out->buffers[1] = values;
  return values;
}

static inline void make_batch(struct StandpipeBatch *out, struct ArrowArray *columns) {
  memset(&out->data, 0, sizeof out->data);
  out->schema_id = 0;
  out->data.device_type = ARROW_DEVICE_CPU;
  out->data.device_id = -1;
  out->data.array = *columns;
  columns->release = NULL;
}

static inline void release_batch(struct StandpipeBatch *batch) {
  if (batch->data.array.release) batch->data.array.release(&batch->data.array);
}

/* Whether the value at `row` is there. */
static inline bool is_valid(const struct ArrowArray *column, int64_t row) {
  const uint8_t *bits = column->buffers[0];
  int64_t at = column->offset + row;
  return !bits || (bits[at / 8] >> (at % 8) & 1);
}

#endif
