//! How a job is, by what Kubernetes keeps of it: its Job, and the pods of its manager. What is kept longest is asked first: an annotation of the Job, the last words of the manager's
//! pod, the Job's own conditions. Pure functions on objects.

use crate::{
    manifests::{EXIT_CANCELED, EXIT_FAILED, MANAGER, STATUS},
    trouble::{self, Outlook},
};
use k8s_openapi::api::{
    batch::v1::{Job, JobCondition},
    core::v1::{Event, Pod},
};
use serde::{Deserialize, Serialize};
use standpipe_sdk::deployment::JobStatus;

/// What a manager says of its job's end: in the annotation, and in the termination message of its pod.
#[derive(Serialize, Deserialize, Debug, Clone, PartialEq, Eq, Default)]
#[serde(default)]
pub(crate) struct Ending {
    pub(crate) state: String,
    pub(crate) cause: Option<String>,
}

impl Ending {
    fn status(self) -> Option<JobStatus> {
        let status = JobStatus { cause: self.cause.filter(|cause| !cause.is_empty()), ..JobStatus::new(&self.state) };
        status.is_terminal().then_some(status)
    }
}

/// What is known of a job.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Known {
    /// It is over.
    Ended(JobStatus),
    /// Its manager runs, and can be asked.
    Runs,
    /// It has no manager now.
    Waits(Outlook, JobStatus),
}

/// A condition of the Job that holds.
fn condition<'a>(job: &'a Job, kind: &str) -> Option<&'a JobCondition> {
    let conditions = job.status.as_ref()?.conditions.as_deref().unwrap_or_default();
    conditions.iter().find(|condition| condition.type_ == kind && condition.status == "True")
}

/// How the job ended, if it has.
pub(crate) fn ended(job: &Job, pods: &[Pod]) -> Option<JobStatus> {
    let annotation = job.metadata.annotations.as_ref().and_then(|annotations| annotations.get(STATUS));
    if let Some(status) = annotation.and_then(|text| serde_json::from_str::<Ending>(text).ok()).and_then(Ending::status) {
        return Some(status);
    }
    pods.iter().find_map(last_words).or_else(|| by_conditions(job))
}

/// Of a pod whose manager ended with its job.
fn last_words(pod: &Pod) -> Option<JobStatus> {
    let ended = trouble::ended(pod, MANAGER).filter(|ended| [0, EXIT_FAILED, EXIT_CANCELED].contains(&ended.exit_code))?;
    let said = ended.message.as_deref().and_then(|text| serde_json::from_str::<Ending>(text.trim()).ok()).and_then(Ending::status);
    said.or_else(|| by_exit_code(ended.exit_code))
}

fn by_exit_code(code: i32) -> Option<JobStatus> {
    let (state, cause) = match code {
        0 => ("FINISHED", None),
        EXIT_FAILED => ("FAILED", Some("the job manager's pod, which knew why, is gone".to_owned())),
        EXIT_CANCELED => ("CANCELED", None),
        _ => return None,
    };
    Some(JobStatus { cause, ..JobStatus::new(state) })
}

/// Of a Job that Kubernetes has ended.
fn by_conditions(job: &Job) -> Option<JobStatus> {
    if condition(job, "Complete").is_some() {
        return Some(JobStatus::new("FINISHED"));
    }
    let failed = condition(job, "Failed")?;
    let message = failed.message.as_deref().unwrap_or_default();
    if failed.reason.as_deref() == Some("PodFailurePolicy") {
        let code = message
            .split("exit code ")
            .nth(1)
            .and_then(|rest| rest.split(|c: char| !c.is_ascii_digit()).next())
            .and_then(|code| code.parse().ok());
        if let Some(status) = code.and_then(by_exit_code) {
            return Some(status);
        }
    }
    let cause = match failed.reason.as_deref() {
        Some("DeadlineExceeded") => "its submission was never completed, so Kubernetes has ended it".to_owned(),
        reason => format!("Kubernetes has ended it ({}): {message}", reason.unwrap_or("no reason")),
    };
    Some(JobStatus { cause: Some(cause), ..JobStatus::new("FAILED") })
}

