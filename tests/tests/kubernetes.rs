//! The deployment mode `kubernetes-application` against a real API server with its controllers: which objects there are, what is said of what is in the way, and that nothing is left. What takes a
//! node (a pod that runs) is said by the test instead, as a node would: of a pod's status.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod kubernetes_support;

use kubernetes_support::{Api, PATIENCE};
use serde_json::{Value, json};
use standpipe_tests::{Folder, Run, Running, Signal, free_port, kubernetes, repository, standpipe, wait_until, yaml};
use std::{fs, thread, time::Instant};

const PIPELINE: &str = "\
name: numbers
sources:
  numbers: {connector: generator, with: {count: 3, fields: {n: {kind: sequence}}}}
sinks:
  out: {input: numbers, connector: print, format: json}
";
/// What a job has, in the order in which it is created.
const OBJECTS: [&str; 9] = [
    "Job j",
    "ServiceAccount j",
    "Role j",
    "RoleBinding j",
    "Secret j",
    "ConfigMap j-bundle",
    "Service j",
    "Service j-taskmanager",
    "StatefulSet j-taskmanager",
];

fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("numbers.yaml", PIPELINE);
    folder
}

/// What no node has: a pod stays where it is until the test says something of it.
const NOWHERE: &str = "kubernetes.node.selector=standpipe-test=nowhere";

/// `standpipe deploy` of the job `j` by that kubeconfig.
fn deploy_by(kubeconfig: &str, api: &Api, folder: &Folder, settings: &[&str]) -> Run {
    let own = ["deployment_mode=kubernetes-application".to_owned(), format!("kubernetes.config.file={kubeconfig}")];
    let own = own.into_iter().chain([
        format!("kubernetes.namespace={}", api.namespace),
        "kubernetes.cluster.id=j".to_owned(),
        NOWHERE.to_owned(),
    ]);
    let settings = own.chain(settings.iter().map(|setting| (*setting).to_owned()));
    let run = standpipe(["deploy", "numbers.yaml"]).in_directory(folder.path()).timeout(2 * PATIENCE);
    settings.fold(run, |run, setting| run.args(["-D".to_owned(), setting]))
}

/// Starts a submission, and waits until all of it is there with the manager's pod.
fn begun(deploy: Run, api: &Api) -> Running {
    let mut run = deploy.start();
    run.wait_until("a pod", PATIENCE, |_| !api.managers("j").is_empty() && api.objects("j").len() == OBJECTS.len());
    run
}

fn names(objects: &[(String, Value)]) -> Vec<&str> {
    objects.iter().map(|(name, _)| name.as_str()).collect()
}

/// The handle that `deploy` would have given.
fn write_handle(api: &Api, kubeconfig: &str, folder: &Folder) {
    let bundle = api.get(&Api::path("ConfigMap", "j-bundle")).unwrap();
    let mut handle: Value = serde_json::from_str(bundle["data"]["handle.json"].as_str().unwrap()).unwrap();
    handle["kubernetes.config.file"] = kubeconfig.into();
    folder.write("job.json", handle.to_string());
}

fn deployment(folder: &Folder, command: &str) -> Run {
    standpipe(["deployment", command, "--handle", "job.json"]).in_directory(folder.path()).timeout(2 * PATIENCE)
}

