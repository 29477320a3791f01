#!/usr/bin/env bash
# Fetches the jars of the real services (all, or those named) with Maven into the cache, and says plainly what is missing.
# Called by .ci/run once, and by the services' scripts when they find no jars. Builds nothing, starts nothing, writes only to the cache:
# $STANDPIPE_CACHE, by default ${XDG_CACHE_HOME:-~/.cache}/standpipe. Maven asks whatever registry its own settings name.
# Usage: prepare.sh [kafka] [opensearch] [elasticsearch] [opensearch3]; by default the first three. Exit: 0 all there, 2 usage, 3 a tool or an artefact is missing.
set -euo pipefail
. "$(dirname "$0")/lib.sh"

missing() {
    echo "prepare.sh: missing: $1" >&2
    lacking=1
}

check_tools() {
    lacking=0
    local version
    if version=$("$java" -version 2>&1); then
        version=$(sed -n 's/.* version "\([0-9]*\).*/\1/p' <<<"$version" | head -n 1)
        [ "${version:-0}" -ge 17 ] || missing "java 17 or newer ($java is version ${version:-unknown})"
        "$java" --list-modules 2>/dev/null | grep -q '^jdk.compiler@' || missing "a JDK ($java is a runtime without the compiler)"
    else
        missing "java 17 or newer (a JDK; on PATH or in JAVA_HOME)"
    fi
    command -v mvn >/dev/null || missing "mvn (Apache Maven)"
    command -v curl >/dev/null || missing "curl"
    command -v ps >/dev/null || missing "ps (procps)"
    [ "$lacking" -eq 0 ] || exit 3
}

fetch() {
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

[ $# -gt 0 ] || set -- kafka opensearch elasticsearch
for service in "$@"; do
    [ -f "$services/$service/pom.xml" ] || fail 2 "unknown service $service (there are: kafka, opensearch, elasticsearch, opensearch3)"
done
check_tools
mkdir -p "$cache" || fail 3 "cannot make the cache $cache"
# Maven's repository bears one writer: of two that start together the second finds all there.
exec 9>"$cache/lock"
if command -v flock >/dev/null; then flock 9; fi
for service in "$@"; do
    is_prepared "$service" || fetch "$service"
done
