//! What is wrong with pods, as far as Kubernetes tells: of a state to a line for people. Pure functions on its objects.

use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Event, Pod};

/// How often something is told that does not pass by itself.
const REPEATED: i32 = 3;

/// Whether waiting helps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outlook {
    /// Nothing is wrong that can be seen.
    Fine,
    /// It may pass.
    Waits(String),
    /// Somebody has to change something.
    Hopeless(String),
}

impl Outlook {
    /// The line, if there is one.
    pub(crate) fn line(self) -> Option<String> {
        match self {
            Self::Fine => None,
            Self::Waits(line) | Self::Hopeless(line) => Some(line),
        }
    }

    /// The worse of two.
    pub(crate) fn or(self, other: Self) -> Self {
        match (&self, &other) {
            (Self::Fine, _) | (Self::Waits(_), Self::Hopeless(_)) => other,
            _ => self,
        }
    }
}

/// A pod's name.
pub(crate) fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap_or_default()
}

/// The status of the containers of a pod, those that prepare it first.
fn containers(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    let status = pod.status.as_ref();
    let first = status.and_then(|status| status.init_container_statuses.as_deref()).unwrap_or_default();
    first.iter().chain(status.and_then(|status| status.container_statuses.as_deref()).unwrap_or_default())
}

/// The end of a container of that name, of the last one that ran there.
pub(crate) fn ended<'a>(pod: &'a Pod, container: &str) -> Option<&'a ContainerStateTerminated> {
    let status = containers(pod).find(|status| status.name == container)?;
    let of = |state: &'a Option<ContainerState>| state.as_ref()?.terminated.as_ref();
    of(&status.state).or_else(|| of(&status.last_state))
}

/// Whether a pod's container runs, and the pod is not about to go.
pub(crate) fn runs(pod: &Pod, container: &str) -> bool {
    let state = containers(pod).find(|status| status.name == container).and_then(|status| status.state.as_ref());
    pod.metadata.deletion_timestamp.is_none() && state.is_some_and(|state| state.running.is_some())
}

/// Whether a pod was taken away by somebody else: a drain, a node that is gone.
pub(crate) fn is_disrupted(pod: &Pod) -> bool {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    conditions.iter().any(|condition| condition.type_ == "DisruptionTarget" && condition.status == "True")
}

/// How it looks for a pod.
pub(crate) fn of_pod(pod: &Pod) -> Outlook {
    let scheduled = of_scheduling(pod);
    containers(pod).map(|status| of_container(pod, status)).fold(scheduled, Outlook::or)
}

fn of_scheduling(pod: &Pod) -> Outlook {
    let conditions = pod.status.as_ref().and_then(|status| status.conditions.as_deref()).unwrap_or_default();
    let waits = conditions.iter().find(|condition| condition.type_ == "PodScheduled" && condition.status == "False");
    match waits {
        Some(condition) if condition.reason.as_deref() == Some("Unschedulable") => {
            Outlook::Waits(format!("no node takes pod {}: {}", name(pod), one_line(condition.message.as_deref())))
        }
        _ => Outlook::Fine,
    }
}

fn of_container(pod: &Pod, status: &ContainerStatus) -> Outlook {
    let Some(waiting) = status.state.as_ref().and_then(|state| state.waiting.as_ref()) else { return Outlook::Fine };
    let (name, image, why) = (name(pod), &status.image, one_line(waiting.message.as_deref()));
    let why = if why.is_empty() { String::new() } else { format!(": {why}") };
    match waiting.reason.as_deref().unwrap_or_default() {
        "InvalidImageName" => Outlook::Hopeless(format!("image {image} of pod {name} has no name of an image (kubernetes.image){why}")),
        "ErrImageNeverPull" => Outlook::Hopeless(format!(
            "image {image} of pod {name} is not on its node, and is never pulled (kubernetes.image.pull.policy){why}"
        )),
        reason @ ("ImagePullBackOff" | "ErrImagePull") => {
            let line =
                format!("image {image} of pod {name} cannot be pulled ({reason}; kubernetes.image, kubernetes.image.pull.secrets){why}");
            if is_refused_image(&why) { Outlook::Hopeless(line) } else { Outlook::Waits(line) }
        }
        reason @ ("CreateContainerConfigError" | "CreateContainerError" | "RunContainerError") => {
            Outlook::Hopeless(format!("container {} of pod {name} cannot be started ({reason}){why}", status.name))
        }
        "CrashLoopBackOff" => {
            let last = ended(pod, &status.name).map(|ended| format!(", last {}", exit(ended))).unwrap_or_default();
            Outlook::Waits(format!("container {} of pod {name} ends again and again{last}", status.name))
        }
        _ => Outlook::Fine,
    }
}

