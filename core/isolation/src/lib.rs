//! Plugins in processes of their own: an instance of a source, a transform without keys or a sink runs in a child of the job's process, and the engine calls it as if it were here. What
//! would end the job's process (a wild pointer, `exit()`, a stack or a memory that overflows) ends the child, and is an error of that node.
//!
//! ```text
//! instance       what the engine calls: an instance that is here, or one that is apart
//! apart          the same calls as messages to a process; `apart/process` has the process, what it tells and how it ends
//! child          the process itself: it loads the same file, makes the instance, and does what it is told
//! words, wire    what the two say, and how it gets there
//! batch, memory  batches in shared memory
//! launch         which program is started, and what it may use; `sandbox` has the files
//! ```
//!
//! The seam is that of [`standpipe_loader`]'s instances, not the C tables below them: what crosses are values that have been checked, and the rules of pointers are kept in one place, the
//! SDK's, in both processes. The engine decides which nodes are apart; `standpipe plugin-process` is the child.

mod apart;
mod batch;
mod child;
mod instance;
mod launch;
mod memory;
mod sandbox;
mod wire;
mod words;

pub use child::{ChildError, run};
pub use instance::{Enumerator, Maker, Reader, Sink, Transform};
pub use launch::{Launcher, Limits};
pub use sandbox::Sandbox;
