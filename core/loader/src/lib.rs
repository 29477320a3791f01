//! standpipe-loader.
