#include "standpipe_plugin.h"
#include "standpipe_plugin.h"

#include <stdio.h>

#define SIZE(type) printf(#type " %zu\n", sizeof(struct type))

int main(void) {
  SIZE(ArrowSchema);
  SIZE(ArrowArray);
  SIZE(ArrowArrayStream);
  SIZE(ArrowDeviceArray);
  SIZE(StandpipeSlice);
  SIZE(StandpipeBuffer);
  SIZE(StandpipeError);
  SIZE(StandpipeBatch);
  SIZE(StandpipeRejection);
  SIZE(StandpipeValidationInput);
  SIZE(StandpipeValidation);
  SIZE(StandpipeContext);
  SIZE(StandpipeHostTable);
  SIZE(StandpipeSplitPosition);
  SIZE(StandpipePolled);
  SIZE(StandpipeSourceTable);
  SIZE(StandpipeEnumeratorTable);
  SIZE(StandpipeKeyContext);
  SIZE(StandpipeLentValues);
  SIZE(StandpipeStateTable);
  SIZE(StandpipeDueTimers);
  SIZE(StandpipeTransformTable);
  SIZE(StandpipeCommittable);
  SIZE(StandpipeSinkTable);
  SIZE(StandpipeBinding);
  SIZE(StandpipeScalarTable);
  SIZE(StandpipeAggregateTable);
  SIZE(StandpipeDeploymentTable);
  SIZE(StandpipeManifest);
  struct StandpipeBatch batch;
  batch.size = offsetof(struct StandpipeBatch, data);
  printf("has %d %d\n", STANDPIPE_HAS(&batch, StandpipeBatch, schema_id), STANDPIPE_HAS(&batch, StandpipeBatch, data));
  printf("magic %.8s\n", (const char *)&(uint64_t){STANDPIPE_MAGIC});
  printf("status %d\n", STANDPIPE_STATUS_ERROR);
  return sizeof(&standpipe_plugin_manifest_v1) == sizeof(StandpipeInterfaceFn) ? 0 : 1;
}
