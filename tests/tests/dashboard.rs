//! The dashboard in a real Chromium, on a real cluster with jobs that run, fail, and are cancelled: what a person sees, and what a keyboard alone can do.
#![forbid(unsafe_code)]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by a panic")]

use serde_json::{Value, json};
use standpipe_cluster::bundle::{Bundle, File, Hash, Options};
use standpipe_tests::{Browser, Folder, binary, fixture_plugin, free_port, keys, standpipe, wait_until};
use std::{collections::BTreeMap, env, fs, path::PathBuf, process::Command, time::Duration};

/// Starting, on a machine that is busy.
const PATIENCE: Duration = Duration::from_secs(90);

/// Runs until it is ended. `DIR` is the test's folder. The markup in its name is a text like any other.
const SENSORS: &str = r#"
name: "sensors <b>&"
sources:
  readings:
    connector: generator
    with: {rate: 4000, splits: 3, start: now, fields: {n: {kind: sequence}, host: {kind: uniform-int, min: 0, max: 40}, value: {kind: uniform-int, min: 0, max: 100}, t: {kind: timestamp}}}
    event_time: {column: t, out_of_orderness: 1s}
transforms:
  hot: {input: readings, filter: "value > 90"}
  stats:
    input: readings
    key_by: [host]
    window: {tumbling: 2s}
    aggregate: {n: "count(*)", mean: "avg(value)"}
sinks:
  alerts: {input: hot, connector: file, with: {path: "DIR/alerts-{subtask}.jsonl"}, format: json}
  per-host: {input: stats, connector: file, with: {path: DIR/stats.jsonl}, format: json, parallelism: 1}
checkpoint: {interval: 500ms, dir: DIR/ckpt}
"#;

/// A cluster of this machine, as `cluster start` gives it; ended with the value.
struct Cluster {
    folder: Folder,
    port: u16,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(Command::new(binary()).args(["cluster", "stop", "--data"]).arg(self.folder.at("data")).output());
    }
}

impl Cluster {
    fn start(slots: u32) -> Self {
        let cluster = Self { folder: Folder::new(), port: free_port() };
        let arguments = ["cluster".to_owned(), "start".to_owned(), format!("--slots={slots}"), format!("--port={}", cluster.port)];
        let started = standpipe(arguments).args(["--data".into(), cluster.folder.at("data")]).timeout(PATIENCE).finish().code(0);
        assert_eq!(started.stdout.trim(), cluster.url(""));
        cluster
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    fn http(&self, method: &str, path: &str, body: &[u8]) -> (u16, Value) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).timeout_global(Some(PATIENCE)).build().into();
        let request = ureq::http::Request::builder().method(method).uri(self.url(path)).body(body.to_vec()).unwrap();
        let mut answer = agent.run(request).unwrap();
        let text = answer.body_mut().read_to_string().unwrap();
        (answer.status().as_u16(), serde_json::from_str(&text).unwrap_or(Value::String(text)))
    }

    fn put(&self, path: &str, content: &[u8]) -> File {
        let file = File { path: path.to_owned(), hash: Hash::of(content), bytes: content.len() as u64 };
        let (status, value) = self.http("PUT", &format!("/v1/blobs/{}", file.hash), content);
        assert!([200, 201].contains(&status), "{value}");
        file
    }

    fn submit(&self, name: &str, pipeline: &str, parallelism: u32, plugins: Vec<File>) -> String {
        let text = pipeline.replace("DIR", self.folder.path().to_str().unwrap());
        let bundle = Bundle {
            standpipe: "0.1.0".to_owned(),
            name: name.to_owned(),
            pipeline: self.put("pipeline.yaml", text.as_bytes()),
            plugins,
            resources: Vec::new(),
            configuration: BTreeMap::from([("engine.batch_rows".to_owned(), "1000".to_owned())]),
            options: Options { parallelism: Some(parallelism), ..Options::default() },
        };
        let (status, value) = self.http("POST", "/v1/jobs", &serde_json::to_vec(&bundle).unwrap());
        assert_eq!(status, 202, "{value}");
        value["jobid"].as_str().unwrap().to_owned()
    }

    fn job(&self, id: &str) -> Value {
        self.http("GET", &format!("/v1/jobs/{id}"), b"").1
    }

    /// A job whose plugin panics soon after its start.
    fn submit_bad(&self) -> String {
        let plugin = self.put("libtrouble.so", &fs::read(fixture_plugin()).unwrap());
        let pipeline = "name: nightly import\nsources:\n  s: {connector: bad, with: {at: poll, how: panic, after: 5}}\nsinks:\n  out: {input: s, connector: print, format: json}\n";
        self.submit("nightly import", pipeline, 1, vec![plugin])
    }

    fn wait_for(&self, id: &str, state: &str) {
        wait_until(state, PATIENCE, || self.job(id)["state"] == state);
    }
}

