# shellcheck shell=bash
# What the services' scripts and prepare.sh share: the cache, the life of one background process, waiting for a condition.
# Sourced by them only; it starts nothing by itself. A service's whole state is its DIR: DIR/pid, DIR/log, its configuration and data.

services=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cache=${STANDPIPE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/standpipe}
java=${JAVA_HOME:+$JAVA_HOME/bin/}java

# fail CODE MESSAGE: 1 the service failed, 2 usage, 3 something outside is missing.
fail() {
    echo "$(basename "$0"): $2" >&2
    exit "$1"
}

# The version of the java at $1, such as 17; nothing if there is none.
java_version() { "$1" -version 2>&1 | sed -n 's/.* version "\([0-9]*\).*/\1/p' | head -n 1; }

# The first java of version $1 or newer: the usual one, else one that is installed beside it.
find_java() {
    local candidate version
    for candidate in "$java" /usr/lib/jvm/*/bin/java; do
        version=$(java_version "$candidate") || continue
        [ "${version:-0}" -ge "$1" ] || continue
        echo "$candidate"
        return
    done
    return 1
}

# The file that holds the classpath of service $1; named after its pom, so that a new version is a new file.
classpath_file() {
    echo "$cache/$1-$(cksum <"$services/$1/pom.xml" | cut -d ' ' -f 1).classpath"
}

# The Python environment of service $1; named after its requirements, so that a new version is a new folder.
environment() {
    echo "$cache/$1-$(cksum <"$services/$1/requirements.txt" | cut -d ' ' -f 1).venv"
}

# Whether what service $1 runs on is there: its Python environment, or its classpath with every jar it names (a wiped Maven repository counts as absent).
# The interpreter is asked too: it is a link to a Python that may be gone.
is_prepared() {
    local file jars jar
    if [ -f "$services/$1/requirements.txt" ]; then
        "$(environment "$1")/bin/python" -c '' 2>/dev/null
        return
    fi
    file=$(classpath_file "$1")
    [ -s "$file" ] || return 1
    IFS=: read -r -a jars <"$file" || [ "${#jars[@]}" -gt 0 ] || return 1
    for jar in "${jars[@]}"; do
        [ -f "$jar" ] || return 1
    done
}

# The classpath of service $1, fetched first if need be.
classpath() {
    is_prepared "$1" || "$services/prepare.sh" "$1" >&2 || return
    cat "$(classpath_file "$1")"
}

# Whether process $1 runs, whoever owns it; a zombie does not. Where there is /proc this forks nothing: the watchdog asks all the time.
is_alive() {
    local stat
    if [ -e /proc/self/stat ]; then
        { read -r stat <"/proc/$1/stat"; } 2>/dev/null || return 1
        stat=${stat##*) }
    else
        stat=$(ps -o stat= -p "$1" 2>/dev/null) || return 1
    fi
    case $stat in Z* | X*) return 1 ;; esac
}

# The pid of the service of DIR $1, if it runs. Every service carries DIR on its command line: a stale pid file never names a stranger.
service_pid() {
    local pid
    pid=$(cat "$1/pid" 2>/dev/null) || return 1
    is_alive "$pid" || return 1
    case $(ps -ww -o args= -p "$pid") in
    *"standpipe.service=$1 "*) echo "$pid" ;;
    *) return 1 ;;
    esac
}

# Waits up to $1 tenths of a second until the command that follows succeeds.
wait_until() {
    local tenths=$1
    shift
    until "$@"; do
        [ $((tenths -= 1)) -gt 0 ] || return 1
        sleep 0.1
    done
}

is_gone() { ! is_alive "$1"; }

# Ends process $1: TERM, ten seconds of grace, KILL.
end_process() {
    kill -TERM "$1" 2>/dev/null || return 0
    wait_until 100 is_gone "$1" && return
    kill -KILL "$1" 2>/dev/null || true
    wait_until 50 is_gone "$1"
}

# stop_service DIR: nothing to stop is a success.
stop_service() {
    local pid
    if pid=$(service_pid "$1"); then
        end_process "$pid" || fail 1 "process $pid outlives SIGKILL"
    fi
    rm -f "$1/pid"
}

# spawn DIR PARENT JVM-ARGUMENTS...: runs a JVM as `spawn_program` does.
spawn() {
    local dir=$1 parent=$2
    shift 2
    spawn_program "$dir" "$parent" "$java" "-Dstandpipe.service=$dir" "$@"
}

# spawn_program DIR PARENT COMMAND...: runs COMMAND, which must have `standpipe.service=DIR` among its arguments and not as the last, in the background
# with its output in DIR/log and its pid in DIR/pid. With a PARENT, a watchdog ends it when that process is gone, however that died. Neither holds the
# caller's stdin, stdout or stderr, so a pipe on them ends with the script.
spawn_program() {
    local dir=$1 parent=$2 pid
    shift 2
    "$@" </dev/null >"$dir/log" 2>&1 &
    pid=$!
    echo "$pid" >"$dir/pid"
    [ -n "$parent" ] || return 0
    (
        trap '' HUP INT TERM
        while is_alive "$pid"; do
            is_alive "$parent" || end_process "$pid"
            sleep 0.5
        done
    ) </dev/null >/dev/null 2>&1 &
}

# await_service DIR SECONDS COMMAND...: waits until COMMAND succeeds, as long as the process of DIR lives and the time lasts.
await_service() {
    local dir=$1 deadline=$((SECONDS + $2))
    shift 2
    until "$@"; do
        # Not service_pid: the process may not be the JVM yet, but still a fork of this shell.
        is_alive "$(cat "$dir/pid")" || return 1
        [ "$SECONDS" -lt "$deadline" ] || return 1
        sleep 0.1
    done
}

# report_failure DIR NAME: the log's tail, the service stopped, exit 1.
report_failure() {
    echo "--- the end of $1/log:" >&2
    tail -n 40 "$1/log" >&2
    stop_service "$1"
    fail 1 "$2 did not start"
}

# parse_start ARGUMENTS...: sets `dir` (absolute, made) and `parent` from `DIR [--parent PID]`, and refuses a DIR whose service runs. One that can listen on another
# address than loopback has set `host` to 127.0.0.1 before, which `--host ADDR` changes: an address of this machine that others reach, such as the pods of a node.
parse_start() {
    dir='' parent=''
    while [ $# -gt 0 ]; do
        case $1 in
        --parent)
            case ${2:-} in '' | *[!0-9]*) fail 2 "--parent takes a process id" ;; esac
            parent=$2
            shift 2
            ;;
        --host)
            [ -n "${host:-}" ] || fail 2 "unknown option $1"
            case ${2:-} in '' | *[!0-9.]*) fail 2 "--host takes an IPv4 address of this machine" ;; esac
            host=$2
            shift 2
            ;;
        -*) fail 2 "unknown option $1" ;;
        *)
            [ -z "$dir" ] || fail 2 "one DIR only"
            dir=$1
            shift
            ;;
        esac
    done
    [ -n "$dir" ] || fail 2 "start takes a DIR"
    [ -z "$parent" ] || is_alive "$parent" || fail 2 "--parent $parent: no such process"
    mkdir -p "$dir" || fail 3 "cannot make $dir"
    dir=$(cd "$dir" && pwd)
    if pid=$(service_pid "$dir"); then
        fail 2 "$dir already runs as process $pid"
    fi
}

# A random port on which nobody listens, below the range from which Linux takes the ports of outgoing connections.
free_port() {
    local port
    while :; do
        port=$((20000 + (RANDOM * 32768 + RANDOM) % 12000))
        (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null || break
    done
    echo "$port"
}

# The absolute path of DIR $1, or its own text when it does not exist.
absolute() { (cd "$1" 2>/dev/null && pwd) || echo "$1"; }
