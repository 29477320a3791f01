//! The transforms of the cost `plugin-calls`, as a library that the host loads. The driver has the same code in itself.
#![deny(unsafe_code)]

mod transforms;

standpipe_sdk::export_plugin! { transforms: [transforms::Empty, transforms::Numbers, transforms::Texts] }