/// Where pictures are left for people to look at: `STANDPIPE_TEST_SCREENSHOTS`.
fn picture(browser: &Browser, name: &str) {
    if let Some(folder) = env::var_os("STANDPIPE_TEST_SCREENSHOTS").map(PathBuf::from) {
        for (look, width, dark) in [("light", 1280, false), ("dark", 1280, true), ("light", 400, false), ("dark", 400, true)] {
            browser.look(width, 900, dark);
            browser.wait_for(
                "the picture",
                "return new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))",
            );
            browser.screenshot(&folder.join(format!("{name}-{look}-{width}.png")));
        }
        browser.look(1280, 900, false);
    }
}

/// No page is wider than its window.
fn assert_fits(browser: &Browser, what: &str) {
    for width in [1280, 400] {
        browser.look(width, 900, false);
        let wide = browser.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth");
        assert_eq!(wide, 0, "{what} at {width}");
    }
    browser.look(1280, 900, false);
}

/// Every control has a name, every page one heading of the first rank.
fn assert_named(browser: &Browser) {
    let nameless = browser.run(
        "return [...document.querySelectorAll('button, a, input, select')].filter((one) => !(one.innerText.trim() || one.getAttribute('aria-label') || one.labels?.length || one.querySelector('img'))).map((one) => one.outerHTML)",
    );
    assert_eq!(nameless, json!([]));
    assert_eq!(browser.run("return document.querySelectorAll('h1').length"), 1);
    assert_eq!(browser.run("return [...document.querySelectorAll('th')].filter((one) => !one.scope).length"), 0);
}

/// Presses Tab until what has the focus says that.
fn tab_to(browser: &Browser, words: &str) {
    for _ in 0..60 {
        browser.press([keys::TAB]);
        if browser.run("return document.activeElement.innerText").as_str().is_some_and(|text| text.contains(words)) {
            return;
        }
    }
    panic!("no way to {words:?} by Tab");
}

