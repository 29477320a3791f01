#!/usr/bin/env bash
# A Docker engine for the tests of the image and of docker/compose.yaml, with a base image and what takes the place of the public images of Kafka and Elasticsearch:
# nothing is pulled. The engine is the machine's own if it answers, else a daemon of the test's (root and dockerd are needed). Called by the tests and by hand.
#   docker.sh start DIR [--parent PID]    prints `url=` (DOCKER_HOST), and writes DIR/environment: NAME=VALUE, what docker/compose.yaml in the folder beside this file
#                                         refers to, and DOCKER_COMPOSE, the program. With --parent, a daemon of its own ends when that process is gone.
#   docker.sh stop DIR                    ends a daemon of its own with all its containers; stopping what does not run succeeds
# The base image, `standpipe-test-base`, is debian:bookworm-slim if the engine has it, else Debian 12 from debootstrap, kept in the cache.
# Exit: 0 done, 1 the engine failed, 2 usage, 3 something is missing.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
base=standpipe-test-base
compose_version=v2.40.3

missing() { fail 3 "missing: $1"; }

engine_of() { echo "unix://$1/docker.sock"; }

answers() { DOCKER_HOST=$(engine_of "$dir") docker version >/dev/null 2>&1; }

# Compose, which is a plugin of docker since its version 2: the engine's plugin, else built by Go into the cache, some minutes once.
compose() {
    local program=$cache/docker-compose-$compose_version source
    if docker compose version >/dev/null 2>&1; then
        program="docker compose"
    elif [ ! -x "$program" ]; then
        command -v go >/dev/null || missing "Docker Compose 2 (the plugin docker-compose-plugin, or go, which builds it)"
        source=$(go mod download -json "github.com/docker/compose/v2@$compose_version" 2>"$dir/compose.log" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
        [ -n "$source" ] || missing "Docker Compose 2: $(tail -n 1 "$dir/compose.log")"
        # It cannot be installed by its name alone, because its go.mod excludes versions.
        cp -r "$source" "$dir/compose"
        chmod -R u+w "$dir/compose"
        (cd "$dir/compose" && go build -ldflags '-s -w' -o "$program.new" ./cmd) >"$dir/compose.log" 2>&1 || missing "Docker Compose 2: $(tail -n 1 "$dir/compose.log")"
        mv "$program.new" "$program"
        rm -rf "$dir/compose"
    fi
    echo "$program"
}

# Debian 12 without what a container has no use for; made beside its place: one that is there is whole.
root_file_system() {
    local archive=$cache/bookworm.tar
    if [ ! -s "$archive" ]; then
        command -v debootstrap >/dev/null || missing "debootstrap, or the image debian:bookworm-slim"
        debootstrap --variant=minbase bookworm "$dir/root" >"$dir/debootstrap.log" 2>&1 || missing "Debian's packages: $(tail -n 1 "$dir/debootstrap.log")"
        tar -c -C "$dir/root" --exclude './usr/share/doc/*' --exclude './usr/share/man/*' --exclude './usr/share/locale/*' --exclude './usr/share/info/*' \
            --exclude './var/cache/apt/*' --exclude './var/lib/apt/lists/*' --exclude './proc/*' --exclude './sys/*' --exclude './dev/*' . >"$archive.new"
        mv "$archive.new" "$archive"
        rm -rf "$dir/root"
    fi
    echo "$archive"
}

base_image() {
    local archive
    if docker image inspect debian:bookworm-slim >/dev/null 2>&1; then
        docker tag debian:bookworm-slim "$base"
    elif ! docker image inspect "$base" >/dev/null 2>&1; then
        archive=$(root_file_system) || exit
        docker import "$archive" "$base" >/dev/null || fail 1 "the base image cannot be imported"
    fi
}

# Java's home, and where Debian keeps the configuration that is linked there.
write_environment() {
    local home kafka opensearch
    home=$(find_java 17) || missing "java 17 or newer (in JAVA_HOME, on PATH or in /usr/lib/jvm)"
    home=$(dirname "$(dirname "$(readlink -f "$(command -v "$home")")")")
    kafka=$(classpath kafka) && opensearch=$(classpath opensearch) || exit 3
    cat >"$dir/environment" <<EOF
DOCKER_COMPOSE=$1
STANDPIPE_TEST_SERVICES=$services
STANDPIPE_TEST_BASE=$base
STANDPIPE_TEST_JARS=$cache/m2
STANDPIPE_TEST_JAVA=$home
STANDPIPE_TEST_JAVA_CONFIGURATION=$(dirname "$(readlink -f "$home/conf/security/java.security")" | sed 's|/security$||')
STANDPIPE_TEST_KAFKA=$kafka
STANDPIPE_TEST_OPENSEARCH=$opensearch
EOF
}

start() {
    local compose
    parse_start "$@"
    command -v docker >/dev/null || missing "docker"
    if ! docker version >/dev/null 2>&1; then
        command -v dockerd >/dev/null || missing "a Docker engine that answers, or dockerd"
        [ "$(id -u)" -eq 0 ] || missing "a Docker engine that answers; only root can start one"
        spawn_program "$dir" "$parent" dockerd --label "standpipe.service=$dir" --data-root "$dir/data" --exec-root "$dir/exec" --pidfile "$dir/dockerd.pid" \
            --shutdown-timeout 5 --host "$(engine_of "$dir")"
        trap 'stop_service "$dir"; exit 1' INT TERM
        await_service "$dir" 60 answers || report_failure "$dir" "the Docker engine"
        DOCKER_HOST=$(engine_of "$dir")
        export DOCKER_HOST
    fi
    # What is missing ends the daemon, too.
    trap '[ "$?" -eq 0 ] || stop "$dir"' EXIT
    compose=$(compose) || exit
    write_environment "$compose"
    base_image
    echo "url=${DOCKER_HOST:-$(docker context inspect --format '{{.Endpoints.docker.Host}}')}"
}

stop() {
    local containers
    if service_pid "$1" >/dev/null; then
        containers=$(DOCKER_HOST=$(engine_of "$1") docker ps --all --quiet 2>/dev/null) || containers=''
        # shellcheck disable=SC2086 # one word for each
        [ -z "$containers" ] || DOCKER_HOST=$(engine_of "$1") docker rm --force $containers >/dev/null 2>&1 || true
    fi
    stop_service "$1"
}

case ${1:-} in
start) start "${@:2}" ;;
stop)
    [ $# -eq 2 ] || fail 2 "stop takes a DIR"
    stop "$(absolute "$2")"
    ;;
*) fail 2 "usage: docker.sh start DIR [--parent PID] | stop DIR" ;;
esac
