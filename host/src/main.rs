//! The `standpipe` binary: reads the command line, calls the libraries, prints, and turns what happened into an exit code.
//!
//! It holds no logic of pipelines, plugins or the engine. Data goes to stdout, everything else to stderr.
#![forbid(unsafe_code)]

mod checkpoints;
mod cli;
mod cluster;
mod commands;
mod conformance;
mod control;
mod dashboard;
mod demo;
mod deployment;
mod exit;
mod exposition;
mod load;
mod logging;
mod output;
mod plugins;
mod processes;
mod progress;
mod secrets;
mod signals;
mod supervise;
mod traces;

use clap::Parser;
use std::process::ExitCode;

// The engine allocates per batch on several threads and frees on others: mimalloc does that at a fraction of the system allocator's cost.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let arguments = match cli::Cli::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => {
            let code = if error.use_stderr() { exit::Code::Usage } else { exit::Code::Success };
            // A closed stderr cannot be reported anywhere.
            drop(error.print());
            return code.into();
        }
    };
    logging::start(arguments.log_format, arguments.log_level);
    if let Some(service) = commands::service(&arguments.command) {
        traces::start(service);
    }
    let code = match commands::run(arguments.command) {
        Ok(()) => exit::Code::Success,
        Err(error) => {
            exit::report(&error);
            exit::code(&error)
        }
    };
    traces::finish();
    code.into()
}
