//! Puts the source of the SDK into the binary, for `plugin new`: a crate that it writes builds without anything else of ours.

use std::{
    env, fs, io,
    path::{Path, PathBuf},
};

/// What an author needs, below the root.
const SOURCES: [&str; 9] = [
    "Cargo.lock",
    "Cargo.toml",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "core/abi/Cargo.toml",
    "core/abi/src",
    "core/sdk/Cargo.toml",
    "core/sdk/build.rs",
    "core/sdk/src",
];

fn main() -> io::Result<()> {
    let variable = |name: &str| env::var_os(name).map(PathBuf::from).ok_or_else(|| io::Error::other(format!("{name} is not set")));
    let root = variable("CARGO_MANIFEST_DIR")?.join("..").canonicalize()?;
    let mut files = Vec::new();
    for source in SOURCES {
        println!("cargo::rerun-if-changed={}", root.join(source).display());
        collect(&root.join(source), &mut files)?;
    }
    files.sort();
    let mut text = String::from("&[\n");
    for file in files {
        let name = file.strip_prefix(&root).map_err(io::Error::other)?;
        text.push_str(&format!("    ({:?}, include_str!({:?})),\n", name, file));
    }
    text.push_str("]\n");
    fs::write(variable("OUT_DIR")?.join("sdk_sources.rs"), text)
}

fn collect(path: &Path, files: &mut Vec<PathBuf>) -> io::Result<()> {
    if !path.is_dir() {
        files.push(path.to_path_buf());
        return Ok(());
    }
    fs::read_dir(path)?.try_for_each(|entry| collect(&entry?.path(), files))
}
