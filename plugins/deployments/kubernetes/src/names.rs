//! What Kubernetes takes for names, labels, quantities and images, with what a wrong one should have been. Rules and limits are those of its own validation
//! (`k8s.io/apimachinery/pkg/util/validation`): a wrong value is told before anything is created.

/// Characters of a name that is one part of a DNS name.
const MOST_OF_LABEL: usize = 63;
/// Characters of a name that may have dots.
const MOST_OF_SUBDOMAIN: usize = 253;
/// Characters of a cluster id: a stateful set is called by it and `-taskmanager`, and the revision of that and ten more characters is a label of its pods, of 63 at most.
pub(crate) const MOST_OF_ID: usize = 40;
/// Where Kubernetes' own labels begin that a job's objects have.
const OWN: [&str; 6] = [
    "app.kubernetes.io/name",
    "app.kubernetes.io/instance",
    "app.kubernetes.io/component",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "standpipe.io/",
];

/// What is wrong with a text, if anything is.
pub(crate) type Checked = Result<(), String>;

fn is_lower(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit()
}

fn is_label(text: &str) -> bool {
    text.len() <= MOST_OF_LABEL && is_part(text)
}

/// A part of a name with dots, of any length.
fn is_part(text: &str) -> bool {
    let ends = |byte: Option<&u8>| byte.copied().is_some_and(is_lower);
    let bytes = text.as_bytes();
    ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(|byte| is_lower(*byte) || *byte == b'-')
}

/// A namespace, a volume's name.
pub(crate) fn label_name(text: &str) -> Checked {
    let rule = "lower-case letters, digits and \"-\", at most 63, a letter or digit at both ends";
    if is_label(text) { Ok(()) } else { Err(format!("expected a name ({rule}), found {text:?}")) }
}

/// A job's name in Kubernetes: services are called so, which begin with a letter.
pub(crate) fn cluster_id(text: &str) -> Checked {
    if is_label(text) && text.len() <= MOST_OF_ID && text.starts_with(|first: char| first.is_ascii_lowercase()) {
        return Ok(());
    }
    let rule = "lower-case letters, digits and \"-\", at most 40, a letter first, a letter or digit last";
    Err(format!("expected a name ({rule}), found {text:?}"))
}

/// The name of a secret, claim, config map or service account.
pub(crate) fn object_name(text: &str) -> Checked {
    if text.len() <= MOST_OF_SUBDOMAIN && text.split('.').all(is_part) {
        return Ok(());
    }
    let rule = "lower-case letters, digits, \"-\" and \".\", at most 253, a letter or digit at both ends";
    Err(format!("expected an object's name ({rule}), found {text:?}"))
}

/// A word of labels, of at most 63.
fn is_word(text: &str) -> bool {
    let bytes = text.as_bytes();
    let ends = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_alphanumeric);
    let within = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    bytes.len() <= MOST_OF_LABEL && ends(bytes.first()) && ends(bytes.last()) && bytes.iter().all(within)
}

/// The key of a label, annotation or taint: a word, with a DNS name and `/` before it or without.
pub(crate) fn qualified_name(text: &str) -> Checked {
    let (prefix, word) = text.split_once('/').map_or((None, text), |(prefix, word)| (Some(prefix), word));
    if is_word(word) && prefix.is_none_or(|prefix| object_name(prefix).is_ok()) {
        return Ok(());
    }
    let rule = "letters, digits, \"-\", \"_\" and \".\", at most 63, before them a DNS name and \"/\" or nothing";
    Err(format!("expected a key ({rule}), found {text:?}"))
}

/// A key of a label or annotation that is not one of ours.
pub(crate) fn free_key(text: &str) -> Checked {
    qualified_name(text)?;
    match OWN.iter().find(|own| text == **own || own.ends_with('/') && text.starts_with(**own)) {
        Some(own) => Err(format!("{own} is set by the mode itself")),
        None => Ok(()),
    }
}

/// The value of a label.
pub(crate) fn label_value(text: &str) -> Checked {
    if text.is_empty() || is_word(text) {
        return Ok(());
    }
    let rule = "letters, digits, \"-\", \"_\" and \".\", at most 63, a letter or digit at both ends";
    Err(format!("expected a value ({rule}), found {text:?}"))
}

/// The name of an environment variable.
pub(crate) fn variable(text: &str) -> Checked {
    let is_first = |byte: u8| byte.is_ascii_alphabetic() || b"-._".contains(&byte);
    let within = |byte: u8| is_first(byte) || byte.is_ascii_digit();
    if text.bytes().next().is_some_and(is_first) && text.bytes().all(within) {
        return Ok(());
    }
    Err(format!("expected the name of a variable (letters, digits, \"_\", \"-\", \".\", no digit first), found {text:?}"))
}

/// The key of a secret or config map.
pub(crate) fn data_key(text: &str) -> Checked {
    let within = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
    if !text.is_empty() && text.len() <= MOST_OF_SUBDOMAIN && text.bytes().all(within) && text != "." && text != ".." {
        return Ok(());
    }
    Err(format!("expected a key of a secret or config map (letters, digits, \"-\", \"_\", \".\"), found {text:?}"))
}

/// A path in a container.
pub(crate) fn mount_path(text: &str) -> Checked {
    if text.starts_with('/') && text.len() > 1 && !text.contains(':') && !text.split('/').any(|part| part == "..") {
        return Ok(());
    }
    Err(format!("expected an absolute path without \":\" and \"..\", found {text:?}"))
}

