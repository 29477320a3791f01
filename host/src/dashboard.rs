//! The dashboard's files, which are in the binary: the job manager serves them, and they load nothing from anywhere else. They are written by hand, as they are served: HTML,
//! CSS, and modules that browsers run as they are.

use standpipe_cluster::server::Asset;

macro_rules! files {
    ($($name:literal: $content_type:expr),* $(,)?) => {
        &[$((concat!("/ui/", $name), Asset { content_type: $content_type, bytes: include_bytes!(concat!("../assets/dashboard/", $name)) })),*]
    };
}

const SCRIPT: &str = "text/javascript; charset=utf-8";
const PAGE: &str = "/ui/index.html";

const FILES: &[(&str, Asset)] = files! {
    "index.html": "text/html; charset=utf-8",
    "style.css": "text/css; charset=utf-8",
    "icon.svg": "image/svg+xml",
    "main.js": SCRIPT,
    "api.js": SCRIPT,
    "dom.js": SCRIPT,
    "format.js": SCRIPT,
    "charts.js": SCRIPT,
    "dialogs.js": SCRIPT,
    "graph.js": SCRIPT,
    "jobs.js": SCRIPT,
    "job.js": SCRIPT,
    "job-overview.js": SCRIPT,
    "job-checkpoints.js": SCRIPT,
    "job-more.js": SCRIPT,
    "job-rows.js": SCRIPT,
    "row-charts.js": SCRIPT,
    "taskmanagers.js": SCRIPT,
};

/// The file of a path; the page itself is at `/`.
pub(crate) fn asset(path: &str) -> Option<Asset> {
    let wanted = if path == "/" { PAGE } else { path };
    FILES.iter().find(|(name, _)| *name == wanted).map(|(_, asset)| *asset)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, fs, path::Path};

    #[test]
    fn every_file_is_served_and_needs_no_other_than_these() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/dashboard");
        let there: BTreeSet<String> =
            fs::read_dir(folder).unwrap().map(|entry| format!("/ui/{}", entry.unwrap().file_name().to_str().unwrap())).collect();
        assert_eq!(there, FILES.iter().map(|(name, _)| (*name).to_owned()).collect());
        assert!(asset("/").is_some() && asset("/jobs").is_none());
        for (name, file) in FILES {
            let text = std::str::from_utf8(file.bytes).unwrap();
            let imports = text.lines().filter_map(|line| line.strip_prefix("import ")).filter_map(|line| line.rsplit('"').nth(1));
            for import in imports {
                let path = import.replace("./", "/ui/");
                assert!(asset(&path).is_some(), "{name} imports {import}");
            }
            let foreign =
                text.split(['"', '\'', '`', '(', ' ']).find(|word| word.contains("://") && !word.starts_with("http://www.w3.org/2000/svg"));
            assert_eq!(foreign, None, "{name} names another place");
            for inline in ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", " style=\"", " onclick=\""] {
                assert!(!text.contains(inline), "{name} has {inline}");
            }
        }
    }
}
