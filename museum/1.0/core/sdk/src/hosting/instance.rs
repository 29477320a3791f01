//! What instances of all kinds have in common: the plugin's pointer, its host table, and how its functions are called.

use super::{
    HostServices, InstanceContext, Origin, PluginError,
    kind::{broken, sensible},
    services::{Gate, Served},
};
use crate::{Error, Result};
use arrow_schema::SchemaRef;
use serde_json::Value;
use standpipe_abi::{self as abi, Buffer, HostTable, Slice, Status};
use std::{ffi::c_void, sync::Arc};

type CreateFn = unsafe extern "C" fn(Slice, *const abi::Context, *const HostTable, *mut *mut c_void, *mut abi::Error) -> Status;

/// A plugin's instance; dropped, it is destroyed. A Rust plugin leaks the value of one that panicked there.
///
/// A plugin is promised that all calls on an instance, from `create` to `destroy`, come one after another and on one thread. That is why this is not `Send`: whoever
/// wants it on another thread makes it there. (Kinds are `Send` and `Sync`: `validate` may be called anywhere.)
pub(super) struct Instance {
    pointer: *mut c_void,
    destroy: unsafe extern "C" fn(*mut c_void),
    pub(super) served: Arc<Served>,
    gate: &'static Gate,
    pub(super) origin: Arc<Origin>,
    pub(super) node: String,
}

/// Does not compile if an instance is `Send`: then both implementations fit.
const _: fn() = || {
    trait OneThread<Marker> {
        fn holds() {}
    }
    impl<T: ?Sized> OneThread<()> for T {}
    impl<T: ?Sized + Send> OneThread<u8> for T {}
    <Instance as OneThread<_>>::holds();
};

impl Instance {
    /// Calls the plugin's `create`.
    pub(super) fn create(
        origin: Arc<Origin>,
        node: &str,
        (create, destroy): (CreateFn, unsafe extern "C" fn(*mut c_void)),
        outputs: Vec<SchemaRef>,
        config: &Value,
        context: &InstanceContext,
        host: Arc<dyn HostServices>,
    ) -> Result<Self, PluginError> {
        let (config, place) = (config.to_string(), context.to_abi());
        // SAFETY: the plugin's function, called as its contract says.
        Self::make(origin, node, destroy, outputs, host, |host, pointer, error| unsafe {
            create(Slice::new(config.as_bytes()), &raw const place, host, pointer, error)
        })
    }

    /// Makes an instance by a function that calls the plugin's.
    pub(super) fn make(
        origin: Arc<Origin>,
        node: &str,
        destroy: unsafe extern "C" fn(*mut c_void),
        outputs: Vec<SchemaRef>,
        host: Arc<dyn HostServices>,
        create: impl FnOnce(*const HostTable, *mut *mut c_void, *mut abi::Error) -> Status,
    ) -> Result<Self, PluginError> {
        let served = Served::new(host, outputs);
        let gate = Gate::to(&served);
        let (mut pointer, mut error) = (std::ptr::null_mut(), abi::Error::empty());
        let status = create(&raw const gate.table, &raw mut pointer, &raw mut error);
        if status != Status::OK {
            gate.close();
            return Err(PluginError::read(&origin, node, &error));
        }
        Ok(Self { pointer, destroy, served, gate, origin, node: node.to_owned() })
    }

    /// Calls a function of the plugin's; a negative status is a failure.
    pub(super) fn call(&mut self, function: impl FnOnce(*mut c_void, *mut abi::Error) -> Status) -> Result<Status, PluginError> {
        let mut error = abi::Error::empty();
        match function(self.pointer, &raw mut error) {
            Status(status) if status < 0 => Err(PluginError::read(&self.origin, &self.node, &error)),
            status => Ok(status),
        }
    }

    /// Calls a function that has only one way to succeed.
    pub(super) fn done(&mut self, function: impl FnOnce(*mut c_void, *mut abi::Error) -> Status) -> Result<(), PluginError> {
        match self.call(function)? {
            Status::OK => Ok(()),
            status => Err(self.broken(&format!("answers with the status {}, which means nothing here", status.0))),
        }
    }

    /// Calls the plugin's `close`. One that has panicked cannot be closed, and what it panicked with has been told: that is no failure.
    pub(super) fn close(&mut self, function: impl FnOnce(*mut c_void, *mut abi::Error) -> Status) -> Result<(), PluginError> {
        match self.done(function) {
            Err(error) if error.details.contains_key("poisoned") => Ok(()),
            result => result,
        }
    }

    /// Calls a function that fills a buffer.
    pub(super) fn bytes(
        &mut self,
        function: impl FnOnce(*mut c_void, *mut Buffer, *mut abi::Error) -> Status,
    ) -> Result<Vec<u8>, PluginError> {
        let mut out = Buffer::EMPTY;
        self.done(|this, error| function(this, &raw mut out, error))?;
        Ok(out.as_bytes().to_vec())
    }

    /// Calls a function that fills a buffer with JSON; an empty one is the default.
    pub(super) fn json<T: serde::de::DeserializeOwned + Default>(
        &mut self,
        function: impl FnOnce(*mut c_void, *mut Buffer, *mut abi::Error) -> Status,
    ) -> Result<T, PluginError> {
        let bytes = self.bytes(function)?;
        if bytes.is_empty() {
            return Ok(T::default());
        }
        serde_json::from_slice(&bytes).map_err(|error| self.broken(&format!("answers with unknown JSON: {error}")))
    }

    /// Reads what the plugin gave.
    pub(super) fn read<T>(&self, read: impl FnOnce() -> Result<T>) -> Result<T, PluginError> {
        sensible(read).map_err(|error| self.failure(error))
    }

    pub(super) fn failure(&self, error: Error) -> PluginError {
        PluginError::new(&self.origin, &self.node, error)
    }

    pub(super) fn broken(&self, what: &str) -> PluginError {
        self.failure(broken(what))
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // SAFETY: made by `create`, destroyed once.
        unsafe { (self.destroy)(self.pointer) }
        self.gate.close();
    }
}

/// Borrows texts for a call.
pub(super) fn slices(texts: &[String]) -> Vec<Slice> {
    texts.iter().map(|text| Slice::new(text.as_bytes())).collect()
}
