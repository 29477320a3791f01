//! The transforms of the cost `plugin-calls`, as a library that the host loads. The driver has the same code in itself.
#![deny(unsafe_code)]

standpipe_sdk::export_plugin! {
    transforms: [standpipe_bench_plugins::Empty, standpipe_bench_plugins::Numbers, standpipe_bench_plugins::Texts]
}
