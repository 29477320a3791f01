//! A plugin of every kind that uses all that plugin ABI 1.0 has. It is kept as it was built: every later host of major version 1 must load and run it.
#![deny(unsafe_code)]

mod deployment;
mod functions;
mod keyed;
mod later;
mod sink;
mod source;
mod transform;

use deployment::Shelf;
use functions::{Range, Twice};
use keyed::Summary;
use later::Later;
use sink::Parts;
use source::Numbers;
use transform::Serial;

standpipe_sdk::export_plugin! {
    sources: [Numbers], transforms: [Later, Serial, Summary], sinks: [Parts], scalars: [Twice], aggregates: [Range], deployments: [Shelf]
}
