//! standpipe-engine.
