//! `isolation:` of a node: whether its plugin runs in a process of its own, and what that may use.

use super::reader::{Item, Section};
use crate::yaml::Data;
use standpipe_isolation::{Limits, Sandbox};
use std::path::PathBuf;

pub(crate) const ISOLATION_KEYS: [&str; 3] = ["mode", "memory", "sandbox"];
pub(crate) const SANDBOX_KEYS: [&str; 2] = ["read", "write"];
/// A process has as much before the plugin has begun.
const LEAST_MEMORY: u64 = 16 << 20;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    None,
    Process,
}

const MODES: [(&str, Mode); 2] = [("none", Mode::None), ("process", Mode::Process)];

/// `isolation: process`, or a map with limits. The inner `None`: in the process of the job.
pub(super) fn isolation(section: &Section<'_>) -> Option<Option<Limits>> {
    section.optional("isolation", read).map(Option::flatten)
}

/// Of a transform, which may have no keys then.
pub(super) fn of_transform(section: &Section<'_>) -> Option<Option<Limits>> {
    let isolation = isolation(section)?;
    if let (Some(_), Some(item), true) = (&isolation, section.get("isolation"), section.has("key_by")) {
        let message =
            "a transform with key_by cannot run in a process of its own: its keyed state is in the job's; leave out isolation, or key_by";
        section.report.error(item.key_span, &item.path, message);
        return None;
    }
    Some(isolation)
}

fn read(item: Item<'_>) -> Option<Option<Limits>> {
    if matches!(item.node.data, Data::Scalar(_)) {
        let mode = item.word(&MODES)?;
        return Some((mode.value == Mode::Process).then(Limits::default));
    }
    let section = Section::open(item, &ISOLATION_KEYS)?;
    let memory = section.optional("memory", |item| {
        let size = item.size()?;
        if size.value < LEAST_MEMORY {
            item.error("is less than a process has before its plugin has begun; write 16MiB at least");
            return None;
        }
        Some(size.value)
    });
    let sandbox = section.optional("sandbox", sandbox);
    let mode = section.required("mode")?.word(&MODES)?;
    let limits = Limits { memory: memory?, sandbox: sandbox? };
    if mode.value == Mode::Process {
        return Some(Some(limits));
    }
    match ["memory", "sandbox"].into_iter().find_map(|key| section.get(key)) {
        None => Some(None),
        Some(item) => {
            section.report.error(item.key_span, &item.path, "means nothing to mode: none, which is the process of the job");
            None
        }
    }
}

/// `{read: [...], write: [...]}`
fn sandbox(item: Item<'_>) -> Option<Sandbox> {
    let section = Section::open(item, &SANDBOX_KEYS)?;
    let paths = |key: &str| Some(section.optional(key, paths)?.unwrap_or_default());
    let (read, write) = (paths("read"), paths("write"));
    Some(Sandbox { read: read?, write: write? })
}

/// Paths, which `explain` shows.
fn paths(item: Item<'_>) -> Option<Vec<PathBuf>> {
    let texts = item.texts()?;
    if let Some(secret) = texts.iter().find(|text| text.secret) {
        item.report.error(secret.span, &item.path, format!("{secret:?}: a reference cannot be a path here"));
        return None;
    }
    Some(texts.into_iter().map(|text| text.value.into()).collect())
}
