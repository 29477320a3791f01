/* The keyed transform `c-running-total`: adds the column `total`, the sum of the column `n` over all rows of the key so far. The sum lies in the host, by key: it
 * survives restarts and changes of parallelism. */
#include "arrow.h"

struct running_total {
  const struct StandpipeHostTable *host;
  int64_t column; /* Where `n` is. */
};

/* Where the column is, or -1. */
static int64_t find_column(const struct ArrowSchema *input) {
  for (int64_t i = 0; i < input->n_children; i++)
    if (strcmp(input->children[i]->name, "n") == 0 && strcmp(input->children[i]->format, "l") == 0) return i;
  return -1;
}

static StandpipeStatus validate(struct StandpipeSlice config, const struct StandpipeValidationInput *input, struct StandpipeValidation *out,
                                struct StandpipeError *error) {
  (void)config;
  if (input->n_inputs != 1 || find_column(input->inputs[0]) < 0) {
    out->details = buffer("{\"problems\": [{\"path\": \"\", \"message\": \"needs an input with the column n of type int64\"}]}");
    return STANDPIPE_STATUS_OK;
  }
  out->details = buffer("{\"outputs\": [{\"name\": \"main\"}], \"requires_key\": true, \"capabilities\": {\"deterministic\": true}, "
                        "\"states\": [{\"name\": \"total\", \"kind\": \"value\", \"version\": 1}]}");
  /* The columns of the input, and one more. */
  if (!make_schema(&out->outputs, "+s", "", 0, 1) || !copy_schema(out->outputs.children[0], input->inputs[0], 1)) return no_memory(error);
  struct ArrowSchema *main_output = out->outputs.children[0];
  free((char *)main_output->name);
  main_output->name = copy_text(slice("main"));
  struct ArrowSchema *total = main_output->children[main_output->n_children - 1];
  if (!main_output->name || !make_schema(total, "l", "total", 0, 0)) return no_memory(error);
  /* One state: slot 0, a nullable integer for each key. */
  if (!make_schema(&out->state, "+s", "", 0, 1) || !make_schema(out->state.children[0], "l", "total", ARROW_FLAG_NULLABLE, 0))
    return no_memory(error);
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus create(struct StandpipeSlice config, const struct StandpipeContext *context, const struct StandpipeHostTable *host,
                              void **instance, struct StandpipeError *error) {
  struct running_total *this = calloc(1, sizeof *this);
  (void)config, (void)context;
  if (!this) return no_memory(error);
  this->host = host;
  *instance = this;
  return STANDPIPE_STATUS_OK;
}

static void destroy(void *instance) { free(instance); }

static StandpipeStatus open_transform(void *instance, const struct StandpipeValidationInput *input, struct StandpipeError *error) {
  struct running_total *this = instance;
  this->column = input->n_inputs == 1 ? find_column(input->inputs[0]) : -1;
  if (this->column < 0) return fail(error, STANDPIPE_ERROR_CONFIG, "needs an input with the column n of type int64");
  return STANDPIPE_STATUS_OK;
}

/* The totals of the rows, and the new totals of their keys. */
static void add_up(const struct ArrowArray *column, int64_t from, int64_t rows, const uint32_t *key_of_row, struct StandpipeLentValues *lent,
                   int64_t *totals) {
  int64_t *of_key = (int64_t *)(void *)lent->values;
  const int64_t *numbers = (const int64_t *)column->buffers[1] + column->offset;
  for (int64_t i = 0; i < rows; i++) {
    uint32_t key = key_of_row[i];
    if (is_valid(column, from + i)) {
      /* Wraps round, where a signed addition would be undefined. */
      of_key[key] = (int64_t)((uint64_t)of_key[key] + (uint64_t)numbers[from + i]);
      lent->validity[key] = lent->dirty[key] = 1;
    }
    totals[from + i] = of_key[key];
  }
}

static StandpipeStatus process(void *instance, uint32_t input, struct StandpipeBatch *batch, const struct StandpipeKeyContext *keys,
                               uint64_t token, struct StandpipeError *error) {
  struct running_total *this = instance;
  struct ArrowArray *given = &batch->data.array, rows;
  struct StandpipeLentValues lent = {.size = sizeof lent};
  (void)input;
  if (!keys) return fail(error, STANDPIPE_ERROR_UNSUPPORTED, "c-running-total needs key_by");
  /* A column with one value per key of this call: the key of row i is key_of_row[i]. */
  if (keys->state->value_lend(keys->state->ctx, 0, &lent, error) != STANDPIPE_STATUS_OK) return STANDPIPE_STATUS_ERROR;
  int64_t columns = given->n_children, end = given->offset + given->length;
  int64_t *totals = make_array(&rows, given->length, 1, columns + 1) ? make_integers(rows.children[columns], end) : NULL;
  if (!totals) {
    free_array(&rows);
    return no_memory(error);
  }
  rows.offset = given->offset;
  add_up(given->children[this->column], given->offset, given->length, keys->key_of_row, &lent, totals);
  /* The columns of the input move over: their memory is not copied. */
  for (int64_t i = 0; i < columns; i++) {
    *rows.children[i] = *given->children[i];
    given->children[i]->release = NULL;
  }
  release_batch(batch);
  struct StandpipeBatch out = {.size = sizeof out};
  make_batch(&out, &rows);
  return this->host->emit(this->host->ctx, 0, &out, token, error);
}

static StandpipeStatus on_timer(void *instance, const struct StandpipeDueTimers *timers, const struct StandpipeKeyContext *keys,
                                struct StandpipeError *error) {
  (void)instance, (void)timers, (void)keys;
  return fail(error, STANDPIPE_ERROR_UNSUPPORTED, "sets no timers");
}

static StandpipeStatus on_watermark(void *instance, uint32_t input, int64_t time, struct StandpipeError *error) {
  (void)instance, (void)input, (void)time, (void)error;
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus drain(void *instance, uint64_t checkpoint, struct StandpipeError *error) {
  (void)instance, (void)checkpoint, (void)error;
  return STANDPIPE_STATUS_OK;
}

/* What there is to remember lies in the host. */
static StandpipeStatus snapshot(void *instance, struct StandpipeBuffer *out, struct StandpipeError *error) {
  (void)instance, (void)out, (void)error;
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus restore(void *instance, const struct StandpipeSlice *parts, size_t count, struct StandpipeError *error) {
  (void)instance, (void)parts, (void)count, (void)error;
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus finish(void *instance, uint32_t input, struct StandpipeError *error) {
  (void)instance, (void)input, (void)error;
  return STANDPIPE_STATUS_OK;
}

const struct StandpipeTransformTable running_total_transform = {sizeof running_total_transform,
                                                                0,
                                                                validate,
                                                                create,
                                                                open_transform,
                                                                process,
                                                                on_timer,
                                                                on_watermark,
                                                                drain,
                                                                snapshot,
                                                                restore,
                                                                finish,
                                                                nothing_to_close,
                                                                destroy};