/// Whether a registry has answered that it has no such image, or none for these credentials. One that does not answer, or asks for patience, may do so later.
fn is_refused_image(why: &str) -> bool {
    let why = why.to_ascii_lowercase();
    ["not found", "notfound", "manifest unknown", "does not exist", "unauthorized", "denied", "forbidden"]
        .iter()
        .any(|refusal| why.contains(refusal))
}

/// Why a pod that has ended did so, as its node says: it was evicted, there was no room for it.
pub(crate) fn reason(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?;
    let parts = [status.reason.as_deref().unwrap_or_default().to_owned(), one_line(status.message.as_deref())];
    let said: Vec<String> = parts.into_iter().filter(|part| !part.is_empty()).collect();
    (!said.is_empty()).then(|| said.join(": "))
}

/// How a container ended.
pub(crate) fn exit(ended: &ContainerStateTerminated) -> String {
    let reason = ended.reason.as_deref().filter(|reason| !["Error", "Completed"].contains(reason));
    match (ended.signal.filter(|signal| *signal > 0), reason) {
        (_, Some(reason)) => format!("with exit code {} ({reason})", ended.exit_code),
        (Some(signal), None) => format!("by signal {signal}"),
        (None, None) => format!("with exit code {}", ended.exit_code),
    }
}

/// What has been told of an object last: why its pods were not created, or not begun.
pub(crate) fn of_events(events: &[Event]) -> Outlook {
    let is_told =
        |event: &&Event| ["FailedCreate", "FailedMount", "FailedAttachVolume"].contains(&event.reason.as_deref().unwrap_or_default());
    let time = |event: &Event| event.last_timestamp.clone().map(|time| time.0).or_else(|| event.event_time.clone().map(|time| time.0));
    let Some(last) = events.iter().filter(is_told).max_by_key(|event| time(event)) else { return Outlook::Fine };
    let message = one_line(last.message.as_deref());
    let line = match last.reason.as_deref() {
        Some("FailedCreate") => format!("no pod can be created: {message}"),
        _ => message.clone(),
    };
    // What a pod needs is created after the Job: at first it may not be there.
    let is_early =
        last.count.unwrap_or(1) < REPEATED && (last.reason.as_deref() != Some("FailedCreate") || message.contains("serviceaccount"));
    if is_early {
        return Outlook::Fine;
    }
    let settled = ["exceeded quota", "violates PodSecurity", "admission webhook", "must specify limits", "must specify requests"];
    if settled.iter().any(|refusal| message.contains(refusal)) { Outlook::Hopeless(line) } else { Outlook::Waits(line) }
}

