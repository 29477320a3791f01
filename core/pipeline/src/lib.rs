//! standpipe-pipeline.
