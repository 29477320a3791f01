#!/usr/bin/env bash
# Starts and stops one OpenSearch 3 node, for tests that claim that the sink works with it. It needs Java 21, which it takes from JAVA_HOME, PATH or /usr/lib/jvm;
# `cargo xtask test --all` starts it where there is one. As opensearch.sh in all else.
#   opensearch3.sh start DIR [--parent PID]    prints `url=http://127.0.0.1:PORT` and `pid=N` once the cluster answers
#   opensearch3.sh stop DIR                    TERM, then KILL; stopping what does not run succeeds
# Exit: 0 done, 1 the node failed, 2 usage, 3 something is missing (no Java 21, or what prepare.sh says).
set -euo pipefail
# shellcheck disable=SC2034 # node.sh reads them
service=opensearch3 product=opensearch title='OpenSearch 3' oldest_java=21
. "$(dirname "$0")/node.sh"
