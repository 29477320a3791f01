//! Word count, bounded and continuous: what the pipelines in `examples/` count is what `tr | sort | uniq -c` counts.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use serde_json::json;
use standpipe_tests::{Folder, Row, assert_same_rows, last_rows, read_rows, repository, rows, standpipe};
use std::{collections::HashSet, fs, path::Path, process::Command, time::Duration};

const COUNT: &str = r"tr -cs A-Za-z '\n' < $0 | tr A-Z a-z | sort | uniq -c";

/// What the shell counts, as rows.
fn counted_by_the_shell(text: &Path) -> Vec<Row> {
    let output = Command::new("sh").args(["-c", COUNT]).arg(text).env("LC_ALL", "C").output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = String::from_utf8(output.stdout).unwrap();
    let row = |line: &str| {
        let mut columns = line.split_ascii_whitespace();
        let count: u64 = columns.next().unwrap().parse().unwrap();
        // A text that begins with no letter gives an empty line first.
        columns.next().map(|word| Row::from_iter([("word".to_owned(), json!(word)), ("n".to_owned(), json!(count))]))
    };
    lines.lines().filter_map(row).collect()
}

/// 20,000 lines of words, digits, punctuation and letters that `tr` does not know, always the same ones.
fn long_text() -> String {
    let mut state: u64 = 42;
    let mut random = move |limit: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % limit
    };
    let separators = [" ", "  ", ", ", ". ", "'", "-", "1", "\t", "\u{e9}", "\u{4e16}", "\n", "\r\n", "\n\n"];
    let mut text = String::from("42 ");
    for _ in 0..200_000 {
        for _ in 0..=random(4) {
            let letter = char::from(b'a' + u8::try_from(random(6)).unwrap());
            text.push(if random(4) == 0 { letter.to_ascii_uppercase() } else { letter });
        }
        text.push_str(separators[usize::try_from(random(separators.len() as u64)).unwrap()]);
    }
    text
}

fn counted_by_standpipe(text: &Path, parallelism: &str) -> Vec<Row> {
    let folder = Folder::new();
    let run = standpipe(["run", "examples/word-count.yaml", "--parallelism", parallelism]);
    run.set("sources.lines.with.path", text).set("sinks.out.with.path", folder.at("counts.jsonl")).finish().success();
    assert_eq!(folder.names(), ["counts.jsonl"]);
    read_rows(folder.at("counts.jsonl"))
}

#[test]
fn the_example_counts_as_the_shell_does_and_as_its_golden_output_says() {
    let text = repository().join("examples/data/words.txt");
    let expected = counted_by_the_shell(&text);
    assert!(expected.len() > 100);
    assert_same_rows("the golden output", &read_rows(repository().join("examples/golden/word-count.jsonl")), &expected);
    for parallelism in ["1", "2", "4"] {
        assert_same_rows(&format!("parallelism {parallelism}"), &counted_by_standpipe(&text, parallelism), &expected);
    }
}

#[test]
fn a_long_text_is_counted_as_the_shell_does() {
    let folder = Folder::new();
    let text = folder.write("text", long_text());
    let expected = counted_by_the_shell(&text);
    let words: u64 = expected.iter().map(|row| row["n"].as_u64().unwrap()).sum();
    assert!(words > 190_000 && expected.len() > 1_000, "{words} words, {} different", expected.len());
    for parallelism in ["1", "2", "4"] {
        assert_same_rows(&format!("parallelism {parallelism}"), &counted_by_standpipe(&text, parallelism), &expected);
    }
}

#[test]
fn changes_of_counts_lead_to_the_same_counts() {
    let text = fs::read(repository().join("examples/data/words.txt")).unwrap();
    let golden = read_rows(repository().join("examples/golden/word-count-changes.jsonl"));
    for parallelism in ["1", "2", "4"] {
        let run = standpipe(["run", "examples/word-count-changes.yaml", "--parallelism", parallelism]);
        let finished = run.stdin(text.clone()).finish().code(0);
        let changes = rows(&finished.stdout);
        let mut seen = HashSet::new();
        for change in &changes {
            let op = if seen.insert(change["word"].clone()) { "+I" } else { "+U" };
            assert_eq!(change["op"], op, "{change:?}");
        }
        assert_same_rows(&format!("parallelism {parallelism}"), &last_rows(&changes, &["word"]), &golden);
    }
}

#[test]
fn a_text_that_goes_on_is_counted_as_it_comes() {
    let mut run = standpipe(["run", "examples/word-count-changes.yaml"]).stdin_open().start();
    let patience = Duration::from_secs(10);
    run.write("one two two\n");
    run.wait_until("two words", patience, |run| run.stdout().lines().count() == 2);
    run.write("two three\n");
    run.wait_until("two words more", patience, |run| run.stdout().lines().count() == 4);
    run.close_stdin();
    let changes = rows(&run.wait().code(0).stdout);
    let expected = [("one", 1, "+I"), ("two", 2, "+I"), ("two", 3, "+U"), ("three", 1, "+I")];
    let expected =
        expected.map(|(word, n, op)| Row::from_iter([("word".into(), json!(word)), ("n".into(), json!(n)), ("op".into(), json!(op))]));
    assert_same_rows("changes", &changes, &expected);
    let kinds: Vec<_> = changes.iter().filter(|change| change["word"] == "two").map(|change| change["op"].clone()).collect();
    assert_eq!(kinds, ["+I", "+U"]);
}
