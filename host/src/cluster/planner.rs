//! What a pipeline needs before it runs. To plan it, its plugins are loaded: in a process of its own (`standpipe plan`, hidden), so that none of them ends the job manager.

use super::{pipeline_arguments, settings, wait::wait};
use crate::{cli::PipelineArguments, control::taps::is_bounded, exit::Code, load::load, output::print};
use standpipe_cluster::{
    bundle::Bundle,
    manager::{Planned, PlannedNode, PlannedPlugin},
    server::PlanError,
};
use standpipe_pipeline::{
    Plan,
    plan::{Exchange, Operator},
};
use std::{
    env,
    io::{self, Read},
    path::Path,
    process::{Command, Output, Stdio},
    sync::mpsc::{self, Receiver},
    thread,
    time::{Duration, Instant},
};

/// The connector whose rows users collect.
const COLLECT: &str = "collect";
/// A plugin that takes longer to say what it is takes too long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Of what it says.
const MOST_BYTES: u64 = 16 << 20;

/// Plans a bundle that is laid out in a folder.
pub(super) fn plan(folder: &Path, bundle: &Bundle) -> Result<Planned, PlanError> {
    let output = run(folder, bundle).map_err(|error| PlanError::Outside(vec![format!("the pipeline cannot be planned: {error}")]))?;
    if output.status.success() {
        return serde_json::from_slice(&output.stdout)
            .map_err(|error| PlanError::Wrong(vec![format!("the plan is not understood: {error}")]));
    }
    Err(refused(&output))
}

/// What a process means by its end that plans no pipeline. Only by its own word the pipeline is wrong: memory, time and other processes may be short for a while.
fn refused(output: &Output) -> PlanError {
    let said = String::from_utf8_lossy(&output.stderr);
    let problems: Vec<String> = said.lines().filter_map(|line| line.strip_prefix("error: ")).map(str::to_owned).collect();
    let problems =
        if problems.is_empty() { vec![format!("the process that plans the pipeline has ended: {}", output.status)] } else { problems };
    let is_wrong = [Code::Failed, Code::Usage].iter().any(|code| output.status.code() == Some(i32::from(*code as u8)));
    if is_wrong { PlanError::Wrong(problems) } else { PlanError::Outside(problems) }
}

fn run(folder: &Path, bundle: &Bundle) -> io::Result<Output> {
    let mut command = Command::new(env::current_exe()?);
    command.arg("plan").args(pipeline_arguments(bundle)).current_dir(folder);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let deadline = Instant::now() + PATIENCE;
    let (stdout, stderr) = (read(child.stdout.take())?, read(child.stderr.take())?);
    let status = wait(&mut child, deadline)?;
    // What a plugin has started may hold them open.
    let had = |pipe: Receiver<io::Result<Vec<u8>>>| {
        let left = deadline.saturating_duration_since(Instant::now());
        pipe.recv_timeout(left).map_err(|_| io::Error::other("what it says has no end"))?
    };
    Ok(Output { status, stdout: had(stdout)?, stderr: had(stderr)? })
}

/// Reads a pipe, on a thread of its own.
fn read(pipe: Option<impl Read + Send + 'static>) -> io::Result<Receiver<io::Result<Vec<u8>>>> {
    let (sender, receiver) = mpsc::channel();
    let read = move || {
        let mut bytes = Vec::new();
        let all = pipe.map(|pipe| pipe.take(MOST_BYTES).read_to_end(&mut bytes)).transpose().map(|_| bytes);
        // Nobody may wait for it any more.
        drop(sender.send(all));
    };
    thread::Builder::new().name("plan".to_owned()).spawn(read)?;
    Ok(receiver)
}

/// `standpipe plan FILE`: what [`plan`] reads.
pub(crate) fn print_plan(arguments: &PipelineArguments) -> anyhow::Result<()> {
    // A plugin that does not end dies with the job manager.
    rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?;
    let plan = load(arguments)?;
    let planned = Planned { settings: settings::of(&plan, arguments), ..planned(&plan) };
    Ok(print(&format!("{}\n", serde_json::to_string(&planned)?))?)
}

fn planned(plan: &Plan) -> Planned {
    let node = |node: &standpipe_pipeline::plan::Node| {
        let role = match node.operator {
            Operator::Source(_) => "source",
            Operator::Sink(_) => "sink",
            _ => "transform",
        };
        let before = plan.edges.iter().filter(|edge| edge.to == node.id);
        let input = |edge: &standpipe_pipeline::plan::Edge| {
            let ship = match edge.exchange {
                Exchange::Forward => "forward",
                Exchange::Rebalance => "rebalance",
                Exchange::Hash(_) => "hash",
            };
            let from = plan.nodes.get(edge.from.0 as usize).map(|from| from.path.clone());
            (from.unwrap_or_default(), ship.to_owned())
        };
        let collects = matches!(&node.operator, Operator::Sink(sink) if sink.kind.name() == COLLECT);
        let inputs = before.map(input).collect();
        let plugin = node.plugin().map(|used| PlannedPlugin {
            kind: used.plugin.versioned(used.name),
            plugin: used.plugin.name.clone(),
            sha256: used.plugin.hash(),
        });
        PlannedNode { path: node.path.clone(), role: role.to_owned(), parallelism: node.parallelism, inputs, collects, plugin }
    };
    Planned {
        slots: plan.slots(),
        restart: plan.restart.clone(),
        checkpoints: plan.checkpoint.is_some(),
        bounded: is_bounded(plan),
        nodes: plan.nodes.iter().map(node).collect(),
        settings: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{os::unix::process::ExitStatusExt, process::ExitStatus};

    #[test]
    fn a_pipeline_is_wrong_only_where_its_planner_says_so() {
        let ended = |status| {
            let output = Output {
                status: ExitStatus::from_raw(status),
                stdout: Vec::new(),
                stderr: b"warning: x\nerror: one\nerror: two\n".to_vec(),
            };
            refused(&output)
        };
        let lines = vec!["one".to_owned(), "two".to_owned()];
        for code in [1, 2] {
            assert_eq!(ended(code << 8), PlanError::Wrong(lines.clone()), "{code}");
        }
        // Outside, a panic, killed for want of memory.
        for status in [3 << 8, 101 << 8, 9] {
            assert_eq!(ended(status), PlanError::Outside(lines.clone()), "{status}");
        }
    }
}