#[test]
fn all_objects_are_owned_by_the_job_and_ctrl_c_leaves_nothing() {
    let Some(kubeconfig) = kubernetes() else { return };
    let (api, folder) = (Api::new(&kubeconfig), folder());
    let mut run = deploy_by(&kubeconfig, &api, &folder, &[]).start();
    run.wait_until("all objects", PATIENCE, |_| api.objects("j").len() == OBJECTS.len());
    let objects = api.objects("j");
    assert_eq!(names(&objects), OBJECTS);
    let job = &objects[0].1;
    assert_eq!(job["spec"]["activeDeadlineSeconds"], 360, "it ends if nobody completes it");
    for (name, object) in objects.iter().skip(1) {
        let owner = &object["metadata"]["ownerReferences"];
        assert_eq!((owner.as_array().map(Vec::len), &owner[0]["uid"]), (Some(1), &job["metadata"]["uid"]), "{name}: {owner}");
        let applied = object["metadata"]["managedFields"]
            .as_array()
            .unwrap()
            .iter()
            .any(|of| of["manager"] == "standpipe" && of["operation"] == "Apply");
        assert!(applied, "{name}: {}", object["metadata"]["managedFields"]);
    }
    // Nobody's own password is in a manifest that may be read.
    let secret = &objects[4].1["data"]["token"];
    assert!(secret.as_str().unwrap().len() >= 43);
    run.wait_until("why it waits", PATIENCE, |run| run.stderr().contains("waits for the job manager: no node takes pod j-"));

    write_handle(&api, &kubeconfig, &folder);
    let status = deployment(&folder, "status").finish().code(0).stdout;
    assert!(status.starts_with("INITIALIZING: no node takes pod j-"), "{status}");
    let stop = deployment(&folder, "stop").finish().one_error(3);
    assert!(stop.contains("j has no job manager now, it is INITIALIZING: no node takes pod"), "{stop}");

    run.signal(Signal::INT);
    let ended = run.wait();
    assert!(
        ended.code != Some(0) && ended.stderr.contains(&format!("what was created of j in namespace {} is removed", api.namespace)),
        "{ended:?}"
    );
    api.wait_until_gone("j");
    let gone = deployment(&folder, "status").finish().one_error(3);
    assert!(gone.ends_with("it was removed, or its time to live (kubernetes.ttl) is over"), "{gone}");
    assert!(deployment(&folder, "remove").finish().code(0).stderr.is_empty(), "there is nothing left to remove");
}

#[test]
fn a_client_that_is_killed_at_any_step_leaves_nothing() {
    let Some(kubeconfig) = kubernetes() else { return };
    thread::scope(|scope| {
        for (step, object) in OBJECTS.iter().enumerate() {
            let kubeconfig = &kubeconfig;
            scope.spawn(move || {
                let (api, folder) = (Api::new(kubeconfig), folder());
                let mut run = deploy_by(kubeconfig, &api, &folder, &["kubernetes.submit.timeout=1s", "kubernetes.ttl=1s"]).start();
                let (kind, name) = object.split_once(' ').unwrap();
                wait_until(object, PATIENCE, || api.get(&Api::path(kind, name)).is_some());
                run.signal(Signal::KILL);
                let ended = run.wait();
                assert_eq!(ended.code, None, "{step}: {ended:?}");
                // The client is gone; Kubernetes does it.
                api.wait_until_gone("j");
            });
        }
    });
}

#[test]
fn two_jobs_side_by_side_and_a_name_that_is_taken() {
    let Some(kubeconfig) = kubernetes() else { return };
    let (api, folder) = (Api::new(&kubeconfig), folder());
    let mut one = deploy_by(&kubeconfig, &api, &folder, &[]).start();
    let mut other = deploy_by(&kubeconfig, &api, &folder, &["kubernetes.cluster.id=k"]).start();
    one.wait_until("one", PATIENCE, |_| api.objects("j").len() == OBJECTS.len() && !api.managers("j").is_empty());
    other.wait_until("other", PATIENCE, |_| api.objects("k").len() == OBJECTS.len() && !api.managers("k").is_empty());
    let before = api.objects("j").into_iter().map(|(_, object)| object["metadata"]["resourceVersion"].clone()).collect::<Vec<_>>();
    let taken = deploy_by(&kubeconfig, &api, &folder, &[]).finish().one_error(2);
    let expected =
        format!("jobs j is in namespace {} already, and is none of this job: choose another kubernetes.cluster.id", api.namespace);
    assert!(taken.ends_with(&expected), "{taken}");
    let after = api.objects("j").into_iter().map(|(_, object)| object["metadata"]["resourceVersion"].clone()).collect::<Vec<_>>();
    assert_eq!(after.len(), before.len(), "the job that is there is not touched");
    let uid = |id: &str| api.managers(id)[0]["metadata"]["uid"].clone();
    let kept = uid("k");
    one.signal(Signal::INT);
    assert_ne!(one.wait().code, Some(0));
    api.wait_until_gone("j");
    assert_eq!((uid("k"), api.objects("k").len()), (kept, OBJECTS.len()), "the other one goes on");
    other.signal(Signal::TERM);
    assert_ne!(other.wait().code, Some(0));
    api.wait_until_gone("k");
}

