//! standpipe-connector-print.
