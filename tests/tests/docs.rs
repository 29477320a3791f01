//! README and docs are true: the pipelines that they show are accepted, the commands give the output that stands behind them, options exist, links lead somewhere.
//!
//! In a page, a block ```` ```yaml ```` that begins with a comment like `# count.yaml` is the file of that name; a block ```` ```console ```` has commands behind `$ ` and their output; a block
//! that begins with `// examples/...` or `# examples/...` is that file of the repository. Each page has a folder of its own, with `examples/` in it.
#![deny(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use standpipe_tests::{Folder, binary, example_plugin, free_port, repository, standpipe};
use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
};

/// The plugin of docs/first-plugin.md with its tests.
#[allow(unreachable_pub, reason = "public in a crate of its own")]
#[path = "../../examples/plugins/countdown/src/lib.rs"]
mod countdown;

/// A fenced block.
struct Block {
    language: String,
    text: String,
}

struct Page {
    name: String,
    /// Without its blocks.
    prose: String,
    blocks: Vec<Block>,
}

impl Page {
    fn read(path: &Path) -> Self {
        let name = path.strip_prefix(repository()).unwrap().display().to_string();
        let (mut prose, mut blocks, mut open) = (String::new(), Vec::new(), None::<Block>);
        for line in fs::read_to_string(path).unwrap().lines() {
            match (line.strip_prefix("```"), open.take()) {
                (Some(_), Some(block)) => blocks.push(block),
                (Some(language), None) => open = Some(Block { language: language.to_owned(), text: String::new() }),
                (None, Some(block)) => open = Some(Block { text: block.text + line + "\n", ..block }),
                (None, None) => prose = prose + line + "\n",
            }
        }
        assert!(open.is_none(), "{name}: a block does not end");
        Self { name, prose, blocks }
    }

    /// A folder with what the page's commands use.
    fn folder(&self) -> Folder {
        let folder = Folder::new();
        copy(&repository().join("examples"), &folder.at("examples"));
        fs::copy(example_plugin("countdown"), folder.at("libcountdown.so")).unwrap();
        for (index, block) in self.blocks.iter().enumerate().filter(|(_, block)| block.language == "yaml") {
            let name = block.text.lines().next().and_then(|line| line.strip_prefix("# ")).filter(|name| name.ends_with(".yaml"));
            folder.write(&name.map_or_else(|| format!("block-{index}.yaml"), str::to_owned), &block.text);
        }
        folder
    }
}

/// Copies the files of a folder, and those of its folders but `out`, which other tests write, and `plugins`.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let name = entry.file_name();
        if !entry.path().is_dir() {
            fs::copy(entry.path(), to.join(name)).unwrap();
        } else if name != "out" && name != "plugins" {
            copy(&entry.path(), &to.join(name));
        }
    }
}

fn pages() -> Vec<Page> {
    let mut paths = vec!["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md"]
        .into_iter()
        .map(|name| repository().join(name))
        .collect::<Vec<_>>();
    paths.extend(fs::read_dir(repository().join("docs")).unwrap().map(|entry| entry.unwrap().path()));
    paths.sort();
    paths.iter().filter(|path| path.extension().is_some_and(|extension| extension == "md")).map(|path| Page::read(path)).collect()
}

/// What a shell prints for a command, on both streams, and whether it succeeded.
fn shell(command: &str, folder: &Folder) -> (String, bool) {
    let path = format!("{}:{}", binary().parent().unwrap().display(), env::var("PATH").unwrap());
    let mut shell = Command::new("sh");
    for name in ["STANDPIPE_PLUGIN_PATH", "STANDPIPE_LOG", "STANDPIPE_LOG_FORMAT"] {
        shell.env_remove(name);
    }
    let output = shell.arg("-c").arg(format!("{{ {command}\n}} 2>&1")).current_dir(folder.path()).env("PATH", path).env("LC_ALL", "C");
    let output = output.output().unwrap();
    (String::from_utf8(output.stdout).unwrap(), output.status.success())
}

/// The text with `finished in T s: ` for any time.
fn timeless(text: &str) -> String {
    let line = |line: &str| match line.split_once(" in ").map(|(before, rest)| (before, rest.split_once(" s: "))) {
        Some((before, Some((time, after)))) if time.parse::<f64>().is_ok() => format!("{before} in T s: {after}\n"),
        _ => format!("{line}\n"),
    };
    text.lines().map(line).collect()
}

/// A cluster that a page has started does not outlive a failure.
struct StopCluster(PathBuf);

