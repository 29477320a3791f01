//! The Helm chart of a session cluster, and the plain manifests that are made of it: what they render, which values are refused, and what a real API server takes and keeps. What its pods do is
//! in `helm_pods.rs`.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a test fails by a panic")]

mod helm_support;
mod kubernetes_support;

use base64::{Engine, prelude::BASE64_STANDARD};
use helm_support::{CHART, Helm, Options, RELEASE, documents, names_of, object, path_of, restricted, wait_for_pods};
use kubernetes_support::{Api, PATIENCE};
use serde_json::{Map, Value, json};
use standpipe_tests::{kubernetes, repository, wait_until, yaml};
use std::fs;

/// Each value, set to another one than its default.
const ALL: &str = "tests/fixtures/helm/all.yaml";
/// What docker/kubernetes/session.yaml is rendered with, as its head says.
const PLAIN: Options<'_> = &["--set", "token.existingSecret=standpipe-token"];

fn read(path: &str) -> String {
    fs::read_to_string(repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn the_chart_has_no_faults_and_is_of_this_version() {
    let Some(helm) = Helm::new() else { return };
    for options in [&[][..], PLAIN, &["--values", ALL]] {
        let said = helm.ask(&["lint", "--strict", CHART], options);
        assert!(said.contains("1 chart(s) linted, 0 chart(s) failed") && !said.contains("WARNING"), "{said}");
    }
    let chart = yaml(&read("docker/kubernetes/chart/Chart.yaml"));
    assert_eq!(chart["appVersion"], env!("CARGO_PKG_VERSION"), "the image's tag, where no other one is given");
    let tokens = [(); 2].map(|()| object(&helm.render("s", &[]), "Secret", "s-standpipe-token")["data"]["token"].clone());
    let token = BASE64_STANDARD.decode(tokens[0].as_str().unwrap()).unwrap();
    assert!(token.len() >= 43 && tokens[0] != tokens[1], "a token is random: {tokens:?}");
}

#[test]
fn the_plain_manifests_are_the_chart() {
    let Some(helm) = Helm::new() else { return };
    let file = read("docker/kubernetes/session.yaml");
    let start = file.find("---\n").unwrap();
    assert_eq!(&file[start..], helm.text(RELEASE, PLAIN), "docker/kubernetes/session.yaml says at its head how it is made anew");
    let objects = documents(&file);
    assert!(objects.iter().all(|object| object["kind"] != "Secret"), "no password is in a file that everybody has");
    assert!(objects.iter().all(|object| object["metadata"]["namespace"].is_null()), "it is applied to any namespace");
}

#[test]
fn wrong_values_are_refused_by_their_names() {
    let Some(helm) = Helm::new() else { return };
    let refused = [
        ("taskmanager.slots=0", "at '/taskmanager/slots': minimum: got 0, want 1"),
        ("taskmanager.slots=many", "at '/taskmanager/slots': got string, want integer"),
        ("taskmanager.replicas=-1", "at '/taskmanager/replicas': minimum"),
        ("taskmanager.slotz=1", "at '/taskmanager': additional properties 'slotz' not allowed"),
        ("replicas=1", "additional properties 'replicas' not allowed"),
        ("image.pullPolicy=Sometimes", "at '/image/pullPolicy': value must be one of"),
        ("jobmanager.lease=2s", "at '/jobmanager/lease': '2s' does not match pattern"),
        ("jobmanager.persistence.size=lots", "at '/jobmanager/persistence/size': 'lots' does not match pattern"),
        ("jobmanager.podDisruptionBudget.maxUnavailable=some", "at '/jobmanager/podDisruptionBudget/maxUnavailable'"),
        ("token.existingSecret=My_Token", "at '/token/existingSecret': 'My_Token' does not match pattern"),
        ("user=0", "at '/user': minimum: got 0, want 1"),
        ("logLevel=loud", "at '/logLevel': value must be one of"),
        ("service.port=70000", "at '/service/port': maximum"),
        ("ingress.enabled=true", "at '/ingress/host': minLength"),
        ("env[0].nme=x", "at '/env/0': missing property 'name'"),
        ("volumeMounts[0].name=x", "at '/volumeMounts/0': missing property 'mountPath'"),
    ];
    for (value, expected) in refused {
        let said = helm.refuse(&["template", RELEASE, CHART], &["--set", value]);
        assert!(said.contains(expected), "{value}: {said}");
    }
}

/// Paths and values of all that is no map with names of our own, each of which is in the schema.
fn leaves(root: &Value, schema: &Value, value: &Value, path: &str, found: &mut Map<String, Value>) {
    let schema = schema["$ref"].as_str().map_or(schema, |name| root.pointer(name.trim_start_matches('#')).unwrap());
    let own = &schema["properties"];
    let Some(map) = value.as_object().filter(|_| own.is_object()) else {
        found.insert(path.to_owned(), value.clone());
        return;
    };
    for (key, value) in map {
        assert!(own[key].is_object(), "{path}/{key} is not in values.schema.json");
        leaves(root, &own[key], value, &format!("{path}/{key}"), found);
    }
}

#[test]
fn every_value_has_a_schema_and_is_set_in_the_tests() {
    let schema: Value = serde_json::from_str(&read("docker/kubernetes/chart/values.schema.json")).unwrap();
    let of = |path: &str| {
        let mut found = Map::new();
        leaves(&schema, &schema, &yaml(&read(path)), "", &mut found);
        found
    };
    let (defaults, all) = (of("docker/kubernetes/chart/values.yaml"), of(ALL));
    assert_eq!(defaults.keys().collect::<Vec<_>>(), all.keys().collect::<Vec<_>>());
    // Their other value is that of a second rendering in `values_reach_their_places`.
    let same: Vec<&str> = defaults.iter().filter(|(path, value)| all[*path] == **value).map(|(path, _)| path.as_str()).collect();
    assert_eq!(same, ["/jobmanager/persistence/enabled", "/serviceAccount/create"]);
}

#[test]
fn values_reach_their_places() {
    let Some(helm) = Helm::new() else { return };
    let objects = helm.render("r", &["--values", ALL]);
    let at = |kind: &str, name: &str, pointer: &str| object(&objects, kind, name).pointer(pointer).cloned().unwrap_or(Value::Null);
    for (component, contact, kind) in [("manager", "joe", "one"), ("taskmanager", "jill", "many")] {
        let spec = at("StatefulSet", &format!("everything-{component}"), "/spec");
        let (pod, container) = (&spec["template"]["spec"], &spec["template"]["spec"]["containers"][0]);
        assert_eq!(spec["template"]["metadata"]["annotations"]["contact"], contact, "one of the component is stronger");
        let labels = json!({"app.kubernetes.io/name": "standpipe", "app.kubernetes.io/instance": "r", "app.kubernetes.io/component": component, "team": "metrics", "kind": kind});
        assert_eq!(spec["template"]["metadata"]["labels"], labels, "what pods are found by is not to be changed");
        assert_eq!(container["image"], "registry.example.com/team/standpipe:0.2.0");
        assert_eq!((&container["imagePullPolicy"], &pod["imagePullSecrets"]), (&"Always".into(), &json!([{"name": "registry"}])));
        assert_eq!((&pod["serviceAccountName"], &pod["automountServiceAccountToken"]), (&"streams".into(), &false.into()));
        for key in ["runAsUser", "runAsGroup", "fsGroup"] {
            assert_eq!(pod["securityContext"][key], 20002, "{key}");
        }
        let values = yaml(&read(ALL));
        let own = &values[if component == "manager" { "jobmanager" } else { component }];
        for key in
            ["nodeSelector", "tolerations", "affinity", "topologySpreadConstraints", "priorityClassName", "terminationGracePeriodSeconds"]
        {
            assert_eq!(pod[key], own[key], "{component}: {key}");
        }
        assert_eq!(container["resources"], own["resources"]);
        for (place, key) in [(container, "env"), (container, "envFrom"), (container, "volumeMounts"), (pod, "volumes")] {
            let wanted = values[key].as_array().unwrap().iter().chain(own[key].as_array().unwrap()).collect::<Vec<_>>();
            let found = place[key].as_array().unwrap().iter().collect::<Vec<_>>();
            assert_eq!(found[found.len() - wanted.len()..], wanted, "{component}: {key}");
        }
        let claim = &spec["volumeClaimTemplates"][0];
        assert_eq!(claim["metadata"]["annotations"], own["persistence"]["annotations"]);
        assert_eq!(claim["spec"]["accessModes"], own["persistence"]["accessModes"]);
        assert_eq!(claim["spec"]["storageClassName"], own["persistence"]["storageClass"]);
        assert_eq!(claim["spec"]["resources"]["requests"]["storage"], own["persistence"]["size"]);
        let budget = at("PodDisruptionBudget", &format!("everything-{component}"), "/spec");
        assert_eq!(budget["maxUnavailable"], own["podDisruptionBudget"]["maxUnavailable"]);
        assert_eq!(budget["selector"], spec["selector"], "the same pods");
        assert_eq!(at("NetworkPolicy", &format!("everything-{component}"), "/spec/podSelector"), spec["selector"]);
    }
    let args = |component: &str| {
        let args = at("StatefulSet", &format!("everything-{component}"), "/spec/template/spec/containers/0/args");
        args.as_array().unwrap().iter().map(|argument| argument.as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        args("manager"),
        "jobmanager --bind 0.0.0.0:8081 --data /var/lib/standpipe/jobmanager --token-file /etc/standpipe/secret/token --lease 1m --log-level debug --log-format json \
         --tls-cert /etc/standpipe/secret/tls.crt --tls-key /etc/standpipe/secret/tls.key"
    );
    assert_eq!(
        args("taskmanager"),
        "taskmanager --slots 8 --jobmanager https://everything.$(POD_NAMESPACE).svc:80 --host $(POD_IP) --data /var/lib/standpipe/taskmanager \
         --token-file /etc/standpipe/secret/token --metrics 0.0.0.0:9999 --log-level debug --log-format json --ca-file /etc/standpipe/secret/ca.crt"
    );
    let secrets = |component: &str| {
        let volumes = at("StatefulSet", &format!("everything-{component}"), "/spec/template/spec/volumes");
        let volume = volumes.as_array().unwrap().iter().find(|volume| volume["name"] == "secret").unwrap().clone();
        let list = |source: &Value| {
            let items = source["secret"]["items"].as_array().unwrap().clone();
            items
                .into_iter()
                .map(|item| format!("{} {} {}", source["secret"]["name"], item["key"], item["path"]).replace('"', ""))
                .collect::<Vec<_>>()
        };
        volume["projected"]["sources"].as_array().unwrap().iter().flat_map(list).collect::<Vec<_>>()
    };
    assert_eq!(secrets("manager"), ["my-token password token", "my-certificate tls.crt tls.crt", "my-certificate tls.key tls.key"]);
    assert_eq!(secrets("taskmanager"), ["my-token password token", "my-certificate authority.crt ca.crt"], "not the private key");
    assert_eq!(at("StatefulSet", "everything-taskmanager", "/spec/replicas"), 3);
    let scraped = at("StatefulSet", "everything-taskmanager", "/spec/template/metadata/annotations/prometheus.io~1port");
    assert_eq!((scraped, at("Service", "everything-taskmanager", "/spec/ports/0/port")), ("9999".into(), 9999.into()));
    let service = json!({"name": "rest", "port": 80, "targetPort": "rest", "protocol": "TCP", "nodePort": 30081});
    assert_eq!((at("Service", "everything", "/spec/type"), at("Service", "everything", "/spec/ports/0")), ("NodePort".into(), service));
    let annotations = json!({"cloud.example.com/internal": "true", "contact": "jane"});
    assert_eq!(at("Service", "everything", "/metadata/annotations"), annotations);
    assert_eq!(at("ServiceAccount", "streams", "/metadata/annotations/cloud.example.com~1role"), "reader");
    let (ingress, backend) = (at("Ingress", "everything", "/spec"), json!({"name": "everything", "port": {"name": "rest"}}));
    assert_eq!((&ingress["ingressClassName"], &ingress["rules"][0]["host"]), (&"nginx".into(), &"standpipe.example.com".into()));
    assert_eq!(
        (&ingress["tls"][0]["secretName"], &ingress["rules"][0]["http"]["paths"][0]["backend"]["service"]),
        (&"outside".into(), &backend)
    );
    let place = |name: &str, pointer: &str| {
        at("NetworkPolicy", name, &format!("{pointer}/namespaceSelector/matchLabels/kubernetes.io~1metadata.name"))
    };
    assert_eq!(place("everything-manager", "/spec/ingress/0/from/1"), "ingress");
    assert_eq!(place("everything-taskmanager", "/spec/ingress/1/from/0"), "monitoring");

    let without = helm.render(
        "r",
        &["--set", "jobmanager.persistence.enabled=false,serviceAccount.create=false,user=null,tls.secretName=public,tls.caKey="],
    );
    assert!(without.iter().all(|object| object["kind"] != "ServiceAccount"));
    let manager = object(&without, "StatefulSet", "r-standpipe-manager");
    assert!(manager["spec"]["volumeClaimTemplates"].is_null());
    assert_eq!(manager["spec"]["template"]["spec"]["volumes"][0], json!({"name": "data", "emptyDir": {}}));
    assert_eq!(manager["spec"]["template"]["spec"]["serviceAccountName"], "default");
    assert!(manager["spec"]["template"]["spec"]["securityContext"]["runAsUser"].is_null());
    let known = object(&without, "StatefulSet", "r-standpipe-taskmanager")["spec"]["template"]["spec"]["containers"][0]["args"].clone();
    assert!(known.as_array().unwrap().contains(&"https://r-standpipe.$(POD_NAMESPACE).svc:8081".into()), "{known}");
    assert!(!known.as_array().unwrap().contains(&"--ca-file".into()), "{known}");
}

#[test]
fn an_api_server_takes_every_object_of_the_chart() {
    let (Some(helm), Some(kubeconfig)) = (Helm::new(), kubernetes()) else { return };
    let api = restricted(&kubeconfig);
    let helm = helm.of(&kubeconfig, &api);
    // A port of every node can be only one service's.
    let options = ["--values", ALL, "--set", "service.nodePort=null"];
    for object in helm.render("r", &options) {
        let path = path_of(object["kind"].as_str().unwrap());
        api.create(&format!("{path}?dryRun=All&fieldValidation=Strict"), &object);
    }
    helm.ask(&["install", "r", CHART], &options);
    wait_for_pods(&api, &["everything-manager-0", "everything-taskmanager-0", "everything-taskmanager-1", "everything-taskmanager-2"]);
    let pods = api.get(&path_of("Pod")).unwrap();
    assert!(pods["items"].as_array().unwrap().iter().all(|pod| pod["status"]["phase"] == "Pending"), "no node is for them");
    let claims = names_of(&api, "PersistentVolumeClaim");
    assert_eq!(claims[..2], ["data-everything-manager-0", "data-everything-taskmanager-0"]);
}

#[test]
fn an_upgrade_keeps_the_token_and_only_the_claim_outlives_an_uninstall() {
    let (Some(helm), Some(kubeconfig)) = (Helm::new(), kubernetes()) else { return };
    let api = restricted(&kubeconfig);
    let helm = helm.of(&kubeconfig, &api);
    let token = || api.get(&Api::path("Secret", "standpipe-token")).unwrap()["data"]["token"].clone();
    let notes = helm.ask(&["install", RELEASE, CHART], &[]);
    for said in [
        "2 task managers of 4 slots",
        "service/standpipe 8081:8081",
        "rest.token.file=token",
        "the claim data-standpipe-manager-0",
        "s3://",
    ] {
        assert!(notes.contains(said), "{said}: {notes}");
    }
    wait_for_pods(&api, &["standpipe-manager-0", "standpipe-taskmanager-0", "standpipe-taskmanager-1"]);
    let (before, manager) = (token(), api.pod("standpipe-manager-0")["metadata"]["uid"].clone());
    assert_eq!(BASE64_STANDARD.decode(before.as_str().unwrap()).unwrap().len(), 43);

    helm.ask(&["upgrade", RELEASE, CHART], &["--set", "taskmanager.replicas=3,taskmanager.podDisruptionBudget.enabled=true"]);
    wait_until("a third", PATIENCE, || names_of(&api, "Pod").contains(&"standpipe-taskmanager-2".to_owned()));
    assert_eq!(token(), before, "task managers and users know it");
    assert_eq!(api.pod("standpipe-manager-0")["metadata"]["uid"], manager, "what has not changed is not disturbed");
    // Somebody's own token is kept, too.
    let own = BASE64_STANDARD.encode("one-of-my-own-choice");
    api.patch(&Api::path("Secret", "standpipe-token"), &json!({"data": {"token": own}}));
    helm.ask(&["upgrade", RELEASE, CHART], &[]);
    assert_eq!(token(), own);

    helm.ask(&["uninstall", RELEASE, "--wait"], &[]);
    let kinds =
        ["Pod", "StatefulSet", "Service", "Secret", "PodDisruptionBudget", "NetworkPolicy", "Ingress", "Role", "RoleBinding", "Job"];
    wait_until("nothing is left", PATIENCE, || kinds.iter().all(|kind| names_of(&api, kind).is_empty()));
    assert_eq!(
        (names_of(&api, "ServiceAccount"), names_of(&api, "ConfigMap")),
        (vec!["default".to_owned()], vec!["kube-root-ca.crt".to_owned()])
    );
    assert_eq!(names_of(&api, "PersistentVolumeClaim"), ["data-standpipe-manager-0"], "jobs are kept for the next one");
}

#[test]
fn the_plain_manifests_are_applied_with_a_token_of_ones_own() {
    let Some(kubeconfig) = kubernetes() else { return };
    let api = restricted(&kubeconfig);
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "standpipe-token"}, "stringData": {"token": "0123456789abcdef"}});
    api.create(&path_of("Secret"), &secret);
    for object in documents(&read("docker/kubernetes/session.yaml")) {
        api.create(&format!("{}?fieldValidation=Strict", path_of(object["kind"].as_str().unwrap())), &object);
    }
    wait_for_pods(&api, &["standpipe-manager-0", "standpipe-taskmanager-0", "standpipe-taskmanager-1"]);
}
