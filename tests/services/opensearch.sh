#!/usr/bin/env bash
# Starts and stops one OpenSearch node as a plain JVM, for tests and demos that claim something about Elasticsearch's interface
# (_bulk, _search, aggregations, templates, data streams). Called by the end-to-end tests, by .ci/run and by hand.
# No security, one node, no disk watermarks: never for data that matters.
#   opensearch.sh start DIR [--parent PID] [--host ADDR]
#                                             prints `url=http://127.0.0.1:PORT` and `pid=N` once the cluster answers. A DIR that was started
#                                             before keeps its port and its data. With --parent, the node ends when that process is gone. With
#                                             --host, it answers at that address of this machine in place of 127.0.0.1.
#   opensearch.sh stop DIR                    TERM, then KILL; stopping what does not run succeeds
# Exit: 0 done, 1 the node failed, 2 usage, 3 something is missing (prepare.sh says what).
set -euo pipefail
# shellcheck disable=SC2034 # node.sh reads them
service=opensearch product=opensearch title=OpenSearch oldest_java=17
. "$(dirname "$0")/node.sh"
