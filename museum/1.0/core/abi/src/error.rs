//! How a call says that it failed: a [`Status`] as its result, an [`Error`] with code, message and details beside it.

use crate::value::Buffer;
use abi_stable::StableAbi;

/// The result of a call. Negative: failed, see the [`Error`]. Zero: done. Positive: a state that the function names (busy, idle, ...).
#[repr(transparent)]
#[derive(StableAbi, Copy, Clone, PartialEq, Eq, Debug)]
pub struct Status(pub i32);

impl Status {
    /// Done.
    pub const OK: Self = Self(0);
    /// Failed; the error says why.
    pub const ERROR: Self = Self(-1);
    /// A sink takes no more now; it calls `wake` when it does. The batch stays the host's.
    pub const BUSY: Self = Self(1);
    /// A source has nothing now in any of its splits; it calls `wake` when it has.
    pub const IDLE: Self = Self(2);
    /// A source has read the split that it names to its end.
    pub const END_OF_SPLIT: Self = Self(3);
    /// A transform will call `complete` with the token.
    pub const PENDING: Self = Self(4);
}

/// What kind of failure it was. An open enumeration: a reader treats a code that it does not know as [`ErrorCode::OTHER`].
#[repr(transparent)]
#[derive(StableAbi, Copy, Clone, PartialEq, Eq, Debug)]
pub struct ErrorCode(pub u32);

impl ErrorCode {
    /// None of the others.
    pub const OTHER: Self = Self(0);
    /// The configuration is wrong; `details` may hold `{"path": "hosts[0]", "suggestion": "..."}`. Exit code 2.
    pub const CONFIG: Self = Self(1);
    /// Something outside is missing or unreachable (file, topic, address, permission). Exit code 3 at start.
    pub const EXTERNAL: Self = Self(2);
    /// The data is wrong.
    pub const DATA: Self = Self(3);
    /// The instance panicked: it is poisoned, every later call fails the same way.
    pub const PANIC: Self = Self(4);
    /// The function or option is not supported.
    pub const UNSUPPORTED: Self = Self(5);
    /// The call was given up because the host cancelled.
    pub const CANCELLED: Self = Self(6);
    /// A key, ordinal, slot or output that the call may not name.
    pub const OUT_OF_RANGE: Self = Self(7);
}

/// A failure. The caller passes an empty one; a function that fails fills it in.
#[repr(C)]
#[derive(StableAbi)]
pub struct Error {
    /// Bytes of this struct that the caller knows.
    pub size: u32,
    /// What kind.
    pub code: ErrorCode,
    /// 1 if the same call may succeed later.
    pub retryable: u32,
    /// Zero.
    pub reserved: u32,
    /// One line for people, without a trailing period.
    pub message: Buffer,
    /// A JSON object that evolves freely: `path`, `suggestion`, `location`, `backtrace`, `causes`.
    pub details: Buffer,
}

impl Error {
    /// An empty error, as a caller passes it.
    #[must_use]
    pub const fn empty() -> Self {
        Self {
            size: size_of::<Self>() as u32,
            code: ErrorCode::OTHER,
            retryable: 0,
            reserved: 0,
            message: Buffer::EMPTY,
            details: Buffer::EMPTY,
        }
    }

    /// An error with a code and a message.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: Buffer::from_vec(message.into().into_bytes()), ..Self::empty() }
    }
}

impl Default for Error {
    fn default() -> Self {
        Self::empty()
    }
}
