# shellcheck shell=bash disable=SC2154
# One node of OpenSearch or Elasticsearch as a plain JVM, for opensearch.sh, opensearch3.sh and elasticsearch.sh, which source it and differ in these:
#   service       the folder of the pom
#   product       the folder of the launcher, and the name of the configuration file
#   title         as people write it
#   oldest_java   the version of Java that it needs
# Both launch through the cluster runner of CodeLibs, whose arguments are the same.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"

# The node binds free ports by itself and writes them to files (portsfile), so nobody can take one in between.
write_configuration() {
    mkdir -p "$dir/config" "$dir/tmp"
    cat >"$dir/config/$product.yml" <<EOF
discovery.type: single-node
network.host: 127.0.0.1
http.host: $host
transport.port: 0
node.portsfile: true
cluster.routing.allocation.disk.threshold_enabled: false
action.auto_create_index: true
EOF
    cat >"$dir/config/log4j2.properties" <<'EOF'
status = error
appender.stdout.type = Console
appender.stdout.name = stdout
appender.stdout.layout.type = PatternLayout
appender.stdout.layout.pattern = %d{ISO8601} %p %c{1}: %m%n
rootLogger.level = info
rootLogger.appenderRef.stdout.ref = stdout
EOF
}

answers() {
    [ -s "$dir/logs/http.ports" ] || return 1
    address=$(grep "^${host//./\\.}:" "$dir/logs/http.ports") || return 1
    curl --noproxy '*' -sf --max-time 5 "http://$address/_cluster/health?wait_for_status=yellow&timeout=1s" >/dev/null
}

start() {
    local address classpath port=0 host=127.0.0.1
    parse_start "$@"
    java=$(find_java "$oldest_java") || fail 3 "missing: java $oldest_java or newer (in JAVA_HOME, on PATH or in /usr/lib/jvm)"
    classpath=$(classpath "$service") || exit 3
    trap 'stop_service "$dir"; exit 1' INT TERM
    [ ! -s "$dir/port" ] || port=$(cat "$dir/port")
    write_configuration
    rm -f "$dir/logs/http.ports"
    spawn "$dir" "$parent" -Xms256m -Xmx768m -XX:+UseSerialGC "-Djava.io.tmpdir=$dir/tmp" \
        -cp "$classpath" "$services/$product/Launcher.java" "$dir" "$port"
    await_service "$dir" 120 answers || report_failure "$dir" "$title"
    echo "${address##*:}" >"$dir/port"
    echo "url=http://$address"
    echo "pid=$(cat "$dir/pid")"
}

case ${1:-} in
start) start "${@:2}" ;;
stop)
    [ $# -eq 2 ] || fail 2 "stop takes a DIR"
    stop_service "$(absolute "$2")"
    ;;
*) fail 2 "usage: $service.sh start DIR [--parent PID] [--host ADDR] | stop DIR" ;;
esac
