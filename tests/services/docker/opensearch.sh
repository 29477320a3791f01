#!/usr/bin/env bash
# In a container of compose.yaml: one OpenSearch node on port 9200, with its data in the volume of Elasticsearch's.
set -euo pipefail
data=/usr/share/elasticsearch/data
mkdir -p "$data/config"
cat >"$data/config/opensearch.yml" <<'EOF'
discovery.type: single-node
network.host: 0.0.0.0
cluster.routing.allocation.disk.threshold_enabled: false
EOF
cp /services/docker/log4j2.properties "$data/config/"
# shellcheck disable=SC2086 # several arguments
exec "$JAVA" $ES_JAVA_OPTS -XX:+UseSerialGC -cp "$JARS" /services/opensearch/Launcher.java "$data" 9200
