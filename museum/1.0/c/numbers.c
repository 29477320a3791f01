/* The source `c-numbers`: integers from 0 on, in one split whose position is the next number, as text. */
#include "arrow.h"

#include <inttypes.h>

static const char *const SPLIT = "numbers";

struct numbers {
  int64_t count, next;
  bool is_assigned, is_paused;
  char position[32]; /* Lent to the host until the next call. */
};

static StandpipeStatus validate(struct StandpipeSlice config, const struct StandpipeValidationInput *input, struct StandpipeValidation *out,
                                struct StandpipeError *error) {
  (void)input;
  /* What is wrong with the configuration is told with its place; STANDPIPE_STATUS_ERROR is for what cannot go on. */
  bool is_wrong = json_integer(config, "count", 0) < 0;
  out->details = buffer(is_wrong ? "{\"problems\": [{\"path\": \"count\", \"message\": \"expected 0 or more\"}]}"
                                 : "{\"capabilities\": {\"bounded\": true, \"replayable\": true, \"ordered\": true}}");
  if (!make_schema(&out->outputs, "+s", "", 0, 1) || !make_schema(out->outputs.children[0], "+s", "main", 0, 1) ||
      !make_schema(out->outputs.children[0]->children[0], "l", "n", 0, 0))
    return no_memory(error);
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus create(struct StandpipeSlice config, const struct StandpipeContext *context, const struct StandpipeHostTable *host,
                              void **instance, struct StandpipeError *error) {
  struct numbers *this = calloc(1, sizeof *this);
  (void)context;
  if (!this) return no_memory(error);
  this->count = json_integer(config, "count", 0);
  host->log(host->ctx, STANDPIPE_LOG_DEBUG, slice("{\"message\": \"counting\"}"));
  *instance = this;
  return STANDPIPE_STATUS_OK;
}

static void destroy(void *instance) { free(instance); }

static StandpipeStatus assign(void *instance, const struct StandpipeSplitPosition *splits, size_t count, struct StandpipeError *error) {
  struct numbers *this = instance;
  for (size_t i = 0; i < count; i++) {
    if (!same(splits[i].split, SPLIT)) return fail(error, STANDPIPE_ERROR_OUT_OF_RANGE, "there is one split, \"numbers\"");
    char *position = copy_text(splits[i].position);
    if (!position) return no_memory(error);
    char *end = position;
    this->next = strtoll(position, &end, 10);
    bool is_number = *end == 0;
    free(position);
    if (!is_number || this->next < 0) return fail(error, STANDPIPE_ERROR_DATA, "a position of c-numbers is a number");
    this->is_assigned = true;
  }
  return STANDPIPE_STATUS_OK;
}

static void base64(char *out, const char *text, size_t length) {
  static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (size_t i = 0; i < length; i += 3) {
    uint32_t three = (uint32_t)(uint8_t)text[i] << 16;
    if (i + 1 < length) three |= (uint32_t)(uint8_t)text[i + 1] << 8;
    if (i + 2 < length) three |= (uint8_t)text[i + 2];
    *out++ = digits[three >> 18];
    *out++ = digits[three >> 12 & 63];
    *out++ = i + 1 < length ? digits[three >> 6 & 63] : '=';
    *out++ = i + 2 < length ? digits[three & 63] : '=';
  }
  *out = 0;
}

static StandpipeStatus unassign(void *instance, const struct StandpipeSlice *ids, size_t count, struct StandpipeBuffer *positions,
                                struct StandpipeError *error) {
  struct numbers *this = instance;
  char position[32], encoded[64], text[128] = "[]";
  for (size_t i = 0; i < count; i++) {
    if (!this->is_assigned || !same(ids[i], SPLIT)) return fail(error, STANDPIPE_ERROR_OUT_OF_RANGE, "the split is not assigned");
    snprintf(position, sizeof position, "%" PRId64, this->next);
    base64(encoded, position, strlen(position));
    snprintf(text, sizeof text, "[{\"split\": \"%s\", \"position\": \"%s\"}]", SPLIT, encoded);
    this->is_assigned = this->is_paused = false;
  }
  *positions = buffer(text);
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus poll(void *instance, uint32_t max_rows, uint64_t max_bytes, int64_t deadline, struct StandpipePolled *out,
                            struct StandpipeError *error) {
  struct numbers *this = instance;
  (void)max_bytes, (void)deadline;
  if (!this->is_assigned || this->is_paused) return STANDPIPE_STATUS_IDLE;
  out->split = slice(SPLIT);
  if (this->next >= this->count) {
    this->is_assigned = false;
    return STANDPIPE_STATUS_END_OF_SPLIT;
  }
  int64_t length = this->count - this->next < max_rows ? this->count - this->next : max_rows;
  struct ArrowArray rows;
  int64_t *values = make_array(&rows, length, 1, 1) ? make_integers(rows.children[0], length) : NULL;
  if (!values) {
    free_array(&rows);
    return no_memory(error);
  }
  for (int64_t i = 0; i < length; i++) values[i] = this->next++;
  make_batch(out->batch, &rows);
  snprintf(this->position, sizeof this->position, "%" PRId64, this->next);
  out->position = slice(this->position);
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus pause_splits(void *instance, const struct StandpipeSlice *ids, size_t count, struct StandpipeError *error) {
  struct numbers *this = instance;
  (void)ids, (void)error;
  if (count) this->is_paused = true;
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus resume_splits(void *instance, const struct StandpipeSlice *ids, size_t count, struct StandpipeError *error) {
  struct numbers *this = instance;
  (void)ids, (void)error;
  if (count) this->is_paused = false;
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus checkpoint_committed(void *instance, uint64_t checkpoint, const struct StandpipeSplitPosition *positions, size_t count,
                                            struct StandpipeError *error) {
  /* A queue would be told here what it need not keep. */
  (void)instance, (void)checkpoint, (void)positions, (void)count, (void)error;
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus lag(void *instance, struct StandpipeBuffer *out, struct StandpipeError *error) {
  struct numbers *this = instance;
  char text[96];
  (void)error;
  snprintf(text, sizeof text, "[{\"split\": \"%s\", \"records\": %" PRId64 "}]", SPLIT, this->count - this->next);
  *out = buffer(this->is_assigned ? text : "[]");
  return STANDPIPE_STATUS_OK;
}

const struct StandpipeSourceTable numbers_source = {sizeof numbers_source,
                                                    0,
                                                    validate,
                                                    create,
                                                    nothing_to_open,
                                                    assign,
                                                    unassign,
                                                    poll,
                                                    pause_splits,
                                                    resume_splits,
                                                    checkpoint_committed,
                                                    lag,
                                                    nothing_to_close,
                                                    destroy};

/* ---- The enumerator: one split, and there will be no other ---- */

static StandpipeStatus discover(void *instance, int64_t deadline, struct StandpipeBuffer *out, struct StandpipeError *error) {
  struct numbers *this = instance;
  (void)deadline, (void)error;
  /* What it has told before is not told again. */
  *out = buffer(this->is_assigned ? "{\"exhausted\": true}" : "{\"added\": [{\"split\": \"numbers\"}], \"exhausted\": true}");
  this->is_assigned = true;
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus snapshot(void *instance, struct StandpipeBuffer *out, struct StandpipeError *error) {
  struct numbers *this = instance;
  (void)error;
  *out = buffer(this->is_assigned ? "told" : "");
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus restore(void *instance, struct StandpipeSlice snapshot, struct StandpipeError *error) {
  struct numbers *this = instance;
  (void)error;
  this->is_assigned = same(snapshot, "told");
  return STANDPIPE_STATUS_OK;
}

const struct StandpipeEnumeratorTable numbers_enumerator = {
    sizeof numbers_enumerator, 0, create, nothing_to_open, discover, snapshot, restore, nothing_to_close, destroy};
