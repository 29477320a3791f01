#!/usr/bin/env bash
# Makes a room of the museum for a minor version that is being released: `museum/freeze.sh 1.0` copies the contract, the SDK and the loader as they are into
# museum/1.0/core, with the lock file of today, and builds the exhibits' binaries. Once it is committed nothing in that room changes any more.
set -euo pipefail
version="$1"
root="$(cd "$(dirname "$0")/.." && pwd)"
room="$root/museum/$version"
[ -d "$room/exhibits" ] || { echo "$room has no exhibits" >&2; exit 2; }

rm -rf "$room/core"
for crate in abi sdk loader; do
    mkdir -p "$room/core/$crate"
    cp -r "$root/core/$crate/src" "$room/core/$crate/src"
    [ ! -f "$root/core/$crate/build.rs" ] || cp "$root/core/$crate/build.rs" "$room/core/$crate/"
    # Without tests and examples, which are of the house.
    sed '/^\[dev-dependencies\]/,/^$/d; /^\[\[example\]\]/,/^$/d; /^# Plugins that the tests load/d; /^\[\[bench\]\]/,/^$/d; /^# Prints numbers/d; /^\[lints\]/,$d' \
        "$root/core/$crate/Cargo.toml" > "$room/core/$crate/Cargo.toml"
done
mkdir -p "$room/core/abi/include"
cp "$root/core/abi/include/standpipe_plugin.h" "$room/core/abi/include/"
mkdir -p "$room/c"
cp "$root"/examples/plugins/c/*.[ch] "$room/c/"

{
    echo '# The contract, the SDK and the loader as they were released, with a plugin of every kind and a host that only loads. Written by museum/freeze.sh.'
    echo '[workspace]'
    echo 'resolver = "3"'
    echo 'members = ["core/abi", "core/sdk", "core/loader", "exhibits", "mini-host"]'
    echo
    sed -n '/^\[workspace.package\]/,/^$/p' "$root/Cargo.toml"
    echo '[workspace.dependencies]'
    grep -E '^(standpipe-(abi|sdk|loader)|abi_stable|libloading|arrow-(array|buffer|data|schema|select)|base64|schemars|serde|serde_json|serde_path_to_error|ring|strsim|tempfile|tracing|xxhash-rust|semver) ?=' "$root/Cargo.toml"
    echo
    sed -n '/^\[profile.ci\]/,/^$/p; /^\[profile.ci.build-override\]/,/^$/p' "$root/Cargo.toml"
    echo '[profile.exhibit]'
    echo 'inherits = "release"'
    echo 'opt-level = "s"'
    echo 'lto = "fat"'
    echo 'codegen-units = 1'
    echo 'strip = "symbols"'
} > "$room/Cargo.toml"
# The versions of today, less what is not needed: no exhibit changes because somebody released something.
cp "$root/Cargo.lock" "$room/Cargo.lock"

cd "$room"
binaries="$room/binaries/$(uname -m)-linux"
mkdir -p "$binaries"
# Paths of this machine would be in the messages of panics.
RUSTFLAGS="--remap-path-prefix=$root=standpipe"
for registry in "${CARGO_HOME:-$HOME/.cargo}"/registry/src/*; do
    RUSTFLAGS+=" --remap-path-prefix=$registry=crates"
done
export RUSTFLAGS
target="${CARGO_TARGET_DIR:-$root/target}/museum-$version"
built() { cp "$target/$1/exhibit/libexhibits.so" "$binaries/$2"; }
CARGO_TARGET_DIR="$target/now" cargo build --profile exhibit -p exhibits
built now exhibits.so
# The oldest compiler that the SDK takes.
oldest="$(sed -n 's/^rust-version = "\(.*\)"/\1/p' Cargo.toml)"
CARGO_TARGET_DIR="$target/oldest" cargo "+$oldest.0" build --profile exhibit -p exhibits
built oldest "exhibits-rustc-$oldest.so"
# Another major version of Arrow, in a copy: the sources are the same.
copy="$(mktemp -d)"
trap 'rm -rf "$copy"' EXIT
cp -r "$room/." "$copy"
sed -i 's/^\(arrow-[a-z]* = .*\)"59"/\1"58"/; s/^\(arrow-[a-z]*\) = "59"/\1 = "58"/' "$copy/Cargo.toml"
# What that version calls otherwise, in the test harness.
sed -i 's/\.try_extend(\(.*\))\.expect("fits")/.extend(\1)/' "$copy"/core/sdk/src/testing/*.rs
rm "$copy/Cargo.lock"
RUSTFLAGS="$RUSTFLAGS --remap-path-prefix=$copy=standpipe"
(cd "$copy" && CARGO_TARGET_DIR="$target/arrow" cargo build --profile exhibit -p exhibits)
built arrow exhibits-arrow-58.so
cc -std=c11 -Os -s -D_GNU_SOURCE -fPIC -shared -I "$room/core/abi/include" -o "$binaries/c_example.so" "$room"/c/*.c
ls -l "$binaries"
