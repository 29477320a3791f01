//! What the API server and the way to it refuse, as one line that says what was wanted, of what, and what helps. Pure: an error and what was asked, to a text.

use kube::core::Status;
use standpipe_sdk::Error;

/// Where the rights are explained that are needed.
const RIGHTS: &str = "docker/kubernetes/deployer.yaml has a Role with all that is needed (docs/kubernetes.md, \"Rights\")";

/// What was asked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// As RBAC has it: `create`.
    pub(crate) verb: &'a str,
    /// As RBAC has it: `jobs`.
    pub(crate) resource: &'a str,
    pub(crate) name: &'a str,
    pub(crate) namespace: &'a str,
    /// The API server's address.
    pub(crate) server: &'a str,
}

impl Asked<'_> {
    /// The failure of a call.
    pub(crate) fn failed(&self, error: &kube::Error) -> Error {
        match error {
            kube::Error::Api(status) => self.refused(status),
            // The credentials were not even sent.
            kube::Error::Auth(error) => Error::external(format!("no credentials for the API server at {}: {}", self.server, chain(error))),
            other => Error::external(format!("the API server at {} cannot be reached: {}", self.server, way(&chain(other)))).retryable(),
        }
    }

    /// What the API server says.
    fn refused(&self, status: &Status) -> Error {
        let Self { verb, resource, name, namespace, server } = self;
        let kind = status.details.as_ref().map(|details| details.kind.as_str()).unwrap_or_default();
        let message = one_line(&status.message);
        match status.code {
            401 => Error::external(format!(
                "the API server at {server} does not take these credentials (kubernetes.config.file, kubernetes.context): {message}"
            )),
            403 if message.contains("exceeded quota") => {
                Error::external(format!("the quota of namespace {namespace} does not allow it: {message}"))
            }
            403 if message.contains("cannot ") || message.is_empty() => {
                Error::external(format!("no right to {verb} {resource} in namespace {namespace}: {message}; {RIGHTS}"))
            }
            403 if message.contains("because it is being terminated") => {
                Error::external(format!("namespace {namespace} is being removed: {message}"))
            }
            404 if kind == "namespaces" || message.starts_with("namespaces ") => {
                Error::config("kubernetes.namespace", format!("there is no namespace {namespace}: kubectl create namespace {namespace}"))
            }
            404 => Error::external(format!("{resource} {name} of namespace {namespace} is not there: {message}")),
            409 if status.reason == "AlreadyExists" => taken(resource, name, namespace),
            400 | 422 => Error::config("", format!("the API server does not take {resource} {name}: {message}")),
            // Kubernetes says by 500 that an applied object has a member that it does not know, or the same thing twice.
            500 if message.starts_with("failed to create typed patch object") => {
                Error::config("", format!("the API server does not take {resource} {name}: {message}"))
            }
            429 | 500.. => Error::external(format!("the API server at {server} cannot {verb} {resource} now: {message}")).retryable(),
            code => Error::external(format!("the API server at {server} refuses to {verb} {resource} {name} ({code}): {message}")),
        }
    }
}

/// Something else has that name.
pub(crate) fn taken(resource: &str, name: &str, namespace: &str) -> Error {
    let message =
        format!("{resource} {name} is in namespace {namespace} already, and is none of this job: choose another kubernetes.cluster.id");
    Error::config("kubernetes.cluster.id", message)
}

/// An error with its causes, each said once.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let said = cause.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = cause.source();
    }
    one_line(&text)
}

/// What helps where a connection is not made.
fn way(text: &str) -> String {
    let text = text.trim_start_matches("ServiceError: ").trim_start_matches("HyperError: ");
    let text = text.strip_prefix("client error (Connect): ").unwrap_or(text);
    let hint = if text.contains("UnknownIssuer") || text.contains("invalid peer certificate") {
        "; certificate-authority of the kubeconfig says whom to trust"
    } else if text.contains("deadline has elapsed") {
        "; it does not answer"
    } else {
        ""
    };
    format!("{text}{hint}")
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A configuration of the client that cannot be used.
pub(crate) fn unusable(file: &str, error: &dyn std::error::Error) -> Error {
    let text = chain(error);
    let is_outside = error.source().is_some_and(|source| source.is::<std::io::Error>());
    let message = format!("{file}: {text}");
    if is_outside {
        Error::external(format!("kubernetes.config.file: {message}"))
    } else {
        Error::config("kubernetes.config.file", message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const ASKED: Asked<'static> = Asked { verb: "create", resource: "jobs", name: "j", namespace: "n", server: "https://h:6443/" };

    fn line(code: u16, reason: &str, message: &str, kind: &str) -> String {
        let status = json!({"status": "Failure", "message": message, "reason": reason, "code": code, "details": {"kind": kind}});
        let status: Status = serde_json::from_value(status).unwrap();
        ASKED.failed(&kube::Error::Api(Box::new(status))).message
    }

    #[test]
    fn a_refusal_is_one_line_that_says_what_helps() {
        let cannot = "jobs.batch is forbidden: User \"eve\" cannot create resource \"jobs\" in API group \"batch\" in the namespace \"n\"";
        let quota = "jobs.batch \"j\" is forbidden: exceeded quota: q, requested: count/jobs.batch=1, used: count/jobs.batch=2, limited: count/jobs.batch=2";
        for (found, expected) in [
            (
                line(401, "Unauthorized", "Unauthorized", ""),
                "the API server at https://h:6443/ does not take these credentials (kubernetes.config.file, kubernetes.context): Unauthorized".to_owned(),
            ),
            (line(403, "Forbidden", cannot, "jobs"), format!("no right to create jobs in namespace n: {cannot}; {RIGHTS}")),
            (line(403, "Forbidden", quota, "jobs"), format!("the quota of namespace n does not allow it: {quota}")),
            (
                line(404, "NotFound", "namespaces \"n\" not found", "namespaces"),
                "there is no namespace n: kubectl create namespace n".to_owned(),
            ),
            (
                line(409, "AlreadyExists", "jobs.batch \"j\" already exists", "jobs"),
                "jobs j is in namespace n already, and is none of this job: choose another kubernetes.cluster.id".to_owned(),
            ),
            (line(422, "Invalid", "Job.batch \"j\" is\n invalid", "Job"), "the API server does not take jobs j: Job.batch \"j\" is invalid".to_owned()),
            (
                line(500, "", "failed to create typed patch object (n/j; apps/v1, Kind=StatefulSet): .spec.x: field not declared in schema", ""),
                "the API server does not take jobs j: failed to create typed patch object (n/j; apps/v1, Kind=StatefulSet): .spec.x: field not declared in schema".to_owned(),
            ),
            (line(503, "", "apiserver is shutting down", ""), "the API server at https://h:6443/ cannot create jobs now: apiserver is shutting down".to_owned()),
        ] {
            assert_eq!(found, expected);
        }
    }

    #[test]
    fn a_way_that_is_blocked_names_the_server_and_the_cause() {
        let refused = std::io::Error::new(std::io::ErrorKind::ConnectionRefused, "Connection refused (os error 111)");
        let error = ASKED.failed(&kube::Error::Service(Box::new(refused)));
        assert_eq!(error.message, "the API server at https://h:6443/ cannot be reached: Connection refused (os error 111)");
        assert!(error.retryable);
        let certificate = std::io::Error::other("invalid peer certificate: UnknownIssuer");
        let error = ASKED.failed(&kube::Error::Service(Box::new(certificate)));
        assert!(error.message.ends_with("UnknownIssuer; certificate-authority of the kubeconfig says whom to trust"), "{}", error.message);
    }
}
