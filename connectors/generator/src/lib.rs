//! standpipe-connector-generator.
