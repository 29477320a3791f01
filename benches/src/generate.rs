//! The deterministic inputs, byte for byte those of the peers' harness at scale 1: ~200 MB of words (Zipf over 100,000 words) and 5 M JSON metrics, a quarter of them late
//! by less than two seconds of event time. Each in one file, and dealt line by line into two.

use crate::workload::Workload;
use anyhow::{Context, Result};
use std::{
    collections::HashSet,
    fs::{self, File},
    io::{BufWriter, Write},
    path::{Path, PathBuf},
};

const WORD_BYTES: f64 = 200_000_000.0;
const METRICS: f64 = 5_000_000.0;
const VOCABULARY: usize = 100_000;
const WORDS_PER_LINE: u64 = 10;
/// Records per second of event time.
const METRICS_PER_SECOND: u64 = 5000;
const FIRST_TIME_MILLIS: u64 = 1_700_000_002_000;

/// The inputs on disk.
pub(crate) struct Input {
    folder: PathBuf,
    /// Words in the text.
    pub(crate) words: u64,
    /// Metric records.
    pub(crate) metrics: u64,
}

impl Input {
    /// The folder that holds a workload's input in that many files.
    pub(crate) fn folder(&self, workload: Workload, files: u32) -> PathBuf {
        let family = if workload == Workload::WordCount { "words" } else { "metrics" };
        self.folder.join(format!("{family}-p{files}"))
    }

    /// Records of a workload: what its rate counts.
    pub(crate) fn records(&self, workload: Workload) -> u64 {
        if workload == Workload::WordCount { self.words } else { self.metrics }
    }
}

/// Makes the inputs of that scale unless they are there.
pub(crate) fn prepare(data: &Path, scale: f64) -> Result<Input> {
    let folder = data.join(format!("input-{scale}"));
    let done = folder.join("complete");
    if !done.exists() {
        eprintln!("generating inputs in {}", folder.display());
        let words = words(&folder, (WORD_BYTES * scale) as u64)?;
        let metrics = metrics(&folder, (METRICS * scale) as u64)?;
        fs::write(&done, format!("{words} {metrics}"))?;
    }
    let text = fs::read_to_string(&done)?;
    let (words, metrics) = text.split_once(' ').context("the input folder is damaged: remove it")?;
    Ok(Input { folder, words: words.parse()?, metrics: metrics.parse()? })
}

/// splitmix64.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }
}

/// One family of files: the whole, and the same lines in turns.
struct Files {
    whole: BufWriter<File>,
    halves: [BufWriter<File>; 2],
    lines: usize,
}

impl Files {
    fn create(folder: &Path, family: &str, extension: &str) -> Result<Self> {
        let file = |files: u32, part: u32| -> Result<BufWriter<File>> {
            let folder = folder.join(format!("{family}-p{files}"));
            fs::create_dir_all(&folder)?;
            Ok(BufWriter::with_capacity(1 << 20, File::create(folder.join(format!("part-{part}.{extension}")))?))
        };
        Ok(Self { whole: file(1, 0)?, halves: [file(2, 0)?, file(2, 1)?], lines: 0 })
    }

    fn line(&mut self, line: &[u8]) -> Result<()> {
        self.whole.write_all(line)?;
        self.halves[self.lines % 2].write_all(line)?;
        self.lines += 1;
        Ok(())
    }

    fn finish(mut self) -> Result<()> {
        self.whole.flush()?;
        for half in &mut self.halves {
            half.flush()?;
        }
        Ok(())
    }
}

/// Unique words, the frequent ones short, as in natural language.
fn vocabulary(random: &mut Random) -> Vec<String> {
    let (mut words, mut seen) = (Vec::with_capacity(VOCABULARY), HashSet::new());
    while words.len() < VOCABULARY {
        let base = 2 + (((words.len() + 1) as f64).log2() / 3.0) as usize;
        let length = base + (random.next() % 4) as usize;
        let word: String = (0..length).map(|_| (b'a' + (random.next() % 26) as u8) as char).collect();
        if seen.insert(word.clone()) {
            words.push(word);
        }
    }
    words
}

fn words(folder: &Path, bytes: u64) -> Result<u64> {
    let mut random = Random(42);
    let vocabulary = vocabulary(&mut random);
    let mut total = 0.0;
    let cumulative: Vec<f64> = (1..=VOCABULARY)
        .map(|rank| {
            total += 1.0 / rank as f64;
            total
        })
        .collect();
    let mut files = Files::create(folder, "words", "txt")?;
    let (mut written, mut lines, mut line) = (0, 0, String::new());
    while written < bytes {
        line.clear();
        for i in 0..WORDS_PER_LINE {
            let at = random.unit() * total;
            let rank = cumulative.partition_point(|&c| c < at).min(VOCABULARY - 1);
            if i > 0 {
                line.push(' ');
            }
            line.push_str(&vocabulary[rank]);
        }
        line.push('\n');
        files.line(line.as_bytes())?;
        written += line.len() as u64;
        lines += 1;
    }
    files.finish()?;
    Ok(lines * WORDS_PER_LINE)
}

fn metrics(folder: &Path, count: u64) -> Result<u64> {
    const NAMES: [&str; 5] = ["cpu", "mem", "disk", "net", "load"];
    let mut random = Random(42);
    let mut files = Files::create(folder, "metrics", "jsonl")?;
    let mut line = Vec::new();
    for i in 0..count {
        let base = FIRST_TIME_MILLIS + i * 1000 / METRICS_PER_SECOND;
        let dice = random.next();
        let lag = if dice.is_multiple_of(4) { (dice >> 8) % 1900 } else { 0 };
        let host = random.next() % 1000;
        let metric = NAMES[(random.next() % 5) as usize];
        // Multiples of 1/1024 below 100: their sums are exact whatever the order.
        let value = (random.next() % 102_400) as f64 / 1024.0;
        line.clear();
        writeln!(line, "{{\"host\":\"host-{host:04}\",\"metric\":\"{metric}\",\"ts\":{},\"value\":{value:?}}}", base - lag)?;
        files.line(&line)?;
    }
    files.finish()?;
    Ok(count)
}
