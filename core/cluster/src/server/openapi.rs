//! The REST interface as an OpenAPI document: served at `/v1/openapi.json`, and kept in `docs/openapi.json`. A test compares it with the paths that are served, so that none is left out.

use super::answer::{Answer, ok};
use serde_json::{Map, Value, json};

/// A request that the interface takes.
struct Operation {
    method: &'static str,
    path: &'static str,
    summary: &'static str,
    /// The status of a good answer.
    status: u16,
    /// The schemas of the body and of a good answer, by name.
    body: Option<&'static str>,
    answer: &'static str,
    /// What may stand behind the path: name, what it is.
    query: &'static [(&'static str, &'static str)],
}

const fn get(path: &'static str, summary: &'static str, answer: &'static str) -> Operation {
    Operation { method: "get", path, summary, status: 200, body: None, answer, query: &[] }
}

const fn accepted(method: &'static str, path: &'static str, summary: &'static str, body: Option<&'static str>) -> Operation {
    Operation { method, path, summary, status: 202, body, answer: "Request", query: &[] }
}

const OPERATIONS: &[Operation] = &[
    get("/overview", "How many task managers, slots and jobs there are", "Object"),
    get("/config", "What clients of Flink ask of the manager itself", "Object"),
    get("/openapi.json", "This document", "Object"),
    get("/healthz", "Whether the process answers; without /v1 it needs no token", "Object"),
    get(
        "/readyz",
        "Whether it can be worked with: 503 until one that runs one job alone has looked for its files; without /v1 it needs no token",
        "Object",
    ),
    get("/jobs", "Ids and states of all jobs", "Object"),
    Operation {
        method: "post",
        path: "/jobs",
        summary: "Submits a bundle whose files are there; 409 names those that are missing",
        status: 202,
        body: Some("Bundle"),
        answer: "Submitted",
        query: &[(
            "jobid",
            "the job's id, 32 hexadecimal digits that nobody else has chosen: whoever has not heard the answer asks again, and there is one job",
        )],
    },
    get("/jobs/overview", "All jobs, newest first, with the states of their subtasks", "Object"),
    get("/jobs/{id}", "A job: state, nodes, workers, what it waits for, how it does", "Job"),
    Operation {
        method: "patch",
        path: "/jobs/{id}",
        summary: "Cancels a job: it ends at once, nothing more is committed",
        status: 202,
        body: None,
        answer: "Object",
        query: &[("mode", "cancel")],
    },
    Operation { method: "patch", path: "/jobs/{id}/cancel", summary: "The same", status: 202, body: None, answer: "Object", query: &[] },
    get("/jobs/{id}/plan", "A job's nodes and how rows get from one to the next", "Object"),
    get("/jobs/{id}/exceptions", "Why a job was started again, or has failed", "Object"),
    get("/jobs/{id}/config", "What the engine runs a job with, each setting with its origin", "Object"),
    Operation {
        method: "get",
        path: "/jobs/{id}/figures",
        summary: "Rates of each node in the last five minutes, one a second",
        status: 200,
        body: None,
        answer: "Object",
        query: &[("since", "only what is newer, milliseconds since 1970")],
    },
    get("/jobs/{id}/checkpoints", "A job's checkpoints: counts, the latest, the last ones with sizes and times", "Object"),
    accepted("post", "/jobs/{id}/checkpoints", "Takes a checkpoint now", Some("TakeCheckpoint")),
    get("/jobs/{id}/checkpoints/{trigger}", "What has become of that request: its checkpointId", "Outcome"),
    accepted("post", "/jobs/{id}/stop", "Stops a job with a savepoint, cleanly", Some("Stop")),
    accepted("post", "/jobs/{id}/savepoints", "Takes a savepoint; the job goes on", Some("TakeSavepoint")),
    get("/jobs/{id}/savepoints/{trigger}", "What has become of that request, or of a stop: the savepoint's location", "Outcome"),
    Operation {
        method: "patch",
        path: "/jobs/{id}/rescaling",
        summary: "Gives a job another parallelism: it stops with a savepoint and goes on from there",
        status: 202,
        body: Some("Rescale"),
        answer: "Request",
        query: &[("parallelism", "subtasks of every node that does not say otherwise; or in the body")],
    },
    get("/jobs/{id}/rescaling/{trigger}", "What has become of that request", "Outcome"),
    get("/jobs/{id}/logs", "The end of what the processes of a job's last start have written", "Text"),
    Operation {
        method: "get",
        path: "/jobs/{id}/collect",
        summary: "Rows of any node as they pass, from now on; headers standpipe-dropped: rows that are not in it, standpipe-opened: rows before these are missing; nothing: the job has not begun",
        status: 200,
        body: None,
        answer: "Rows",
        query: &[
            ("node", "its name or path, with that of an output behind it: stats.late; of a sink, what goes into it"),
            ("limit", "rows at most, up to 100000"),
            ("timeout", "milliseconds: what has come by then; at most 60000"),
            (
                "tap",
                "32 hexadecimal digits: the next look with the same goes on where this one has ended, and answers as soon as there are rows",
            ),
            ("last", "true: with limit rows the tap has all that is wanted, and is closed"),
            ("newest", "true: those that passed last, where there are more"),
            ("format", "arrow, or table: JSON with columns, rows of texts, dropped, opened and ended"),
        ],
    },
    Operation {
        method: "get",
        path: "/jobs/{id}/collect/{node}",
        summary: "Some rows of a sink of the connector collect, and headers for the next question; nothing: it has not begun",
        status: 200,
        body: None,
        answer: "Rows",
        query: &[
            ("from", "standpipe-next of the last answer; none: from the first row that is kept"),
            ("place", "standpipe-place of the last answer"),
            ("wait", "milliseconds to wait for rows, at most 2000"),
        ],
    },
    accepted("post", "/savepoint-disposal", "Removes a savepoint that the manager's machine can see", Some("Dispose")),
    get("/savepoint-disposal/{trigger}", "What has become of that request", "Outcome"),
    get("/metrics", "The cluster for Prometheus, in its text format", "Text"),
    get("/taskmanagers", "The task managers that are heard of", "Object"),
    get("/taskmanagers/{id}", "A task manager, with the jobs that it has", "Object"),
    Operation {
        method: "get",
        path: "/taskmanagers/{id}/orders",
        summary: "For task managers: what it is to run, as soon as that is not what it has seen",
        status: 200,
        body: None,
        answer: "Object",
        query: &[("generation", "of the orders that it has seen"), ("number", "of the orders that it has seen")],
    },
    Operation {
        method: "post",
        path: "/taskmanagers/{id}/beat",
        summary: "For task managers: what it runs; answered with what it is to run",
        status: 200,
        body: Some("Object"),
        answer: "Object",
        query: &[],
    },
    Operation {
        method: "put",
        path: "/taskmanagers/{id}/collected/{request}",
        summary: "For task managers: rows that they were asked for",
        status: 200,
        body: Some("Rows"),
        answer: "Object",
        query: &[
            ("next", "the number of the next batch; 0: the sink has not begun"),
            ("gap", "rows before these are gone"),
            ("dropped", "of rows that pass: those that are not in it"),
        ],
    },
    Operation {
        method: "post",
        path: "/blobs/missing",
        summary: "Which of these files of bundles are not there",
        status: 200,
        body: Some("Hashes"),
        answer: "Missing",
        query: &[],
    },
    get("/blobs/{hash}", "The content of a file of a bundle", "Bytes"),
    Operation {
        method: "put",
        path: "/blobs/{hash}",
        summary: "Takes a file of a bundle, at most 1 GiB; 200 if it is there already",
        status: 201,
        body: Some("Bytes"),
        answer: "Object",
        query: &[],
    },
];

