/*
 * Standpipe's plugin contract in C. Generated from the crate standpipe-abi: do not edit, run its test `header` with STANDPIPE_BLESS=1.
 *
 * A plugin is a shared library that exports two functions (at the end of this file): one gives the manifest, one the tables of its kinds. The rules:
 *
 * - A struct with a `size` starts with it, in bytes, and grows at its end. Who makes a struct sets `size` to its sizeof; the other side never changes it, writes nothing
 *   behind it, and looks at a member of a minor version after 1.0 only if STANDPIPE_HAS says that it is there. What has no `size` is frozen: it never grows.
 * - A function returns a status; what went wrong goes to the StandpipeError that the caller passed. Nothing may throw or jump across.
 * - Calls on one instance, from `create` to `destroy`, are serial and on one thread. An Arrow `release` may be called on any thread at any time.
 * - Who allocates releases: memory that changes hands carries its own release function (StandpipeBuffer, the Arrow structs). "Moved" means that the receiver
 *   sets `release` of the given struct to NULL and calls it on its copy.
 * - Every function that a table had in 1.0 must be there: give one that returns STANDPIPE_ERROR_UNSUPPORTED rather than NULL. A later one may be NULL, which means that it is
 *   absent; its comment says since when it is there.
 *
 * Comments name types and constants as Rust does: `Status::IDLE` is STANDPIPE_STATUS_IDLE, `Slice` is struct StandpipeSlice.
 */
#ifndef STANDPIPE_PLUGIN_H
#define STANDPIPE_PLUGIN_H

#include <stddef.h>
#include <stdint.h>

/* Whether the struct behind `pointer`, of type `struct type`, has that member: STANDPIPE_HAS(host, StandpipeHostTable, now). */
#define STANDPIPE_HAS(pointer, type, member) ((pointer)->size >= offsetof(struct type, member) + sizeof((pointer)->member))