impl Drop for StopCluster {
    fn drop(&mut self) {
        if self.0.join("cluster.json").exists() {
            drop(Command::new(binary()).args(["cluster", "stop", "--data"]).arg(&self.0).output());
        }
    }
}

#[test]
fn what_is_shown_is_what_comes() {
    let mut commands = 0;
    for mut page in pages() {
        // The usual port may be taken here.
        let port = free_port().to_string();
        page.blocks.iter_mut().for_each(|block| block.text = block.text.replace("8081", &port));
        let folder = page.folder();
        let _stop = StopCluster(folder.at("cluster"));
        for block in page.blocks.iter().filter(|block| block.language == "console") {
            for command in block.text.strip_prefix("$ ").expect("a block begins with a command").split("\n$ ") {
                let (command, expected) = command.split_once('\n').unwrap_or((command, ""));
                let (found, _) = shell(command, &folder);
                assert_eq!(timeless(&found), timeless(expected), "{}: {command}", page.name);
                commands += 1;
            }
        }
    }
    assert!(commands >= 8, "only {commands} commands were found");
}

#[test]
fn every_pipeline_is_accepted() {
    let mut pipelines = 0;
    for page in pages() {
        let folder = page.folder();
        for name in folder.names().iter().filter(|name| name.ends_with(".yaml")) {
            let finished = standpipe(["check", name]).in_directory(folder.path()).plugin_path("libcountdown.so").finish().code(0);
            assert!(finished.stderr.contains(" is valid: "), "{}: {name}: {}", page.name, finished.stderr);
            pipelines += 1;
        }
    }
    assert!(pipelines >= 6, "only {pipelines} pipelines were found");
}

#[test]
fn every_command_and_option_exists() {
    let mut commands = 0;
    for page in pages() {
        let folder = page.folder();
        let shown = page.blocks.iter().filter(|block| block.language == "sh").flat_map(|block| block.text.lines());
        let mentioned = page.prose.split('`').skip(1).step_by(2);
        for command in shown.chain(mentioned).filter(|text| text.starts_with("standpipe ")) {
            let command = command.split_whitespace().collect::<Vec<_>>().join(" ");
            let (output, is_known) = shell(&format!("{command} --help"), &folder);
            assert!(is_known && output.contains("Usage: standpipe"), "{}: {command}: {output}", page.name);
            commands += 1;
        }
    }
    assert!(commands >= 10, "only {commands} commands were found");
}

#[test]
fn files_that_are_shown_are_as_shown() {
    let mut files = 0;
    for page in pages() {
        for block in &page.blocks {
            let (first, text) = block.text.split_once('\n').unwrap_or_default();
            let name = first.strip_prefix("// ").or_else(|| first.strip_prefix("# ")).filter(|name| name.starts_with("examples/"));
            if let Some(name) = name {
                assert_eq!(text, fs::read_to_string(repository().join(name)).unwrap(), "{}: {name}", page.name);
                files += 1;
            }
        }
    }
    assert_eq!(files, 2);
}

/// The name of a heading in links.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase().replace(' ', "-");
    kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).collect()
}

#[test]
fn links_lead_somewhere() {
    let mut links = 0;
    for page in pages() {
        for link in page.prose.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
            assert!(!link.contains("://"), "{}: {link} leads outside", page.name);
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let own = repository().join(&page.name);
            let target = if file.is_empty() { own } else { own.parent().unwrap().join(file) };
            assert!(target.exists(), "{}: {link} leads nowhere", page.name);
            let headings = || {
                Page::read(&target.canonicalize().unwrap())
                    .prose
                    .lines()
                    .map(|line| anchor(line.trim_start_matches('#')))
                    .collect::<Vec<_>>()
            };
            assert!(heading.is_empty() || headings().iter().any(|name| name == heading), "{}: {link}: no such heading", page.name);
            links += 1;
        }
    }
    assert!(links > 20, "only {links} links were found");
}

#[test]
fn every_key_of_a_pipeline_file_is_described() {
    let schema: serde_json::Value = serde_json::from_str(&standpipe(["schema"]).finish().code(0).stdout).unwrap();
    let page = fs::read_to_string(repository().join("docs/pipeline.md")).unwrap();
    let definitions = schema["$defs"].as_object().unwrap().values().chain([&schema]);
    let keys: Vec<&String> =
        definitions.filter_map(|definition| definition["properties"].as_object()).flat_map(|keys| keys.keys()).collect();
    assert!(keys.len() > 40, "{keys:?}");
    let missing: Vec<_> = keys.iter().filter(|key| !page.contains(&format!("`{key}`"))).collect();
    assert!(missing.is_empty(), "docs/pipeline.md does not describe {missing:?}");
}