fn text(description: &str) -> Value {
    json!({"type": "string", "description": description})
}

fn object(required: &[&str], properties: Value) -> Value {
    json!({"type": "object", "required": required, "properties": properties})
}

fn schemas() -> Value {
    let trigger = || text("32 hexadecimal digits: whoever asks again by the same id asks once");
    let format = || json!({"enum": ["CANONICAL", "NATIVE"], "description": "both are the same here"});
    let file = object(
        &["path", "hash", "bytes"],
        json!({"path": text("relative to the job's folder"), "hash": text("sha256: and 64 hexadecimal digits"), "bytes": {"type": "integer", "minimum": 0}}),
    );
    let files = json!({"type": "array", "items": {"$ref": "#/components/schemas/File"}});
    json!({
        "Object": {"type": "object"},
        "Errors": object(&["errors"], json!({"errors": {"type": "array", "items": {"type": "string"}}})),
        "File": file,
        "Bundle": object(&["standpipe", "name", "pipeline"], json!({
            "standpipe": text("the release that wrote it"), "name": text("the pipeline's name"), "pipeline": {"$ref": "#/components/schemas/File"},
            "plugins": files.clone(), "resources": files,
            "configuration": {"type": "object", "additionalProperties": {"type": "string"}, "description": "flat keys: engine.parallelism"},
            "options": object(&[], json!({
                "parallelism": {"type": ["integer", "null"], "minimum": 1, "maximum": 4096},
                "restore": {"type": ["string", "null"], "description": "latest, a number, or the path or URL of a savepoint"},
                "allow_non_restored_state": {"type": "boolean"},
                "traceparent": {"type": ["string", "null"], "description": "what the job's trace is a part of (W3C Trace Context); the request's header goes before it"},
            })),
        })),
        "Submitted": object(&["jobid"], json!({"jobid": text("32 hexadecimal digits")})),
        "Job": object(&["jid", "name", "state"], json!({
            "jid": text("32 hexadecimal digits"), "name": text("the pipeline's name"),
            "state": {"enum": ["INITIALIZING", "CREATED", "RUNNING", "FAILING", "FAILED", "CANCELLING", "CANCELED", "FINISHED", "RESTARTING"]},
            "waits": {"type": ["string", "null"], "description": "for what: needs 5, has 3"},
            "why": {"type": ["string", "null"], "description": "it was started again last, or has failed"},
        })),
        "Request": object(&["request-id"], json!({"request-id": text("by which is asked what has become of it")})),
        "Outcome": object(&["status", "operation"], json!({
            "status": object(&["id"], json!({"id": {"enum": ["IN_PROGRESS", "COMPLETED"]}})),
            "operation": {
                "type": ["object", "null"],
                "properties": {
                    "location": text("a path or URL that run --restore takes"), "checkpointId": {"type": "integer"},
                    "failure-cause": object(&["class", "stack-trace"], json!({"class": {"type": "string"}, "stack-trace": text("why it failed")})),
                },
            },
        })),
        "Stop": object(&[], json!({
            "drain": {"type": "boolean", "description": "open windows fire, as if the sources had ended"},
            "targetDirectory": text("a folder or URL that the savepoint is copied to"), "formatType": format(), "triggerId": trigger(),
        })),
        "TakeSavepoint": object(&[], json!({
            "target-directory": text("a folder or URL that it is copied to"), "cancel-job": {"type": "boolean"}, "formatType": format(), "triggerId": trigger(),
        })),
        "TakeCheckpoint": object(&[], json!({
            "checkpointType": {"enum": ["CONFIGURED", "FULL", "INCREMENTAL"], "description": "all are the same here"}, "triggerId": trigger(),
        })),
        "Rescale": object(&[], json!({"parallelism": {"type": "integer", "minimum": 1, "maximum": 4096}, "triggerId": trigger()})),
        "Dispose": object(&["savepoint-path"], json!({"savepoint-path": text("the path or URL of its manifest"), "triggerId": trigger()})),
        "Hashes": object(&["hashes"], json!({"hashes": {"type": "array", "maxItems": 1000, "items": {"type": "string"}}})),
        "Missing": object(&["missing"], json!({"missing": {"type": "array", "items": {"type": "string"}}})),
    })
}