#ifdef __cplusplus
extern "C" {
#endif

/* The Arrow C data, stream and device interfaces: https://arrow.apache.org/docs/format/CDataInterface.html */

#ifndef ARROW_C_DATA_INTERFACE
#define ARROW_C_DATA_INTERFACE

#define ARROW_FLAG_DICTIONARY_ORDERED 1
#define ARROW_FLAG_NULLABLE 2
#define ARROW_FLAG_MAP_KEYS_SORTED 4

struct ArrowSchema {
  const char *format;
  const char *name;
  const char *metadata;
  int64_t flags;
  int64_t n_children;
  struct ArrowSchema **children;
  struct ArrowSchema *dictionary;
  void (*release)(struct ArrowSchema *);
  void *private_data;
};

struct ArrowArray {
  int64_t length;
  int64_t null_count;
  int64_t offset;
  int64_t n_buffers;
  int64_t n_children;
  const void **buffers;
  struct ArrowArray **children;
  struct ArrowArray *dictionary;
  void (*release)(struct ArrowArray *);
  void *private_data;
};

#endif /* ARROW_C_DATA_INTERFACE */

#ifndef ARROW_C_STREAM_INTERFACE
#define ARROW_C_STREAM_INTERFACE

struct ArrowArrayStream {
  int (*get_schema)(struct ArrowArrayStream *, struct ArrowSchema *out);
  int (*get_next)(struct ArrowArrayStream *, struct ArrowArray *out);
  const char *(*get_last_error)(struct ArrowArrayStream *);
  void (*release)(struct ArrowArrayStream *);
  void *private_data;
};

#endif /* ARROW_C_STREAM_INTERFACE */

#ifndef ARROW_C_DEVICE_DATA_INTERFACE
#define ARROW_C_DEVICE_DATA_INTERFACE

typedef int32_t ArrowDeviceType;

#define ARROW_DEVICE_CPU 1

struct ArrowDeviceArray {
  struct ArrowArray array;
  int64_t device_id;
  ArrowDeviceType device_type;
  void *sync_event;
  int64_t reserved[3];
};

#endif /* ARROW_C_DEVICE_DATA_INTERFACE */

/* `ARROW_DEVICE_CPU` of the Arrow C device interface: the only device that this minor version sends. */
#define STANDPIPE_DEVICE_CPU 1

/* `log` levels: as `tracing`'s, from `LOG_ERROR` = 1 to `LOG_TRACE` = 5. */
#define STANDPIPE_LOG_ERROR 1

/* Something that an operator should look at. */
#define STANDPIPE_LOG_WARN 2

/* Something worth knowing once. */
#define STANDPIPE_LOG_INFO 3

/* For whoever debugs the plugin. */
#define STANDPIPE_LOG_DEBUG 4

/* Everything. */
#define STANDPIPE_LOG_TRACE 5

/* `metric_register` types: a counter only grows; `metric_update` adds to it. */
#define STANDPIPE_METRIC_COUNTER 1

/* A gauge: `metric_update` sets it. */
#define STANDPIPE_METRIC_GAUGE 2

/* A histogram: `metric_update` records a value. */
#define STANDPIPE_METRIC_HISTOGRAM 3

/* Why an instance is closed. */
#define STANDPIPE_CLOSE_FINISHED 0

/* The user cancelled or stopped the job. */
#define STANDPIPE_CLOSE_STOPPED 1

/* The job failed; what is unfinished is not wanted. */
#define STANDPIPE_CLOSE_FAILED 2

/* No watermark hint. */
#define STANDPIPE_NO_WATERMARK INT64_MIN

/* Timers on event time: due when the watermark passes. */
#define STANDPIPE_TIMER_EVENT_TIME 0

/* Timers on processing time. */
#define STANDPIPE_TIMER_PROCESSING_TIME 1

/* `recover`'s answer: it was committed before the failure. */
#define STANDPIPE_RECOVER_COMMITTED 0

/* `recover`'s answer: it must be committed now. */
#define STANDPIPE_RECOVER_COMMIT 1

/* `recover`'s answer: it is gone, and was not committed. The host ends the start and says that an earlier checkpoint must be restored. */
#define STANDPIPE_RECOVER_LOST 2

/* May differ from call to call; of an aggregate function, with the order of rows. Who says nothing promises nothing. */
#define STANDPIPE_VOLATILITY_VOLATILE 0

/* The same arguments give the same result within one run of the job. */
#define STANDPIPE_VOLATILITY_STABLE 1

/* The same arguments always give the same result; of an aggregate function, the same rows in any order. */
#define STANDPIPE_VOLATILITY_IMMUTABLE 2

/* The plugin was built with the Rust SDK: its tables are reached through abi_stable's root module. */
#define STANDPIPE_FLAVOUR_RUST 0

/* The plugin exports `INTERFACE_SYMBOL`. */
#define STANDPIPE_FLAVOUR_C 1

/* The contract's major version: only equal majors work together. */
#define STANDPIPE_ABI_MAJOR 1

/* The contract's minor version: within a major it only grows, and any two minors work together. */
#define STANDPIPE_ABI_MINOR 1

/* Zero since 1.0, and for ever. Before it there were candidates, `1.0.0-rc.N`, that work with their equals only. */
#define STANDPIPE_ABI_CANDIDATE 0

/* The result of a call. Negative: failed, see the `Error`. Zero: done. Positive: a state that the function names (busy, idle, ...). */
typedef int32_t StandpipeStatus;
/* Done. */
#define STANDPIPE_STATUS_OK 0
/* Failed; the error says why. */
#define STANDPIPE_STATUS_ERROR (-1)
/* A sink takes no more now; it calls `wake` when it does. The batch stays the host's. */
#define STANDPIPE_STATUS_BUSY 1
/* A source has nothing now in any of its splits; it calls `wake` when it has. */
#define STANDPIPE_STATUS_IDLE 2
/* A source has read the split that it names to its end. */
#define STANDPIPE_STATUS_END_OF_SPLIT 3
/* A transform will call `complete` with the token. */
#define STANDPIPE_STATUS_PENDING 4

/* What kind of failure it was. An open enumeration: a reader treats a code that it does not know as `ErrorCode::OTHER`. */
typedef uint32_t StandpipeErrorCode;
/* None of the others. */
#define STANDPIPE_ERROR_OTHER 0
/* The configuration is wrong; `details` may hold `{"path": "hosts[0]", "suggestion": "..."}`. Exit code 2. */
#define STANDPIPE_ERROR_CONFIG 1
/* Something outside is missing or unreachable (file, topic, address, permission). Exit code 3 at start. */
#define STANDPIPE_ERROR_EXTERNAL 2
/* The data is wrong. */
#define STANDPIPE_ERROR_DATA 3
/* The instance panicked: it is poisoned, every later call fails the same way. */
#define STANDPIPE_ERROR_PANIC 4
/* The function or option is not supported. */
#define STANDPIPE_ERROR_UNSUPPORTED 5
/* The call was given up because the host cancelled. */
#define STANDPIPE_ERROR_CANCELLED 6
/* A key, ordinal, slot or output that the call may not name. */
#define STANDPIPE_ERROR_OUT_OF_RANGE 7

/* Borrowed bytes. Frozen. Valid for the call that passes them (or as long as the table that returns them says). Text is UTF-8, without a terminator. */
struct StandpipeSlice {
  /* The first byte; may be null when `len` is 0. */
  const uint8_t *ptr;
  /* Bytes. */
  size_t len;
};

/* What a node would get. */
struct StandpipeValidationInput {
  /* Bytes of this struct that the host knows. */
  uint32_t size;
  /* Inputs of the node; 0 for a source. */
  uint32_t n_inputs;
  /* One struct-typed schema per input, borrowed for the call. */
  const struct ArrowSchema *const *inputs;
  /* A JSON object: `{"inputs": [{"name": "readings", "mode": "append", "key": ["host"]}], "keyed": true, "node": "runs"}`. */
  struct StandpipeSlice details;
};

/* Owned bytes. Frozen. Whoever fills a buffer allocates it and sets `release`; whoever receives it calls `release` once, on any thread. */
struct StandpipeBuffer {
  /* The first byte; may be null when `len` is 0. */
  const uint8_t *ptr;
  /* Bytes. */
  size_t len;
  /* Frees the bytes and sets itself to null; null means that there is nothing to free. */
  void (*release)(struct StandpipeBuffer *buffer);
  /* Belongs to whoever filled the buffer. */
  void *private_data;
};

/* What the node will do with it. The schemas are moved to the host. */
struct StandpipeValidation {
  /* Bytes of this struct that the host knows. */
  uint32_t size;
  /* Zero. */
  uint32_t reserved;
  /* A struct type with one struct-typed child per output, in order; the first is the main one. Empty for a sink. */
  struct ArrowSchema outputs;
  /* A struct type with one child per declared state, in order: the field of the value
   * (value, reducing), of the items (list), or a struct of `key` and `value` (map). */
  struct ArrowSchema state;
  /* A JSON object: outputs' names and modes, states' kinds, capabilities, what a sink wants, and every error found at once. Its members are
   * those of `standpipe_sdk::wire::ValidationDetails`; they evolve freely, an unknown one is ignored. */
  struct StandpipeBuffer details;
};

/* A failure. The caller passes an empty one; a function that fails fills it in. */
struct StandpipeError {
  /* Bytes of this struct that the caller knows. */
  uint32_t size;
  /* What kind. */
  StandpipeErrorCode code;
  /* 1 if the same call may succeed later. */
  uint32_t retryable;
  /* Zero. */
  uint32_t reserved;
  /* One line for people, without a trailing period. */
  struct StandpipeBuffer message;
  /* A JSON object that evolves freely: `path`, `suggestion`, `location`, `backtrace`, `causes`. */
  struct StandpipeBuffer details;
};

/* Checks a configuration (a JSON object) against the inputs. Wrong values are reported in `details.problems`, all at once; `Status::ERROR` is for what cannot go on. */
typedef StandpipeStatus (*StandpipeValidateFn)(struct StandpipeSlice config,
                                               const struct StandpipeValidationInput *input,
                                               struct StandpipeValidation *out,
                                               struct StandpipeError *error);

/* Where an instance runs. Valid for the `create` call only: an instance copies what it keeps. */
struct StandpipeContext {
  /* Bytes of this struct that the host knows. */
  uint32_t size;
  /* This subtask, from 0. */
  uint32_t subtask;
  /* Subtasks of the node. */
  uint32_t parallelism;
  /* Key groups of the job. */
  uint32_t max_parallelism;
  /* How often the job has been started, from 1: fences what an earlier start left behind. */
  uint64_t generation;
  /* 1 if the job starts from a checkpoint. */
  uint32_t restored;
  /* Zero. */
  uint32_t reserved;
  /* 32 hexadecimal digits. */
  struct StandpipeSlice job_id;
  /* The pipeline's `name`. */
  struct StandpipeSlice job_name;
  /* The node's name in the pipeline. */
  struct StandpipeSlice node;
};

/* A record batch as it crosses: a struct array whose children are the columns of the schema that `schema_id` names.
 *
 * Schemas cross once, in `validate`; id 0 is the schema agreed there. */
struct StandpipeBatch {
  /* Bytes of this struct that its maker knows. */
  uint32_t size;
  /* Which schema; 0 is the one agreed in `validate`. */
  uint32_t schema_id;
  /* The columns. */
  struct ArrowDeviceArray data;
};

/* A row that a sink refuses for good. Frozen: it is passed in arrays. */
struct StandpipeRejection {
  /* The row of the batch, from 0. */
  uint32_t row;
  /* Zero. */
  uint32_t reserved;
  /* One line for people. */
  struct StandpipeSlice reason;
  /* A JSON object: `status`, `type`, ...; may be empty. */
  struct StandpipeSlice details;
};

/* The host's services for one instance. Every function may be called from any thread of the plugin while the instance lives, unless it says otherwise;
 * none blocks. What a thread of the plugin calls after `destroy` is refused, or does nothing: the table and `ctx` stay valid as long as the process. */
struct StandpipeHostTable {
  /* Bytes of this struct that the host knows. */
  uint32_t size;
  /* Minor version of the contract that the host speaks. */
  uint32_t abi_minor;
  /* Passed to every function. */
  void *ctx;
  /* Logs a JSON object with at least `message`; other members become fields. */
  void (*log)(void *ctx, uint32_t level, struct StandpipeSlice json);
  /* Registers a metric once and gives its id. `labels` is a JSON object of strings. The same name and labels give the same id. */
  uint64_t (*metric_register)(void *ctx, struct StandpipeSlice name, uint32_t metric_type, struct StandpipeSlice labels);
  /* Adds to, sets or records, by the metric's type. */
  void (*metric_update)(void *ctx, uint64_t id, double value);
  /* 1 once the host wants a call that blocks to return with `ErrorCode::CANCELLED`. */
  uint32_t (*cancelled)(void *ctx);
  /* Something has changed (data has come, there is room again): the host calls the instance again soon. */
  void (*wake)(void *ctx);
  /* The value behind a secret's reference in the configuration and the version of that value, which changes when it rotates. */
  StandpipeStatus (*secret)(void *ctx,
                            struct StandpipeSlice reference,
                            struct StandpipeBuffer *value,
                            uint64_t *version,
                            struct StandpipeError *error);
  /* A transform gives a batch to the output of that index (0 is the main one). The batch is moved. With `token` 0 only inside a call; it takes effect when the call
   * returns OK. With the token of a `process` that is pending, or has not returned, from any thread until `complete`; it takes effect when the call completes with OK. */
  StandpipeStatus (*emit)(void *ctx, uint32_t output, struct StandpipeBatch *batch, uint64_t token, struct StandpipeError *error);
  /* The pending call of that token has ended, with OK or with a failure (`error` is moved out and left empty; null means none). Not OK: it was not waited for, because the
   * token is unknown, its call has ended, or the instance has. */
  StandpipeStatus (*complete)(void *ctx, uint64_t token, StandpipeStatus status, struct StandpipeError *error);
  /* A sink has delivered every batch up to `seq`, that included: at least as safely as its declared guarantee asks without a commit. */
  void (*ack)(void *ctx, uint64_t up_to_seq);
  /* A sink refuses these rows of the batch `seq` for good, before it acknowledges `seq`. They go to the sink's `errors` output. */
  StandpipeStatus (*reject)(void *ctx, uint64_t seq, const struct StandpipeRejection *rows, size_t count, struct StandpipeError *error);
  /* Processing time, microseconds since the Unix epoch. A test or a replay may set it. */
  int64_t (*now)(void *ctx);
};

/* A split and where to start in it. Frozen: it is passed in arrays; what a later version has to say goes to `details`. */
struct StandpipeSplitPosition {
  /* The split's id, unique in the source and the same in every run: `data/a.jsonl`, `topic-3`. */
  struct StandpipeSlice split;
  /* What the enumerator said about it besides, JSON; may be empty. */
  struct StandpipeSlice details;
  /* The position after the last row taken; empty: the beginning as the configuration says. Opaque to the host, best as text: checkpoints show it. */
  struct StandpipeSlice position;
};

/* What `poll` found. The slices stay valid until the next call on the instance. */
struct StandpipePolled {
  /* Bytes of this struct that the host knows. */
  uint32_t size;
  /* Zero. */
  uint32_t reserved;
  /* The split that the rows are of, or that has ended. */
  struct StandpipeSlice split;
  /* The host's place for the rows, all of this split: the plugin fills it. No rows: the split has been read up to where it ends now, and has nothing more at present. */
  struct StandpipeBatch *batch;
  /* The position after these rows. */
  struct StandpipeSlice position;
  /* A lower bound for the event times of what follows in this split, microseconds since the epoch, or `NO_WATERMARK`. */
  int64_t watermark;
};

/* `source/1`: validation and the reader. */
struct StandpipeSourceTable {
  /* Bytes of this table. */
  uint32_t size;
  /* Zero. */
  uint32_t reserved;
  /* See `ValidateFn`. */
  StandpipeValidateFn validate;
  /* Makes a reader; no I/O yet. The host table lives until `destroy`. */
  StandpipeStatus (*create)(struct StandpipeSlice config,
                            const struct StandpipeContext *context,
                            const struct StandpipeHostTable *host,
                            void **instance,
                            struct StandpipeError *error);
  /* Connects. */
  StandpipeStatus (*open)(void *instance, struct StandpipeError *error);
  /* Adds splits to those that are read. */
  StandpipeStatus (*assign)(void *instance, const struct StandpipeSplitPosition *splits, size_t count, struct StandpipeError *error);
  /* Gives splits back. `positions` is a JSON array of `{"split": ..., "position": ...}`, in the order of `ids`, the positions in base64. */
  StandpipeStatus (*unassign)(void *instance,
                              const struct StandpipeSlice *ids,
                              size_t count,
                              struct StandpipeBuffer *positions,
                              struct StandpipeError *error);
  /* Reads at most `max_rows` rows and about `max_bytes` bytes of one split; waits for data until `deadline` (as `now`) at the longest.
   * OK: a batch. One without rows says that the named split has been read up to where it ends now and has nothing more at present, so that it holds up no
   * watermark until it has rows again; `Status::IDLE` says so of all assigned splits.
   * `Status::END_OF_SPLIT`: the named split has been read to its end for good, and `poll` will not name it again. */
  StandpipeStatus (*poll)(void *instance,
                          uint32_t max_rows,
                          uint64_t max_bytes,
                          int64_t deadline,
                          struct StandpipePolled *out,
                          struct StandpipeError *error);
  /* Reads no more of these splits until `resume`: they are too far ahead of others in event time, maybe before anything was read of them. The others are read on, and
   * none of them may wait for one that is paused; `Status::IDLE` speaks of those that are not. While all are paused `poll` is not called. `ErrorCode::UNSUPPORTED`: it can
   * read its splits only as they come; then the host holds back a reader with one split, and ends the job where a reader has others. */
  StandpipeStatus (*pause)(void *instance, const struct StandpipeSlice *ids, size_t count, struct StandpipeError *error);
  /* Ends a pause. A split that is given back is no longer paused. */
  StandpipeStatus (*resume)(void *instance, const struct StandpipeSlice *ids, size_t count, struct StandpipeError *error);
  /* Checkpoint `checkpoint` is durable with these positions: they may be committed upstream. */
  StandpipeStatus (*checkpoint_committed)(void *instance,
                                          uint64_t checkpoint,
                                          const struct StandpipeSplitPosition *positions,
                                          size_t count,
                                          struct StandpipeError *error);
  /* How far behind the reader is: a JSON array of `{"split": ..., "records": n, "millis": n}`; unknown members are left out. */
  StandpipeStatus (*lag)(void *instance, struct StandpipeBuffer *out, struct StandpipeError *error);
  /* Ends reading; `reason` is one of the `CLOSE_` constants of `host`. */
  StandpipeStatus (*close)(void *instance, uint32_t reason, struct StandpipeError *error);
  /* Frees the instance, called once and last, also after a panic: the SDK then leaks the author's value, which may be in any state. */
  void (*destroy)(void *instance);
};

/* `enumerator/1`: finds the splits of a source. One instance per job. */
struct StandpipeEnumeratorTable {
  /* Bytes of this table. */
  uint32_t size;
  /* Zero. */
  uint32_t reserved;
  /* As that of `SourceTable`. */
  StandpipeStatus (*create)(struct StandpipeSlice config,
                            const struct StandpipeContext *context,
                            const struct StandpipeHostTable *host,
                            void **instance,
                            struct StandpipeError *error);
  /* Connects. */
  StandpipeStatus (*open)(void *instance, struct StandpipeError *error);
  /* What has changed since the last call, by `deadline` (as `now`) at the latest: a JSON object
   * `{"added": [{"split": ..., "details": ...}], "removed": [...], "exhausted": true}`; `exhausted`: no split will ever be added.
   * The first answer should hold all splits that there are: rows of one that is told later count as late behind the watermark that the others have brought about. */
  StandpipeStatus (*discover)(void *instance, int64_t deadline, struct StandpipeBuffer *out, struct StandpipeError *error);
  /* What it must remember across a restart. */
  StandpipeStatus (*snapshot)(void *instance, struct StandpipeBuffer *out, struct StandpipeError *error);
  /* Goes on from a snapshot; before the first `discover`. */
  StandpipeStatus (*restore)(void *instance, struct StandpipeSlice snapshot, struct StandpipeError *error);
  /* Ends it. */
  StandpipeStatus (*close)(void *instance, uint32_t reason, struct StandpipeError *error);
  /* Frees the instance. */
  void (*destroy)(void *instance);
};

/* Columns of a fixed-width value state that the host lends for the call: `n` values, one per ordinal. */
struct StandpipeLentValues {
  /* Bytes of this struct that the plugin knows. */
  uint32_t size;
  /* Bytes of one value: that of the Arrow type; booleans are one byte. */
  uint32_t width;
  /* `n` values of `width` bytes, aligned to 16. What stands where `validity` is 0 is zero. */
  uint8_t *values;
  /* One byte per ordinal: 1 if the key has a value. The plugin sets it, or clears it to remove the value. */
  uint8_t *validity;
  /* One byte per ordinal: the plugin sets 1 where it changed `values` or `validity`. */
  uint8_t *dirty;
  /* Ordinals. */
  size_t n;
};

/* State access. `slot` is the index of the state in `validate`'s declaration. `ordinals` are of the current `KeyContext`; one that is not below `n_keys`
 * gives `ErrorCode::OUT_OF_RANGE`. Arrays are moved in and out. Times are microseconds since the epoch. */
struct StandpipeStateTable {
  /* Bytes of this table. */
  uint32_t size;
  /* Zero. */
  uint32_t reserved;
  /* Passed to every function. */
  void *ctx;
  /* Lends a fixed-width value state for the call: the fast path. The same slot twice in a call gives the same memory. */
  StandpipeStatus (*value_lend)(void *ctx, uint32_t slot, struct StandpipeLentValues *out, struct StandpipeError *error);
  /* Values of some keys, null where there is none. */
  StandpipeStatus (*value_get)(void *ctx,
                               uint32_t slot,
                               const uint32_t *ordinals,
                               size_t count,
                               struct ArrowArray *out,
                               struct StandpipeError *error);
  /* Sets values of some keys; null removes. The last of a repeated ordinal holds. */
  StandpipeStatus (*value_set)(void *ctx,
                               uint32_t slot,
                               const uint32_t *ordinals,
                               size_t count,
                               struct ArrowArray *values,
                               struct StandpipeError *error);
  /* The lists of some keys: an array of type list of the declared field, null where there is none. */
  StandpipeStatus (*list_get)(void *ctx,
                              uint32_t slot,
                              const uint32_t *ordinals,
                              size_t count,
                              struct ArrowArray *out,
                              struct StandpipeError *error);
  /* Appends `values[i]` to the list of `ordinals[i]`, in order. */
  StandpipeStatus (*list_append)(void *ctx,
                                 uint32_t slot,
                                 const uint32_t *ordinals,
                                 size_t count,
                                 struct ArrowArray *values,
                                 struct StandpipeError *error);
  /* Empties the lists of some keys. */
  StandpipeStatus (*list_clear)(void *ctx, uint32_t slot, const uint32_t *ordinals, size_t count, struct StandpipeError *error);
  /* The values behind `keys[i]` in the map of `ordinals[i]`, null where there is none. */
  StandpipeStatus (*map_get)(void *ctx,
                             uint32_t slot,
                             const uint32_t *ordinals,
                             size_t count,
                             struct ArrowArray *keys,
                             struct ArrowArray *out,
                             struct StandpipeError *error);
  /* Sets `keys[i]` to `values[i]` in the map of `ordinals[i]`. */
  StandpipeStatus (*map_put)(void *ctx,
                             uint32_t slot,
                             const uint32_t *ordinals,
                             size_t count,
                             struct ArrowArray *keys,
                             struct ArrowArray *values,
                             struct StandpipeError *error);
  /* Removes `keys[i]` from the map of `ordinals[i]`. */
  StandpipeStatus (*map_remove)(void *ctx,
                                uint32_t slot,
                                const uint32_t *ordinals,
                                size_t count,
                                struct ArrowArray *keys,
                                struct StandpipeError *error);
  /* At most `limit` entries of one key's map from the key `from` on (released: from the first), in the order of keys: a struct array of `key` and `value`. */
  StandpipeStatus (*map_scan)(void *ctx,
                              uint32_t slot,
                              uint32_t ordinal,
                              struct ArrowArray *from,
                              size_t limit,
                              struct ArrowArray *out,
                              struct StandpipeError *error);
  /* Sets a timer for `ordinals[i]` at `times[i]`; a timer is one per key, slot, domain and time. `slot` is the transform's own number for its purpose. */
  StandpipeStatus (*timer_set)(void *ctx,
                               uint32_t domain,
                               uint32_t slot,
                               const uint32_t *ordinals,
                               const int64_t *times,
                               size_t count,
                               struct StandpipeError *error);
  /* Removes timers. */
  StandpipeStatus (*timer_delete)(void *ctx,
                                  uint32_t domain,
                                  uint32_t slot,
                                  const uint32_t *ordinals,
                                  const int64_t *times,
                                  size_t count,
                                  struct StandpipeError *error);
};

/* The keys of a batch (or of due timers), and the state behind them. Valid for the call. */
struct StandpipeKeyContext {
  /* Bytes of this struct that the host knows. */
  uint32_t size;
  /* Distinct keys. */
  uint32_t n_keys;
  /* Rows of the batch. */
  size_t rows;
  /* For each row the ordinal of its key, below `n_keys`. */
  const uint32_t *key_of_row;
  /* One row per distinct key: the columns of `key_by`. A plugin may move it out (and must, to keep it); otherwise the host releases it after the call. */
  struct StandpipeBatch *keys;
  /* The state of these keys. */
  const struct StandpipeStateTable *state;
};

/* Due timers: `times[i]` and `slots[i]` belong to `key_of_row[i]` of the call's `KeyContext`. In time order per key. */
struct StandpipeDueTimers {
  /* Bytes of this struct that the host knows. */
  uint32_t size;
  /* `TIMER_EVENT_TIME` or `TIMER_PROCESSING_TIME` of `state`. */
  uint32_t domain;
  /* The transform's own numbers. */
  const uint32_t *slots;
  /* Microseconds since the epoch. */
  const int64_t *times;
  /* Timers. */
  size_t count;
};

/* `transform/1`. */
struct StandpipeTransformTable {
  /* Bytes of this table. */
  uint32_t size;
  /* Zero. */
  uint32_t reserved;
  /* See `ValidateFn`. */
  StandpipeValidateFn validate;
  /* Makes an instance; no I/O yet. The host table lives until `destroy`. */
  StandpipeStatus (*create)(struct StandpipeSlice config,
                            const struct StandpipeContext *context,
                            const struct StandpipeHostTable *host,
                            void **instance,
                            struct StandpipeError *error);
  /* Gets ready, with the inputs as they were validated (the same pointer layout as in `validate`). */
  StandpipeStatus (*open)(void *instance, const struct StandpipeValidationInput *input, struct StandpipeError *error);
  /* Takes a batch of an input; it is moved. `keys` is null where the node is not keyed. `Status::PENDING`: `complete(token)` will follow; not where `token` is 0, that
   * is in a keyed node, and of a transform that has not declared `async`. */
  StandpipeStatus (*process)(void *instance,
                             uint32_t input,
                             struct StandpipeBatch *batch,
                             const struct StandpipeKeyContext *keys,
                             uint64_t token,
                             struct StandpipeError *error);
  /* Timers that are due, after all rows that precede the watermark and after `on_watermark`, so that the transform knows the time. */
  StandpipeStatus (*on_timer)(void *instance,
                              const struct StandpipeDueTimers *timers,
                              const struct StandpipeKeyContext *keys,
                              struct StandpipeError *error);
  /* The watermark of an input has advanced to `time`, microseconds since the epoch; `i64::MAX` at the end. Calls before it may be pending. */
  StandpipeStatus (*on_watermark)(void *instance, uint32_t input, int64_t time, struct StandpipeError *error);
  /* The host is about to wait for all pending calls, before the cut of that checkpoint, or before an input's `finish` (0): what the plugin has put off is to be begun
   * now. It need not wait itself, and may not emit with token 0. Of a transform that has declared `async`. */
  StandpipeStatus (*drain)(void *instance, uint64_t checkpoint, struct StandpipeError *error);
  /* What an unkeyed transform must remember; nothing is pending. */
  StandpipeStatus (*snapshot)(void *instance, struct StandpipeBuffer *out, struct StandpipeError *error);
  /* Goes on from the snapshots of one or more former subtasks; before the first batch. */
  StandpipeStatus (*restore)(void *instance, const struct StandpipeSlice *parts, size_t count, struct StandpipeError *error);
  /* That input has ended; nothing is pending. */
  StandpipeStatus (*finish)(void *instance, uint32_t input, struct StandpipeError *error);
  /* Ends it; `reason` is one of the `CLOSE_` constants of `host`. Calls may be pending, if the job was cancelled or has failed: their results are not wanted. */
  StandpipeStatus (*close)(void *instance, uint32_t reason, struct StandpipeError *error);
  /* Frees the instance, called once and last, also after a panic: the SDK then leaks the author's value, which may be in any state. */
  void (*destroy)(void *instance);
};

/* What a sink prepared for a checkpoint. Frozen: it is passed in arrays. */
struct StandpipeCommittable {
  /* The checkpoint. */
  uint64_t checkpoint;
  /* The subtask that prepared it. */
  uint32_t subtask;
  /* Zero. */
  uint32_t reserved;
  /* Opaque to the host. */
  struct StandpipeSlice bytes;
};

/* `sink/1`. */
struct StandpipeSinkTable {
  /* Bytes of this table. */
  uint32_t size;
  /* Zero. */
  uint32_t reserved;
  /* See `ValidateFn`. */
  StandpipeValidateFn validate;
  /* Makes an instance; no I/O yet. The host table lives until `destroy`. */
  StandpipeStatus (*create)(struct StandpipeSlice config,
                            const struct StandpipeContext *context,
                            const struct StandpipeHostTable *host,
                            void **instance,
                            struct StandpipeError *error);
  /* Connects, with the input as it was validated. */
  StandpipeStatus (*open)(void *instance, const struct StandpipeValidationInput *input, struct StandpipeError *error);
  /* Takes a batch; sequence numbers count from 1 without gaps. It is moved, unless the answer is `Status::BUSY`: then the host tries the same batch again
   * after `wake`. */
  StandpipeStatus (*write)(void *instance, uint64_t seq, struct StandpipeBatch *batch, struct StandpipeError *error);
  /* Returns when all that was written is delivered and acknowledged (at least once); `checkpoint` is 0 outside a checkpoint. */
  StandpipeStatus (*flush)(void *instance, uint64_t checkpoint, struct StandpipeError *error);
  /* Makes all that was written since the last `prepare` ready to be committed, and says what `commit` needs for it. */
  StandpipeStatus (*prepare)(void *instance, uint64_t checkpoint, struct StandpipeBuffer *out, struct StandpipeError *error);
  /* The checkpoint is durable: commits all that was prepared up to it. Idempotent. */
  StandpipeStatus (*commit)(void *instance,
                            uint64_t up_to,
                            const struct StandpipeCommittable *committables,
                            size_t count,
                            struct StandpipeError *error);
  /* After a restart: what became of these? `decisions` has room for `count` answers. */
  StandpipeStatus (*recover)(void *instance,
                             const struct StandpipeCommittable *committables,
                             size_t count,
                             uint32_t *decisions,
                             struct StandpipeError *error);
  /* Gives up what was prepared for checkpoints that the job does not go on from; behind `recover`, and only if there is something. It may have been committed. */
  StandpipeStatus (*abort)(void *instance, const struct StandpipeCommittable *committables, size_t count, struct StandpipeError *error);
  /* All inputs have ended: delivers everything and ends cleanly (a file gets its final name). */
  StandpipeStatus (*finish)(void *instance, struct StandpipeError *error);
  /* Ends it; `reason` is one of the `CLOSE_` constants of `host`. */
  StandpipeStatus (*close)(void *instance, uint32_t reason, struct StandpipeError *error);
  /* Frees the instance, called once and last, also after a panic: the SDK then leaks the author's value, which may be in any state. */
  void (*destroy)(void *instance);
};

/* What a function is for arguments of certain types. The schemas are moved to the host. */
struct StandpipeBinding {
  /* Bytes of this struct that the host knows. */
  uint32_t size;
  /* One of the `VOLATILITY_` constants. */
  uint32_t volatility;
  /* A struct type with one child per argument: the types that the function wants, to which the host casts where that loses nothing. Released, as it comes: those that
   * they have. Any of them may be null, whatever is said here. */
  struct ArrowSchema arguments;
  /* A struct type with one child: the result. Only if it says that it may be null, it may. */
  struct ArrowSchema result;
  /* A struct type with the columns of `state`, one at least, by whose names a checkpoint keeps them; of an aggregate function. Any of them may be null. */
  struct ArrowSchema state;
  /* Grows when the meaning of the state changes: that of another version is not taken back. Of an aggregate function, from 1; 0 counts as 1. */
  uint32_t state_version;
  /* Zero. */
  uint32_t reserved;
};

/* Type-checks a call. `config` is a JSON object, `arguments` a struct type with one child per argument, of which there may be none or too many; their metadata may say more
 * (`LITERAL`). `function` gets what is bound. No I/O: `standpipe check` makes this call. It may be made several times for one call in a pipeline, in every process of the
 * job, with the types that were wanted too: the same question has the same answer. */
typedef StandpipeStatus (*StandpipeBindFn)(struct StandpipeSlice config,
                                           const struct ArrowSchema *arguments,
                                           struct StandpipeBinding *out,
                                           void **function,
                                           struct StandpipeError *error);

/* `scalar/1`. */
struct StandpipeScalarTable {
  /* Bytes of this table. */
  uint32_t size;
  /* Zero. */
  uint32_t reserved;
  /* See `BindFn`. */
  StandpipeBindFn bind;
  /* Computes `rows` results into `result`, a batch with one column. `arguments` is moved: a batch with one column per argument, of the types that were wanted. */
  StandpipeStatus (*invoke)(const void *function,
                            struct StandpipeBatch *arguments,
                            size_t rows,
                            struct StandpipeBatch *result,
                            struct StandpipeError *error);
  /* Frees what was bound. */
  void (*unbind)(void *function);
};

/* `aggregate/1`. Groups are dense numbers from 0; an accumulator holds the state of all of them, and has none of a group that it was not told of. */
struct StandpipeAggregateTable {
  /* Bytes of this table. */
  uint32_t size;
  /* Zero. */
  uint32_t reserved;
  /* See `BindFn`. */
  StandpipeBindFn bind;
  /* Frees what was bound, after all accumulators of it. */
  void (*unbind)(void *function);
  /* Makes an accumulator without groups. */
  StandpipeStatus (*create)(const void *function, void **accumulator, struct StandpipeError *error);
  /* Adds rows; `groups` has one number per row. `arguments` is moved. */
  StandpipeStatus (*update)(void *accumulator,
                            struct StandpipeBatch *arguments,
                            const uint32_t *groups,
                            size_t rows,
                            struct StandpipeError *error);
  /* Takes rows back; `ErrorCode::UNSUPPORTED` if it cannot. */
  StandpipeStatus (*retract)(void *accumulator,
                             struct StandpipeBatch *arguments,
                             const uint32_t *groups,
                             size_t rows,
                             struct StandpipeError *error);
  /* Adds states that `state` gave, of this process or of another one. `states` is moved. */
  StandpipeStatus (*merge)(void *accumulator,
                           struct StandpipeBatch *states,
                           const uint32_t *groups,
                           size_t rows,
                           struct StandpipeError *error);
  /* The states of some groups, without consuming them. */
  StandpipeStatus (*state)(void *accumulator, const uint32_t *groups, size_t count, struct StandpipeBatch *out, struct StandpipeError *error);
  /* The results of some groups, a batch with one column, without consuming them. */
  StandpipeStatus (*evaluate)(void *accumulator,
                              const uint32_t *groups,
                              size_t count,
                              struct StandpipeBatch *out,
                              struct StandpipeError *error);
  /* Forgets groups; their numbers may be used again. */
  StandpipeStatus (*forget)(void *accumulator, const uint32_t *groups, size_t count, struct StandpipeError *error);
  /* Frees the accumulator. */
  void (*destroy)(void *accumulator);
};

/* `deployment/1`. Every function may block; the host calls it on a thread of its own and cancels by the host table's token. */
struct StandpipeDeploymentTable {
  /* Bytes of this table. */
  uint32_t size;
  /* Zero. */
  uint32_t reserved;
  /* Checks a configuration (a JSON object of flat dotted keys) without I/O; `out` gets a JSON object
   * `{"problems": [{"path", "message", "suggestion"}], "effective": {...}}`. */
  StandpipeStatus (*validate)(struct StandpipeSlice config, struct StandpipeBuffer *out, struct StandpipeError *error);
  /* Makes an instance; it is ready for use. */
  StandpipeStatus (*create)(struct StandpipeSlice config,
                            const struct StandpipeHostTable *host,
                            void **instance,
                            struct StandpipeError *error);
  /* Submits the bundle (the path of its folder: `bundle.json` and `blobs/`) and gives its handle, a JSON object. */
  StandpipeStatus (*submit)(void *instance, struct StandpipeSlice bundle, struct StandpipeBuffer *handle, struct StandpipeError *error);
  /* The job's state, JSON: `{"state": "RUNNING", "cause": ...}`. */
  StandpipeStatus (*status)(void *instance, struct StandpipeSlice handle, struct StandpipeBuffer *out, struct StandpipeError *error);
  /* As `status`, once the state is terminal or after `timeout_us` microseconds (negative: no limit). */
  StandpipeStatus (*wait)(void *instance,
                          struct StandpipeSlice handle,
                          int64_t timeout_us,
                          struct StandpipeBuffer *out,
                          struct StandpipeError *error);
  /* Ends the job without a savepoint. */
  StandpipeStatus (*cancel)(void *instance, struct StandpipeSlice handle, struct StandpipeError *error);
  /* Ends the job with a savepoint in that place (empty: where it keeps its checkpoints); `out` gets `{"location": ...}`.
   * Since 1.1 the handle may have the member `"drain": true`: open windows and aggregates give what they have, as if the sources had ended; `UNSUPPORTED` of a mode that cannot do that. */
  StandpipeStatus (*stop)(void *instance,
                          struct StandpipeSlice handle,
                          struct StandpipeSlice savepoint,
                          struct StandpipeBuffer *out,
                          struct StandpipeError *error);
  /* Log lines from a cursor on (empty: from the first): JSON `{"lines": [...], "cursor": ...}`. */
  StandpipeStatus (*logs)(void *instance,
                          struct StandpipeSlice handle,
                          struct StandpipeSlice cursor,
                          struct StandpipeBuffer *out,
                          struct StandpipeError *error);
  /* At most `limit` rows of a node (0: all of a bounded one), and none that come later than `timeout_us` microseconds from now (negative: no limit). What the
   * stream's functions are promised is what this table's are: they are called one after another, on the same thread, before `destroy`, and they may block. */
  StandpipeStatus (*collect)(void *instance,
                             struct StandpipeSlice handle,
                             struct StandpipeSlice node,
                             uint64_t limit,
                             int64_t timeout_us,
                             struct ArrowArrayStream *out,
                             struct StandpipeError *error);
  /* Removes everything that the job left behind. */
  StandpipeStatus (*cleanup)(void *instance, struct StandpipeSlice handle, struct StandpipeError *error);
  /* Frees the instance. */
  void (*destroy)(void *instance);
  /* Since 1.1. The job goes on with so many subtasks of every node that does not say otherwise, at least 1, from a savepoint that is taken for it: returns when that is
   * durable and the job is on its way. Refused, the job runs on as it is. */
  StandpipeStatus (*rescale)(void *instance, struct StandpipeSlice handle, uint32_t parallelism, struct StandpipeError *error);
  /* Since 1.1. What `submit` would do with the bundle, and nothing of it: `out` gets a text for people and tools, such as the manifests that it would apply. It may read what it
   * needs to know, and changes nothing anywhere. */
  StandpipeStatus (*preview)(void *instance, struct StandpipeSlice bundle, struct StandpipeBuffer *out, struct StandpipeError *error);
};

/* What a plugin file is. All strings are static, NUL-terminated UTF-8 and live as long as the library. It only grows at its end (`growing::read_manifest`). */
struct StandpipeManifest {
  /* `MAGIC`. */
  uint64_t magic;
  /* Bytes of this struct that the plugin knows. */
  uint32_t struct_size;
  /* `FLAVOUR_RUST` or `FLAVOUR_C`. */
  uint32_t flavour;
  /* `ABI_MAJOR` of the plugin. */
  uint32_t abi_major;
  /* `ABI_MINOR` of the plugin. */
  uint32_t abi_minor;
  /* `ABI_CANDIDATE` of the plugin. */
  uint32_t abi_candidate;
  /* Zero. */
  uint32_t reserved;
  /* The plugin's name, usually its crate's. */
  const char *name;
  /* The plugin's own version. */
  const char *version;
  /* A JSON object: `{"kinds": [{"kind": "source", "name": "kafka", "summary": "...", "config_schema": {...}}], "build": {...}}`. */
  const char *describe_json;
};

/* The type of the function behind `MANIFEST_SYMBOL`. Never null on success. */
typedef const struct StandpipeManifest *(*StandpipeManifestFn)(void);

/* Gives the table of a kind (`kafka`) by the table's name and version (`source/1`), or null if there is none. The table is static.
 *
 * The names are those of the modules: `source/1`, `enumerator/1`, `transform/1`, `sink/1`, `scalar/1`, `aggregate/1`, `deployment/1`. */
typedef const void *(*StandpipeInterfaceFn)(struct StandpipeSlice kind, struct StandpipeSlice id);

/* What `magic` of a manifest must be: the bytes STNDPIPE. */
#define STANDPIPE_MAGIC UINT64_C(0x45504950444E5453)

#if defined(__GNUC__) || defined(__clang__)
#define STANDPIPE_EXPORT __attribute__((visibility("default")))
#else
#define STANDPIPE_EXPORT
#endif

/* What a plugin exports. The manifest, its strings and the tables are static. */
STANDPIPE_EXPORT const struct StandpipeManifest *standpipe_plugin_manifest_v1(void);

/* The table of a kind ("kafka") by the table's name and version: "source/1" and "enumerator/1", "transform/1", "sink/1", "scalar/1", "aggregate/1", "deployment/1";
 * NULL if there is none. */
STANDPIPE_EXPORT const void *standpipe_plugin_interface_v1(struct StandpipeSlice kind, struct StandpipeSlice id);

#ifdef __cplusplus
}
#endif

#endif /* STANDPIPE_PLUGIN_H */
