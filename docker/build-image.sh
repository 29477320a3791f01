#!/usr/bin/env bash
# Builds Standpipe's image and tags it standpipe:latest (the default of `kubernetes.image`). Called by hand, and before deploying to Kubernetes.
# Usage: build-image.sh [--dist DIR] [--plugins DIR]... [--tag NAME] [-- ARGUMENTS OF docker build...]
#   --dist DIR       a ready distribution (DIR/standpipe with its plugins in DIR/plugins, or beside it, as in target/release), built on no newer a
#                    libc than the base image's: nothing is compiled
#   --plugins DIR    adds the plugin files DIR/*.so; may be repeated
#   --tag NAME       default standpipe:latest
# BUILDER_IMAGE and BASE_IMAGE name other images (registries that are not the public one); DOCKER another engine (podman, buildah).
# Exit: 0 built, 2 usage, 3 no engine, else the engine's own.
set -euo pipefail

fail() {
    echo "build-image.sh: $2" >&2
    exit "$1"
}

root=$(cd "$(dirname "$0")/.." && pwd)
docker=${DOCKER:-docker}
tag=standpipe:latest
certificates=/etc/ssl/certs/ca-certificates.crt
dist=''
plugins=()
while [ $# -gt 0 ]; do
    case $1 in
    --dist | --plugins | --tag)
        [ $# -ge 2 ] || fail 2 "$1 takes a value"
        case $1 in
        --dist) dist=$2 ;;
        --plugins) plugins+=("$2") ;;
        --tag) tag=$2 ;;
        esac
        shift 2
        ;;
    --)
        shift
        break
        ;;
    *) fail 2 "unknown argument $1" ;;
    esac
done
command -v "$docker" >/dev/null || fail 3 "no $docker on PATH (DOCKER=podman or DOCKER=buildah names another)"

# The context is a copy: exactly the clone's files, or the distribution, and the added plugins; never target/ or what git ignores.
context=$(mktemp -d)
trap 'rm -rf "$context"' EXIT
if [ -n "$dist" ]; then
    [ -x "$dist/standpipe" ] || fail 2 "$dist/standpipe is no program"
    own=$dist/plugins
    [ -d "$own" ] || own=$dist
    compgen -G "$own/*.so" >/dev/null || fail 2 "$own has no plugin"
    mkdir -p "$context/dist/plugins"
    cp "$dist/standpipe" "$context/dist/"
    cp "$own"/*.so "$context/dist/plugins/"
    # A slim base has none, and is the builder too.
    [ ! -e "$certificates" ] || cp "$certificates" "$context/dist/"
else
    (cd "$root" && git ls-files -z --cached --others --exclude-standard | tar -c --null -T -) |
        tar -x -C "$context"
fi
mkdir -p "$context/image-plugins"
for folder in "${plugins[@]+"${plugins[@]}"}"; do
    compgen -G "$folder/*.so" >/dev/null || fail 2 "$folder has no plugin"
    cp "$folder"/*.so "$context/image-plugins/"
done

arguments=(--file "$root/docker/Dockerfile" --tag "$tag")
[ -z "${BASE_IMAGE:-}" ] || arguments+=(--build-arg "BASE_IMAGE=$BASE_IMAGE")
# A ready distribution needs no compiler: the base image does for both stages.
builder=${BUILDER_IMAGE:-${dist:+${BASE_IMAGE:-debian:bookworm-slim}}}
[ -z "$builder" ] || arguments+=(--build-arg "BUILDER_IMAGE=$builder")
"$docker" build "${arguments[@]}" "$@" "$context"