fn one_line(text: Option<&str>) -> String {
    text.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;
    use serde_json::{Value, json};

    fn waiting(reason: &str, message: &str) -> Pod {
        let state = json!({"waiting": {"reason": reason, "message": message}});
        pod(
            "p",
            json!({"containerStatuses": [{"name": "manager", "image": "i:1", "imageID": "", "ready": false, "restartCount": 0, "state": state}]}),
        )
    }

    #[test]
    fn a_state_of_a_container_is_a_line() {
        for (reason, expected) in [
            (
                "ImagePullBackOff",
                Outlook::Waits(
                    "image i:1 of pod p cannot be pulled (ImagePullBackOff; kubernetes.image, kubernetes.image.pull.secrets): why not"
                        .to_owned(),
                ),
            ),
            ("InvalidImageName", Outlook::Hopeless("image i:1 of pod p has no name of an image (kubernetes.image): why not".to_owned())),
            (
                "ErrImageNeverPull",
                Outlook::Hopeless(
                    "image i:1 of pod p is not on its node, and is never pulled (kubernetes.image.pull.policy): why not".to_owned(),
                ),
            ),
            (
                "CreateContainerConfigError",
                Outlook::Hopeless("container manager of pod p cannot be started (CreateContainerConfigError): why not".to_owned()),
            ),
            ("CrashLoopBackOff", Outlook::Waits("container manager of pod p ends again and again".to_owned())),
            ("ContainerCreating", Outlook::Fine),
        ] {
            assert_eq!(of_pod(&waiting(reason, "why\n not")), expected);
        }
    }

    #[test]
    fn a_registry_that_has_no_such_image_will_not_have_it_later() {
        for (why, is_hopeless) in [
            ("rpc error: code = NotFound desc = failed to pull and unpack image \"i:1\": not found", true),
            ("failed to authorize: 401 Unauthorized", true),
            ("pull access denied, repository does not exist or may require authorization", true),
            ("toomanyrequests: You have reached your pull rate limit", false),
            ("dial tcp: lookup registry on 10.0.0.10:53: server misbehaving", false),
        ] {
            for reason in ["ErrImagePull", "ImagePullBackOff"] {
                assert_eq!(matches!(of_pod(&waiting(reason, why)), Outlook::Hopeless(_)), is_hopeless, "{why}");
            }
        }
    }

    #[test]
    fn a_pod_that_no_node_takes_waits_for_one() {
        let status = json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/1 nodes are available"}]});
        assert_eq!(of_pod(&pod("p", status)), Outlook::Waits("no node takes pod p: 0/1 nodes are available".to_owned()));
        assert_eq!(of_pod(&pod("p", json!({}))), Outlook::Fine);
    }

    #[test]
    fn the_last_event_counts() {
        let event = |at: &str, reason: &str, message: &str| -> Event {
            let text = json!({"metadata": {}, "involvedObject": {}, "reason": reason, "message": message, "lastTimestamp": at, "count": 3});
            serde_json::from_value(text).unwrap()
        };
        let missing = event("2026-01-01T00:00:01Z", "FailedCreate", "error looking up service account n/a: serviceaccount \"a\" not found");
        let quota = event("2026-01-01T00:00:02Z", "FailedCreate", "pods \"p\" is forbidden: exceeded quota: q");
        let other = event("2026-01-01T00:00:03Z", "SuccessfulCreate", "Created pod: p");
        assert_eq!(of_events(std::slice::from_ref(&other)), Outlook::Fine);
        let found = of_events(&[quota.clone(), missing.clone(), other]);
        assert_eq!(found, Outlook::Hopeless("no pod can be created: pods \"p\" is forbidden: exceeded quota: q".to_owned()));
        assert_eq!(of_events(&[Event { count: Some(1), ..missing.clone() }]), Outlook::Fine, "it is created a moment later");
        assert!(matches!(of_events(&[missing]), Outlook::Waits(line) if line.ends_with("serviceaccount \"a\" not found")));
    }

    #[test]
    fn how_a_container_ended_is_found_also_behind_a_restart() {
        let status = |state: Value| {
            pod(
                "p",
                json!({"containerStatuses": [{"name": "taskmanager", "image": "", "imageID": "", "ready": false, "restartCount": 1,
            "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": state}]}),
            )
        };
        let killed = status(json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}));
        assert_eq!(
            of_pod(&killed),
            Outlook::Waits("container taskmanager of pod p ends again and again, last with exit code 137 (OOMKilled)".to_owned())
        );
        let plain = status(json!({"terminated": {"exitCode": 2, "reason": "Error"}}));
        assert!(of_pod(&plain).line().unwrap().ends_with("last with exit code 2"));
    }
}
