#!/usr/bin/env bash
# Flink's own command-line client, for tests that claim that it works with a session cluster. No service: nothing stays behind.
# Called by the end-to-end tests, by cargo xtask test and by hand.
#   flink.sh start                prepares it, and prints `url=` with the folder of its jars: what STANDPIPE_TEST_FLINK names
#   flink.sh stop                 succeeds
#   flink.sh run JARS HOST:PORT COMMAND...    runs one command of the client: flink.sh run JARS 127.0.0.1:8081 list -a
# Exit: of the client; 2 usage, 3 something is missing (prepare.sh says what).
set -euo pipefail
. "$(dirname "$0")/lib.sh"

case ${1:-} in
start)
    is_prepared flink || "$services/prepare.sh" flink >&2 || exit 3
    echo "url=$(echo "$(environment flink)"/lib/python3*/site-packages/pyflink/lib)"
    ;;
stop) ;;
run)
    [ $# -ge 4 ] || fail 2 "run takes JARS HOST:PORT COMMAND..."
    jars=$2 address=$3 command=$4
    configuration=$(mktemp -d)
    trap 'rm -rf "$configuration"' EXIT
    # The client reads it; it may be empty but for what says where the manager is.
    echo "rest: {address: ${address%:*}, port: ${address##*:}}" >"$configuration/config.yaml"
    # Its options come before what they are for.
    FLINK_CONF_DIR=$configuration "$java" -XX:TieredStopAtLevel=1 -XX:+UseSerialGC --add-opens=java.base/java.lang=ALL-UNNAMED \
        -cp "$jars/*" org.apache.flink.client.cli.CliFrontend "$command" -m "$address" "${@:5}"
    ;;
*) fail 2 "usage: flink.sh start | stop | run JARS HOST:PORT COMMAND..." ;;
esac
