//! `plugins.lock`: the plugin files that a pipeline runs with, a small YAML file beside it. [`read`] says what is wrong with one and where; [`of`] makes that of a plan,
//! [`text`] its text. What a lock means is the loader's ([`Lock`]).

use crate::{
    diagnostic::{Diagnostics, Report, Span},
    file::reader::{Item, Section},
    plan::Plan,
    substitute,
    yaml::{self, Value},
};
use standpipe_loader::{Catalogue, Lock, LockedPlugin, platform};
use std::{collections::BTreeMap, fmt::Write, path::Path, sync::Arc};

/// Its name beside a pipeline file.
pub const FILE_NAME: &str = "plugins.lock";
/// The form of these files.
const FORM: i128 = 1;
const KEYS: [&str; 2] = ["version", "plugins"];
const PLUGIN_KEYS: [&str; 5] = ["plugin", "version", "file", "kinds", "sha256"];

/// Reads a lock.
///
/// # Errors
/// All that is wrong with it; external if it cannot be read.
pub fn read(path: &Path) -> Result<Lock, Diagnostics> {
    let report = Report::new(vec![path.display().to_string()]);
    let bytes = std::fs::read(path).map_err(|error| {
        report.external(Span::default(), "", format!("cannot read the file: {}", substitute::io_problem(&error)));
        report.failed()
    })?;
    let Ok(text) = String::from_utf8(bytes) else {
        report.error(Span::default(), "", "not UTF-8 text");
        return Err(report.failed());
    };
    let plugins = yaml::parse(&text, 0, &report)
        .and_then(|root| plugins(Item { report: &report, path: String::new(), key_span: root.span, node: &root }));
    report.check()?;
    Ok(Lock { path: path.to_owned(), plugins: plugins.unwrap_or_default() })
}

fn plugins(item: Item<'_>) -> Option<Vec<LockedPlugin>> {
    let section = Section::open(item, &KEYS)?;
    let form = section.required("version")?;
    if form.scalar().is_none_or(|scalar| scalar.value != Value::Integer(FORM)) {
        form.expected(&format!("{FORM}, the form that this release reads"));
        return None;
    }
    let found: Vec<Option<LockedPlugin>> = section.required("plugins")?.list()?.into_iter().map(plugin).collect();
    found.into_iter().collect()
}

fn plugin(item: Item<'_>) -> Option<LockedPlugin> {
    let line = item.span().line;
    let section = Section::open(item, &PLUGIN_KEYS)?;
    let text = |key: &str| section.required(key).and_then(|item| item.text()).map(|text| text.value);
    let (plugin, version) = (text("plugin"), text("version"));
    let optional = |key: &'static str| section.optional(key, |item| item.text());
    let file = optional("file");
    let kinds = section.optional("kinds", |item| item.texts());
    let sha256 = section.required("sha256").and_then(hashes);
    Some(LockedPlugin {
        line,
        plugin: plugin?,
        version: version?,
        file: file?.map(|text| text.value).unwrap_or_default(),
        kinds: kinds?.unwrap_or_default().into_iter().map(|text| text.value).collect(),
        sha256: sha256?,
    })
}

fn hashes(item: Item<'_>) -> Option<BTreeMap<String, String>> {
    let section = Section::open_any(item)?;
    let hash = |(platform, item): (&str, Item<'_>)| {
        let text = item.text()?.value;
        if text.len() != 64 || !text.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f')) {
            item.expected("the SHA-256 of a file, 64 hexadecimal digits in lower case");
            return None;
        }
        Some((platform.to_owned(), text))
    };
    let found: Vec<Option<(String, String)>> = section.items().map(hash).collect();
    found.into_iter().collect()
}

/// The lock of a plan: each of its plugin files once, in the order in which the catalogue prefers them, so that of those in the lock the same are chosen by the same names.
/// What a former lock has of the same plugins for other platforms stays.
#[must_use]
pub fn of(plan: &Plan, catalogue: &Catalogue, path: &Path, former: Option<&Lock>) -> Lock {
    let mut used = plan.plugins();
    used.retain(|used| !used.plugin.path.as_os_str().is_empty());
    used.sort_by_cached_key(|used| catalogue.preference(used.plugin));
    let mut plugins: Vec<LockedPlugin> = Vec::new();
    let mut last = None;
    for used in &used {
        let file = used.plugin;
        if !last.is_some_and(|last| Arc::ptr_eq(last, file)) {
            let file_name = file.path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            let is_same = |locked: &&LockedPlugin| locked.plugin == file.name && locked.version == file.version && locked.file == file_name;
            let mut sha256 =
                former.and_then(|lock| lock.plugins.iter().find(is_same)).map(|locked| locked.sha256.clone()).unwrap_or_default();
            sha256.insert(platform(), file.hash());
            plugins.push(LockedPlugin {
                plugin: file.name.clone(),
                version: file.version.clone(),
                file: file_name,
                sha256,
                ..LockedPlugin::default()
            });
        }
        last = Some(file);
        let kind = format!("{} {}", used.kind, used.name);
        if let Some(locked) = plugins.last_mut().filter(|locked| !locked.kinds.contains(&kind)) {
            locked.kinds.push(kind);
        }
    }
    plugins.iter_mut().for_each(|locked| locked.kinds.sort());
    Lock { path: path.to_owned(), plugins }
}

