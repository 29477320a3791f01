/* A plugin in C with one kind of each: the source `c_numbers` counts from 0, the transform `c_negate` changes signs, the sink `c_sum` adds up. Each knows one
 * column, `number`, of type int64. It is a fixture, and shows what a plugin without the SDK looks like. */
#include "standpipe_plugin.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TABLE_HEADER(type) sizeof(struct type), 0

static struct StandpipeSlice slice(const char *text) {
  struct StandpipeSlice s = {(const uint8_t *)text, strlen(text)};
  return s;
}

static void free_buffer(struct StandpipeBuffer *buffer) {
  free(buffer->private_data);
  memset(buffer, 0, sizeof *buffer);
}

static struct StandpipeBuffer buffer(const char *text) {
  struct StandpipeBuffer b = {NULL, strlen(text), free_buffer, NULL};
  b.private_data = malloc(b.len + 1);
  memcpy(b.private_data, text, b.len + 1);
  b.ptr = b.private_data;
  return b;
}

static StandpipeStatus fail(struct StandpipeError *error, StandpipeErrorCode code, const char *message) {
  error->code = code;
  error->message = buffer(message);
  return STANDPIPE_STATUS_ERROR;
}

static StandpipeStatus unsupported(struct StandpipeError *error) {
  return fail(error, STANDPIPE_ERROR_UNSUPPORTED, "not supported");
}

/* A number behind `name` in a text, which has no terminator. */
static int64_t number(struct StandpipeSlice text, const char *name, int64_t otherwise) {
  char copy[256] = {0};
  memcpy(copy, text.ptr, text.len < sizeof copy ? text.len : sizeof copy - 1);
  const char *found = strstr(copy, name);
  return found ? strtoll(found + strlen(name), NULL, 10) : otherwise;
}

/* ---- Arrow: a struct of one int64 column ---- */

static void free_schema(struct ArrowSchema *schema) {
  for (int64_t i = 0; i < schema->n_children; i++) {
    if (schema->children[i]->release) schema->children[i]->release(schema->children[i]);
    free(schema->children[i]);
  }
  free(schema->children);
  schema->release = NULL;
}

static void make_schema(struct ArrowSchema *out, const char *format, const char *name, struct ArrowSchema *child) {
  memset(out, 0, sizeof *out);
  out->format = format;
  out->name = name;
  out->release = free_schema;
  if (child) {
    out->n_children = 1;
    out->children = malloc(sizeof *out->children);
    out->children[0] = child;
  }
}

/* struct{main: struct{number: int64}} */
static void make_outputs(struct ArrowSchema *out) {
  struct ArrowSchema *column = malloc(sizeof *column), *main_output = malloc(sizeof *main_output);
  make_schema(column, "l", "number", NULL);
  make_schema(main_output, "+s", "main", column);
  make_schema(out, "+s", "", main_output);
}

static void free_array(struct ArrowArray *array) {
  for (int64_t i = 0; i < array->n_children; i++) {
    if (array->children[i]->release) array->children[i]->release(array->children[i]);
    free(array->children[i]);
  }
  free(array->children);
  free(array->private_data);
  free(array->buffers);
  array->release = NULL;
}

static void make_array(struct ArrowArray *out, int64_t length, int64_t *values, struct ArrowArray *child) {
  memset(out, 0, sizeof *out);
  out->length = length;
  out->n_buffers = values ? 2 : 1;
  out->buffers = calloc(2, sizeof *out->buffers);
  out->buffers[1] = values;
  out->private_data = values;
  out->release = free_array;
  if (child) {
    out->n_children = 1;
    out->children = malloc(sizeof *out->children);
    out->children[0] = child;
  }
}

/* A batch of these values; it owns them. */
static void make_batch(struct StandpipeBatch *out, int64_t length, int64_t *values) {
  struct ArrowArray *column = malloc(sizeof *column);
  make_array(column, length, values, NULL);
  memset(out, 0, sizeof *out);
  out->size = sizeof *out;
  out->data.device_type = ARROW_DEVICE_CPU;
  out->data.device_id = -1;
  make_array(&out->data.array, length, NULL, column);
}