/// What a body or an answer of that schema is.
fn content(schema: &str) -> Value {
    match schema {
        "Bytes" => json!({"application/octet-stream": {}}),
        "Rows" => json!({"application/vnd.apache.arrow.stream": {}}),
        "Text" => json!({"text/plain": {"schema": {"type": "string"}}}),
        name => json!({"application/json": {"schema": {"$ref": format!("#/components/schemas/{name}")}}}),
    }
}

fn operation(of: &Operation) -> Value {
    let in_path = of.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let in_path = in_path.map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}));
    let in_query = of.query.iter();
    let in_query = in_query.map(|(name, what)| json!({"name": name, "in": "query", "description": what, "schema": {"type": "string"}}));
    let mut shown = json!({
        "summary": of.summary,
        "parameters": in_path.chain(in_query).collect::<Vec<_>>(),
        "responses": {
            of.status.to_string(): {"description": "done, or begun", "content": content(of.answer)},
            "default": {"description": "it is not: all that is wrong", "content": content("Errors")},
        },
    });
    if let (Some(body), Some(shown)) = (of.body, shown.as_object_mut()) {
        shown.insert("requestBody".to_owned(), json!({"content": content(body)}));
    }
    shown
}

/// The document.
pub(super) fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for of in OPERATIONS {
        if let Some(path) = paths.entry(of.path).or_insert_with(|| json!({})).as_object_mut() {
            path.insert(of.method.to_owned(), operation(of));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Standpipe job manager",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "The REST interface of a session cluster. Paths and JSON follow Flink's monitoring API where the concept is the same.",
            "license": {"name": "Apache-2.0 OR MIT"},
        },
        "servers": [{"url": "/v1"}, {"url": "/"}],
        "security": [{"token": []}, {}],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": "where the manager was started with --token-file"}},
        },
    })
}

