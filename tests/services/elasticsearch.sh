#!/usr/bin/env bash
# Starts and stops one Elasticsearch 7.10 node as a plain JVM: the last version under the Apache licence, without data streams and security. For
# tests that claim that the sink works with Elasticsearch itself. Called by the end-to-end tests and by hand; as opensearch.sh in all else.
#   elasticsearch.sh start DIR [--parent PID]    prints `url=http://127.0.0.1:PORT` and `pid=N` once the cluster answers
#   elasticsearch.sh stop DIR                    TERM, then KILL; stopping what does not run succeeds
# Exit: 0 done, 1 the node failed, 2 usage, 3 something is missing (prepare.sh says what).
set -euo pipefail
# shellcheck disable=SC2034 # node.sh reads them
service=elasticsearch product=elasticsearch title=Elasticsearch oldest_java=17
. "$(dirname "$0")/node.sh"