#[test]
fn a_running_job_is_seen_and_cancelled_by_keyboard() {
    let Some(browser) = Browser::start() else { return };
    let cluster = Cluster::start(4);
    browser.look(1280, 900, false);
    browser.open(&cluster.url("/"));
    browser.wait_for("an empty cluster", "return document.body.innerText.includes('Nothing runs.')");
    assert_named(&browser);
    picture(&browser, "empty");
    let id = cluster.submit("sensors <b>&", SENSORS, 2, Vec::new());
    browser.wait_for("the job", "return document.querySelector('a.row-link')?.innerText === 'sensors <b>&'");
    cluster.wait_for(&id, "RUNNING");
    browser.wait_for("its state", "return document.querySelector('.badge')?.innerText === 'Running'");
    picture(&browser, "jobs");
    assert_fits(&browser, "jobs");

    // By keyboard alone.
    tab_to(&browser, "sensors");
    browser.press([keys::ENTER]);
    browser.wait_for("the nodes", "return document.querySelectorAll('.node').length === 7");
    let rate = "return [...document.querySelectorAll('.node')].find((node) => node.dataset.path === 'sources.readings')?.querySelector('b').innerText";
    browser.wait_for("rows that move", &format!("{} !== '–' && parseFloat([...document.querySelectorAll('.node')].find((node) => node.dataset.path === 'sources.readings').querySelector('b').innerText) > 0", rate));
    let (rows, total) = (
        "document.querySelector('.tile-note').innerText",
        "return Number(document.querySelector('.tile-note').innerText.split(' ')[0].replaceAll(',', ''))",
    );
    let before = browser.run(total).as_f64().unwrap();
    browser.wait_for("more rows", &format!("return Number({rows}.split(' ')[0].replaceAll(',', '')) > {before}"));
    assert_eq!(browser.run("return document.querySelectorAll('.edge').length"), 6);
    browser.wait_for("what holds event time", "return /behind, held by split \\d/.test(document.querySelector('.graph').innerText)");
    assert_eq!(browser.run("return document.activeElement.tagName"), "H1", "the focus begins on the new page");
    assert_named(&browser);
    tab_to(&browser, "stats");
    browser.press([keys::ENTER]);
    browser.wait_for("the node's subtasks", "return document.querySelector('.detail h2')?.innerText === 'transforms.stats' && document.querySelectorAll('.detail tbody tr').length >= 2");
    browser.wait_for("a line", "return (document.querySelector('.detail .line')?.getAttribute('d') ?? '').length > 40");
    picture(&browser, "job");
    assert_fits(&browser, "job");
    assert_eq!(browser.run("return document.activeElement.dataset.path"), "transforms.stats", "what is kept up to date keeps the focus");

    let page = |tab: &str| browser.open(&cluster.url(&format!("/#/jobs/{id}/{tab}")));
    page("checkpoints");
    browser.wait_for(
        "checkpoints",
        "return [...document.querySelectorAll('tbody .badge')].filter((one) => one.innerText === 'Durable').length > 3",
    );
    picture(&browser, "checkpoints");
    assert_fits(&browser, "checkpoints");
    page("configuration");
    browser.wait_for("settings", "return /engine.batch_rows\\s+1000\\s+deployment/.test(document.body.innerText) && /checkpoint.interval\\s+500ms\\s+pipeline/.test(document.body.innerText)");
    picture(&browser, "configuration");
    page("exceptions");
    browser.wait_for("no exception", "return document.body.innerText.includes('Nothing has gone wrong.')");
    browser.open(&cluster.url("/#/taskmanagers"));
    browser.wait_for("slots", "return document.body.innerText.includes('2 of 4 in use')");
    assert_named(&browser);
    picture(&browser, "taskmanagers");
    assert_fits(&browser, "task managers");

    page("");
    browser.wait_for(
        "the savepoint's button",
        "return [...document.querySelectorAll('.actions button')].some((one) => one.innerText === 'Savepoint' && !one.disabled)",
    );
    tab_to(&browser, "Savepoint");
    browser.press([keys::ENTER]);
    browser.wait_for("a savepoint", "return /The savepoint is durable: ./.test(document.querySelector('#toasts').innerText)");
    tab_to(&browser, "Cancel…");
    browser.press([keys::ENTER]);
    browser.wait_for("the question", "return document.querySelector('dialog')?.open && document.activeElement.innerText === 'Let it run'");
    picture(&browser, "cancel");
    browser.press([keys::ESCAPE]);
    browser.wait_for("no question", "return !document.querySelector('dialog')");
    assert_eq!(cluster.job(&id)["state"], "RUNNING", "Escape cancels nothing");
    assert_eq!(browser.run("return document.activeElement.innerText"), "Cancel…", "the focus is where it was");
    browser.press([keys::ENTER]);
    browser.wait_for("the question", "return document.querySelector('dialog')?.open");
    browser.press([keys::TAB, keys::ENTER]);
    browser.wait_for("its end", "return document.querySelector('.job-title .badge').innerText === 'Cancelled'");
    cluster.wait_for(&id, "CANCELED");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

/// As [`tab_to`], to what says that and nothing else.
fn tab_to_exactly(browser: &Browser, words: &str) {
    for _ in 0..60 {
        browser.press([keys::TAB]);
        if browser.run("return document.activeElement.innerText") == words {
            return;
        }
    }
    panic!("no way to {words:?} by Tab");
}

/// The sensors on a cluster, and the browser at their page.
fn sensors(browser: &Browser) -> (Cluster, String) {
    let cluster = Cluster::start(2);
    let id = cluster.submit("sensors <b>&", SENSORS, 2, Vec::new());
    cluster.wait_for(&id, "RUNNING");
    browser.look(1280, 900, false);
    browser.open(&cluster.url(&format!("/#/jobs/{id}")));
    (cluster, id)
}

#[test]
fn rows_of_a_node_are_seen_as_they_pass_and_as_charts() {
    let Some(browser) = Browser::start() else { return };
    let (cluster, id) = sensors(&browser);
    browser.wait_for("the nodes", "return document.querySelectorAll('.node').length === 7");

    // By keyboard alone: a node of the graph, and from there to its rows.
    tab_to(&browser, "stats");
    browser.press([keys::ENTER]);
    browser.wait_for("the node", "return document.querySelector('.detail h2')?.innerText === 'transforms.stats'");
    tab_to_exactly(&browser, "Rows");
    browser.press([keys::ENTER]);
    browser.wait_for(
        "its rows",
        "return location.hash.endsWith('/rows/transforms.stats') && document.querySelectorAll('.rows tbody tr').length >= 20",
    );
    assert_eq!(browser.run("return document.title"), "sensors <b>& · Rows · Standpipe");
    assert_eq!(browser.run("return document.querySelector('select').value"), "transforms.stats");
    let header = "return [...document.querySelectorAll('.rows thead th')].map((one) => one.innerText).join(' ')";
    assert_eq!(browser.run(header), "# host window_start window_end n mean");
    assert_named(&browser);
    // A chart of each number, with a line for each host, of which there are more than can be told apart.
    browser.wait_for("charts", "return document.querySelectorAll('.row-chart').length === 2");
    browser.wait_for("lines", "return [...document.querySelectorAll('.row-chart')].every((one) => one.querySelectorAll('path.line').length === 8 && [...one.querySelectorAll('path.line')].some((line) => line.getAttribute('d').includes('L')))");
    assert_eq!(browser.run("return document.querySelectorAll('.legend.groups li').length"), 8);
    assert!(
        browser
            .run("return document.querySelector('.row-charts').innerText")
            .as_str()
            .unwrap()
            .contains("more values of host are not drawn")
    );
    assert!(
        browser.run("return document.querySelector('.row-chart svg').getAttribute('aria-label')").as_str().unwrap().starts_with("n from ")
    );
    picture(&browser, "rows");
    assert_fits(&browser, "rows");

    // What is stopped stands still, however long the job goes on, and begins again.
    let newest = "return document.querySelector('.rows tbody th').innerText";
    tab_to_exactly(&browser, "Stop");
    browser.press([keys::ENTER]);
    browser.wait_for("that it is stopped", "return document.querySelector('.tools').innerText.includes('Stopped')");
    let at = browser.run(newest);
    let up = "return [...document.querySelectorAll('.facts div')].find((one) => one.innerText.startsWith('Up for')).innerText";
    let before = browser.run(up);
    browser.wait_for("some seconds of the job", &format!("{up} !== {before}"));
    let before = browser.run(up);
    browser.wait_for("some more", &format!("{up} !== {before}"));
    assert_eq!(browser.run(newest), at);
    assert_eq!(browser.run("return document.activeElement.innerText"), "Start", "the focus stays where it is");
    browser.press([keys::ENTER]);
    browser.wait_for("newer rows", &format!("{newest} !== {at}"));

    // Another node, and fewer rows.
    browser.run("const select = document.querySelectorAll('select')[0]; select.value = 'sources.readings'; select.dispatchEvent(new Event('change'))");
    browser.wait_for("rows of the source", &format!("return ({{header: (() => {{ {header} }})()}}).header === '# host n t value' && document.querySelectorAll('.rows tbody tr').length === 50"));
    browser.run("const select = document.querySelectorAll('select')[1]; select.value = '20'; select.dispatchEvent(new Event('change'))");
    browser.wait_for("twenty", "return document.querySelectorAll('.rows tbody tr').length === 20");
    browser.wait_for("what was passed over", "return /have passed between two looks/.test(document.body.innerText)");
    picture(&browser, "rows-source");
    assert_eq!(cluster.http("PATCH", &format!("/jobs/{id}?mode=cancel"), b"{}").0, 202);
    browser.wait_for("the end", "return document.querySelector('.tools').innerText.includes('The job has ended.')");
    assert_eq!(browser.complaints(), Vec::<String>::new());
}

#[test]
fn a_job_is_rescaled() {
    let Some(browser) = Browser::start() else { return };
    let (cluster, id) = sensors(&browser);
    browser.wait_for("the button", "return [...document.querySelectorAll('.actions button')].some((one) => one.innerText === 'Rescale…' && !one.disabled && !one.hidden)");
    tab_to(&browser, "Rescale…");
    browser.press([keys::ENTER]);
    browser.wait_for("the question", "return document.querySelector('dialog')?.open && document.activeElement.type === 'number'");
    picture(&browser, "rescale");
    browser.run("document.activeElement.select()");
    browser.press(['9', keys::ENTER]);
    browser.wait_for("a no", "return /needs 9, has 2/.test(document.querySelector('dialog .field-error')?.innerText)");
    assert_eq!(cluster.job(&id)["state"], "RUNNING", "it runs on");
    browser.run("const one = document.querySelector('dialog input'); one.focus(); one.select()");
    browser.press(['1', keys::ENTER]);
    browser.wait_for("that it goes on", "return /goes on with a parallelism of 1\\./.test(document.querySelector('#toasts').innerText)");
    cluster.wait_for(&id, "RUNNING");
    assert_eq!(cluster.job(&id)["slots"], 1);
    browser.wait_for("its slots", "return [...document.querySelectorAll('.facts div')].some((one) => /^Slots\\s+1$/.test(one.innerText))");
    assert_eq!(cluster.job(&id)["state"], "RUNNING");
}

#[test]
fn a_failed_job_shows_its_root_cause_and_its_log() {
    let Some(browser) = Browser::start() else { return };
    let cluster = Cluster::start(2);
    let id = cluster.submit_bad();
    cluster.wait_for(&id, "FAILED");
    browser.look(1280, 900, false);
    browser.open(&cluster.url(&format!("/#/jobs/{id}")));
    browser.wait_for("the cause", "return /as asked, in poll/.test(document.querySelector('.notice[data-tone=bad]')?.innerText)");
    assert!(browser.run("return document.querySelector('.actions').hidden").as_bool().unwrap(), "nothing can be done to it");
    picture(&browser, "failed");
    assert_fits(&browser, "failed");
    browser.open(&cluster.url(&format!("/#/jobs/{id}/exceptions")));
    browser.wait_for("the root cause", "return /as asked, in poll/.test(document.querySelector('pre')?.innerText)");
    picture(&browser, "exceptions");
    browser.open(&cluster.url(&format!("/#/jobs/{id}/logs")));
    browser.wait_for("the log", "return /==> process 0/.test(document.querySelector('pre.log')?.innerText)");
    browser.wait_for("the title", "return document.title === 'nightly import · Logs · Standpipe'");
    // Lines with a word alone, and none with another one.
    browser.run(
        "const search = document.querySelector('input[type=search]'); search.value = 'AS ASKED'; search.dispatchEvent(new Event('input'))",
    );
    browser.wait_for(
        "its lines",
        "return document.querySelector('pre.log').innerText.split('\\n').filter(Boolean).every((line) => line.includes('as asked'))",
    );
    browser.run("const search = document.querySelector('input[type=search]'); search.value = 'no such word'; search.dispatchEvent(new Event('input'))");
    browser.wait_for(
        "that there is none",
        "return document.querySelector('pre.log').hidden && document.body.innerText.includes('No line has that.')",
    );
    browser.run("const search = document.querySelector('input[type=search]'); search.value = ''; search.dispatchEvent(new Event('input'))");
    picture(&browser, "logs");
    assert_fits(&browser, "logs");
    browser.open(&cluster.url("/#/jobs/00000000000000000000000000000000"));
    browser.wait_for("that there is no such job", "return document.querySelector('h1').innerText === 'Not found'");
    let complaints: Vec<String> = browser.complaints().into_iter().filter(|one| !one.contains("404 (Not Found)")).collect();
    assert_eq!(complaints, Vec::<String>::new());
}

#[test]
fn a_manager_that_is_away_is_said_to_be_and_a_token_is_asked_for() {
    let Some(browser) = Browser::start() else { return };
    let (folder, port) = (Folder::new(), free_port());
    folder.write("token", "0123456789abcdef-secret\n");
    let start = || {
        let arguments = ["jobmanager".to_owned(), format!("--bind=127.0.0.1:{port}")];
        let mut manager = standpipe(arguments)
            .args(["--data".into(), folder.at("data"), "--token-file".into(), folder.at("token")])
            .timeout(4 * PATIENCE)
            .start();
        manager.wait_until("the job manager", PATIENCE, |run| run.stderr().contains("job manager: http://"));
        manager
    };
    let mut manager = start();
    browser.look(1280, 900, false);
    browser.open(&format!("http://127.0.0.1:{port}/"));
    browser.wait_for("the question for a token", "return document.activeElement.id === 'token' && document.title === 'Token · Standpipe'");
    picture(&browser, "token");
    browser.press("wrong".chars().chain([keys::ENTER]));
    browser.wait_for("a no", "return document.body.innerText.includes('does not know that token')");
    browser.press("0123456789abcdef-secret".chars().chain([keys::ENTER]));
    browser.wait_for(
        "the jobs",
        "return document.querySelector('#link-text').innerText === 'Live' && document.querySelector('h1').innerText === 'Jobs'",
    );
    manager.signal(standpipe_tests::Signal::KILL);
    drop(manager);
    browser.wait_for(
        "that it is away",
        "return !document.querySelector('#away').hidden && document.querySelector('#away').innerText.includes('Trying again')",
    );
    picture(&browser, "away");
    let _manager = start();
    browser.wait_for(
        "that it is back",
        "return document.querySelector('#away').hidden && document.querySelector('#link-text').innerText === 'Live'",
    );
}

#[test]
fn pages_of_others_neither_show_the_dashboard_nor_use_its_interface() {
    let cluster = Cluster::start(1);
    let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
    let page = agent.get(cluster.url("/")).call().unwrap();
    let policy = page.headers()["content-security-policy"].to_str().unwrap().to_owned();
    assert!(
        policy.contains("default-src 'none'") && policy.contains("script-src 'self'") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    assert_eq!(page.headers()["x-content-type-options"], "nosniff");
    // A form of another page can send this much; a browser says where it comes from.
    let id = "0".repeat(32);
    let posted = agent.post(cluster.url(&format!("/jobs/{id}/stop"))).header("Origin", "http://evil.example").send("{}").unwrap();
    assert_eq!(posted.status().as_u16(), 403);
    assert!(agent.get(cluster.url("/ui/../../etc/passwd")).call().unwrap().status().as_u16() >= 400);
}
