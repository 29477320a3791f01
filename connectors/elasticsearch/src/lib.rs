//! standpipe-connector-elasticsearch.
