//! standpipe-connector-kafka.