/// The text of a lock, which [`read`] reads.
#[must_use]
pub fn text(lock: &Lock) -> String {
    let mut out = String::from(
        "# Written by `standpipe plugin lock`: the plugin files that the pipeline beside it runs with. Of several that fit a name the first one here is used.\n",
    );
    // Writing to a String does not fail.
    let _ = write(lock, &mut out);
    out
}

fn write(lock: &Lock, out: &mut String) -> std::fmt::Result {
    // A text of JSON is one of YAML.
    let quoted = |text: &str| serde_json::Value::from(text).to_string();
    writeln!(out, "version: {FORM}\nplugins:{}", if lock.plugins.is_empty() { " []" } else { "" })?;
    for locked in &lock.plugins {
        writeln!(out, "  - plugin: {}", quoted(&locked.plugin))?;
        writeln!(out, "    version: {}", quoted(&locked.version))?;
        writeln!(out, "    file: {}", quoted(&locked.file))?;
        writeln!(out, "    kinds: [{}]", locked.kinds.iter().map(|kind| quoted(kind)).collect::<Vec<_>>().join(", "))?;
        writeln!(out, "    sha256:")?;
        for (platform, hash) in &locked.sha256 {
            writeln!(out, "      {platform}: {}", quoted(hash))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<Lock, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(FILE_NAME);
        std::fs::write(&path, text).unwrap();
        let prefix = format!("{}/", folder.path().display());
        read(&path).map(|lock| Lock { path: FILE_NAME.into(), ..lock }).map_err(|problems| problems.to_string().replace(&prefix, ""))
    }

    #[test]
    fn a_lock_is_read_as_it_is_written() {
        let hash = |digit: &str| digit.repeat(64);
        let plugin = |line, plugin: &str, version: &str, kinds: &[&str]| LockedPlugin {
            line,
            plugin: plugin.to_owned(),
            version: version.to_owned(),
            file: format!("lib{plugin}.so"),
            kinds: kinds.iter().map(|kind| (*kind).to_owned()).collect(),
            sha256: [("x86_64-linux".to_owned(), hash("1")), ("aarch64-linux".to_owned(), hash("e"))].into(),
        };
        let plugins = vec![plugin(4, "kafka", "1.2", &["sink kafka", "source kafka"]), plugin(11, "a \"b\"", "0.1.0", &[])];
        let lock = Lock { path: FILE_NAME.into(), plugins };
        assert_eq!(read_text(&text(&lock)), Ok(lock));
        let none = Lock { path: FILE_NAME.into(), plugins: Vec::new() };
        assert_eq!(read_text(&text(&none)), Ok(none));
    }

    #[test]
    fn what_is_wrong_with_a_lock_is_said_with_its_place() {
        let good = "version: 1\nplugins:\n  - plugin: a\n    version: 1.2.3\n    sha256: {x86_64-linux: ";
        for (text, message) in [
            (String::new(), "plugins.lock:1:1: the file is empty".to_owned()),
            ("version: 2\nplugins: []\n".to_owned(), "plugins.lock:1:10: version: expected 1, the form that this release reads, found \"2\"".to_owned()),
            ("version: 1\n".to_owned(), "plugins.lock:1:1: missing key \"plugins\"".to_owned()),
            (format!("{good}abc}}\n"), "plugins.lock:5:28: plugins[0].sha256.x86_64-linux: expected the SHA-256 of a file, 64 hexadecimal digits in lower case, found \"abc\"".to_owned()),
            ("version: 1\nplugins:\n  - plugin: a\n    version: 1.2.3\n    hash: x\n".to_owned(), "plugins.lock:3:5: plugins[0]: missing key \"sha256\"\nplugins.lock:5:5: plugins[0]: unknown key \"hash\"; keys: file, kinds, sha256".to_owned()),
            ("version: 1\nplugins: [\n".to_owned(), String::new()),
        ] {
            let problem = read_text(&text).unwrap_err();
            if message.is_empty() {
                assert!(problem.starts_with("plugins.lock:"), "{problem}");
            } else {
                assert_eq!(problem, message, "{text}");
            }
        }
        assert!(read(Path::new("/no/such/plugins.lock")).unwrap_err().outside());
    }
}
