//! Settings of a deployment, by the rows of the founding checklist: where they come from, which one counts, and what is said of a wrong one.

use super::*;

#[test]
fn check_and_config_show_look_at_what_a_pipeline_says_of_its_deployment() {
    for (said, expected) in [
        ("{a: b}", "words.yaml:14:14: unknown key \"a\""),
        ("{deployment_mode: nope}", "deployment_mode: there is no mode \"nope\""),
        ("{engine.parallelism: x}", "parallelism: expected a whole number"),
        ("{rest.address: h, rest.port: abc}", "rest.port: expected a port from 1 to 65535"),
    ] {
        let folder = folder(&format!("deployment: {said}\n"));
        for command in [&["check"][..], &["config", "show"]] {
            let refused = standpipe(command.iter().copied()).args(["words.yaml"]).in_directory(folder.path()).finish().code(2);
            assert!(refused.stderr.contains(expected), "{command:?} {said}: {refused:?}");
        }
    }
    // What is missing may come from elsewhere.
    let part = folder("deployment: {rest.port: 8081}\n");
    let _ = standpipe(["check", "words.yaml"]).in_directory(part.path()).finish().code(0);
    let folder = folder("");
    let show = |setting| standpipe(["config", "show", "words.yaml", "-D", setting]).in_directory(folder.path()).finish().code(2).stderr;
    assert!(show("engine.foo=1").contains("foo"));
    assert!(show("engine.parallelism=abc").contains("parallelism: expected a whole number"));
}

#[test]
fn a19_run_takes_settings_of_the_engine_that_are_weaker_than_the_pipeline() {
    let folder = folder("engine: {batch_rows: 10}\n");
    let run = |setting: &str| standpipe(["check", "words.yaml", "--engine", setting]).in_directory(folder.path()).finish();
    let overridden = run("batch_rows=20").code(0).stderr;
    assert!(
        overridden.contains("warning: --engine batch_rows: it has no effect: engine.batch_rows at words.yaml:14:10 overrides it\n"),
        "{overridden}"
    );
    assert_eq!(
        run("flush_intervall=1s").one_error(2),
        "--engine flush_intervall: engine: unknown key \"flush_intervall\", did you mean \"flush_interval\"?"
    );
    assert!(!run("flush_interval=20ms").code(0).stderr.contains("no effect"));
}

#[test]
fn a6_a7_rest_address_and_rest_port_are_required_in_session_mode() {
    let address = "rest.address=127.0.0.1";
    for (settings, expected) in [
        (&["rest.port=8081"][..], "deployment_mode session: rest.address: is missing"),
        (&[address], "deployment_mode session: rest.port: is missing"),
        (&[address, "rest.port=0"], "-D rest.port: deployment_mode session: rest.port: expected a port from 1 to 65535, found 0"),
        (&[address, "rest.port=65536"], "-D rest.port: deployment_mode session: rest.port: expected a port from 1 to 65535, found 65536"),
        (&[address, "rest.port=-1"], "-D rest.port: deployment_mode session: rest.port: expected a port from 1 to 65535, found -1"),
        (&[address, "rest.port=many"], "-D rest.port: deployment_mode session: rest.port: expected a port from 1 to 65535, found \"many\""),
        (
            &["rest.address=http://a:1", "rest.port=1"],
            "-D rest.address: deployment_mode session: rest.address: expected a host name or an address, found \"http://a:1\"; the port is another key, rest.port",
        ),
        (&[address, "rest.prot=1"], "-D rest.prot: unknown key \"rest.prot\", did you mean \"rest.port\"?"),
    ] {
        assert_eq!(deploy(&folder(""), settings).finish().one_error(2), expected);
    }
    let both = deploy(&folder(""), &[]).finish().code(2).stderr;
    assert_eq!(both, "error: deployment_mode session: rest.address: is missing\nerror: deployment_mode session: rest.port: is missing\n");
}

