//! `plugin new`: writes a crate that builds, tests and runs as it is. The templates are in `assets/scaffold`; the SDK's source, which the crate is built with, is in
//! the binary (`build.rs`).

use crate::{
    cli::{NewArguments, ScaffoldKind},
    exit::{Code, Failure},
    output::print,
};
use std::{
    fs, io,
    path::{Path, PathBuf},
};

/// The SDK's source by its path below our root.
const SDK: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/sdk_sources.rs"));
/// Where it lies in the new crate.
const SDK_FOLDER: &str = "standpipe";

const MANIFEST: &str = include_str!("../../assets/scaffold/Cargo.toml.txt");
const README: &str = include_str!("../../assets/scaffold/README.md.txt");

/// What differs from kind to kind.
struct Template {
    /// In the README: `the source`.
    what: &'static str,
    code: &'static str,
    pipeline: &'static str,
}

macro_rules! template {
    ($what:literal, $code:literal, $pipeline:literal) => {
        Template {
            what: $what,
            code: include_str!(concat!("../../assets/scaffold/", $code)),
            pipeline: include_str!(concat!("../../assets/scaffold/", $pipeline, ".yaml.txt")),
        }
    };
}

const fn template(kind: ScaffoldKind) -> Template {
    match kind {
        ScaffoldKind::Source => template!("source", "source.rs.txt", "source"),
        ScaffoldKind::Transform => template!("transform", "transform.rs.txt", "transform"),
        ScaffoldKind::KeyedTransform => template!("keyed transform", "keyed-transform.rs.txt", "keyed-transform"),
        ScaffoldKind::Sink => template!("sink", "sink.rs.txt", "sink"),
        ScaffoldKind::Function => template!("function", "function.rs.txt", "function"),
        ScaffoldKind::Deployment => template!("deployment mode", "deployment.rs.txt", "deployment"),
    }
}

/// The names in a template.
struct Names {
    /// As it was given: the crate's.
    crate_name: String,
    /// The file's: `lib` and this.
    library: String,
    /// In pipelines. Expressions are SQL, so that a function's has no `-`.
    kind: String,
    /// The Rust type.
    type_name: String,
}

impl Names {
    fn new(name: &str, kind: ScaffoldKind) -> anyhow::Result<Self> {
        let good = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_'))
            && name.len() <= 64;
        if !good {
            let why = "expected lower-case letters, digits, - and _, beginning with a letter, at most 64: it becomes the name of a crate and of a kind";
            return Err(Failure::error(Code::Usage, format!("{name:?}: {why}")));
        }
        // Crates that the new one depends on, and names that Cargo refuses.
        if KEYWORDS.contains(&name) || TAKEN.contains(&name) || name.starts_with("standpipe-") {
            return Err(Failure::error(Code::Usage, format!("{name:?} is the name of something else already; choose another")));
        }
        let library = name.replace('-', "_");
        // With its kind behind it: it meets nothing that a template imports, whatever the name.
        let suffix = match kind {
            ScaffoldKind::Source => "Source",
            ScaffoldKind::Transform | ScaffoldKind::KeyedTransform => "Transform",
            ScaffoldKind::Sink => "Sink",
            // `ScalarFunction` and `AggregateFunction` are traits.
            ScaffoldKind::Function => "Fn",
            ScaffoldKind::Deployment => "Mode",
        };
        let type_name = name.split(['-', '_']).map(capitalized).chain([suffix.to_owned()]).collect();
        let kind = if matches!(kind, ScaffoldKind::Function) { library.clone() } else { name.to_owned() };
        Ok(Self { crate_name: name.to_owned(), library, kind, type_name })
    }

    fn fill(&self, text: &str) -> String {
        text.replace("%name%", &self.crate_name)
            .replace("%lib%", &self.library)
            .replace("%kind%", &self.kind)
            .replace("%Type%", &self.type_name)
    }
}

/// Words of Rust, which no crate can be called.
const KEYWORDS: [&str; 40] = [
    "abstract", "as", "async", "await", "become", "box", "break", "const", "continue", "crate", "do", "dyn", "else", "enum", "extern",
    "false", "final", "fn", "for", "if", "impl", "in", "let", "loop", "macro", "match", "mod", "move", "mut", "pub", "ref", "return",
    "self", "static", "struct", "trait", "true", "type", "unsafe", "use",
];
/// Crates that it depends on, and what Rust or Cargo has.
const TAKEN: [&str; 9] = ["arrow-array", "arrow-schema", "arrow-select", "schemars", "serde", "serde_json", "test", "core", "std"];

fn capitalized(word: &str) -> String {
    let mut letters = word.chars();
    letters.next().map(|first| first.to_ascii_uppercase().to_string() + letters.as_str()).unwrap_or_default()
}