/// What is known of a job; pods of its manager are the newest first, events are those of the first, or of the Job if there is none.
pub(crate) fn known(job: &Job, pods: &[Pod], events: &[Event]) -> Known {
    if let Some(status) = ended(job, pods) {
        return Known::Ended(status);
    }
    if pods.iter().any(|pod| trouble::runs(pod, MANAGER)) {
        return Known::Runs;
    }
    let waiting = pods.iter().find(|pod| trouble::ended(pod, MANAGER).is_none() && pod.metadata.deletion_timestamp.is_none());
    let outlook = waiting.map_or(Outlook::Fine, trouble::of_pod).or(trouble::of_events(events));
    let failures = job.status.as_ref().and_then(|status| status.failed).unwrap_or(0);
    let was_there = failures > 0 || pods.iter().any(is_going);
    let mut status = JobStatus::new(if was_there { "RESTARTING" } else { "INITIALIZING" });
    status.cause = outlook.clone().line().or_else(|| was_there.then(|| lost(pods)));
    Known::Waits(outlook, status)
}

/// Whether the pod was a manager, and is none any more.
fn is_going(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    phase == Some("Failed")
        || trouble::ended(pod, MANAGER).is_some()
        || trouble::is_disrupted(pod)
        || pod.metadata.deletion_timestamp.is_some()
}

