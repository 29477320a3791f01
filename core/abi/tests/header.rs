//! The C header is generated from this crate: `STANDPIPE_BLESS=1 cargo test --profile ci -p standpipe-abi --test header` writes it; without the variable the
//! committed file must be the same. A C99 and a C++17 compiler must take it, and see the sizes that Rust sees.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use standpipe_abi::{
    arrow_c::Rejection,
    deployment::DeploymentTable,
    function::{AggregateTable, Binding, ScalarTable},
    manifest,
    sink::{Committable, SinkTable},
    source::{EnumeratorTable, Polled, SourceTable, SplitPosition},
    state::{KeyContext, LentValues, StateTable},
    transform::{DueTimers, TransformTable},
    *,
};
use std::{fmt::Write, path::Path, process::Command};

/// What comes before the generated part: what cbindgen cannot read from the crate.
const PREAMBLE: &str = include_str!("header/preamble.h");
/// What comes after it.
const TRAILER: &str = include_str!("header/trailer.h");

const MODULES: [&str; 14] = [
    "value",
    "error",
    "arrow_c",
    "validate",
    "host",
    "source",
    "state",
    "transform",
    "sink",
    "function",
    "deployment",
    "manifest",
    "lib",
    "root",
];

/// What nothing else refers to; the rest follows from these.
const ROOTS: [&str; 16] = [
    "Status",
    "ErrorCode",
    "SourceTable",
    "EnumeratorTable",
    "TransformTable",
    "SinkTable",
    "Binding",
    "ScalarTable",
    "AggregateTable",
    "DeploymentTable",
    "StateTable",
    "KeyContext",
    "LentValues",
    "Manifest",
    "ManifestFn",
    "InterfaceFn",
];

/// In the preamble, or not for C.
const EXCLUDED: [&str; 5] = ["ArrowSchema", "ArrowArray", "ArrowArrayStream", "ArrowDeviceArray", "Plugin"];

fn generate() -> String {
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    let config = cbindgen::Config {
        language: cbindgen::Language::C,
        style: cbindgen::Style::Tag,
        documentation_style: cbindgen::DocumentationStyle::C99,
        line_length: 140,
        usize_is_size_t: true,
        no_includes: true,
        export: cbindgen::ExportConfig {
            prefix: Some("Standpipe".to_owned()),
            include: names(&ROOTS),
            exclude: names(&EXCLUDED),
            ..Default::default()
        },
        ..Default::default()
    };
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let builder = cbindgen::Builder::new().with_config(config);
    let builder = MODULES.iter().fold(builder, |builder, module| builder.with_src(source.join(format!("{module}.rs"))));
    let mut generated = Vec::new();
    builder.generate().expect("the crate's items are C types").write(&mut generated);
    let generated = tidy(&String::from_utf8(generated).expect("text"));
    let magic =
        format!("// What `magic` of a manifest must be: the bytes STNDPIPE.\n#define STANDPIPE_MAGIC UINT64_C({:#018X})", manifest::MAGIC);
    comments(&format!("{PREAMBLE}\n{generated}\n\n{magic}\n\n{TRAILER}"))
}

/// Names as C writes them, comments without Rust's links.
fn tidy(generated: &str) -> String {
    let mut text = generated.replace("[`", "`").replace("`]", "`").replace("crate::", "");
    for arrow in EXCLUDED {
        text = text.replace(&format!("Standpipe{arrow}"), &format!("struct {arrow}"));
    }
    let mut tidied = String::new();
    for line in text.lines() {
        match line.trim().strip_prefix("#define Standpipe").and_then(|define| define.split_once(' ')) {
            Some((name, value)) => {
                let name = name.replace("Status_", "STATUS_").replace("ErrorCode_", "ERROR_");
                let value = if value.starts_with('-') { format!("({value})") } else { value.to_owned() };
                writeln!(tidied, "#define STANDPIPE_{name} {value}").unwrap();
            }
            None => writeln!(tidied, "{}", line.trim_end()).unwrap(),
        }
    }
    tidied.trim().to_owned()
}

/// `//` becomes `/* */`, so that C89 takes it too.
fn comments(text: &str) -> String {
    let mut out = String::new();
    let mut lines = text.lines().peekable();
    let comment = |line: &str| line.trim_start().strip_prefix("//").map(|rest| rest.trim().to_owned());
    while let Some(line) = lines.next() {
        let Some(first) = comment(line) else {
            writeln!(out, "{line}").unwrap();
            continue;
        };
        let indent = &line[..line.len() - line.trim_start().len()];
        write!(out, "{indent}/* {first}").unwrap();
        while let Some(next) = lines.peek().and_then(|line| comment(line)) {
            write!(out, "\n{indent} * {next}").unwrap();
            lines.next();
        }
        writeln!(out, " */").unwrap();
    }
    out.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

#[test]
fn the_committed_header_is_the_generated_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("include/standpipe_plugin.h");
    let generated = generate();
    if std::env::var_os("STANDPIPE_BLESS").is_some() {
        std::fs::write(&path, &generated).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(committed == generated, "{} is out of date: run this test with STANDPIPE_BLESS=1", path.display());
}

/// Compiles a file of this crate, strictly.
fn compile(compiler: &str, arguments: &[&str], file: &str, output: &Path) {
    let crate_directory = Path::new(env!("CARGO_MANIFEST_DIR"));
    let result = Command::new(compiler)
        .args(arguments)
        .args(["-Wall", "-Wextra", "-Werror", "-I"])
        .args([crate_directory.join("include"), crate_directory.join(file)])
        .arg("-o")
        .arg(output)
        .output()
        .unwrap_or_else(|error| panic!("{compiler}: {error}"));
    assert!(result.status.success(), "{}", String::from_utf8_lossy(&result.stderr));
}

macro_rules! sizes {
    ($prefix:literal, $($type:ident)*) => {
        [$(format!(concat!($prefix, stringify!($type), " {}"), size_of::<$type>())),*]
    };
}

#[test]
fn c_sees_the_sizes_that_rust_sees() {
    let directory = tempfile::tempdir().unwrap();
    let program = directory.path().join("sizes");
    compile("cc", &["-std=c99", "-pedantic"], "tests/header/sizes.c", &program);
    let output = Command::new(&program).output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut expected = Vec::from(sizes!("", ArrowSchema ArrowArray ArrowArrayStream ArrowDeviceArray));
    expected.extend(sizes!("Standpipe", Slice Buffer Error Batch Rejection ValidationInput Validation Context HostTable));
    expected.extend(sizes!("Standpipe", SplitPosition Polled SourceTable EnumeratorTable KeyContext LentValues StateTable DueTimers));
    expected.extend(sizes!("Standpipe", TransformTable Committable SinkTable Binding ScalarTable AggregateTable DeploymentTable));
    expected.extend(sizes!("Standpipe", Manifest));
    expected.extend(["has 1 0".to_owned(), "magic STNDPIPE".to_owned(), "status -1".to_owned()]);
    assert_eq!(text.lines().collect::<Vec<_>>(), expected);
    assert!(output.status.success());
}

#[test]
fn the_header_is_cpp() {
    let directory = tempfile::tempdir().unwrap();
    compile("c++", &["-x", "c++-header", "-std=c++17", "-pedantic"], "include/standpipe_plugin.h", &directory.path().join("header.gch"));
}
