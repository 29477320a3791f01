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
