//! The rules of the house that Cargo does not keep: which of our crates may import which, and where `unsafe` may be. ARCHITECTURE.md names them.
#![forbid(unsafe_code)]
#![allow(clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

use standpipe_tests::repository;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// The crates that hold `unsafe` code of their own.
const UNSAFE: [&str; 4] = ["core/abi", "core/sdk", "core/loader", "core/isolation"];

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The folders of the workspace's members, from the root manifest.
fn members() -> Vec<String> {
    let manifest = read(&repository().join("Cargo.toml"));
    let list = manifest.split_once("members = [").and_then(|(_, rest)| rest.split_once(']')).expect("a list of members").0;
    list.split(',').map(|name| name.trim().trim_matches('"').to_owned()).filter(|name| !name.is_empty()).collect()
}

/// Our crates that a manifest's `[dependencies]` name.
fn imports(manifest: &str) -> Vec<String> {
    let section = manifest.split("\n[").find_map(|section| section.strip_prefix("dependencies]")).unwrap_or_default();
    let name = |line: &str| line.split(['.', ' ', '=']).next().unwrap_or_default().to_owned();
    section.lines().map(name).filter(|name| name.starts_with("standpipe-")).collect()
}

/// Whether a manifest makes a plugin; a plugin among its examples does not count.
fn is_plugin(manifest: &str) -> bool {
    manifest.split("\n[").any(|section| section.starts_with("lib]") && section.contains("cdylib"))
}

fn package(manifest: &str) -> String {
    let name = manifest.lines().find_map(|line| line.strip_prefix("name = ")).expect("a package has a name");
    name.trim_matches('"').to_owned()
}

#[test]
fn a_crate_imports_only_from_those_above_it() {
    let root = read(&repository().join("Cargo.toml"));
    let order: Vec<&str> = root.lines().filter(|line| line.starts_with("standpipe-")).filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(order.first(), Some(&"standpipe-abi"), "abi is the ground: {order:?}");
    let mut checked = 0;
    for member in members() {
        let manifest = read(&repository().join(&member).join("Cargo.toml"));
        let own = order.iter().position(|name| *name == package(&manifest)).unwrap_or(order.len());
        for import in imports(&manifest) {
            let place = order.iter().position(|name| *name == import).unwrap_or_else(|| panic!("{member}: {import} is not in the list"));
            assert!(place < own, "{member} imports {import}, which is not above it in the root Cargo.toml");
            // Modes that submit to a job manager share what they say to it; itself it is held to the same.
            let shares = member.starts_with("plugins/deployments/") && import == "standpipe-deployment-rest";
            let is_bound = is_plugin(&manifest) || member == "plugins/deployments/rest";
            let of_plugins = ["standpipe-sdk", "standpipe-formats"];
            assert!(!is_bound || shares || of_plugins.contains(&import.as_str()), "{member} is a plugin and imports {import}");
            checked += 1;
        }
    }
    assert!(checked > 15, "only {checked} imports were found");
}

#[test]
fn unsafe_code_is_where_it_may_be() {
    for member in members() {
        let folder = repository().join(&member);
        let root: Vec<PathBuf> = ["src/lib.rs", "src/main.rs"].iter().map(|file| folder.join(file)).filter(|file| file.is_file()).collect();
        let [root] = root.as_slice() else { panic!("{member} has not one root: {root:?}") };
        let text = read(root);
        let lint = if is_plugin(&read(&folder.join("Cargo.toml"))) { "#![deny(unsafe_code)]" } else { "#![forbid(unsafe_code)]" };
        assert_eq!(text.contains(lint), !UNSAFE.contains(&member.as_str()), "{}: {lint}", root.display());
    }
}