/// The number of a quantity and its suffix, if it is a quantity above zero.
fn quantity(text: &str) -> Option<&str> {
    let (number, suffix) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len()));
    let value: f64 = number.parse().ok().filter(|value| *value > 0.0)?;
    let suffixes = ["", "n", "u", "m", "k", "M", "G", "T", "P", "E", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
    let exponent = |rest: &str| rest.strip_prefix(['e', 'E']).is_some_and(|digits| digits.parse::<i16>().is_ok());
    (value.is_finite() && (suffixes.contains(&suffix) || exponent(suffix))).then_some(suffix)
}

/// Processors: `1`, `0.5`, `500m`.
pub(crate) fn cpu(text: &str) -> Checked {
    match quantity(text) {
        Some("" | "m") => Ok(()),
        _ => Err(format!("expected processors such as 1, 0.5 or 500m, found {text:?}")),
    }
}

/// Bytes: `1Gi`, `512Mi`, `2G`.
pub(crate) fn memory(text: &str) -> Checked {
    match quantity(text) {
        Some("m" | "u" | "n") => {
            Err(format!("expected memory such as 512Mi or 2Gi, found {text:?}, which is less than a byte of each unit"))
        }
        Some(_) => Ok(()),
        None => Err(format!("expected memory such as 512Mi or 2Gi, found {text:?}")),
    }
}

/// `registry:5000/path/name:tag@sha256:...`.
pub(crate) fn image(text: &str) -> Checked {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"-._/:@+".contains(&byte);
    let (name, digest) = text.split_once('@').map_or((text, None), |(name, digest)| (name, Some(digest)));
    let (path, tag) = match name.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
        _ => (name, None),
    };
    let is_tag = |tag: &str| (1..=128).contains(&tag.len()) && !tag.starts_with(['.', '-']) && !tag.contains(['/', ':', '+']);
    let is_digest = |digest: &str| digest.split_once(':').is_some_and(|(kind, hex)| !kind.is_empty() && hex.len() >= 32);
    let mut parts = path.split('/');
    // The first part may be a registry with a port.
    let first = parts.next().unwrap_or_default();
    let rest: Vec<&str> = parts.collect();
    let is_part = |part: &str| !part.is_empty() && part.bytes().all(|byte| is_lower(byte) || b"-._".contains(&byte));
    let is_first = if rest.is_empty() { is_part(first) } else { !first.is_empty() };
    let good = text.bytes().all(is_allowed) && is_first && rest.iter().all(|part| is_part(part));
    if good && tag.is_none_or(is_tag) && digest.is_none_or(is_digest) {
        return Ok(());
    }
    Err(format!("expected an image such as standpipe:latest or registry.example.com/team/standpipe:0.1.0, found {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(check: fn(&str) -> Checked, good: &[&str], bad: &[&str]) {
        for text in good {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        for text in bad {
            assert!(check(text).is_err_and(|why| why.contains(&format!("{text:?}"))), "{text}");
        }
    }

    #[test]
    fn names_are_those_that_kubernetes_takes() {
        table(label_name, &["a", "a-b", "0a", &"a".repeat(63)], &["", "A", "-a", "a-", "a.b", "a_b", &"a".repeat(64), "ä"]);
        table(cluster_id, &["a", "a-0", &"a".repeat(40)], &["", "0a", "a-", "A", &"a".repeat(41)]);
        table(object_name, &["a", "a.b-c.0"], &["", ".", "a..b", "a.", "A"]);
        table(qualified_name, &["a", "A_b.c-D", "example.com/a"], &["", "/a", "a/", "a/b/c", "-a", "Ex.com/a", &"a".repeat(64)]);
        table(label_value, &["", "a", "A_b.c"], &["-", "a b", "a/b", &"a".repeat(64)]);
        table(variable, &["A", "_a", "A_1", "a.b-c"], &["", "1A", "A B", "A=B"]);
        table(data_key, &["a", ".x", "A_b"], &["", ".", "..", "a/b"]);
        table(mount_path, &["/a", "/a/b"], &["", "/", "a", "/a/../b", "/a:b"]);
    }

    #[test]
    fn keys_of_the_mode_stay_its_own() {
        assert!(free_key("team").is_ok() && free_key("app.kubernetes.io/part-of").is_ok());
        assert_eq!(free_key("app.kubernetes.io/name").unwrap_err(), "app.kubernetes.io/name is set by the mode itself");
        assert_eq!(free_key("standpipe.io/status").unwrap_err(), "standpipe.io/ is set by the mode itself");
    }

    #[test]
    fn quantities_are_those_that_kubernetes_takes() {
        table(cpu, &["1", "0.5", "500m", "2."], &["", "0", "1Gi", "-1", "1 ", "m", "1.5.2"]);
        table(memory, &["1Gi", "512Mi", "2G", "1000000", "1e9", "1.5Gi"], &["", "0Gi", "1GB", "512m", "1gi", "e9"]);
    }

    #[test]
    fn images_are_references() {
        let good =
            ["standpipe", "standpipe:latest", "localhost:5000/standpipe:1", "a.example/b/c:1.0-x", &format!("a@sha256:{}", "0".repeat(64))];
        table(image, &good, &["", "a b", "Standpipe:latest", "a:", ":a", "a//b", "a@x", "/a", "a:b:c", "https://a/b"]);
    }
}
