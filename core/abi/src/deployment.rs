//! Deployments: a mode is a plugin that turns a job bundle and its configuration into a running job behind a handle.
//! The handle is a JSON object that survives the client: any later process of the same mode can use it.

use crate::{
    arrow_c::ArrowArrayStream,
    error::{Error, Status},
    host::HostTable,
    value::{Buffer, Slice},
};
use std::ffi::c_void;

/// `deployment/1`. Every function may block; the host calls it on a thread of its own and cancels by the host table's token.
#[repr(C)]
#[derive(Copy, Clone)]
pub struct DeploymentTable {
    /// Bytes of this table.
    pub size: u32,
    /// Zero.
    pub reserved: u32,
    /// Checks a configuration (a JSON object of flat dotted keys) without I/O; `out` gets a JSON object
    /// `{"problems": [{"path", "message", "suggestion"}], "effective": {...}}`.
    pub validate: unsafe extern "C" fn(config: Slice, out: *mut Buffer, error: *mut Error) -> Status,
    /// Makes an instance; it is ready for use.
    pub create: unsafe extern "C" fn(config: Slice, host: *const HostTable, instance: *mut *mut c_void, error: *mut Error) -> Status,
    /// Submits the bundle (the path of its folder: `bundle.json` and `blobs/`) and gives its handle, a JSON object.
    pub submit: unsafe extern "C" fn(instance: *mut c_void, bundle: Slice, handle: *mut Buffer, error: *mut Error) -> Status,
    /// The job's state, JSON: `{"state": "RUNNING", "cause": ...}`.
    pub status: unsafe extern "C" fn(instance: *mut c_void, handle: Slice, out: *mut Buffer, error: *mut Error) -> Status,
    /// As `status`, once the state is terminal or after `timeout_us` microseconds (negative: no limit).
    pub wait: unsafe extern "C" fn(instance: *mut c_void, handle: Slice, timeout_us: i64, out: *mut Buffer, error: *mut Error) -> Status,
    /// Ends the job without a savepoint.
    pub cancel: unsafe extern "C" fn(instance: *mut c_void, handle: Slice, error: *mut Error) -> Status,
    /// Ends the job with a savepoint in that place (empty: where it keeps its checkpoints); `out` gets `{"location": ...}`.
    /// Since 1.1 the handle may have the member `"drain": true`: open windows and aggregates give what they have, as if the sources had ended; `UNSUPPORTED` of a mode that cannot do that.
    pub stop: unsafe extern "C" fn(instance: *mut c_void, handle: Slice, savepoint: Slice, out: *mut Buffer, error: *mut Error) -> Status,
    /// Log lines from a cursor on (empty: from the first): JSON `{"lines": [...], "cursor": ...}`.
    pub logs: unsafe extern "C" fn(instance: *mut c_void, handle: Slice, cursor: Slice, out: *mut Buffer, error: *mut Error) -> Status,
    /// At most `limit` rows of a node (0: all of a bounded one), and none that come later than `timeout_us` microseconds from now (negative: no limit). What the
    /// stream's functions are promised is what this table's are: they are called one after another, on the same thread, before `destroy`, and they may block.
    pub collect: unsafe extern "C" fn(
        instance: *mut c_void,
        handle: Slice,
        node: Slice,
        limit: u64,
        timeout_us: i64,
        out: *mut ArrowArrayStream,
        error: *mut Error,
    ) -> Status,
    /// Removes everything that the job left behind.
    pub cleanup: unsafe extern "C" fn(instance: *mut c_void, handle: Slice, error: *mut Error) -> Status,
    /// Frees the instance.
    pub destroy: unsafe extern "C" fn(instance: *mut c_void),
    /// Since 1.1. The job goes on with so many subtasks of every node that does not say otherwise, at least 1, from a savepoint that is taken for it: returns when that is
    /// durable and the job is on its way. Refused, the job runs on as it is.
    pub rescale: Option<unsafe extern "C" fn(instance: *mut c_void, handle: Slice, parallelism: u32, error: *mut Error) -> Status>,
    /// Since 1.1. What `submit` would do with the bundle, and nothing of it: `out` gets a text for people and tools, such as the manifests that it would apply. It may read what it
    /// needs to know, and changes nothing anywhere.
    pub preview: Option<unsafe extern "C" fn(instance: *mut c_void, bundle: Slice, out: *mut Buffer, error: *mut Error) -> Status>,
}
