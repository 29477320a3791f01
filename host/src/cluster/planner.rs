//! What a pipeline needs before it runs. To plan it, its plugins are loaded: in a process of its own (`standpipe plan`, hidden), so that none of them ends the job manager.

use super::{pipeline_arguments, settings};
use crate::{cli::PipelineArguments, load::load, output::print};
use standpipe_cluster::{
    bundle::Bundle,
    manager::{Planned, PlannedNode},
};
use standpipe_pipeline::{
    Plan,
    plan::{Exchange, Operator},
};
use std::{
    env,
    io::{self, Read},
    path::Path,
    process::{Child, Command, Output, Stdio},
    thread,
    time::{Duration, Instant},
};

/// A plugin that takes longer to say what it is takes too long.
const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks for its end.
const LOOK: Duration = Duration::from_millis(5);

/// Plans a bundle that is laid out in a folder; an error has one line per problem.
pub(super) fn plan(folder: &Path, bundle: &Bundle) -> Result<Planned, Vec<String>> {
    let output = run(folder, bundle).map_err(|error| vec![format!("the pipeline cannot be planned: {error}")])?;
    if output.status.success() {
        return serde_json::from_slice(&output.stdout).map_err(|error| vec![format!("the plan is not understood: {error}")]);
    }
    let said = String::from_utf8_lossy(&output.stderr);
    let problems: Vec<String> = said.lines().filter_map(|line| line.strip_prefix("error: ")).map(str::to_owned).collect();
    Err(if problems.is_empty() { vec![format!("the process that plans the pipeline has ended: {}", output.status)] } else { problems })
}

fn run(folder: &Path, bundle: &Bundle) -> io::Result<Output> {
    let mut command = Command::new(env::current_exe()?);
    command.arg("plan").args(pipeline_arguments(bundle)).current_dir(folder);
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let read = |pipe: Option<Box<dyn Read + Send>>| {
        thread::Builder::new().name("plan".to_owned()).spawn(move || {
            let mut bytes = Vec::new();
            pipe.map(|pipe| pipe.take(16 << 20).read_to_end(&mut bytes)).transpose().map(|_| bytes)
        })
    };
    let stdout = read(child.stdout.take().map(|pipe| Box::new(pipe) as _))?;
    let stderr = read(child.stderr.take().map(|pipe| Box::new(pipe) as _))?;
    let status = wait(&mut child)?;
    let gone = |_| io::Error::other("what it says cannot be read");
    Ok(Output { status, stdout: stdout.join().map_err(gone)??, stderr: stderr.join().map_err(gone)?? })
}

fn wait(child: &mut Child) -> io::Result<std::process::ExitStatus> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() >= deadline {
            child.kill()?;
            child.wait()?;
            return Err(io::Error::new(io::ErrorKind::TimedOut, format!("it takes more than {} s", PATIENCE.as_secs())));
        }
        thread::sleep(LOOK);
    }
}

/// `standpipe plan FILE`: what [`plan`] reads.
pub(crate) fn print_plan(arguments: &PipelineArguments) -> anyhow::Result<()> {
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
        let inputs = before.map(input).collect();
        PlannedNode { path: node.path.clone(), role: role.to_owned(), parallelism: node.parallelism, inputs }
    };
    Planned {
        slots: plan.slots(),
        restart: plan.restart.clone(),
        checkpoints: plan.checkpoint.is_some(),
        nodes: plan.nodes.iter().map(node).collect(),
        settings: Vec::new(),
    }
}