/// `/openapi.json`.
pub(super) async fn show() -> Answer {
    ok(&document())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{collections::BTreeSet, fs, path::Path};

    /// Every method of every path that is served: as the router's own lines name them.
    fn served() -> BTreeSet<(String, String)> {
        let source = include_str!("rest.rs");
        let mut all = BTreeSet::new();
        for route in source.split(".route(\"").skip(1) {
            let (path, handlers) = route.split_once('"').unwrap();
            let handlers = handlers.split(".route(").next().unwrap();
            for method in ["get", "post", "put", "patch", "delete"] {
                if [format!(" {method}("), format!(".{method}(")].iter().any(|call| handlers.contains(call.as_str())) {
                    all.insert((path.to_owned(), method.to_owned()));
                }
            }
        }
        all
    }

    #[test]
    fn what_is_served_is_documented_and_the_other_way_around() {
        let documented: BTreeSet<(String, String)> = OPERATIONS.iter().map(|of| (of.path.to_owned(), of.method.to_owned())).collect();
        let served = served();
        assert!(served.len() > 20, "{served:?}");
        assert_eq!(documented, served);
    }

    #[test]
    fn every_schema_that_is_named_is_there() {
        let document = document();
        let text = document.to_string();
        let named = text.split("#/components/schemas/").skip(1).map(|rest| rest.split('"').next().unwrap());
        for name in named {
            assert!(document.pointer(&format!("/components/schemas/{name}")).is_some(), "{name}");
        }
    }

    #[test]
    fn the_document_in_docs_is_this_one() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/openapi.json");
        let own = format!("{}\n", serde_json::to_string_pretty(&document()).unwrap());
        if std::env::var_os("STANDPIPE_WRITE_DOCS").is_some() {
            fs::write(&path, &own).unwrap();
        }
        let kept = fs::read_to_string(&path).unwrap_or_default();
        assert!(kept == own, "docs/openapi.json is not what is served: run this test with STANDPIPE_WRITE_DOCS=1");
    }
}
