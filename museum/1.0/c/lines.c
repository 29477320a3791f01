/* The sink `c-lines`: appends records to a file, one per line. At least once: what was written behind the last checkpoint is written again after a failure. */
#include "arrow.h"

#include <errno.h>
#include <fcntl.h>
#include <unistd.h>

struct lines {
  const struct StandpipeHostTable *host;
  char *path;
  int file;
};

static StandpipeStatus validate(struct StandpipeSlice config, const struct StandpipeValidationInput *input, struct StandpipeValidation *out,
                                struct StandpipeError *error) {
  (void)config, (void)input, (void)error;
  /* The host makes records of rows, by the pipeline's format. Two subtasks would write into one file. */
  out->details = buffer("{\"encoding\": \"records\", \"max_subtasks\": 1, \"capabilities\": {\"ordered\": true}}");
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus create(struct StandpipeSlice config, const struct StandpipeContext *context, const struct StandpipeHostTable *host,
                              void **instance, struct StandpipeError *error) {
  struct lines *this = calloc(1, sizeof *this);
  (void)context;
  if (!this) return no_memory(error);
  this->host = host;
  this->file = -1;
  *instance = this;
  char *path = json_text(config, "path");
  if (!path) {
    free(this);
    return fail(error, STANDPIPE_ERROR_CONFIG, "path is missing");
  }
  /* A text may hold references to secrets, ${env:NAME}: the host puts in what they stand for. */
  struct StandpipeBuffer resolved = {NULL, 0, NULL, NULL};
  StandpipeStatus status = STANDPIPE_STATUS_OK;
  if (strstr(path, "${")) {
    status = host->secret(host->ctx, slice(path), &resolved, NULL, error);
    free(path);
    path = NULL;
    if (status == STANDPIPE_STATUS_OK) {
      struct StandpipeSlice text = {resolved.ptr, resolved.len};
      path = copy_text(text);
    }
    if (resolved.release) resolved.release(&resolved);
  }
  this->path = path;
  if (!path) {
    free(this);
    *instance = NULL;
    return status == STANDPIPE_STATUS_OK ? no_memory(error) : status;
  }
  return STANDPIPE_STATUS_OK;
}

static void destroy(void *instance) {
  struct lines *this = instance;
  if (this->file >= 0) close(this->file);
  free(this->path);
  free(this);
}

/* The file's name and the system's words. */
static StandpipeStatus outside(const struct lines *this, struct StandpipeError *error) {
  const char *why = strerror(errno);
  size_t length = strlen(this->path) + strlen(why) + 3;
  char *message = malloc(length);
  if (!message) return no_memory(error);
  snprintf(message, length, "%s: %s", this->path, why);
  fail(error, STANDPIPE_ERROR_EXTERNAL, message);
  free(message);
  return STANDPIPE_STATUS_ERROR;
}

static StandpipeStatus open_sink(void *instance, const struct StandpipeValidationInput *input, struct StandpipeError *error) {
  struct lines *this = instance;
  (void)input;
  this->file = open(this->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
  return this->file < 0 ? outside(this, error) : STANDPIPE_STATUS_OK;
}

static bool write_all(int file, const char *bytes, size_t length) {
  while (length) {
    ssize_t written = write(file, bytes, length);
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) return false;
    bytes += written;
    length -= (size_t)written;
  }
  return true;
}

/* One text of all records of the batch, so that there is one write; NULL if there is no memory. */
static char *join(const struct ArrowArray *batch, size_t *length) {
  const struct ArrowArray *column = batch->children[0];
  const int32_t *ends = (const int32_t *)column->buffers[1] + column->offset + batch->offset;
  const char *bytes = column->buffers[2];
  char *text = malloc((size_t)(ends[batch->length] - ends[0]) + (size_t)batch->length + 1);
  *length = 0;
  for (int64_t i = 0; text && i < batch->length; i++) {
    size_t record = (size_t)(ends[i + 1] - ends[i]);
    if (!is_valid(column, batch->offset + i)) continue;
    if (record) memcpy(text + *length, bytes + ends[i], record);
    *length += record;
    text[(*length)++] = '\n';
  }
  return text;
}

static StandpipeStatus write_batch(void *instance, uint64_t seq, struct StandpipeBatch *batch, struct StandpipeError *error) {
  struct lines *this = instance;
  size_t length = 0;
  char *text = batch->data.array.length ? join(&batch->data.array, &length) : NULL;
  bool is_written = !length || write_all(this->file, text, length);
  bool is_missing = batch->data.array.length && !text;
  free(text);
  release_batch(batch);
  if (is_missing) return no_memory(error);
  if (!is_written) return outside(this, error);
  /* What is not acknowledged holds the sources back. */
  this->host->ack(this->host->ctx, seq);
  return STANDPIPE_STATUS_OK;
}

/* A checkpoint: what was written must be safe when this returns. */
static StandpipeStatus flush(void *instance, uint64_t checkpoint, struct StandpipeError *error) {
  struct lines *this = instance;
  (void)checkpoint;
  /* A pipe or terminal cannot be synchronised, and need not be. */
  if (fdatasync(this->file) != 0 && errno != EINVAL && errno != EROFS) return outside(this, error);
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus finish(void *instance, struct StandpipeError *error) { return flush(instance, 0, error); }

/* For sinks that are transactional. */
static StandpipeStatus prepare(void *instance, uint64_t checkpoint, struct StandpipeBuffer *out, struct StandpipeError *error) {
  (void)out;
  return flush(instance, checkpoint, error);
}

static StandpipeStatus commit(void *instance, uint64_t up_to, const struct StandpipeCommittable *prepared, size_t count,
                              struct StandpipeError *error) {
  (void)instance, (void)up_to, (void)prepared, (void)count, (void)error;
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus recover(void *instance, const struct StandpipeCommittable *prepared, size_t count, uint32_t *decisions,
                               struct StandpipeError *error) {
  (void)instance, (void)prepared, (void)error;
  for (size_t i = 0; i < count; i++) decisions[i] = STANDPIPE_RECOVER_COMMITTED;
  return STANDPIPE_STATUS_OK;
}

static StandpipeStatus abort_prepared(void *instance, const struct StandpipeCommittable *prepared, size_t count, struct StandpipeError *error) {
  (void)instance, (void)prepared, (void)count, (void)error;
  return STANDPIPE_STATUS_OK;
}

const struct StandpipeSinkTable lines_sink = {sizeof lines_sink,
                                              0,
                                              validate,
                                              create,
                                              open_sink,
                                              write_batch,
                                              flush,
                                              prepare,
                                              commit,
                                              recover,
                                              abort_prepared,
                                              finish,
                                              nothing_to_close,
                                              destroy};
