//! standpipe-connector-file.
