//! standpipe-tests.
