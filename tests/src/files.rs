//! Where the built files are: the binary, the plugins beside it, the fixture plugin that cargo builds with the tests, the repository.

use std::{
    env,
    path::{Path, PathBuf},
};

const BUNDLED: [&str; 11] = [
    "connector_collect",
    "connector_elasticsearch",
    "connector_file",
    "connector_generator",
    "connector_kafka",
    "connector_print",
    "deployment_cli",
    "deployment_kubernetes",
    "deployment_session",
    "transforms_examples",
    "transforms_http_enrich",
];

/// The repository's root, where `examples/` is.
pub fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the repository").to_path_buf()
}

/// The `standpipe` binary, out of `STANDPIPE_TEST_BIN_DIR` or beside what cargo builds.
pub fn binary() -> PathBuf {
    built(built_directory().join("standpipe"))
}

/// The file of a plugin that comes with the binary: `plugin("connector_file")`.
pub fn plugin(name: &str) -> PathBuf {
    built(built_directory().join(format!("libstandpipe_{name}.so")))
}

/// All plugin files that come with the binary.
pub fn bundled_plugins() -> Vec<PathBuf> {
    BUNDLED.iter().map(|name| plugin(name)).collect()
}

/// The plugin that misbehaves as it is told to (`tests/fixtures/plugin.rs`).
pub fn fixture_plugin() -> PathBuf {
    example_plugin("fixture_plugin")
}

/// A plugin among this crate's examples.
pub fn example_plugin(name: &str) -> PathBuf {
    let file = target_directory().join(format!("examples/lib{name}.so"));
    assert!(
        file.is_file(),
        "{} is missing: `cargo test --profile ci -p standpipe-tests` builds it; for one --test NAME run cargo build --profile ci -p standpipe-tests --examples",
        file.display()
    );
    file
}

fn built_directory() -> PathBuf {
    env::var_os("STANDPIPE_TEST_BIN_DIR").map_or_else(target_directory, PathBuf::from)
}

/// `target/ci`, of which this test is in `deps/`.
fn target_directory() -> PathBuf {
    let own = env::current_exe().expect("a test knows its own file");
    own.ancestors().nth(2).expect("a test is in target/PROFILE/deps").to_path_buf()
}

fn built(file: PathBuf) -> PathBuf {
    assert!(file.is_file(), "{} is missing: run cargo build --profile ci --workspace", file.display());
    file
}

/// A program that this machine has, under one of these names.
pub fn on_path(names: &[&str]) -> Option<PathBuf> {
    let folders = std::env::var_os("PATH")?;
    std::env::split_paths(&folders).flat_map(|folder| names.iter().map(move |name| folder.join(name))).find(|path| path.is_file())
}