#[test]
fn an_object_of_somebody_else_stays_as_it_is() {
    let Some(kubeconfig) = kubernetes() else { return };
    let (api, folder) = (Api::new(&kubeconfig), folder());
    let theirs = json!({"metadata": {"name": "j-bundle", "labels": {"a": "b"}}, "data": {"x": "y"}});
    let before = api.create("api/v1/namespaces/{}/configmaps", &theirs);
    let run = deploy_by(&kubeconfig, &api, &folder, &[]).finish().code(2);
    assert!(
        run.stderr.contains(&format!("configmaps j-bundle is in namespace {} already, and is none of this job", api.namespace)),
        "{run:?}"
    );
    api.wait_until_gone("j");
    assert_eq!(api.get(&Api::path("ConfigMap", "j-bundle")).unwrap(), before);
}

#[test]
fn a_quota_is_named() {
    let Some(kubeconfig) = kubernetes() else { return };
    let quota = |api: &Api, limit: &str| {
        api.create("api/v1/namespaces/{}/resourcequotas", &json!({"metadata": {"name": "few"}, "spec": {"hard": {limit: "0"}}}));
        api.wait_for("api/v1/namespaces/{}/resourcequotas/few", |quota| quota["status"]["hard"][limit] == "0");
    };
    let (api, folder) = (Api::new(&kubeconfig), folder());
    quota(&api, "count/jobs.batch");
    let refused = deploy_by(&kubeconfig, &api, &folder, &[]).finish().one_error(3);
    assert!(
        refused.contains(&format!("the quota of namespace {} does not allow it", api.namespace)) && refused.contains("few"),
        "{refused}"
    );
    assert!(api.objects("j").is_empty());

    let api = Api::new(&kubeconfig);
    quota(&api, "pods");
    let refused = deploy_by(&kubeconfig, &api, &folder, &[]).finish().code(3);
    assert!(refused.stderr.contains("no pod can be created: ") && refused.stderr.contains("exceeded quota: few"), "{refused:?}");
    api.wait_until_gone("j");
}

#[test]
fn rights_are_those_of_the_role_that_is_shipped() {
    let Some(kubeconfig) = kubernetes() else { return };
    let (api, folder) = (Api::new(&kubeconfig), folder());
    api.create("api/v1/namespaces/{}/serviceaccounts", &json!({"metadata": {"name": "nobody"}}));
    let token = api.token_of("nobody");
    let nobody = api.kubeconfig(&folder, |_, user| *user = json!({ "token": token }));
    let refused = deploy_by(&nobody, &api, &folder, &[]).finish().one_error(3);
    assert!(refused.contains(&format!("no right to get jobs in namespace {}: ", api.namespace)), "{refused}");
    assert!(refused.contains("docker/kubernetes/deployer.yaml"), "{refused}");

    // With it everything can be created and looked at, and removed.
    let text = fs::read_to_string(repository().join("docker/kubernetes/deployer.yaml")).unwrap();
    for document in text.split("\n---\n") {
        let mut object = yaml(document);
        if object["kind"] == "RoleBinding" {
            object["subjects"][0]["namespace"] = api.namespace.as_str().into();
        }
        let path = Api::path(object["kind"].as_str().unwrap(), "");
        api.create(path.trim_end_matches('/'), &object);
    }
    let token = api.token_of("standpipe-deployer");
    let deployer = api.kubeconfig(&folder, |_, user| *user = json!({ "token": token }));
    let mut run = deploy_by(&deployer, &api, &folder, &[]).start();
    run.wait_until("why it waits", PATIENCE, |run| run.stderr().contains("no node takes pod j-"));
    assert_eq!(names(&api.objects("j")), OBJECTS);
    write_handle(&api, &deployer, &folder);
    assert!(deployment(&folder, "status").finish().code(0).stdout.starts_with("INITIALIZING"));
    run.signal(Signal::KILL);
    run.wait();
    assert_eq!(deployment(&folder, "cancel").finish().code(0).stdout, "CANCELED: it was cancelled while it had no job manager\n");
    let _ = deployment(&folder, "remove").finish().code(0);
    api.wait_until_gone("j");
}