/// `standpipe plugin new`.
pub(super) fn new(arguments: &NewArguments) -> anyhow::Result<()> {
    let names = Names::new(&arguments.name, arguments.kind)?;
    let folder = arguments.path.clone().unwrap_or_else(|| PathBuf::from(&arguments.name));
    let files = files(arguments, &names)?;
    let outside = |path: &Path, error: &io::Error| Failure::error(Code::Outside, format!("{}: {error}", path.display()));
    match fs::create_dir(&folder) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            return Err(Failure::error(Code::Usage, format!("{} is there already; nothing was written", folder.display())));
        }
        made => made.map_err(|error| outside(&folder, &error))?,
    }
    for (path, text) in files {
        let path = folder.join(path);
        let made = path.parent().map_or(Ok(()), fs::create_dir_all).and_then(|()| fs::write(&path, text));
        made.map_err(|error| outside(&path, &error))?;
    }
    let shown = folder.display();
    Ok(print(&format!(
        "{shown}: a {}. Next:\n  cd {shown}\n  cargo test\n  cargo build --release\n{}",
        template(arguments.kind).what,
        next(&names, arguments.kind).iter().map(|line| format!("  {line}\n")).collect::<String>()
    ))?)
}

/// How it is tried, once it is built.
fn next(names: &Names, kind: ScaffoldKind) -> Vec<String> {
    match kind {
        ScaffoldKind::Deployment => {
            vec!["mkdir jobs".to_owned(), "standpipe deploy pipeline.yaml --plugin-path target/release".to_owned()]
        }
        _ => vec!["standpipe run pipeline.yaml".to_owned()],
    }
    .into_iter()
    .chain([format!("standpipe plugin inspect target/release/lib{}.so", names.library), check(names, kind)])
    .collect()
}

/// The conformance suite: as its pipeline uses it, where that says enough.
fn check(names: &Names, kind: ScaffoldKind) -> String {
    let told = match kind {
        ScaffoldKind::Source => " --config '{\"count\": 500}'".to_owned(),
        ScaffoldKind::Transform => " --pipeline pipeline.yaml --node measured".to_owned(),
        ScaffoldKind::KeyedTransform => " --pipeline pipeline.yaml --node counted".to_owned(),
        ScaffoldKind::Sink => " --config '{\"path\": \"checked.jsonl\"}'".to_owned(),
        ScaffoldKind::Function => String::new(),
        ScaffoldKind::Deployment => format!(" --config '{{\"{}.folder\": \"jobs\"}}'", names.kind),
    };
    format!("standpipe plugin check target/release/lib{}.so{told}", names.library)
}

/// The files of the new crate by their path.
fn files(arguments: &NewArguments, names: &Names) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let Template { what, code, pipeline } = template(arguments.kind);
    let sdk = match &arguments.sdk {
        None => format!("{SDK_FOLDER}/core/sdk"),
        Some(clone) => {
            let sdk = clone.join("core/sdk").canonicalize();
            let sdk = sdk.map_err(|error| Failure::error(Code::Usage, format!("--sdk {}: {error}", clone.join("core/sdk").display())))?;
            sdk.display().to_string()
        }
    };
    let source = match arguments.sdk {
        None => "- `standpipe/` is the SDK's source, as the `standpipe` that wrote this crate has it.\n",
        Some(_) => "",
    };
    let run = next(names, arguments.kind).iter().map(|line| format!("$ {line}\n")).collect::<String>();
    let mut files = vec![
        (PathBuf::from("Cargo.toml"), names.fill(&MANIFEST.replace("%sdk%", &sdk))),
        (PathBuf::from("README.md"), names.fill(&README.replace("%what%", what).replace("%run%", &run).replace("%source%", source))),
        (PathBuf::from("pipeline.yaml"), names.fill(pipeline)),
        (PathBuf::from("src/lib.rs"), names.fill(code)),
        (PathBuf::from(".gitignore"), "/target\n".to_owned()),
    ];
    for (path, text) in SDK {
        match *path {
            // The versions that this release was tested with: Cargo keeps those that the crate needs.
            "Cargo.lock" => files.push((PathBuf::from(path), (*text).to_owned())),
            _ if arguments.sdk.is_some() => {}
            "Cargo.toml" => files.push((Path::new(SDK_FOLDER).join(path), sdk_workspace(text))),
            _ => files.push((Path::new(SDK_FOLDER).join(path), (*text).to_owned())),
        }
    }
    Ok(files)
}

/// The manifest of our workspace with the SDK's crates alone: what they inherit is the same.
fn sdk_workspace(text: &str) -> String {
    let mut out = String::from(
        "# The SDK of Standpipe, for the plugin above.\n[workspace]\nresolver = \"3\"\nmembers = [\"core/abi\", \"core/sdk\"]\n",
    );
    let mut is_kept = false;
    for line in text.lines() {
        if line.starts_with('[') {
            is_kept = line.starts_with("[workspace.");
        }
        if is_kept {
            out.push_str(line);
            out.push('\n');
        }
    }
    out
}
