//! What the loader's tests share: fixtures in C, compiled when asked for, and those in Rust, which cargo builds as examples.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a part of several tests")]

use arrow_array::{ArrayRef, Int64Array, RecordBatch, StringArray};
use standpipe_loader::{Catalogue, InstanceContext, NodeInput, SearchEntry, SearchPath, wire::InputDetails};
use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

/// Compiles a file of `tests/c` to `NAME.so` in that directory.
pub(crate) fn compile(directory: &Path, name: &str, source: &str, arguments: &[&str]) -> PathBuf {
    let library = directory.join(format!("{name}.so"));
    let crate_directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("cc")
        .args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-fPIC", "-shared", "-O1", "-I"])
        .arg(crate_directory.join("../abi/include"))
        .arg(crate_directory.join("tests/c").join(source))
        .arg("-o")
        .arg(&library)
        .args(arguments)
        .output()
        .expect("a C compiler");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    library
}

/// The library of one of this crate's examples.
pub(crate) fn example(name: &str) -> PathBuf {
    let executable = std::env::current_exe().unwrap();
    let library = executable.parent().unwrap().join(format!("../examples/lib{name}.so"));
    assert!(library.exists(), "{} is missing: `cargo test -p standpipe-loader` builds it, `--test` alone does not", library.display());
    library
}

/// The catalogue of these files.
pub(crate) fn catalogue(files: &[&Path]) -> Catalogue {
    let entries = files.iter().map(|path| SearchEntry { path: path.to_path_buf(), origin: "test".to_owned() }).collect();
    Catalogue::discover(&SearchPath { entries })
}

pub(crate) fn context() -> InstanceContext {
    let node = "node".to_owned();
    InstanceContext {
        job_id: "0".repeat(32),
        job_name: "job".to_owned(),
        node,
        parallelism: 1,
        max_parallelism: 128,
        generation: 1,
        ..Default::default()
    }
}

pub(crate) fn numbers(values: &[i64]) -> RecordBatch {
    let values: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
    RecordBatch::try_from_iter([("number", values)]).unwrap()
}

pub(crate) fn keyed(keys: &[&str], values: &[i64]) -> RecordBatch {
    let keys: ArrayRef = Arc::new(StringArray::from(keys.to_vec()));
    let values: ArrayRef = Arc::new(Int64Array::from(values.to_vec()));
    RecordBatch::try_from_iter([("key", keys), ("number", values)]).unwrap()
}

pub(crate) fn input(batch: &RecordBatch, key: &[&str]) -> NodeInput {
    let key = key.iter().map(|column| (*column).to_owned()).collect();
    NodeInput { schema: batch.schema(), details: InputDetails { name: "in".to_owned(), key, ..Default::default() } }
}
