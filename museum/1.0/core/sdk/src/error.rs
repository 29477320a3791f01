//! The error that an author's code returns; it crosses as code, message and details.

use standpipe_abi::ErrorCode;

/// What an author's function returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A failure of a plugin: what kind it was and one line for people, without a trailing period.
#[derive(Debug, Clone)]
pub struct Error {
    /// What kind.
    pub code: ErrorCode,
    /// Whether the same call may succeed later.
    pub retryable: bool,
    /// One line for people.
    pub message: String,
    /// `path`, `suggestion`, `location`, `causes`: shown with the message where they help.
    pub details: serde_json::Map<String, serde_json::Value>,
}

impl Error {
    /// A failure of that kind.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, retryable: false, message: message.into(), details: serde_json::Map::new() }
    }

    /// The value at `path` of the configuration (`hosts[0]`) is wrong.
    pub fn config(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorCode::CONFIG, message).with("path", path.into())
    }

    /// Something outside is missing or unreachable.
    pub fn external(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::EXTERNAL, message)
    }

    /// The data is wrong.
    pub fn data(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::DATA, message)
    }

    /// Not supported.
    pub fn unsupported(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::UNSUPPORTED, message)
    }

    /// The host cancelled the call.
    #[must_use]
    pub fn cancelled() -> Self {
        Self::new(ErrorCode::CANCELLED, "cancelled")
    }

    /// Says that the same call may succeed later.
    #[must_use]
    pub fn retryable(mut self) -> Self {
        self.retryable = true;
        self
    }

    /// Adds a detail.
    #[must_use]
    pub fn with(mut self, key: &str, value: impl Into<serde_json::Value>) -> Self {
        self.details.insert(key.to_owned(), value.into());
        self
    }
}

impl Error {
    /// As it crosses.
    #[must_use]
    pub fn into_abi(self) -> standpipe_abi::Error {
        let details = if self.details.is_empty() { Vec::new() } else { serde_json::Value::Object(self.details).to_string().into_bytes() };
        let details = standpipe_abi::Buffer::from_vec(details);
        standpipe_abi::Error { retryable: u32::from(self.retryable), details, ..standpipe_abi::Error::new(self.code, self.message) }
    }

    /// A struct of the other side that cannot be used: `what` is `the host's context`.
    /// What a configuration that cannot be read means where one failure is the answer. Where all problems can be told, they have been.
    pub(crate) fn first_problem(problems: Vec<crate::wire::Problem>) -> Self {
        let problem = problems.into_iter().next().unwrap_or_default();
        let error = Self::config(problem.path, problem.message);
        match problem.suggestion {
            Some(suggestion) => error.with("suggestion", suggestion),
            None => error,
        }
    }

    pub(crate) fn unusable(what: &str) -> impl Fn(standpipe_abi::growing::Unusable) -> Self {
        move |why| Self::new(ErrorCode::OUT_OF_RANGE, format!("{what} {why}"))
    }

    /// As it was sent. A failure without a message says at least that.
    #[must_use]
    pub fn from_abi(error: &standpipe_abi::Error) -> Self {
        let message = error.message.to_text();
        let message = if message.is_empty() { "failed without saying why".to_owned() } else { message };
        let details = serde_json::from_slice(error.details.as_bytes()).unwrap_or_default();
        Self { code: error.code, retryable: error.retryable != 0, message, details }
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.message)
    }
}

/// Any error becomes one of code "other" with its chain of causes in the message. (`Error` itself is no `std::error::Error`, so that this can exist.)
impl<E: std::error::Error> From<E> for Error {
    fn from(error: E) -> Self {
        let mut message = error.to_string();
        let mut cause = error.source();
        while let Some(inner) = cause {
            let text = inner.to_string();
            if !message.contains(&text) {
                message.push_str(": ");
                message.push_str(&text);
            }
            cause = inner.source();
        }
        Self::new(ErrorCode::OTHER, message)
    }
}
