//! standpipe-state.
