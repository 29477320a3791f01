#!/usr/bin/env bash
# In a container of compose.yaml: the broker, and under the name of Kafka's own script its tool. Like the image apache/kafka it makes some.name of its properties
# of KAFKA_SOME_NAME, and goes on with the data that is there.
set -euo pipefail
log4j=-Dlog4j2.configurationFile=/services/log4j2.properties
if [ "$(basename "$0")" = kafka-broker-api-versions.sh ]; then
    exec "$JAVA" -Xmx128m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC "$log4j" -cp "$JARS" org.apache.kafka.tools.BrokerApiVersionsCommand "$@"
fi
properties=/tmp/server.properties
while IFS='=' read -r name value; do
    case $name in
    KAFKA_HEAP_OPTS) ;;
    KAFKA_*)
        name=${name#KAFKA_}
        name=${name,,}
        echo "${name//_/.}=$value"
        ;;
    esac
done < <(env) >"$properties"
# shellcheck disable=SC2086 # several arguments
set -- "$JAVA" ${KAFKA_HEAP_OPTS:-} -XX:+UseSerialGC "$log4j" -cp "$JARS"
"$@" kafka.tools.StorageTool format --ignore-formatted -t c3RhbmRwaXBlLXRlc3QwMQ -c "$properties"
exec "$@" kafka.Kafka "$properties"