#[test]
fn what_is_no_way_to_a_cluster_is_said() {
    let Some(kubeconfig) = kubernetes() else { return };
    let (api, folder) = (Api::new(&kubeconfig), folder());
    let line = |kubeconfig: &str, settings: &[&str], code| deploy_by(kubeconfig, &api, &folder, settings).finish().one_error(code);
    let port = free_port();
    let closed = api.kubeconfig(&folder, |cluster, _| cluster["server"] = format!("https://127.0.0.1:{port}").into());
    let refused = line(&closed, &[], 3);
    assert!(
        refused.contains(&format!("the API server at https://127.0.0.1:{port}/ cannot be reached: ")) && refused.contains("refused"),
        "{refused}"
    );
    let other = api.kubeconfig(&folder, |cluster, user| {
        // An authority, though not that of this server.
        cluster["certificate-authority-data"] = user["client-certificate-data"].clone();
    });
    let refused = line(&other, &[], 3);
    assert!(refused.contains("certificate") && refused.contains("says whom to trust"), "{refused}");
    let stranger = api.kubeconfig(&folder, |_, user| *user = json!({"token": "wrong"}));
    let refused = line(&stranger, &[], 3);
    assert!(refused.contains("does not take these credentials (kubernetes.config.file, kubernetes.context)"), "{refused}");
    let refused = line(&kubeconfig, &["kubernetes.namespace=no-such-one"], 2);
    assert!(refused.ends_with("there is no namespace no-such-one: kubectl create namespace no-such-one"), "{refused}");
    let refused = line(&kubeconfig, &["kubernetes.context=moon"], 2);
    assert!(refused.contains("has no context \"moon\": it has "), "{refused}");
    let refused = line("no-such-file", &[], 3);
    assert!(refused.contains("kubernetes.config.file: ") && refused.contains("no-such-file"), "{refused}");
    folder.write("broken", "clusters: [");
    assert!(line("broken", &[], 2).contains("kubernetes.config.file: "));
    // The environment's proxy is not asked.
    let proxied =
        deploy_by(&kubeconfig, &api, &folder, &["kubernetes.submit.timeout=1s"]).env("HTTPS_PROXY", format!("http://127.0.0.1:{port}"));
    let proxied = proxied.finish().code(3);
    assert!(proxied.stderr.contains("was not submitted within the time for it (kubernetes.submit.timeout)"), "{proxied:?}");
    api.wait_until_gone("j");
}

#[test]
fn an_image_that_cannot_be_pulled_ends_the_submission_at_once() {
    let Some(kubeconfig) = kubernetes() else { return };
    let (api, folder) = (Api::new(&kubeconfig), folder());
    let mut run = deploy_by(&kubeconfig, &api, &folder, &["kubernetes.image=no/such:1"]).start();
    run.wait_until("a pod", PATIENCE, |_| !api.managers("j").is_empty());
    let pod = api.managers("j")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let state = json!({"waiting": {"reason": "ImagePullBackOff", "message": "Back-off pulling image \"no/such:1\": no/such:1: not found"}});
    api.say_of_pod(&pod, &json!({"containerStatuses": [{"name": "manager", "image": "no/such:1", "imageID": "", "ready": false, "restartCount": 0, "state": state}]}));
    let ended = run.wait().code(3);
    let expected =
        format!("image no/such:1 of pod {pod} cannot be pulled (ImagePullBackOff; kubernetes.image, kubernetes.image.pull.secrets)");
    assert!(ended.stderr.contains(&expected), "{ended:?}");
    api.wait_until_gone("j");
}

/// Says that the manager in that pod has ended.
fn say_ended(api: &Api, pod: &str, code: i32, words: &str) {
    let state = json!({"terminated": {"exitCode": code, "message": words, "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:01Z"}});
    let phase = if code == 0 { "Succeeded" } else { "Failed" };
    let containers = json!([{"name": "manager", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state}]);
    api.say_of_pod(pod, &json!({"phase": phase, "containerStatuses": containers}));
}