/// Why there was a manager and is none.
fn lost(pods: &[Pod]) -> String {
    let Some(last) = pods.iter().find(|pod| is_going(pod)) else { return "the job manager's pod is replaced".to_owned() };
    let why = trouble::reason(last).map(|why| format!(" ({why})")).unwrap_or_default();
    let name = trouble::name(last);
    // Kubernetes waits longer after each of them, up to ten minutes, and for a node that does not answer until it does.
    match trouble::ended(last, MANAGER) {
        _ if trouble::is_disrupted(last) => format!("pod {name} of the job manager was taken from its node{why}, and is replaced"),
        Some(ended) => format!("pod {name} of the job manager ended {}{why}, and is replaced", trouble::exit(ended)),
        None if last.metadata.deletion_timestamp.is_some() => {
            format!("pod {name} of the job manager was deleted{why}, and is replaced once its node says that it has ended")
        }
        None => format!("pod {name} of the job manager has ended{why}, and is replaced"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{job, pod};
    use serde_json::{Value, json};

    fn with_state(name: &str, state: Value) -> Pod {
        let status = json!([{"name": "manager", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state}]);
        pod(name, json!({"containerStatuses": status}))
    }

    fn failed(reason: &str, message: &str) -> Value {
        json!({"conditions": [{"type": "Failed", "status": "True", "reason": reason, "message": message}], "failed": 1})
    }

    fn said(status: &JobStatus) -> String {
        format!("{}: {}", status.state, status.cause.as_deref().unwrap_or("-"))
    }

    #[test]
    fn the_end_of_a_job_is_known_when_its_pods_are_gone() {
        let none = json!(null);
        let policy = |code| {
            failed(
                "PodFailurePolicy",
                &format!("Container manager for pod n/p failed with exit code {code} matching FailJob rule at index 0"),
            )
        };
        let finished = json!({"conditions": [{"type": "Complete", "status": "True"}]});
        for (annotation, status, expected) in [
            (json!({"state": "FAILED", "cause": "no topic", "jobid": "x", "ended": 1}), none.clone(), "FAILED: no topic"),
            (json!({"state": "CANCELED"}), policy(20), "CANCELED: -"),
            (json!({"state": "RUNNING"}), finished.clone(), "FINISHED: -"),
            (json!("nonsense"), policy(20), "FAILED: the job manager's pod, which knew why, is gone"),
            (none.clone(), policy(21), "CANCELED: -"),
            (none.clone(), finished, "FINISHED: -"),
            (none.clone(), failed("DeadlineExceeded", "x"), "FAILED: its submission was never completed, so Kubernetes has ended it"),
            (none.clone(), failed("Odd", "x"), "FAILED: Kubernetes has ended it (Odd): x"),
        ] {
            let annotation = (!annotation.is_null()).then(|| annotation.to_string());
            let status = ended(&job(annotation.as_deref(), status), &[]).unwrap();
            assert_eq!(said(&status), expected);
        }
        assert_eq!(ended(&job(None, json!({"active": 1})), &[]), None);
        assert_eq!(ended(&job(None, json!({"conditions": [{"type": "Failed", "status": "False"}]})), &[]), None);
    }

    #[test]
    fn the_last_words_of_a_pod_say_more_than_its_exit_code() {
        let words = json!({"terminated": {"exitCode": 20, "message": "{\"state\": \"FAILED\", \"cause\": \"no topic\"}\n"}});
        let mute = json!({"terminated": {"exitCode": 21, "message": "half of {"}});
        let killed = json!({"terminated": {"exitCode": 137, "message": "{\"state\": \"FAILED\"}"}});
        let of = |state: &Value| ended(&job(None, json!({})), &[with_state("p", state.clone())]).map(|status| said(&status));
        assert_eq!(of(&words).as_deref(), Some("FAILED: no topic"));
        assert_eq!(of(&mute).as_deref(), Some("CANCELED: -"));
        assert_eq!(of(&killed), None, "it did not end with its job");
    }

    #[test]
    fn a_job_without_a_manager_says_why() {
        let of = |status: Value, pods: &[Pod], events: &[Event]| match known(&job(None, status), pods, events) {
            Known::Waits(_, status) => said(&status),
            other => format!("{other:?}"),
        };
        let killed = with_state("p", json!({"terminated": {"exitCode": 137, "reason": "OOMKilled"}}));
        let pulled = with_state("q", json!({"waiting": {"reason": "ImagePullBackOff", "message": "gone"}}));
        let evicted = pod("e", json!({"phase": "Failed", "reason": "Evicted", "message": "The node was low on resource: memory."}));
        let running = with_state("r", json!({"running": {}}));
        let mut disrupted = with_state("d", json!({"terminated": {"exitCode": 143}}));
        disrupted.status.as_mut().unwrap().conditions =
            Some(serde_json::from_value(json!([{"type": "DisruptionTarget", "status": "True"}])).unwrap());
        let quota: Event =
            serde_json::from_value(json!({"metadata": {}, "involvedObject": {}, "reason": "FailedCreate", "message": "exceeded quota: q"}))
                .unwrap();
        assert_eq!(of(json!({}), &[], &[]), "INITIALIZING: -");
        assert_eq!(of(json!({}), &[], &[quota]), "INITIALIZING: no pod can be created: exceeded quota: q");
        assert_eq!(
            of(json!({}), std::slice::from_ref(&pulled), &[]).split(" (").next(),
            Some("INITIALIZING: image i of pod q cannot be pulled")
        );
        assert_eq!(of(json!({"failed": 1}), &[], &[]), "RESTARTING: the job manager's pod is replaced");
        assert_eq!(
            of(json!({}), std::slice::from_ref(&killed), &[]),
            "RESTARTING: pod p of the job manager ended with exit code 137 (OOMKilled), and is replaced"
        );
        assert_eq!(of(json!({}), &[disrupted], &[]), "RESTARTING: pod d of the job manager was taken from its node, and is replaced");
        assert!(of(json!({"failed": 1}), &[pulled, killed.clone()], &[]).starts_with("RESTARTING: image i of pod q"));
        let mut deleted = running.clone();
        deleted.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
        let of_deleted = "RESTARTING: pod r of the job manager was deleted, and is replaced once its node says that it has ended";
        assert_eq!(of(json!({}), &[deleted], &[]), of_deleted);
        let of_evicted = "RESTARTING: pod e of the job manager has ended (Evicted: The node was low on resource: memory.), and is replaced";
        assert_eq!(of(json!({}), &[evicted], &[]), of_evicted);
        assert_eq!(known(&job(None, json!({})), &[running, killed], &[]), Known::Runs);
    }
}
