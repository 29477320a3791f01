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
