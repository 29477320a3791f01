/* What the three kinds of this example share: slices and buffers, errors, and as much JSON as a configuration needs. */
#ifndef EXAMPLE_PLUGIN_H
#define EXAMPLE_PLUGIN_H

#include "standpipe_plugin.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

extern const struct StandpipeSourceTable numbers_source;
extern const struct StandpipeEnumeratorTable numbers_enumerator;
extern const struct StandpipeTransformTable running_total_transform;
extern const struct StandpipeSinkTable lines_sink;

static inline struct StandpipeSlice slice(const char *text) {
  struct StandpipeSlice s = {(const uint8_t *)text, strlen(text)};
  return s;
}

static inline bool same(struct StandpipeSlice a, const char *text) {
  return a.len == strlen(text) && memcmp(a.ptr, text, a.len) == 0;
}

/* A copy with a terminator; NULL if there is no memory. */
static inline char *copy_text(struct StandpipeSlice text) {
  char *copy = malloc(text.len + 1);
  if (!copy) return NULL;
  if (text.len) memcpy(copy, text.ptr, text.len);
  copy[text.len] = 0;
  return copy;
}

static inline void free_buffer(struct StandpipeBuffer *buffer) {
  free(buffer->private_data);
  memset(buffer, 0, sizeof *buffer);
}

/* Bytes that change hands: who gets them calls `release`. */
static inline struct StandpipeBuffer buffer(const char *text) {
  struct StandpipeBuffer b = {NULL, 0, NULL, NULL};
  char *copy = copy_text(slice(text));
  if (!copy) return b;
  b.ptr = (const uint8_t *)copy;
  b.len = strlen(text);
  b.release = free_buffer;
  b.private_data = copy;
  return b;
}

static inline StandpipeStatus fail(struct StandpipeError *error, StandpipeErrorCode code, const char *message) {
  error->code = code;
  error->message = buffer(message);
  return STANDPIPE_STATUS_ERROR;
}

static inline StandpipeStatus no_memory(struct StandpipeError *error) {
  return fail(error, STANDPIPE_ERROR_OTHER, "out of memory");
}

/* ---- Functions that do nothing, for those that a kind has no use for ---- */

static inline StandpipeStatus nothing_to_open(void *instance, struct StandpipeError *error) {
  (void)instance, (void)error;
  return STANDPIPE_STATUS_OK;
}

static inline StandpipeStatus nothing_to_close(void *instance, uint32_t reason, struct StandpipeError *error) {
  (void)instance, (void)reason, (void)error;
  return STANDPIPE_STATUS_OK;
}

/* ---- JSON: members of an object. The host gives valid JSON, checked against the schema in the manifest ---- */

static inline const uint8_t *skip_string(const uint8_t *at, const uint8_t *end) {
  for (at++; at < end && *at != '"'; at++)
    if (*at == '\\') at++;
  return at < end ? at + 1 : end;
}

/* Behind the value that begins at `at`. */
static inline const uint8_t *skip_value(const uint8_t *at, const uint8_t *end) {
  int depth = 0;
  while (at < end) {
    if (*at == '"') {
      at = skip_string(at, end);
      if (depth == 0) return at;
      continue;
    }
    if (*at == '{' || *at == '[') depth++;
    if (*at == '}' || *at == ']') {
      if (depth == 0) return at;
      if (--depth == 0) return at + 1;
    }
    if (*at == ',' && depth == 0) return at;
    at++;
  }
  return at;
}

/* The value of a member as it is written, or nothing. */
static inline struct StandpipeSlice json_member(struct StandpipeSlice object, const char *name) {
  struct StandpipeSlice none = {NULL, 0};
  const uint8_t *at = object.ptr, *end = object.ptr + object.len;
  while (at < end && *at != '{') at++;
  while (at < end) {
    while (at < end && *at != '"' && *at != '}') at++;
    if (at >= end || *at == '}') return none;
    const uint8_t *key = at + 1;
    at = skip_string(at, end);
    struct StandpipeSlice found = {key, (size_t)(at - 1 - key)};
    while (at < end && (*at == ':' || *at == ' ' || *at == '\n' || *at == '\t' || *at == '\r')) at++;
    const uint8_t *value = at;
    at = skip_value(at, end);
    if (same(found, name)) {
      struct StandpipeSlice slice = {value, (size_t)(at - value)};
      return slice;
    }
  }
  return none;
}

static inline int64_t json_integer(struct StandpipeSlice object, const char *name, int64_t otherwise) {
  struct StandpipeSlice value = json_member(object, name);
  char digits[32];
  if (value.len == 0 || value.len >= sizeof digits) return otherwise;
  memcpy(digits, value.ptr, value.len);
  digits[value.len] = 0;
  return strtoll(digits, NULL, 10);
}

/* A text with its escapes resolved, to be freed; NULL if there is none. (Escapes by number are left as they are: paths and names have none.) */
static inline char *json_text(struct StandpipeSlice object, const char *name) {
  struct StandpipeSlice value = json_member(object, name);
  if (value.len < 2 || value.ptr[0] != '"') return NULL;
  char *text = malloc(value.len);
  size_t length = 0;
  for (size_t i = 1; text && i + 1 < value.len; i++) {
    char c = (char)value.ptr[i];
    if (c == '\\' && i + 2 < value.len) {
      c = (char)value.ptr[++i];
      if (c == 'n') c = '\n';
      if (c == 't') c = '\t';
      if (c == 'u') text[length++] = '\\';
    }
    text[length++] = c;
  }
  if (text) text[length] = 0;
  return text;
}

#endif