static const int64_t *numbers(const struct ArrowArray *batch, int64_t *length) {
  const struct ArrowArray *column = batch->children[0];
  *length = batch->length;
  return (const int64_t *)column->buffers[1] + column->offset + batch->offset;
}

/* ---- What all kinds share ---- */

struct instance {
  const struct StandpipeHostTable *host;
  int64_t rows, next, sum;
  int ended;
  char position[32]; /* Lent to the host until the next call. */
};

static StandpipeStatus validate(struct StandpipeSlice config, const struct StandpipeValidationInput *input, struct StandpipeValidation *out,
                                struct StandpipeError *error) {
  (void)config, (void)error;
#ifdef DETAILS
  out->details = buffer(DETAILS);
#endif
  if (input->n_inputs > 1) {
    out->details = buffer("{\"problems\": [{\"path\": \"\", \"message\": \"takes one input\"}]}");
    return STANDPIPE_STATUS_OK;
  }
  make_outputs(&out->outputs);
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus validate_sink(struct StandpipeSlice config, const struct StandpipeValidationInput *input,
                                     struct StandpipeValidation *out, struct StandpipeError *error) {
  (void)config, (void)input, (void)error;
  out->details = buffer("{\"capabilities\": {\"idempotent\": true}, \"max_subtasks\": 1}");
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus create(struct StandpipeSlice config, const struct StandpipeContext *context, const struct StandpipeHostTable *host,
                              void **instance, struct StandpipeError *error) {
  struct instance *this = calloc(1, sizeof *this);
  this->host = host;
  this->rows = number(config, "\"rows\":", 5);
  if (this->rows < 0) {
    free(this);
    return fail(error, STANDPIPE_ERROR_CONFIG, "rows is negative");
  }
  char line[128];
  snprintf(line, sizeof line, "{\"message\": \"created\", \"subtask\": %u}", context->subtask);
  host->log(host->ctx, STANDPIPE_LOG_INFO, slice(line));
  *instance = this;
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus open_plain(void *instance, struct StandpipeError *error) {
  (void)instance, (void)error;
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus open_with_input(void *instance, const struct StandpipeValidationInput *input, struct StandpipeError *error) {
  (void)instance;
  if (input->n_inputs != 1 || strcmp(input->inputs[0]->children[0]->format, "l") != 0)
    return fail(error, STANDPIPE_ERROR_CONFIG, "the first column must be int64");
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus close_instance(void *instance, uint32_t reason, struct StandpipeError *error) {
  (void)instance, (void)reason, (void)error;
  return STANDPIPE_STATUS_OK;
}

static void destroy(void *instance) { free(instance); }

/* ---- source/1 and enumerator/1 ---- */

static StandpipeStatus assign(void *instance, const struct StandpipeSplitPosition *splits, size_t count, struct StandpipeError *error) {
  struct instance *this = instance;
  if (count != 1) return fail(error, STANDPIPE_ERROR_OUT_OF_RANGE, "there is one split");
  this->next = splits[0].position.len ? number(splits[0].position, "", 0) : 0;
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus unassign(void *instance, const struct StandpipeSlice *ids, size_t count, struct StandpipeBuffer *positions,
                                struct StandpipeError *error) {
  (void)instance, (void)ids, (void)count, (void)positions;
  return unsupported(error);
}

static StandpipeStatus poll(void *instance, uint32_t max_rows, uint64_t max_bytes, int64_t deadline, struct StandpipePolled *out,
                            struct StandpipeError *error) {
  struct instance *this = instance;
  (void)max_bytes, (void)deadline, (void)error;
  out->split = slice("0");
  if (this->next == this->rows) {
    if (this->ended) return STANDPIPE_STATUS_IDLE;
    this->ended = 1;
    return STANDPIPE_STATUS_END_OF_SPLIT;
  }
  int64_t n = this->rows - this->next < max_rows ? this->rows - this->next : max_rows;
  int64_t *values = malloc((size_t)n * sizeof *values);
  for (int64_t i = 0; i < n; i++) values[i] = this->next++;
  make_batch(out->batch, n, values);
  snprintf(this->position, sizeof this->position, "%lld", (long long)this->next);
  out->position = slice(this->position);
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus pause_splits(void *instance, const struct StandpipeSlice *ids, size_t count, struct StandpipeError *error) {
  (void)instance, (void)ids, (void)count;
  return unsupported(error);
}

static StandpipeStatus committed(void *instance, uint64_t checkpoint, const struct StandpipeSplitPosition *positions, size_t count,
                                 struct StandpipeError *error) {
  (void)instance, (void)checkpoint, (void)positions, (void)count, (void)error;
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus lag(void *instance, struct StandpipeBuffer *out, struct StandpipeError *error) {
  struct instance *this = instance;
  char text[64];
  (void)error;
  snprintf(text, sizeof text, "[{\"split\": \"0\", \"records\": %lld}]", (long long)(this->rows - this->next));
  *out = buffer(text);
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus discover(void *instance, int64_t deadline, struct StandpipeBuffer *out, struct StandpipeError *error) {
  (void)instance, (void)deadline, (void)error;
  *out = buffer("{\"added\": [{\"split\": \"0\"}], \"exhausted\": true}");
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus snapshot(void *instance, struct StandpipeBuffer *out, struct StandpipeError *error) {
  (void)instance, (void)out, (void)error;
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus restore(void *instance, struct StandpipeSlice snapshot, struct StandpipeError *error) {
  (void)instance, (void)snapshot, (void)error;
  return STANDPIPE_STATUS_OK;
}

/* ---- transform/1 ---- */

/* What a version of the plugin may do otherwise. */
#ifndef FACTOR
#define FACTOR -1
#endif

static StandpipeStatus process(void *instance, uint32_t input, struct StandpipeBatch *batch, const struct StandpipeKeyContext *keys,
                               uint64_t token, struct StandpipeError *error) {
  struct instance *this = instance;
  struct StandpipeBatch out;
  int64_t length;
  const int64_t *values = numbers(&batch->data.array, &length);
  int64_t *negated = malloc((size_t)length * sizeof *negated + 1);
  (void)input, (void)keys;
  for (int64_t i = 0; i < length; i++) negated[i] = FACTOR * values[i];
  batch->data.array.release(&batch->data.array);
  make_batch(&out, length, negated);
  return this->host->emit(this->host->ctx, 0, &out, token, error);
}

static StandpipeStatus on_timer(void *instance, const struct StandpipeDueTimers *timers, const struct StandpipeKeyContext *keys,
                                struct StandpipeError *error) {
  (void)instance, (void)timers, (void)keys;
  return unsupported(error);
}

static StandpipeStatus on_watermark(void *instance, uint32_t input, int64_t time, struct StandpipeError *error) {
  (void)instance, (void)input, (void)time, (void)error;
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus with_number(void *instance, uint64_t checkpoint, struct StandpipeError *error) {
  (void)instance, (void)checkpoint, (void)error;
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus restore_parts(void *instance, const struct StandpipeSlice *parts, size_t count, struct StandpipeError *error) {
  (void)instance, (void)parts, (void)count, (void)error;
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus finish_input(void *instance, uint32_t input, struct StandpipeError *error) {
  (void)instance, (void)input, (void)error;
  return STANDPIPE_STATUS_OK;
}

/* ---- sink/1 ---- */

static StandpipeStatus write_batch(void *instance, uint64_t seq, struct StandpipeBatch *batch, struct StandpipeError *error) {
  struct instance *this = instance;
  int64_t length;
  const int64_t *values = numbers(&batch->data.array, &length);
  for (int64_t i = 0; i < length; i++) {
    if (values[i] < 0) {
      struct StandpipeRejection refused = {(uint32_t)i, 0, slice("negative"), {NULL, 0}};
      if (this->host->reject(this->host->ctx, seq, &refused, 1, error) != STANDPIPE_STATUS_OK) return STANDPIPE_STATUS_ERROR;
    } else {
      this->sum += values[i];
    }
  }
  batch->data.array.release(&batch->data.array);
  this->host->ack(this->host->ctx, seq);
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus prepare(void *instance, uint64_t checkpoint, struct StandpipeBuffer *out, struct StandpipeError *error) {
  struct instance *this = instance;
  char text[32];
  (void)checkpoint, (void)error;
  snprintf(text, sizeof text, "%lld", (long long)this->sum);
  *out = buffer(text);
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus commit(void *instance, uint64_t up_to, const struct StandpipeCommittable *committables, size_t count,
                              struct StandpipeError *error) {
  (void)instance, (void)up_to, (void)committables, (void)count, (void)error;
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus recover(void *instance, const struct StandpipeCommittable *committables, size_t count, uint32_t *decisions,
                               struct StandpipeError *error) {
  (void)instance, (void)committables, (void)error;
  for (size_t i = 0; i < count; i++) decisions[i] = STANDPIPE_RECOVER_COMMIT;
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus abort_prepared(void *instance, const struct StandpipeCommittable *committables, size_t count,
                                      struct StandpipeError *error) {
  (void)instance, (void)committables, (void)count, (void)error;
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus finish(void *instance, struct StandpipeError *error) {
  (void)instance, (void)error;
  return STANDPIPE_STATUS_OK;
}

/* ---- The tables and the two exports ---- */

static const struct StandpipeSourceTable source = {
    TABLE_HEADER(StandpipeSourceTable), validate, create, open_plain, assign, unassign, poll, pause_splits, pause_splits, committed, lag,
    close_instance, destroy};

static const struct StandpipeEnumeratorTable enumerator = {
    TABLE_HEADER(StandpipeEnumeratorTable), create, open_plain, discover, snapshot, restore, close_instance, destroy};

static const struct StandpipeTransformTable transform = {
    TABLE_HEADER(StandpipeTransformTable), validate, create, open_with_input, process, on_timer, on_watermark, with_number, snapshot,
    restore_parts, finish_input, close_instance, destroy};

static const struct StandpipeSinkTable sink = {
    TABLE_HEADER(StandpipeSinkTable), validate_sink, create, open_with_input, write_batch, with_number, prepare, commit, recover,
    abort_prepared, finish, close_instance, destroy};

static int same(struct StandpipeSlice slice, const char *text) {
  return slice.len == strlen(text) && memcmp(slice.ptr, text, slice.len) == 0;
}

const void *standpipe_plugin_interface_v1(struct StandpipeSlice kind, struct StandpipeSlice id) {
  if (same(kind, "c_numbers") && same(id, "source/1")) return &source;
  if (same(kind, "c_numbers") && same(id, "enumerator/1")) return &enumerator;
  if (same(kind, "c_negate") && same(id, "transform/1")) return &transform;
  if (same(kind, "c_sum") && same(id, "sink/1")) return &sink;
  return NULL;
}

#ifndef VERSION
#define VERSION "1.2.3"
#endif

const struct StandpipeManifest *standpipe_plugin_manifest_v1(void) {
  static const struct StandpipeManifest manifest = {
      STANDPIPE_MAGIC, sizeof manifest, STANDPIPE_FLAVOUR_C, STANDPIPE_ABI_MAJOR, STANDPIPE_ABI_MINOR, STANDPIPE_ABI_CANDIDATE, 0,
      "c-fixture", VERSION,
      "{\"kinds\": ["
      "{\"kind\": \"source\", \"name\": \"c_numbers\", \"summary\": \"Counts.\", \"config_schema\": {\"type\": \"object\"}},"
      "{\"kind\": \"transform\", \"name\": \"c_negate\", \"config_schema\": {}},"
      "{\"kind\": \"sink\", \"name\": \"c_sum\", \"config_schema\": {}},"
      "{\"kind\": \"oracle\", \"name\": \"of a later version\", \"config_schema\": {}}],"
      " \"build\": {\"compiler\": \"cc\"}}"};
  return &manifest;
}
