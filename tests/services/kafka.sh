#!/usr/bin/env bash
# Starts and stops one Apache Kafka broker (KRaft, combined mode) as a plain JVM, for tests and demos that claim something about Kafka.
# Called by the end-to-end tests, by .ci/run and by hand. No security to speak of, no replication: never for data that matters.
#   kafka.sh start DIR [--parent PID] [--host ADDR]
#                                        prints `bootstrap=127.0.0.1:PORT`, `bearer=127.0.0.1:PORT` (where SASL OAUTHBEARER is wanted, with
#                                        unsecured tokens) and `pid=N` once the broker answers. A DIR that was started before keeps its
#                                        ports and its data. With --parent, the broker ends when that process is gone. With --host, `bootstrap=`
#                                        is at that address of this machine in place of 127.0.0.1, and tells clients of it.
#   kafka.sh stop DIR                    TERM, then KILL; stopping what does not run succeeds
#   kafka.sh admin DIR TOOL ARGS...      Kafka's own tool on this broker; TOOL: topics, groups, configs, offsets, transactions, produce, consume
# Exit: 0 done, 1 the broker or tool failed, 2 usage, 3 something is missing (prepare.sh says what).
set -euo pipefail
. "$(dirname "$0")/lib.sh"
log4j="-Dlog4j2.configurationFile=$services/kafka/log4j2.properties"

# Replication of one, few internal partitions and a small cleaner buffer keep it light; rebalances do not wait for more members, sessions may
# be short, timed-out transactions are aborted soon, and a broker that was killed comes back soon. Everything else is Kafka's default.
write_properties() {
    local broker controller bearer
    broker=$(free_port)
    controller=$(free_port)
    bearer=$(free_port)
    [ "$broker" != "$controller" ] || controller=$((broker + 1))
    while [ "$bearer" = "$broker" ] || [ "$bearer" = "$controller" ]; do bearer=$((bearer + 1)); done
    cat >"$dir/server.properties" <<EOF
process.roles=broker,controller
node.id=1
controller.quorum.voters=1@127.0.0.1:$controller
controller.listener.names=CONTROLLER
listeners=PLAINTEXT://$host:$broker,BEARER://127.0.0.1:$bearer,CONTROLLER://127.0.0.1:$controller
advertised.listeners=PLAINTEXT://$host:$broker,BEARER://127.0.0.1:$bearer
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,BEARER:SASL_PLAINTEXT
listener.name.bearer.sasl.enabled.mechanisms=OAUTHBEARER
listener.name.bearer.oauthbearer.sasl.jaas.config=org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required unsecuredLoginStringClaim_sub="broker";
listener.name.bearer.oauthbearer.connections.max.reauth.ms=3600000
inter.broker.listener.name=PLAINTEXT
log.dirs=$dir/kafka-data
auto.create.topics.enable=false
offsets.topic.replication.factor=1
offsets.topic.num.partitions=4
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
transaction.state.log.num.partitions=4
transaction.abort.timed.out.transaction.cleanup.interval.ms=1000
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
share.coordinator.state.topic.num.partitions=1
broker.heartbeat.interval.ms=1000
broker.session.timeout.ms=4000
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
log.cleaner.dedupe.buffer.size=4194304
EOF
}

format() {
    local id
    id=$(head -c 16 /dev/urandom | base64 | tr '+/' 'ab' | cut -c 1-22)
    "$java" -Xmx128m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC "$log4j" -Dstandpipe.log=warn -cp "$classpath" kafka.tools.StorageTool \
        format -t "$id" -c "$dir/server.properties" >"$dir/log" 2>&1 || report_failure "$dir" Kafka
}

bootstrap() {
    sed -n 's|^advertised.listeners=PLAINTEXT://\([^,]*\).*|\1|p' "$1/server.properties" 2>/dev/null
}

bearer() {
    sed -n 's|^advertised.listeners=.*BEARER://||p' "$1/server.properties" 2>/dev/null
}

# The broker is unfenced (its last line of the start) and answers an ApiVersions request (key 18, version 0, correlation 1, no client id).
answers() {
    local address
    grep -q 'Kafka Server started' "$dir/log" || return 1
    address=$(bootstrap "$dir")
    (
        exec 3<>"/dev/tcp/${address%:*}/${address#*:}"
        printf '\x00\x00\x00\x0a\x00\x12\x00\x00\x00\x00\x00\x01\xff\xff' >&3
        [ "$(head -c 10 <&3 | tail -c 6 | od -An -tx1 | tr -d ' \n')" = 000000010000 ]
    ) 2>/dev/null
}

start() {
    local attempt host=127.0.0.1
    parse_start "$@"
    classpath=$(classpath kafka) || exit 3
    trap 'stop_service "$dir"; exit 1' INT TERM
    for attempt in 1 2 3; do
        if [ ! -e "$dir/served" ]; then
            rm -rf "$dir/kafka-data"
            write_properties
            format
        fi
        spawn "$dir" "$parent" -Xms128m -Xmx512m -XX:+UseSerialGC "$log4j" -cp "$classpath" kafka.Kafka "$dir/server.properties"
        if await_service "$dir" 90 answers; then
            touch "$dir/served"
            echo "bootstrap=$(bootstrap "$dir")"
            echo "bearer=$(bearer "$dir")"
            echo "pid=$(cat "$dir/pid")"
            return
        fi
        # Someone took a port between its choice and its use: a broker that never served moves to others.
        if [ -e "$dir/served" ] || [ "$attempt" = 3 ] || ! grep -q 'Address already in use' "$dir/log"; then
            report_failure "$dir" Kafka
        fi
        stop_service "$dir"
    done
}

admin() {
    [ $# -ge 2 ] || fail 2 "admin takes a DIR and a tool"
    local dir tool=$2 class address
    dir=$(absolute "$1")
    shift 2
    case $tool in
    topics) class=TopicCommand ;;
    groups) class=consumer.group.ConsumerGroupCommand ;;
    configs) class=ConfigCommand ;;
    offsets) class=GetOffsetShell ;;
    transactions) class=TransactionsCommand ;;
    produce) class=ConsoleProducer ;;
    consume) class=consumer.ConsoleConsumer ;;
    *) fail 2 "unknown tool $tool" ;;
    esac
    address=$(bootstrap "$dir") || fail 2 "$dir was never started"
    classpath=$(classpath kafka) || exit 3
    case $class in
    ConfigCommand) class=kafka.admin.ConfigCommand ;;
    *) class=org.apache.kafka.tools.$class ;;
    esac
    exec "$java" -Xmx128m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC "$log4j" -Dstandpipe.log=warn -cp "$classpath" "$class" \
        --bootstrap-server "$address" "$@"
}

case ${1:-} in
start) start "${@:2}" ;;
stop)
    [ $# -eq 2 ] || fail 2 "stop takes a DIR"
    stop_service "$(absolute "$2")"
    ;;
admin) admin "${@:2}" ;;
*) fail 2 "usage: kafka.sh start DIR [--parent PID] [--host ADDR] | stop DIR | admin DIR TOOL ARGS..." ;;
esac
