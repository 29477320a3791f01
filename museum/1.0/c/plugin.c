/* What the file exports: the manifest, and the tables of its kinds. */
#include "plugin.h"

const void *standpipe_plugin_interface_v1(struct StandpipeSlice kind, struct StandpipeSlice id) {
  if (same(kind, "c-numbers") && same(id, "source/1")) return &numbers_source;
  if (same(kind, "c-numbers") && same(id, "enumerator/1")) return &numbers_enumerator;
  if (same(kind, "c-running-total") && same(id, "transform/1")) return &running_total_transform;
  if (same(kind, "c-lines") && same(id, "sink/1")) return &lines_sink;
  return NULL;
}

/* The schemas are JSON Schema: from them come the reference of `plugin inspect` and the checks of a pipeline. */
#define NUMBERS \
  "{\"type\": \"object\", \"description\": \"Gives integers from 0 on.\", \"additionalProperties\": false, \"required\": [\"count\"], " \
  "\"properties\": {\"count\": {\"type\": \"integer\", \"description\": \"How many.\"}}}"
#define RUNNING_TOTAL "{\"type\": \"object\", \"description\": \"Adds the sum of n so far, by key.\", \"additionalProperties\": false}"
#define LINES \
  "{\"type\": \"object\", \"description\": \"Appends records to a file, one per line.\", \"additionalProperties\": false, \"required\": [\"path\"], " \
  "\"properties\": {\"path\": {\"type\": \"string\", \"description\": \"The file.\"}}}"

const struct StandpipeManifest *standpipe_plugin_manifest_v1(void) {
  static const struct StandpipeManifest manifest = {
      STANDPIPE_MAGIC,
      sizeof manifest,
      STANDPIPE_FLAVOUR_C,
      STANDPIPE_ABI_MAJOR,
      STANDPIPE_ABI_MINOR,
      STANDPIPE_ABI_CANDIDATE,
      0,
      "c-example",
      "0.1.0",
      "{\"kinds\": ["
      "{\"kind\": \"source\", \"name\": \"c-numbers\", \"summary\": \"Gives integers from 0 on.\", \"config_schema\": " NUMBERS "},"
      "{\"kind\": \"transform\", \"name\": \"c-running-total\", \"summary\": \"Adds the sum of n so far, by key.\", \"config_schema\": " RUNNING_TOTAL "},"
      "{\"kind\": \"sink\", \"name\": \"c-lines\", \"summary\": \"Appends records to a file, one per line.\", \"config_schema\": " LINES "}],"
      " \"build\": {\"compiler\": \"" __VERSION__ "\"}}",
  };
  return &manifest;
}
