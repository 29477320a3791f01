//! The parser's complaints in the words of somebody who writes a pipeline: most of them come from an expression that is not in quotes, from a tab, or from a key
//! that is not indented as its neighbours.

use super::parse::Problem;
use crate::diagnostic::Span;
use granit_parser::{ErrorKind, Marker, ScanError};

const QUOTES: &str = "put the expression in quotes";

/// Where the parser is.
pub(super) fn place(mark: &Marker, source: u16) -> Span {
    let clip = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
    Span { source, line: clip(mark.line()), column: clip(mark.col()).saturating_add(1) }
}

/// Why the text is no YAML.
pub(super) fn problem(error: &ScanError, text: &str, source: u16) -> Problem {
    let span = within(place(error.marker(), source), text);
    let line = text.lines().nth(error.marker().line().saturating_sub(1)).unwrap_or_default();
    let (message, hint) = match error.kind() {
        ErrorKind::TabNotAllowed
        | ErrorKind::TabInBlockIndentation
        | ErrorKind::TabInIndentation
        | ErrorKind::TabInPlainScalar
        | ErrorKind::TabAtBlockScalarStart => {
            let message = "a tab, where YAML takes only spaces".to_owned();
            return Problem { span: tab(span, text), message, hint: Some("indent with spaces") };
        }
        ErrorKind::UnknownAnchor | ErrorKind::MissingAnchorOrAliasName => {
            ("in YAML, * and & at the beginning of a value are for aliases and anchors".to_owned(), Some(QUOTES))
        }
        ErrorKind::UnexpectedCharacter { character } => {
            (format!("in YAML, a value cannot begin with {character}"), Some("put the value in quotes"))
        }
        ErrorKind::InvalidTrailingSingleQuotedScalar | ErrorKind::InvalidTrailingDoubleQuotedScalar => {
            ("there is text behind the closing quote".to_owned(), Some("put the expression in quotes as a whole: \"name = 'x'\""))
        }
        ErrorKind::ExpectedBlockMappingKey | ErrorKind::InvalidIndentation => {
            ("a line that belongs to no map".to_owned(), Some("let keys of one map begin in the same column"))
        }
        ErrorKind::MappingValueNotAllowed => {
            let hint = "put a value that has \": \" in quotes, and let keys of one map begin in the same column";
            ("a colon, where YAML takes no key".to_owned(), Some(hint))
        }
        ErrorKind::UnclosedQuotedScalar | ErrorKind::InvalidQuotedScalarIndent => {
            ("a text in quotes does not end before the next line that is not indented".to_owned(), Some("close the quotes"))
        }
        // The comma of `{x: coalesce(a, 'b')}` ends the value.
        _ => (error.info(), line.contains('(').then_some(QUOTES)),
    };
    Problem { span, message, hint }
}

/// The first tab that is not behind other text, from the line of the complaint on: that is in the line before, where a value goes on in the next one.
fn tab(span: Span, text: &str) -> Span {
    let first = span.line.saturating_sub(1) as usize;
    let lines = text.lines().zip(1..).skip(first);
    let indented = |(line, number): (&str, u32)| {
        let blank = line.len() - line.trim_start_matches([' ', '\t']).len();
        let at = line.get(..blank)?.find('\t')?;
        Some(Span { line: number, column: u32::try_from(at).ok()?.saturating_add(1), ..span })
    };
    lines.take(2).find_map(indented).unwrap_or(span)
}

/// The end of the text, for a place behind it.
fn within(span: Span, text: &str) -> Span {
    let lines = u32::try_from(text.lines().count()).unwrap_or(u32::MAX).max(1);
    if span.line <= lines {
        return span;
    }
    let column = text.lines().last().map_or(0, |line| line.chars().count());
    Span { line: lines, column: u32::try_from(column).unwrap_or(u32::MAX).saturating_add(1), ..span }
}

#[cfg(test)]
mod tests {
    use crate::{diagnostic::Report, yaml::parse};

    #[test]
    fn complaints_say_what_to_do() {
        for (text, message) in [
            ("a:\n\tb: 1\n", "p.yaml:2:1: a tab, where YAML takes only spaces: indent with spaces"),
            ("a:\n  b: x\n\tc: y\n", "p.yaml:3:1: a tab, where YAML takes only spaces: indent with spaces"),
            (
                "filter: *x\n",
                "p.yaml:1:9: in YAML, * and & at the beginning of a value are for aliases and anchors: put the expression in quotes",
            ),
            (
                "select: *\n",
                "p.yaml:1:9: in YAML, * and & at the beginning of a value are for aliases and anchors: put the expression in quotes",
            ),
            ("filter: @a > 1\n", "p.yaml:1:9: in YAML, a value cannot begin with @: put the value in quotes"),
            ("filter: `a` > 1\n", "p.yaml:1:9: in YAML, a value cannot begin with `: put the value in quotes"),
            (
                "filter: 'x' = a\n",
                "p.yaml:1:13: there is text behind the closing quote: put the expression in quotes as a whole: \"name = 'x'\"",
            ),
            (
                "filter: a: b\n",
                "p.yaml:1:10: a colon, where YAML takes no key: put a value that has \": \" in quotes, and let keys of one map begin in the same column",
            ),
            (
                "a: {x: f(1, 'b')}\n",
                "p.yaml:1:16: there is text behind the closing quote: put the expression in quotes as a whole: \"name = 'x'\"",
            ),
            ("a:\n    b: 1\n   c: 2\n", "p.yaml:3:4: a line that belongs to no map: let keys of one map begin in the same column"),
            ("a: [1, 2\n", "p.yaml:1:4: unclosed bracket '['"),
            ("a: \"b\n", "p.yaml:1:6: a text in quotes does not end before the next line that is not indented: close the quotes"),
        ] {
            let report = Report::new(vec!["p.yaml".to_owned()]);
            assert!(parse(text, 0, &report).is_none(), "{text}");
            assert_eq!(report.failed().to_string(), message, "{text}");
        }
    }
}
