//! What runs: the four workloads, and who runs them at which parallelism.

use crate::{
    generate::Input,
    measure::{self, Run},
};
use anyhow::Result;
use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// A workload of the peers' notes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Workload {
    /// W1: count words.
    WordCount,
    /// W2: ten-second event-time windows per host and metric: count, mean, minimum, maximum.
    Windows,
    /// W3: filter, rename, derive.
    Stateless,
    /// W4: running sum and maximum per host, one output per input.
    Running,
}

impl Workload {
    /// All four.
    pub(crate) fn all() -> Vec<Self> {
        vec![Self::WordCount, Self::Windows, Self::Stateless, Self::Running]
    }

    /// `w1` to `w4`.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::WordCount => "w1",
            Self::Windows => "w2",
            Self::Stateless => "w3",
            Self::Running => "w4",
        }
    }
}

/// Who runs.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Runner {
    Standpipe,
    /// Flink's DataStream program of the peers' harness in that folder.
    Flink(PathBuf),
}

/// A program on a workload at a parallelism.
#[derive(Debug, Clone)]
pub(crate) struct Contender {
    runner: Runner,
    /// What it runs.
    pub(crate) workload: Workload,
    parallelism: u32,
    processes: u32,
}

impl Contender {
    /// Standpipe at 1 and 2, and Flink if the peers' folder is given.
    pub(crate) fn all(workloads: &[Workload], peers: Option<&Path>) -> Vec<Self> {
        let mut all = Vec::new();
        for &workload in workloads {
            for parallelism in [1, 2] {
                all.push(Self { runner: Runner::Standpipe, workload, parallelism, processes: 1 });
                if let Some(peers) = peers {
                    all.push(Self { runner: Runner::Flink(peers.to_path_buf()), workload, parallelism, processes: 1 });
                }
            }
        }
        all
    }

    /// Standpipe, in one process.
    pub(crate) fn standpipe(workload: Workload, parallelism: u32) -> Self {
        Self { runner: Runner::Standpipe, workload, parallelism, processes: 1 }
    }

    /// Standpipe at parallelism 2, in one process and over two.
    pub(crate) fn processes(workloads: &[Workload]) -> Vec<Self> {
        let of = |&workload: &Workload| [1, 2].map(|processes| Self { runner: Runner::Standpipe, workload, parallelism: 2, processes });
        workloads.iter().flat_map(of).collect()
    }

    /// `standpipe/w2/p1`; over two processes `standpipe/w2/p2x2`.
    pub(crate) fn name(&self) -> String {
        self.named(if self.runner == Runner::Standpipe { "standpipe" } else { "flink" }, self.processes)
    }

    /// Who does the same in the same rounds.
    pub(crate) fn peer(&self) -> Option<String> {
        match self.processes {
            1 => (self.runner == Runner::Standpipe).then(|| self.named("flink", 1)),
            _ => Some(self.named("standpipe", 1)),
        }
    }

    fn named(&self, runner: &str, processes: u32) -> String {
        let over = if processes == 1 { String::new() } else { format!("x{processes}") };
        format!("{runner}/{}/p{}{over}", self.workload.name(), self.parallelism)
    }

    /// Runs once on the input, the output anew.
    pub(crate) fn run(&self, standpipe: &Path, root: &Path, input: &Input, output: &Path) -> Result<Run> {
        if output.exists() {
            fs::remove_dir_all(output)?;
        }
        fs::create_dir_all(output)?;
        let folder = input.folder(self.workload, self.parallelism);
        let mut command = match &self.runner {
            Runner::Standpipe => {
                let mut command = Command::new(standpipe);
                command
                    .args(["run", "--quiet", "--parallelism", &self.parallelism.to_string(), "--processes", &self.processes.to_string()])
                    .arg(format!("--set=sources.input.with.path={}/*", folder.display()))
                    .arg(format!("--set=sinks.output.with.path={}/out.jsonl", output.display()))
                    .arg(root.join(format!("benches/pipelines/{}.yaml", self.workload.name())));
                command
            }
            Runner::Flink(peers) => {
                // Its plain W4 throws the output away.
                let suffix = if self.workload == Workload::Running { "_file" } else { "" };
                let mut command = Command::new(peers.join("scripts/flink/run.sh"));
                command
                    .args([format!("{}_ds{suffix}", self.workload.name()), self.parallelism.to_string()])
                    .arg(&folder)
                    .arg(output.join("o"))
                    .env("ROOT", peers)
                    .current_dir(peers);
                command
            }
        };
        measure::run(&self.name(), &mut command, &output.with_extension("log"))
    }
}
