//! An instance behind the host's opaque pointer: created with its configuration, opened, closed or poisoned.

use super::{fail, guard, out_of_range, panic, put};
use crate::{Config, Context, Error, ErrorCode, Host, Result, config};
use standpipe_abi::{self as abi, HostTable, Slice, Status};
use std::ffi::c_void;

/// An author's value `O` and what it is made of.
pub(super) struct Instance<O, C> {
    life: Life<O, C>,
    host: Host,
}

/// A host that is let go of when it is dropped: whoever still has it gets nothing from it any more.
struct Closing(Option<Host>);

impl Drop for Closing {
    fn drop(&mut self) {
        if let Some(host) = self.0.take() {
            host.close();
        }
    }
}

enum Life<O, C> {
    Created(Box<(C, Context)>),
    Open(O),
    Ended,
    Poisoned(String),
}

impl<O, C: Config> Instance<O, C> {
    /// `create`: reads the configuration with its references resolved.
    ///
    /// # Safety
    /// The pointers must be null or what the table's `create` says.
    pub(super) unsafe fn create(
        config: Slice,
        context: *const abi::Context,
        host: *const HostTable,
        instance: *mut *mut c_void,
        error: *mut abi::Error,
    ) -> Status {
        let create = || {
            // SAFETY: by the caller's word.
            let host = unsafe { Host::from_abi(host) }?;
            let mut context = unsafe { Context::from_abi(context, host.clone()) }?;
            let mut value = config::read(unsafe { config.as_bytes() })?;
            context.references = config::resolve(&mut value, &host)?;
            let config = config::parse::<C>(value).map_err(Error::first_problem)?;
            let this = Box::new(Self { life: Life::Created(Box::new((config, context))), host });
            let this = Box::into_raw(this).cast::<c_void>();
            // SAFETY: as above. On failure nobody else has the box.
            unsafe { put(instance, this) }.inspect_err(|_| drop(unsafe { Box::from_raw(this.cast::<Self>()) }))
        };
        guard("create", error, create).0
    }

    /// `create` of a kind that has no `open`: makes the author's value at once.
    ///
    /// # Safety
    /// As [`Instance::create`].
    pub(super) unsafe fn create_open(
        config: Slice,
        host: *const HostTable,
        instance: *mut *mut c_void,
        error: *mut abi::Error,
        open: impl FnOnce(C, Host) -> Result<O>,
    ) -> Status {
        let create = || {
            // SAFETY: by the caller's word.
            let host = unsafe { Host::from_abi(host) }?;
            let mut value = config::read(unsafe { config.as_bytes() })?;
            config::resolve(&mut value, &host)?;
            // Threads of an author that has failed may still have it.
            let mut closing = Closing(Some(host.clone()));
            let open = open(config::parse::<C>(value).map_err(Error::first_problem)?, host.clone())?;
            let this = Box::into_raw(Box::new(Self { life: Life::Open(open), host })).cast::<c_void>();
            // SAFETY: as above. On failure nobody else has the box.
            let status = unsafe { put(instance, this) }.inspect_err(|_| drop(unsafe { Box::from_raw(this.cast::<Self>()) }))?;
            closing.0 = None;
            Ok(status)
        };
        guard("create", error, create).0
    }

    /// Runs a call on the instance; a panic poisons it.
    ///
    /// # Safety
    /// `instance` must be null or what `create` gave, used by this thread alone.
    pub(super) unsafe fn enter(
        function: &'static str,
        instance: *mut c_void,
        error: *mut abi::Error,
        call: impl FnOnce(&mut Self) -> Result<Status>,
    ) -> Status {
        // SAFETY: by the caller's word.
        let Some(this) = (unsafe { instance.cast::<Self>().as_mut() }) else {
            return fail(error, out_of_range("the host passed no instance"));
        };
        if let Life::Poisoned(story) = &this.life {
            return fail(error, Error::new(ErrorCode::PANIC, format!("is poisoned, it {story}")).with("poisoned", true));
        }
        let (status, panicked) = guard(function, error, || call(this));
        if let Some(report) = panicked {
            let story = format!("panicked in {function} before: {}", report.text());
            std::mem::forget(std::mem::replace(&mut this.life, Life::Poisoned(story)));
        }
        status
    }

    /// `open`: makes the author's value.
    ///
    /// # Safety
    /// As [`Instance::enter`].
    pub(super) unsafe fn open(instance: *mut c_void, error: *mut abi::Error, open: impl FnOnce(C, Context) -> Result<O>) -> Status {
        // SAFETY: passed on to the caller.
        unsafe {
            Self::enter("open", instance, error, |this| match std::mem::replace(&mut this.life, Life::Ended) {
                Life::Created(made) => {
                    let (config, context) = *made;
                    this.life = Life::Open(open(config, context)?);
                    Ok(Status::OK)
                }
                other => {
                    this.life = other;
                    Err(out_of_range("open was called twice, or after a failure"))
                }
            })
        }
    }

    /// Runs a call on the author's value.
    ///
    /// # Safety
    /// As [`Instance::enter`].
    pub(super) unsafe fn call(
        function: &'static str,
        instance: *mut c_void,
        error: *mut abi::Error,
        call: impl FnOnce(&mut O) -> Result<Status>,
    ) -> Status {
        // SAFETY: passed on to the caller.
        unsafe {
            Self::enter(function, instance, error, |this| match &mut this.life {
                Life::Open(open) => call(open),
                _ => Err(out_of_range(&format!("{function} was called on an instance that is not open"))),
            })
        }
    }

    /// `close`: one that was never opened has nothing to end.
    ///
    /// # Safety
    /// As [`Instance::enter`].
    pub(super) unsafe fn close(instance: *mut c_void, error: *mut abi::Error, close: impl FnOnce(&mut O) -> Result<()>) -> Status {
        // SAFETY: passed on to the caller.
        unsafe {
            Self::enter("close", instance, error, |this| match &mut this.life {
                Life::Open(open) => close(open).map(|()| Status::OK),
                _ => Ok(Status::OK),
            })
        }
    }

    /// `destroy`: drops the author's value, unless it is poisoned, then keeps threads that it left behind from the host.
    ///
    /// # Safety
    /// As [`Instance::enter`]; the instance is gone afterwards.
    pub(super) unsafe fn destroy(instance: *mut c_void) {
        if instance.is_null() {
            return;
        }
        // SAFETY: made by `create`, given up by the host.
        let Self { life, host } = *unsafe { Box::from_raw(instance.cast::<Self>()) };
        let _ = panic::catch(|| drop(life));
        host.close();
    }
}
