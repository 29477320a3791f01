//! Whatever is done to a file, it is a plan or a list of findings, each with its place in the file.

use crate::{fixture, plans::DESIGN, stand_ins};
use proptest::prelude::*;
use standpipe_loader::Catalogue;
use standpipe_pipeline::{Defaults, Diagnostics, LoadOptions, PipelineFile, explain};
use std::path::Path;

/// What may be put into a file: characters of YAML and of expressions, keys and values that mean something.
const PIECES: [&str; 48] = [
    " ",
    "\n",
    "\t",
    "-",
    "- ",
    ":",
    ": ",
    ",",
    "{",
    "}",
    "[",
    "]",
    "(",
    ")",
    "*",
    "&a",
    "*a",
    "!",
    "!!str ",
    "|",
    ">",
    "'",
    "\"",
    "%",
    "@",
    "`",
    "#",
    "$",
    "${",
    "${file:/no/such}",
    "$${",
    "~",
    "null",
    "true",
    "0",
    "-1",
    "1e999",
    "99999999999999999999",
    "ü",
    "\u{feff}",
    "---\n",
    "? ",
    "input: ",
    "select: ",
    "count(*)",
    "1 / 0",
    "case when",
    "\"*\": true",
];

#[derive(Debug, Clone)]
enum Mutation {
    DeleteText(usize, usize),
    DuplicateText(usize, usize),
    Insert(usize, &'static str),
    Replace(usize, usize, &'static str),
    DeleteLine(usize),
    DuplicateLine(usize),
    SwapLines(usize, usize),
    Indent(usize, usize),
    /// Another word of the file in place of one.
    SwapWords(usize, usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let piece = || proptest::sample::select(&PIECES[..]);
    let at = || any::<u16>().prop_map(usize::from);
    prop_oneof![
        (at(), 1..12_usize).prop_map(|(at, length)| Mutation::DeleteText(at, length)),
        (at(), 1..12_usize).prop_map(|(at, length)| Mutation::DuplicateText(at, length)),
        (at(), piece()).prop_map(|(at, piece)| Mutation::Insert(at, piece)),
        (at(), 1..12_usize, piece()).prop_map(|(at, length, piece)| Mutation::Replace(at, length, piece)),
        at().prop_map(Mutation::DeleteLine),
        at().prop_map(Mutation::DuplicateLine),
        (at(), at()).prop_map(|(one, two)| Mutation::SwapLines(one, two)),
        (at(), 0..6_usize).prop_map(|(line, spaces)| Mutation::Indent(line, spaces)),
        (at(), at()).prop_map(|(one, two)| Mutation::SwapWords(one, two)),
    ]
}

fn mutated(text: &str, mutation: &Mutation) -> String {
    let chars: Vec<char> = text.chars().collect();
    let range = |at: usize, length: usize| (at % (chars.len() + 1), (at % (chars.len() + 1) + length).min(chars.len()));
    let with = |at: usize, end: usize, piece: &str| -> String {
        chars[..at].iter().copied().chain(piece.chars()).chain(chars[end..].iter().copied()).collect()
    };
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let count = lines.len().max(1);
    let line = |at: usize| at % count;
    match *mutation {
        _ if lines.is_empty() => return text.to_owned(),
        Mutation::DeleteText(at, length) => {
            let (at, end) = range(at, length);
            return with(at, end, "");
        }
        Mutation::DuplicateText(at, length) => {
            let (at, end) = range(at, length);
            return with(end, end, &chars[at..end].iter().collect::<String>());
        }
        Mutation::Insert(at, piece) => {
            let (at, _) = range(at, 0);
            return with(at, at, piece);
        }
        Mutation::Replace(at, length, piece) => {
            let (at, end) = range(at, length);
            return with(at, end, piece);
        }
        Mutation::SwapWords(one, two) => {
            let words: Vec<&str> = text.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect();
            let Some((one, two)) = words.get(one % words.len().max(1)).zip(words.get(two % words.len().max(1))) else {
                return text.to_owned();
            };
            return text.replacen(one, two, 1);
        }
        Mutation::DeleteLine(at) => _ = lines.remove(line(at)),
        Mutation::DuplicateLine(at) => lines.insert(line(at), lines[line(at)].clone()),
        Mutation::SwapLines(one, two) => lines.swap(line(one), line(two)),
        Mutation::Indent(at, spaces) => {
            let at = line(at);
            lines[at] = format!("{}{}", " ".repeat(spaces), lines[at].trim_start());
        }
    }
    lines.join("\n") + "\n"
}

/// Reads and plans; `Ok` is what `explain` says.
pub(crate) fn outcome(text: &str, catalogue: &Catalogue) -> Result<String, Diagnostics> {
    let file = PipelineFile::parse(Path::new("p.yaml"), text, &LoadOptions::default())?;
    let planned = file.plan(catalogue, &Defaults::default())?;
    Ok(explain::text(&planned.plan, &[1, 2]))
}

pub(crate) fn check(text: &str, catalogue: &Catalogue) -> Result<(), TestCaseError> {
    let found = match outcome(text, catalogue) {
        Ok(explained) => {
            prop_assert!(!explained.is_empty());
            return Ok(());
        }
        Err(found) => found,
    };
    prop_assert!(!found.items.is_empty());
    // In YAML a carriage return alone ends a line, too.
    let broken = text.replace("\r\n", "\n").replace('\r', "\n");
    let lines: Vec<usize> = broken.lines().map(|line| line.chars().count()).collect();
    for finding in &found.items {
        prop_assert_eq!(&finding.file, "p.yaml");
        prop_assert!(!finding.message.is_empty() && !finding.message.contains('\n'), "{}", finding);
        // Behind the last character of a line is a place too; an empty file has one at its beginning.
        let length = lines.get((finding.line as usize).wrapping_sub(1)).or((lines.is_empty() && finding.line == 1).then_some(&0));
        prop_assert!(length.is_some_and(|length| (1..=length + 1).contains(&(finding.column as usize))), "{} in {:?}", finding, text);
    }
    let places: Vec<(u32, u32)> = found.items.iter().map(|finding| (finding.line, finding.column)).collect();
    prop_assert!(places.is_sorted(), "{}", found);
    Ok(())
}

#[test]
fn the_examples_are_plans() {
    for (name, text) in stand_ins::EXAMPLES {
        let explained = outcome(text, &stand_ins::catalogue()).unwrap_or_else(|found| panic!("{name}: {found}"));
        assert!(explained.contains("sinks."), "{name}: {explained}");
    }
}

proptest! {
    #![proptest_config(standpipe_hostile::cases(1_500))]

    #[test]
    fn mutated_examples(which in 0..stand_ins::EXAMPLES.len(), mutations in proptest::collection::vec(mutation(), 1..5)) {
        let text = mutations.iter().fold(stand_ins::EXAMPLES[which].1.to_owned(), |text, mutation| mutated(&text, mutation));
        check(&text, &stand_ins::catalogue())?;
    }

    #[test]
    fn mutated_design(mutations in proptest::collection::vec(mutation(), 1..5)) {
        let text = mutations.iter().fold(DESIGN.to_owned(), |text, mutation| mutated(&text, mutation));
        check(&text, &fixture::catalogue())?;
    }

    #[test]
    fn any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(file) = PipelineFile::parse(Path::new("p.yaml"), &String::from_utf8_lossy(&bytes), &LoadOptions::default()) {
            prop_assert!(file.plan(&fixture::catalogue(), &Defaults::default()).is_err());
        }
    }
}
