/* A plugin with something wrong in it: what, is said by macros. */
#include "standpipe_plugin.h"

#ifndef MAGIC
#define MAGIC STANDPIPE_MAGIC
#endif
#ifndef SIZE
#define SIZE sizeof(struct StandpipeManifest)
#endif
#ifndef FLAVOUR
#define FLAVOUR STANDPIPE_FLAVOUR_C
#endif
#ifndef MAJOR
#define MAJOR STANDPIPE_ABI_MAJOR
#endif
#ifndef MINOR
#define MINOR STANDPIPE_ABI_MINOR
#endif
#ifndef CANDIDATE
#define CANDIDATE STANDPIPE_ABI_CANDIDATE
#endif
#ifndef NAME
#define NAME "broken"
#endif
#ifndef DESCRIPTION
#define DESCRIPTION "{\"kinds\": [{\"kind\": \"sink\", \"name\": \"hole\", \"config_schema\": {}}]}"
#endif

#ifdef CALLS
void nowhere(void);
void call(void);
void call(void) { nowhere(); }
#endif

#ifdef TABLE_SIZE
const void *standpipe_plugin_interface_v1(struct StandpipeSlice kind, struct StandpipeSlice id) {
  static const struct StandpipeSinkTable table = {TABLE_SIZE, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  (void)kind, (void)id;
  return TABLE_SIZE ? &table : 0;
}
#endif

#ifndef NO_MANIFEST
const struct StandpipeManifest *standpipe_plugin_manifest_v1(void) {
  static const struct StandpipeManifest manifest = {MAGIC, SIZE, FLAVOUR, MAJOR, MINOR, CANDIDATE, 0, NAME, "0.1.0", DESCRIPTION};
#ifdef NULL_MANIFEST
  return 0;
#endif
  return &manifest;
}
#endif