#[test]
fn a18_standpipe_home_is_the_distribution_to_ship() {
    let running = binary().parent().unwrap().canonicalize().unwrap();
    let inside = folder("");
    let handle: Value = serde_json::from_str(&deploy(&inside, &["deployment_mode=cli"]).finish().code(0).stdout).unwrap();
    assert!(handle["command"].as_str().unwrap().contains(&format!("{}/standpipe run", running.display())), "{handle}");

    // A distribution with another plugin: it goes along, and its binary is in the command.
    let other = Folder::new();
    std::os::unix::fs::symlink(binary(), other.at("standpipe")).unwrap();
    fs::create_dir(other.at("plugins")).unwrap();
    let mut plugin = fs::read(standpipe_tests::plugin("connector_file")).unwrap();
    plugin.extend_from_slice(b"another build");
    other.write("plugins/libother_file.so", plugin);
    fs::copy(standpipe_tests::plugin("deployment_cli"), other.at("plugins/libcli.so")).unwrap();
    let home = format!("standpipe_home={}", other.path().display());
    let handle: Value = serde_json::from_str(&deploy(&inside, &["deployment_mode=cli", &home]).finish().code(0).stdout).unwrap();
    assert!(
        handle["command"].as_str().unwrap().contains(&format!("{}/standpipe run", other.path().canonicalize().unwrap().display())),
        "{handle}"
    );
    assert!(inside.at("words.bundle/plugins/libother_file.so").is_file());
    let wrong = deploy(&inside, &["deployment_mode=cli", "standpipe_home=/no/such"]).finish().one_error(2);
    assert_eq!(wrong, "-D standpipe_home: standpipe_home: \"/no/such\" is no distribution: it has no file standpipe");
}

#[test]
fn a19_a20_engine_settings_pass_without_their_prefix_and_what_overrides_them_is_named() {
    let cli = "deployment_mode=cli";
    let inside = folder("engine: {batch_rows: 10}\nparallelism: 1\n");
    let settings = [cli, "engine.batch_rows=20", "engine.parallelism=3", "engine.rest.port=1", "engine.flush_interval=20ms"];
    let stderr = deploy(&inside, &settings).finish().code(0).stderr;
    for warning in [
        "warning: -D engine.rest.port: \"engine.rest.port\" has no effect: \"rest.port\" overrides it (which is not set)\n",
        "warning: -D engine.batch_rows: \"engine.batch_rows\" has no effect: engine.batch_rows at words.yaml:14:10 overrides it\n",
        "warning: -D engine.parallelism: \"engine.parallelism\" has no effect: parallelism at words.yaml:15:1 overrides it\n",
    ] {
        assert!(stderr.contains(warning), "{stderr}");
    }
    let description: Value = serde_json::from_str(&inside.read("words.bundle/bundle.json")).unwrap();
    assert_eq!(description["configuration"], json!({"engine.flush_interval": "20ms"}));
    let strict = deploy(&inside, &settings).args(["--strict"]).finish().code(2).stderr;
    assert_eq!(strict.lines().filter(|line| line.starts_with("error: -D engine.")).count(), 3, "{strict}");
    for (setting, expected) in [
        ("engine.batch_row=1", "-D engine.batch_row: engine: unknown key \"batch_row\", did you mean \"batch_rows\"?"),
        ("engine.parallelism=many", "-D engine.parallelism: parallelism: expected a whole number from 1 to 32768, found \"many\""),
        ("engine.=1", "-D engine.: unknown key \"engine.\"; known are deployment_mode, standpipe_home and engine.*"),
    ] {
        assert_eq!(deploy(&folder(""), &[cli, setting]).finish().one_error(2), expected);
    }
}

