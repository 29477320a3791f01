#!/usr/bin/env bash
# Fetches what the real services (all, or those named) run on into the cache: jars with Maven, Python packages with pip. Says plainly what is missing.
# Called by .ci/run once, and by the services' scripts when they find nothing. Builds nothing, starts nothing, writes only to the cache:
# $STANDPIPE_CACHE, by default ${XDG_CACHE_HOME:-~/.cache}/standpipe. Maven and pip ask whatever registry their own settings name.
# Usage: prepare.sh [kafka] [opensearch] [elasticsearch] [s3] [flink] [opensearch3]; by default the first four. Exit: 0 all there, 2 usage, 3 a tool or an artefact is missing.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

missing() {
    echo "prepare.sh: missing: $1" >&2
    lacking=1
}

check_java() {
    local version
    if version=$("$java" -version 2>&1); then
        version=$(sed -n 's/.* version "\([0-9]*\).*/\1/p' <<<"$version" | head -n 1)
        [ "${version:-0}" -ge 17 ] || missing "java 17 or newer ($java is version ${version:-unknown})"
        "$java" --list-modules 2>/dev/null | grep -q '^jdk.compiler@' || missing "a JDK ($java is a runtime without the compiler)"
    else
        missing "java 17 or newer (a JDK; on PATH or in JAVA_HOME)"
    fi
    command -v mvn >/dev/null || missing "mvn (Apache Maven)"
}

check_python() {
    # Debian has venv's module without what it needs, in python3.
    python3 -c 'import ensurepip, venv' 2>/dev/null || missing "python3 with venv (python3, python3-venv)"
}

# What the services $@ need of this machine.
check_tools() {
    local service
    lacking=0
    command -v curl >/dev/null || missing "curl"
    command -v ps >/dev/null || missing "ps (procps)"
    case " $* " in *" kafka "* | *" opensearch "* | *" elasticsearch "* | *" opensearch3 "*) check_java ;; esac
    case " $* " in *" s3 "* | *" flink "*) check_python ;; esac
    [ "$lacking" -eq 0 ] || exit 3
}

fetch() {
    if [ -f "$services/$1/requirements.txt" ]; then
        fetch_python "$1"
    else
        fetch_java "$1"
    fi
}

# An environment is made beside its place: one that is there is whole.
fetch_python() {
    local place log
    place=$(environment "$1")
    log=$cache/$1.pip.log
    rm -rf "$place"
    if ! {
        python3 -m venv "$place.new" --clear &&
            "$place.new/bin/python" -m pip install --disable-pip-version-check -r "$services/$1/requirements.txt"
    } >"$log" 2>&1; then
        grep '^ERROR' "$log" | head -n 5 >&2
        fail 3 "pip cannot fetch $services/$1/requirements.txt; the whole of it is in $log"
    fi
    mv "$place.new" "$place"
}

fetch_java() {
    local file log
    file=$(classpath_file "$1")
    log=$cache/$1.maven.log
    mvn -B -f "$services/$1/pom.xml" -Dstyle.color=never "-Dmaven.repo.local=$cache/m2" \
        org.apache.maven.plugins:maven-dependency-plugin:3.6.1:build-classpath "-Dmdep.outputFile=$file.new" >"$log" 2>&1 || {
        grep '^\[ERROR\]' "$log" | head -n 5 >&2
        fail 3 "Maven cannot fetch $services/$1/pom.xml; the whole of it is in $log"
    }
    mv "$file.new" "$file"
}

[ $# -gt 0 ] || set -- kafka opensearch elasticsearch s3
for service in "$@"; do
    case $service in
    kafka | opensearch | elasticsearch | opensearch3 | s3 | flink) ;;
    *) fail 2 "unknown service $service (there are: kafka, opensearch, elasticsearch, opensearch3, s3, flink)" ;;
    esac
done
check_tools "$@"
mkdir -p "$cache" || fail 3 "cannot make the cache $cache"
# Maven's repository and an environment bear one writer: of two that start together the second finds all there.
exec 9>"$cache/lock"
if command -v flock >/dev/null; then flock 9; fi
for service in "$@"; do
    is_prepared "$service" || fetch "$service"
done
