//! Settings of a deployment: flat dotted keys and plain values, in the `deployment:` of a pipeline or in a file of their own. They are read here as they are; what they mean
//! is said by the deployment mode that they are for.

use crate::{
    diagnostic::{Diagnostics, Report, Span},
    file::reader::{Item, Section},
    substitute,
    yaml::{self, Data, Scalar, Value},
};
use std::{fmt, path::Path};

/// A key with its value and where it is said. `Debug` shows no secret.
#[derive(Clone, PartialEq, Eq)]
pub struct Setting {
    /// `rest.port`.
    pub key: String,
    /// As text; never to be shown where `secret`.
    pub value: String,
    /// What people are shown: the value as written.
    pub written: String,
    /// `value` holds what a reference stands for.
    pub secret: bool,
    /// Where it is said: `counts.yaml:12:3`.
    pub origin: String,
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}={:?} ({})", self.key, self.written, self.origin)
    }
}

/// Reads a file of settings: a YAML map of flat dotted keys.
///
/// # Errors
/// All that is wrong with it.
pub fn read(path: &Path) -> Result<Vec<Setting>, Diagnostics> {
    let report = Report::new(vec![path.display().to_string()]);
    let bytes = std::fs::read(path).map_err(|error| {
        report.external(Span::default(), "", format!("cannot read the file: {}", substitute::io_problem(&error)));
        report.failed()
    })?;
    let Ok(text) = String::from_utf8(bytes) else {
        report.error(Span::default(), "", "not UTF-8 text");
        return Err(report.failed());
    };
    let Some(mut root) = yaml::parse(&text, 0, &report) else { return Err(report.failed()) };
    substitute::apply(&mut root, &report);
    report.seal();
    let settings = settings(Item { report: &report, path: String::new(), key_span: root.span, node: &root });
    report.check().map(|()| settings)
}

/// The settings of a map; what cannot be one is in the report.
pub(crate) fn settings(item: Item<'_>) -> Vec<Setting> {
    let Some(section) = Section::open_any(item) else { return Vec::new() };
    section.items().filter_map(|(key, item)| setting(key, &item)).collect()
}

fn setting(key: &str, item: &Item<'_>) -> Option<Setting> {
    let scalar = match &item.node.data {
        Data::Scalar(scalar) if scalar.value != Value::Null => scalar,
        Data::Map(entries) => {
            let inner = entries.first().map_or_else(|| "key".to_owned(), |entry| entry.key.clone());
            item.expected_with_hint("a plain value", &format!("keys are flat here: write {key}.{inner}: ..."));
            return None;
        }
        Data::List(_) => {
            item.expected_with_hint("a plain value", "a list is one line of text here, with commas or as JSON in quotes");
            return None;
        }
        Data::Scalar(_) => {
            item.expected("a plain value");
            return None;
        }
    };
    let Scalar { value, written, secret, .. } = scalar;
    let value = if let Value::Text(text) = value { text.clone() } else { written.clone() };
    Some(Setting { key: key.to_owned(), value, written: written.clone(), secret: *secret, origin: item.report.place(item.key_span) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(text: &str) -> Result<String, String> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("d.yaml");
        std::fs::write(&path, text).unwrap();
        let prefix = format!("{}/", folder.path().display());
        match read(&path) {
            Ok(settings) => Ok(format!("{settings:?}").replace(&prefix, "")),
            Err(problems) => Err(problems.to_string().replace(&prefix, "")),
        }
    }

    #[test]
    fn keys_are_flat_and_values_plain() {
        let settings = read_text("rest.address: 127.0.0.1\nrest.port: 8081\nengine.x: '${HOME}'\non: true\n").unwrap();
        assert_eq!(
            settings,
            "[rest.address=\"127.0.0.1\" (d.yaml:1:1), rest.port=\"8081\" (d.yaml:2:1), engine.x=\"${HOME}\" (d.yaml:3:1), on=\"true\" (d.yaml:4:1)]"
        );
    }

    #[test]
    fn what_is_no_setting_is_named_with_its_place() {
        for (text, message) in [
            ("rest: {port: 1}\n", "d.yaml:1:7: rest: expected a plain value, found a map: keys are flat here: write rest.port: ..."),
            ("rest.port:\n", "d.yaml:1:1: rest.port: expected a plain value, found nothing"),
            (
                "a: [1]\n",
                "d.yaml:1:4: a: expected a plain value, found a list: a list is one line of text here, with commas or as JSON in quotes",
            ),
            ("just text\n", "d.yaml:1:1: expected a map, found \"just text\""),
            ("a: ${STANDPIPE_NO_SUCH}\n", "d.yaml:1:4: a: the environment variable STANDPIPE_NO_SUCH is not set"),
        ] {
            assert_eq!(read_text(text).unwrap_err(), message, "{text}");
        }
        assert!(read(Path::new("/no/such.yaml")).unwrap_err().outside());
    }
}
