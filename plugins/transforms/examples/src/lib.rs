//! standpipe-transforms-examples.
