#!/usr/bin/env bash
# A real Kubernetes for tests: etcd, API server, controllers and scheduler as plain processes on loopback, and with --node one node on which pods run. No registry, no
# kind: Go builds the programs into the cache (kubernetes/go.mod has the version), some minutes once. Called by the end-to-end tests, by cargo xtask and by hand.
#   kubernetes.sh start DIR [--parent PID] [--node]
#                                       prints `url=` with the path of an administrator's kubeconfig, DIR/kubeconfig, and with a node `host=`, where its pods reach
#                                       this machine; DIR/host has it too. It is always a new cluster. With --parent, all of it ends when that process is gone.
#   kubernetes.sh image DIR ARCHIVE     gives the node the images of `docker save` (or an OCI archive; - is stdin), and prints `image=NAME` for each
#   kubernetes.sh stop DIR              ends all, with every pod; stopping what does not run succeeds
#   kubernetes.sh build [--node]        only builds what start would
#   kubernetes.sh helm                  builds Helm, too, which has a version of its own (kubernetes/helm/go.mod), and prints its path
# A node takes Linux, root, containerd with runc and ctr, the CNI plugins, ip and iptables; it has namespaces of its own for processes, mounts and the network, which
# end with it. Everything of the cluster is in DIR/state; DIR/log says which of its logs to read.
# Exit: 0 done, 1 the cluster failed, 2 usage, 3 something is missing.
set -euo pipefail
. "$(dirname "$0")/lib.sh"
. "$services/kubernetes/control_plane.sh"
. "$services/kubernetes/node.sh"
self=$services/kubernetes.sh

missing() { fail 3 "missing: $1"; }

require() { command -v "$1" >/dev/null || missing "$2"; }

# The program that the Go package kubernetes/$1 makes; named after what it is made of, so that a new version is a new file.
program() { echo "$cache/kubernetes-$(basename "$(realpath "$services/kubernetes/$1")")-$(cat "$services/kubernetes/go.mod" "$services/kubernetes/$1/"{*.go,go.*} 2>/dev/null | cksum | cut -d ' ' -f 1)"; }

# What Go builds of kubernetes/$1: its own program, or that of the module which go.mod calls a tool, where there is none.
source_of() {
    local tool
    tool=$(sed -n 's|^tool ||p' "$services/kubernetes/$1/go.mod" 2>/dev/null)
    echo "${tool:-.}"
}

# required MODULE PACKAGE: the version without its `v` that the go.mod of kubernetes/PACKAGE takes of a module.
required() { sed -n "s|^.*[[:space:]]$1 v\([^ ]*\).*|\1|p" "$services/kubernetes/$2/go.mod"; }