#[test]
fn a_handle_is_of_its_own_job_and_cluster_alone() {
    let Some(kubeconfig) = kubernetes() else { return };
    let (api, folder) = (Api::new(&kubeconfig), folder());
    // It ends before anybody has looked: submitted it is all the same.
    let run = begun(deploy_by(&kubeconfig, &api, &folder, &[]).args(["--handle", "job.json"]), &api);
    say_ended(&api, api.managers("j")[0]["metadata"]["name"].as_str().unwrap(), 0, r#"{"state": "FINISHED"}"#);
    let _ = run.wait().code(0);
    assert!(
        api.get(&Api::path("Job", "j")).unwrap()["spec"]["activeDeadlineSeconds"].is_null(),
        "it is complete, and not ended by Kubernetes"
    );
    let handle: Value = serde_json::from_str(&folder.read("job.json")).unwrap();
    let context = yaml(&fs::read_to_string(&kubeconfig).unwrap())["current-context"].clone();
    assert!(context.is_string() && handle["kubernetes.context"] == context, "another one may be the current one later: {handle}");
    assert_eq!(deployment(&folder, "status").finish().code(0).stdout, "FINISHED\n");
    let _ = deployment(&folder, "remove").finish().code(0);
    api.wait_until_gone("j");

    // Another job has the name now.
    let mut other = deploy_by(&kubeconfig, &api, &folder, &[]).start();
    other.wait_until("all objects", PATIENCE, |_| api.objects("j").len() == OBJECTS.len());
    for command in ["status", "cancel", "stop", "logs"] {
        let line = deployment(&folder, command).finish().one_error(3);
        assert!(line.contains(&format!("there is no job j ({})", handle["jobid"].as_str().unwrap())), "{command}: {line}");
    }
    let _ = deployment(&folder, "remove").finish().code(0);
    let job = api.get(&Api::path("Job", "j")).unwrap();
    assert!(job["metadata"]["deletionTimestamp"].is_null() && job["metadata"]["annotations"]["standpipe.io/status"].is_null(), "{job}");
    other.signal(Signal::INT);
    assert_ne!(other.wait().code, Some(0));
    api.wait_until_gone("j");
}

#[test]
fn a_job_that_is_over_before_its_client_has_looked_keeps_the_deadline_of_its_end() {
    let Some(kubeconfig) = kubernetes() else { return };
    let (api, folder, start) = (Api::new(&kubeconfig), folder(), Instant::now());
    let run = begun(deploy_by(&kubeconfig, &api, &folder, &[]).args(["--handle", "job.json"]), &api);
    // As its manager does, whose process then does not end.
    let end =
        json!({"metadata": {"annotations": {"standpipe.io/status": r#"{"state": "FINISHED"}"#}}, "spec": {"activeDeadlineSeconds": 301}});
    api.patch(&Api::path("Job", "j"), &end);
    let _ = run.wait().code(0);
    let deadline = api.get(&Api::path("Job", "j")).unwrap()["spec"]["activeDeadlineSeconds"].clone();
    // Five minutes from then on, in whole seconds since the Job's start.
    let latest = 300 + start.elapsed().as_secs() + 1;
    assert!(deadline.as_u64().is_some_and(|seconds| (300..=latest).contains(&seconds)), "{deadline}");
    let _ = deployment(&folder, "remove").finish().code(0);
    api.wait_until_gone("j");
}

#[test]
fn a_template_with_a_member_that_nobody_knows_is_refused() {
    let Some(kubeconfig) = kubernetes() else { return };
    let (api, folder) = (Api::new(&kubeconfig), folder());
    for component in ["jobmanager", "taskmanager"] {
        folder.write("pod.yaml", "spec: {securityContexts: {}}");
        let setting = format!("kubernetes.pod.template.{component}=pod.yaml");
        let refused = deploy_by(&kubeconfig, &api, &folder, &[&setting]).finish().code(2);
        assert!(refused.stderr.contains("securityContexts"), "{component}: {refused:?}");
        api.wait_until_gone("j");
    }
}

/// A job whose manager has ended with that exit code and last words; what its status is then, and when its pods are gone.
fn ended_with(kubeconfig: &str, code: i32, words: &str) -> [String; 2] {
    let (api, folder) = (Api::new(kubeconfig), folder());
    let mut run = begun(deploy_by(kubeconfig, &api, &folder, &[]), &api);
    write_handle(&api, kubeconfig, &folder);
    run.signal(Signal::KILL);
    run.wait();
    let pod = api.managers("j")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    say_ended(&api, &pod, code, words);
    let is_over = |job: &Value| {
        let conditions = job["status"]["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().any(|condition| ["Complete", "Failed"].iter().any(|kind| condition["type"] == *kind))
    };
    api.wait_for(&Api::path("Job", "j"), is_over);
    let status = || deployment(&folder, "status").finish().code(0).stdout.trim().to_owned();
    let with_pod = status();
    api.delete_pod(&pod);
    wait_until("the pod is gone", PATIENCE, || api.managers("j").is_empty());
    let without = status();
    let _ = deployment(&folder, "remove").finish().code(0);
    api.wait_until_gone("j");
    [with_pod, without]
}

#[test]
fn how_a_job_ended_is_known_without_its_pods() {
    let Some(kubeconfig) = kubernetes() else { return };
    let failed = r#"{"state": "FAILED", "cause": "no topic", "jobid": "x", "ended": 1}"#;
    let lost = "FAILED: the job manager's pod, which knew why, is gone";
    assert_eq!(ended_with(&kubeconfig, 20, failed), ["FAILED: no topic", lost]);
    assert_eq!(ended_with(&kubeconfig, 21, r#"{"state": "CANCELED"}"#), ["CANCELED", "CANCELED"]);
    assert_eq!(ended_with(&kubeconfig, 0, r#"{"state": "FINISHED"}"#), ["FINISHED", "FINISHED"]);
}

#[test]
fn a_manager_that_is_lost_comes_again() {
    let Some(kubeconfig) = kubernetes() else { return };
    let (api, folder) = (Api::new(&kubeconfig), folder());
    let mut run = begun(deploy_by(&kubeconfig, &api, &folder, &[]), &api);
    write_handle(&api, &kubeconfig, &folder);
    let pod = api.managers("j")[0]["metadata"]["name"].as_str().unwrap().to_owned();
    let state = json!({"terminated": {"exitCode": 137, "reason": "OOMKilled", "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:01Z"}});
    let containers = json!([{"name": "manager", "image": "i", "imageID": "", "ready": false, "restartCount": 0, "state": state}]);
    api.say_of_pod(&pod, &json!({"phase": "Failed", "containerStatuses": containers}));
    wait_until("another pod", PATIENCE, || api.managers("j").len() == 2);
    let mut status = String::new();
    wait_until("why", PATIENCE, || {
        status = deployment(&folder, "status").finish().code(0).stdout;
        status.starts_with("RESTARTING: ")
    });
    assert!(
        status.contains("no node takes pod j-")
            || status.contains(&format!("pod {pod} of the job manager ended with exit code 137 (OOMKilled)")),
        "{status}"
    );
    run.signal(Signal::INT);
    assert_ne!(run.wait().code, Some(0));
    api.wait_until_gone("j");
}

#[test]
fn what_a_preview_prints_is_what_the_api_server_takes() {
    let Some(kubeconfig) = kubernetes() else { return };
    let (api, folder) = (Api::new(&kubeconfig), folder());
    let preview = deploy_by(&kubeconfig, &api, &folder, &[]).args(["--dry-run"]).finish().code(0).stdout;
    let documents: Vec<Value> = preview.split("\n---\n").skip(1).map(yaml).collect();
    assert_eq!(documents.len(), OBJECTS.len());
    for document in &documents {
        let path = Api::path(document["kind"].as_str().unwrap(), "");
        api.create(&format!("{}?dryRun=All&fieldValidation=Strict", path.trim_end_matches('/')), document);
    }
    assert!(api.objects("j").is_empty());
}