#[test]
fn a19_a20_the_command_line_is_before_the_file_of_settings_and_that_before_the_pipeline() {
    let folder = folder("deployment: {rest.address: pipeline, rest.port: 1, engine.batch_rows: 5}\n");
    folder.write("deployment.yaml", "rest.address: file\nrest.port: ${STANDPIPE_TEST_PORT}\n");
    let show = |arguments: &[&str]| {
        let run = standpipe(["config", "show", "words.yaml", "--config", "deployment.yaml", "-D", "rest.address=line"]);
        run.args(arguments).env("STANDPIPE_TEST_PORT", "4321").in_directory(folder.path()).finish().code(0).stdout
    };
    let shown: Vec<Vec<String>> = show(&["--effective"]).lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect();
    let expect = [
        ["deployment_mode", "session", "default"],
        ["engine.batch_rows", "5", "words.yaml:14:52"],
        ["rest.address", "line", "-D"],
        ["rest.port", "${STANDPIPE_TEST_PORT}", "deployment.yaml:2:1"],
    ];
    for line in expect {
        assert!(shown.iter().any(|found| found.iter().zip(line).filter(|(one, other)| *one == other).count() == 3), "{line:?}: {shown:?}");
    }
    assert!(shown.iter().any(|line| line[0] == "standpipe_home"), "{shown:?}");
    let set: Vec<Value> = show(&["--format", "json"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(set.len(), 3, "without defaults: {set:?}");
    assert_eq!(set[1], json!({"key": "rest.address", "value": "line", "origin": "-D rest.address"}));
    // A file whose name begins as the word for defaults does.
    folder.write("default.yaml", "rest.port: 77\n");
    let run = standpipe(["config", "show", "words.yaml", "--config", "default.yaml", "-D", "rest.address=x"]).in_directory(folder.path());
    let named = run.finish().code(0).stdout;
    assert!(named.contains("default.yaml:1:1") && !named.contains("standpipe_home"), "{named}");
    let secret = folder.write("secret.yaml", "rest.address: ${STANDPIPE_TEST_ADDRESS}\nrest.port: 1\n");
    let run = standpipe(["config", "show", "words.yaml", "--config"]).args([secret]).env("STANDPIPE_TEST_ADDRESS", "hunter2/x");
    let refused = run.in_directory(folder.path()).finish().code(2);
    assert!(refused.stderr.contains("found \"${STANDPIPE_TEST_ADDRESS}\""), "{refused:?}");
    assert!(!format!("{refused:?}").contains("hunter2"), "{refused:?}");
    let nested = folder.write("nested.yaml", "rest: {port: 1}\n");
    let line = standpipe(["config", "show", "words.yaml", "--config"]).args([nested]).in_directory(folder.path()).finish().one_error(2);
    assert!(
        line.ends_with("nested.yaml:1:7: rest: expected a plain value, found a map: keys are flat here: write rest.port: ..."),
        "{line}"
    );
    let line = standpipe(["config", "show", "words.yaml", "--config", "gone.yaml"]).in_directory(folder.path()).finish().one_error(3);
    assert_eq!(line, "gone.yaml: cannot read the file: there is none");
}

#[test]
fn a22_the_reference_has_every_key_of_the_modes() {
    let schema: Value = serde_json::from_str(&standpipe(["config", "schema"]).finish().code(0).stdout).unwrap();
    let keys: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
    let of_kubernetes = keys.iter().filter(|key| key.starts_with("kubernetes.")).count();
    assert!(of_kubernetes > 25, "{keys:?}");
    let others: Vec<&str> = keys.iter().map(|key| key.as_str()).filter(|key| !key.starts_with("kubernetes.")).collect();
    assert_eq!(others, ["deployment_mode", "rest.address", "rest.port", "rest.tls.ca", "rest.token", "rest.token.file", "standpipe_home"]);
    let default = |key: &str| schema["properties"][key]["default"].as_str().unwrap_or_default().to_owned();
    assert_eq!(default("kubernetes.image"), "standpipe:latest");
    assert_eq!(default("kubernetes.namespace"), "default");
    assert_eq!(default("kubernetes.config.file"), "~/.kube/config");
    assert_eq!(schema["properties"]["deployment_mode"]["default"], "session");
    let page = fs::read_to_string(standpipe_tests::repository().join("docs/deployment.md")).unwrap();
    for key in keys.into_iter().map(String::as_str).chain(["engine.*"]) {
        let line = page.lines().find(|line| line.starts_with(&format!("| `{key}` |")));
        assert!(line.is_some(), "docs/deployment.md does not describe {key}");
    }
}
