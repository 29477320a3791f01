//! What would be created, as YAML documents for people and for `kubectl apply --dry-run=server`. No secret is made for it.

use crate::{manifests::Plan, secrets::PLACEHOLDER};
use serde_json::Value;
use standpipe_sdk::{Error, ErrorCode, Result};

/// Bytes of files that a preview shows: `kubectl apply` keeps what it applied in an annotation, of 256 KiB at most.
pub(crate) const MOST_BYTES: usize = 128 << 10;

/// The documents of a job, in the order of their creation.
///
/// # Errors
/// When the configuration does not fit the job.
pub(crate) fn documents(plan: &Plan<'_>) -> Result<String> {
    plan.check()?;
    let mut text = format!(
        "# What `standpipe deploy` creates of {}, in this order. The Job is first; it owns all others, once it has a uid, and they end with it.\n\
         # Its deadline is taken away when the manager has the job.\n",
        plan.names.id
    );
    for manifest in std::iter::once(plan.job()).chain(plan.owned(None)?) {
        text.push_str("---\n");
        match manifest.get("kind").and_then(Value::as_str) {
            Some("Secret") => {
                text.push_str(&format!(
                    "# {PLACEHOLDER}: at deploy each value is made anew: a random token, and a certificate of an authority of this job.\n"
                ));
            }
            Some("ConfigMap") => text.push_str(&left_out(plan)),
            _ => {}
        }
        let document = serde_saphyr::to_string(&manifest);
        text.push_str(&document.map_err(|error| Error::new(ErrorCode::OTHER, format!("a manifest as YAML: {error}")))?);
        if !text.ends_with('\n') {
            text.push('\n');
        }
    }
    Ok(text)
}

/// The files of the bundle that are not shown.
fn left_out(plan: &Plan<'_>) -> String {
    let line = |file: &standpipe_sdk::bundle::BundleFile| format!("#   {} ({} bytes, {})\n", file.path, file.bytes, file.hash);
    let files: String = plan.content.outside.iter().map(line).collect();
    if files.is_empty() {
        return files;
    }
    format!(
        "# Not shown here. What still fits goes along at deploy; of the others the manager has those of its image, and is sent the rest:\n{files}"
    )
}