# Builds each of the packages $@ that is not there, beside its place: one that is there is whole.
build() {
    local package program version client log=$cache/kubernetes.go.log
    mkdir -p "$cache" || fail 3 "cannot make the cache $cache"
    version=$(required k8s.io/kubernetes .)
    # Helm takes a cluster that it does not know for one of its own client's release: k8s.io/client-go 0.34.2 is of 1.34.
    client=$(required k8s.io/client-go helm)
    client=${client#0.}
    for package in "$@"; do
        program=$(program "$package")
        [ ! -x "$program" ] || continue
        require go "go 1.24 or newer, which builds Kubernetes $version"
        (
            if command -v flock >/dev/null; then flock 9; fi
            [ ! -x "$program" ] || exit 0
            echo "kubernetes.sh: Go builds $services/kubernetes/$package; the first time takes minutes" >&2
            cd "$services/kubernetes/$package"
            CGO_ENABLED=0 go build -trimpath -o "$program.new" -ldflags "-s -w
                -X k8s.io/component-base/version.gitVersion=v$version
                -X k8s.io/component-base/version.gitCommit=
                -X k8s.io/client-go/pkg/version.gitVersion=v$version
                -X helm.sh/helm/v3/internal/version.version=v$(required helm.sh/helm/v3 helm)
                -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1
                -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=${client%%.*}
                -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1
                -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=${client%%.*}" "$(source_of "$package")" >"$log" 2>&1 || exit
            mv "$program.new" "$program"
        ) 9>"$cache/kubernetes.lock" || missing "Kubernetes $version: $(tail -n 1 "$log") (the whole of it is in $log)"
    done
}

# parse ARGUMENTS...: as parse_start, and sets `node` to 1 where --node is among them.
parse() {
    local arguments=() argument
    node=
    for argument in "$@"; do
        if [ "$argument" = --node ]; then node=1; else arguments+=("$argument"); fi
    done
    parse_start "${arguments[@]}"
    state=$dir/state
}

start() {
    local attempt
    parse "$@"
    require openssl openssl
    require curl curl
    [ -z "$node" ] || require_node
    build . ${node:+dns pause}
    trap 'stop "$dir"; exit 1' INT TERM
    for attempt in 1 2 3; do
        stop "$dir"
        rm -rf "$state" "$dir/kubeconfig" "$dir/host"
        mkdir -p "$state"
        spawn_program "$dir" "$parent" "$self" hold "standpipe.service=$dir" "$dir" "$node"
        if await_service "$dir" 240 test -e "$state/ready"; then
            cp "$state/admin.kubeconfig" "$dir/kubeconfig"
            echo "url=$dir/kubeconfig"
            if [ -n "$node" ]; then
                cp "$state/host" "$dir/host"
                echo "host=$(cat "$dir/host")"
            fi
            return
        fi
        # Someone took a port between its choice and its use.
        if [ "$attempt" = 3 ] || ! grep -qs 'address already in use' "$dir/log"; then break; fi
    done
    tail -n 40 "$dir/log" >&2
    stop "$dir"
    fail 1 "Kubernetes did not start"
}

# --- From here to `stop`: what runs in the background, in one process that holds the others.

# component NAME PROGRAM ARGUMENTS...: runs PROGRAM with its output in the state's NAME.log. Where the system can, it dies with this process, however that dies.
component() {
    local name=$1 leash=()
    shift
    if command -v setpriv >/dev/null; then leash=(setpriv --pdeathsig KILL); fi
    "${leash[@]}" "$@" </dev/null >"$state/$name.log" 2>&1 &
    components[$!]=$name
}

# Fails if one of the components has ended.
check_components() {
    local pid
    for pid in "${!components[@]}"; do
        is_alive "$pid" && continue
        echo "${components[$pid]} has ended; the end of $state/${components[$pid]}.log:"
        tail -n 30 "$state/${components[$pid]}.log"
        exit 1
    done
}

# await WHAT COMMAND...: waits for COMMAND to succeed.
await() {
    local what=$1 deadline=$((SECONDS + 180))
    shift
    until "$@"; do
        check_components
        if [ "$SECONDS" -ge "$deadline" ]; then
            echo "waited three minutes in vain: $what; the logs are $state/*.log"
            exit 1
        fi
        sleep 0.1
    done
    echo "$SECONDS s: $what"
}

cluster() {
    control_plane
    [ -z "$node" ] || join_node
    touch "$state/ready"
    wait -n || true
    check_components
    exit 1
}

# hold DIR NODE: the process of DIR. What it holds keeps nothing that is worth a grace.
hold() {
    trap 'exit 1' INT TERM
    trap '{ kill -KILL "${!components[@]}"; wait; } 2>/dev/null; remove_node' EXIT
    if [ -z "$node" ]; then
        cluster
    fi
    enter_node
}

stop() {
    stop_service "$1"
    state=$1/state
    remove_node
}

image() {
    local archive=$2
    state=$(absolute "$1")/state
    if ! [ -e "$state/ready" ] || ! [ -S "$(containerd_socket)" ]; then fail 2 "$1 has no node that runs"; fi
    [ "$archive" = - ] || [ -r "$archive" ] || fail 2 "$archive: no such file"
    if [ "$archive" = - ]; then import; else import <"$archive"; fi
}

case ${1:-} in
start) start "${@:2}" ;;
stop)
    [ $# -eq 2 ] || fail 2 "stop takes a DIR"
    stop "$(absolute "$2")"
    ;;
image)
    [ $# -eq 3 ] || fail 2 "image takes a DIR and an ARCHIVE"
    image "$2" "$3"
    ;;
build)
    case ${2:-} in
    '') build . ;;
    --node) build . dns pause ;;
    *) fail 2 "unknown option $2" ;;
    esac
    ;;
helm)
    [ $# -eq 1 ] || fail 2 "helm takes no argument"
    build helm
    program helm
    ;;
hold | inside)
    declare -A components=()
    # All of it is on this machine.
    unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
    dir=$3 state=$3/state node=$4
    "$1"
    ;;
*) fail 2 "usage: kubernetes.sh start DIR [--parent PID] [--node] | image DIR ARCHIVE | stop DIR | build [--node] | helm" ;;
esac
