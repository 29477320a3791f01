//! Searching: order, directories, what is passed over, a file that is replaced while its old content is loaded, names that are unknown.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{catalogue, compile, example};
use standpipe_loader::{Catalogue, Lock, LockedPlugin, NoKind, SearchEntry, SearchPath, inspect, platform};
use std::{fs, path::Path};

#[test]
fn a_directory_gives_its_plugins_and_passes_over_the_rest() {
    let directory = tempfile::tempdir().unwrap();
    compile(directory.path(), "a_plugin", "plugin.c", &[]);
    compile(directory.path(), "b_library", "manifest.c", &["-DNO_MANIFEST"]);
    fs::write(directory.path().join("c_note.txt"), "no library").unwrap();
    fs::write(directory.path().join("d_broken.so"), "").unwrap();
    let found = catalogue(&[directory.path()]);
    let names = |kind: &str| found.kinds(kind).iter().map(|kind| kind.name.clone()).collect::<Vec<_>>();
    assert_eq!((found.plugins().len(), names("source"), names("sink")), (1, vec!["c_numbers".to_owned()], vec!["c_sum".to_owned()]));
    assert_eq!(found.kinds("source")[0].summary, "Counts.");
    let failures: Vec<_> = found.failures().iter().map(ToString::to_string).collect();
    assert_eq!(failures, [format!("{}/d_broken.so: is empty", directory.path().display())]);
    let error = found.source("c_number").unwrap_err();
    let place = directory.path().display();
    let expected = format!(
        "there is no source \"c_number\", did you mean \"c_numbers\"? Found: c_numbers. Searched: {place}. Not loaded: {place}/d_broken.so: is empty"
    );
    assert_eq!(error.to_string(), expected);
    assert!(matches!(found.sink("kafka").unwrap_err(), NoKind::Unknown(unknown) if unknown.suggestion.is_none()));
}

#[test]
fn the_first_of_one_name_wins_and_one_file_is_loaded_once() {
    let (first, second) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let one = compile(first.path(), "one", "plugin.c", &["-DVERSION=\"1.0.0\""]);
    compile(second.path(), "two", "plugin.c", &["-DVERSION=\"2.0.0\""]);
    let found = catalogue(&[second.path(), first.path(), &one]);
    assert_eq!(found.plugins().len(), 2);
    assert_eq!(found.sink("c_sum").unwrap().plugin().version, "2.0.0");
    let again = catalogue(&[&one]);
    assert!(std::sync::Arc::ptr_eq(&again.plugins()[0], &found.plugins()[1]));
}

#[test]
fn a_file_renamed_over_a_loaded_one_gives_the_new_plugin() {
    let directory = tempfile::tempdir().unwrap();
    let path = compile(directory.path(), "plugin", "plugin.c", &["-DVERSION=\"1.0.0\""]);
    let old = catalogue(&[&path]);
    let new = compile(directory.path(), "new", "plugin.c", &["-DVERSION=\"2.0.0\""]);
    fs::rename(new, &path).unwrap();
    let replaced = catalogue(&[&path]);
    let version = |catalogue: &Catalogue| catalogue.source("c_numbers").unwrap().plugin().version.clone();
    assert_eq!((version(&old), version(&replaced)), ("1.0.0".to_owned(), "2.0.0".to_owned()));
    assert_ne!(old.plugins()[0].hash(), replaced.plugins()[0].hash());
    // The same content in a new file is the plugin that is loaded.
    let copy = directory.path().join("copy");
    fs::copy(&path, &copy).unwrap();
    fs::rename(copy, &path).unwrap();
    assert!(std::sync::Arc::ptr_eq(&catalogue(&[&path]).plugins()[0], &replaced.plugins()[0]));
}

#[test]
fn a_file_renamed_over_one_that_could_not_be_loaded_gives_the_new_plugin() {
    // The first file is opened, and stays: dlopen would give it again for that path.
    let directory = tempfile::tempdir().unwrap();
    let path = compile(directory.path(), "plugin", "manifest.c", &["-DTABLE_SIZE=16"]);
    for _ in 0..2 {
        let failures: Vec<_> = catalogue(&[&path]).failures().iter().map(ToString::to_string).collect();
        assert!(failures[0].ends_with("the table sink/1 is too short: 16 bytes, 104 needed"), "{failures:?}");
    }
    let new = compile(directory.path(), "new", "plugin.c", &[]);
    fs::rename(new, &path).unwrap();
    let replaced = catalogue(&[&path]);
    assert_eq!((replaced.failures(), replaced.sink("c_sum").unwrap().plugin().version.as_str()), (&[][..], "1.2.3"));
}

#[test]
fn a_file_renamed_over_one_that_was_inspected_gives_the_new_plugin() {
    let directory = tempfile::tempdir().unwrap();
    let path = compile(directory.path(), "plugin", "plugin.c", &["-DVERSION=\"1.0.0\""]);
    assert_eq!(inspect(&path).unwrap().version, "1.0.0");
    let new = compile(directory.path(), "new", "plugin.c", &["-DVERSION=\"2.0.0\""]);
    fs::rename(new, &path).unwrap();
    assert_eq!(catalogue(&[&path]).sink("c_sum").unwrap().plugin().version, "2.0.0");
    assert_eq!(inspect(&path).unwrap().version, "2.0.0");
}

#[test]
fn a_damaged_file_in_a_directory_is_one_line() {
    // A header, two sections: symbols, and their names, which are said to take no place and have a size that no memory has.
    let directory = tempfile::tempdir().unwrap();
    compile(directory.path(), "a_plugin", "plugin.c", &[]);
    let mut bytes = fs::read(directory.path().join("a_plugin.so")).unwrap()[..64].to_vec();
    bytes.resize(192, 0);
    bytes[32..40].fill(0);
    bytes[40..48].copy_from_slice(&64_u64.to_le_bytes());
    bytes[56..58].fill(0);
    bytes[60..62].copy_from_slice(&2_u16.to_le_bytes());
    bytes[68] = 11;
    bytes[104] = 1;
    bytes[132] = 8;
    bytes[160..168].copy_from_slice(&(1_u64 << 62).to_le_bytes());
    fs::write(directory.path().join("b_damaged.so"), bytes).unwrap();
    let found = catalogue(&[directory.path()]);
    let failures: Vec<_> = found.failures().iter().map(ToString::to_string).collect();
    let line = "is an ELF file whose names of symbols are no strings, not a shared library for Linux";
    assert_eq!(failures, [format!("{}/b_damaged.so: {line}", directory.path().display())]);
    assert!(found.source("c_numbers").is_ok());
}

#[test]
fn two_rust_plugins_are_two_plugins() {
    // abi_stable's own `load_from_file` would give the first one twice.
    let found = catalogue(&[&example("loader_fixture"), &example("loader_other")]);
    assert_eq!(found.failures(), []);
    let kinds: Vec<_> = found.kinds("transform").iter().map(|kind| kind.name.clone()).collect();
    assert_eq!(kinds, ["fixture_count", "fixture_panic", "other_pass"]);
    let pass = found.transform("other_pass").unwrap();
    assert!(pass.plugin().path.ends_with("libloader_other.so"));
}

#[test]
fn places_nobody_asked_for_may_be_missing() {
    let of_pipeline = SearchEntry { path: "p".into(), origin: "p.yaml:1:11: plugins".to_owned() };
    let path = SearchPath::new(&[of_pipeline], &["c".into()]);
    let origins: Vec<_> = path.entries.iter().map(|entry| entry.origin.as_str()).collect();
    assert_eq!(origins[..2], ["p.yaml:1:11: plugins", "--plugin-path"]);
    assert_eq!(origins[origins.len() - 2..], ["plugins/ beside the binary", "the binary's directory"]);
    let missing = |origin: &str| {
        let entry = SearchEntry { path: Path::new("/nowhere/plugins").to_owned(), origin: origin.to_owned() };
        Catalogue::discover(&SearchPath { entries: vec![entry] }).failures().len()
    };
    assert_eq!((missing("--plugin-path"), missing("plugins/ beside the binary")), (1, 0));
}

/// A folder with the fixture in these versions: `NAME.so`, its version, and another content for another number.
fn versions(files: &[(&str, &str, u32)]) -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    for (name, version, content) in files {
        compile(directory.path(), name, "plugin.c", &[&format!("-DVERSION=\"{version}\""), &format!("-DFACTOR={content}")]);
    }
    directory
}

#[test]
fn of_one_folder_the_newest_release_and_of_all_places_the_first_that_fits() {
    let first = versions(&[("a", "1.2.3", 1), ("b", "1.2.10", 1), ("c", "1.3.0-rc.1", 1)]);
    let second = versions(&[("a", "2.0.0", 1), ("b", "1.2.11", 1), ("c", "weekly", 1)]);
    let found = catalogue(&[first.path(), second.path()]);
    let version = |reference: &str| found.transform(reference).map(|kind| kind.plugin().version.clone()).map_err(|error| error.to_string());
    for (reference, expected) in [
        ("c_negate", "1.2.10"),
        ("c_negate@1", "1.2.10"),
        ("c_negate@1.2.3", "1.2.3"),
        ("c_negate@1.2.11", "1.2.11"),
        ("c_negate@2", "2.0.0"),
        ("c_negate@1.3.0-rc.1", "1.3.0-rc.1"),
    ] {
        assert_eq!(version(reference).as_deref(), Ok(expected), "{reference}");
    }
    let error = version("c_negate@1.3").unwrap_err();
    assert!(
        error.starts_with("there is no transform \"c_negate\" of version 1.3, did you mean \"c_negate@1.3.0-rc.1\"? Found: 1.2.10 in "),
        "{error}"
    );
    let one = found.transform("c_negate@1.2.3").unwrap();
    assert_eq!((one.plugin().versioned(one.name()), one.plugin().hash().len()), ("c_negate@1.2.3".to_owned(), 64));
    // What is the same in two files is no question.
    let twins = versions(&[("a", "1.0.0", 1), ("b", "1.0.0", 2)]);
    let error = catalogue(&[twins.path()]).sink("c_sum").unwrap_err().to_string();
    assert!(error.starts_with("two files have the sink \"c_sum\" in version 1.0.0 and differ, "), "{error}");
    // Never written into: it is loaded, and what is written would be what runs.
    fs::copy(twins.path().join("a.so"), twins.path().join("new")).unwrap();
    fs::rename(twins.path().join("new"), twins.path().join("b.so")).unwrap();
    assert!(catalogue(&[twins.path()]).sink("c_sum").is_ok());
}

#[test]
fn a_file_that_is_named_is_found_by_no_name() {
    let (searched, named) = (versions(&[("a", "1.0.0", 1)]), versions(&[("a", "9.0.0", 1)]));
    let file = named.path().join("a.so");
    let found = catalogue(&[searched.path()]).with_files([file.clone(), "/no/such.so".into()]);
    let version = |reference: &str| found.sink(reference).map(|kind| kind.plugin().version.clone()).map_err(|error| error.to_string());
    let path = file.display();
    assert_eq!(version(&format!("{path}#c_sum")).as_deref(), Ok("9.0.0"));
    assert_eq!(version("c_sum").as_deref(), Ok("1.0.0"));
    assert_eq!(version(&format!("{path}#c_sum@9.0")).as_deref(), Ok("9.0.0"));
    let error = version(&format!("{path}#c_negate")).unwrap_err();
    assert_eq!(error, format!("{path} has no sink \"c_negate\". It has: source c_numbers, transform c_negate, sink c_sum"));
    assert_eq!(version("/no/such.so#c_sum").unwrap_err(), "/no/such.so: cannot be read: No such file or directory (os error 2)");
}

#[test]
fn a_lock_allows_contents_and_is_the_order() {
    let directory = versions(&[("a", "1.0.0", 1), ("b", "1.1.0", 1), ("c", "1.2.0", 1)]);
    let found = catalogue(&[directory.path()]);
    let hash = |version: &str| found.sink(&format!("c_sum@{version}")).unwrap().plugin().hash();
    let locked = |line: u32, version: &str, platform: &str, sha256: &str| LockedPlugin {
        line,
        plugin: "c-fixture".to_owned(),
        version: version.to_owned(),
        sha256: [(platform.to_owned(), sha256.to_owned())].into(),
        ..LockedPlugin::default()
    };
    let here = platform();
    let with = |plugins: Vec<LockedPlugin>| found.clone().locked(Lock { path: "plugins.lock".into(), plugins });
    let version = |catalogue: &Catalogue, reference: &str| {
        catalogue.sink(reference).map(|kind| kind.plugin().version.clone()).map_err(|error| error.to_string())
    };
    let both = with(vec![locked(3, "1.0.0", &here, &hash("1.0.0")), locked(9, "1.1.0", &here, &hash("1.1.0"))]);
    assert_eq!((version(&both, "c_sum"), version(&both, "c_sum@1.1")), (Ok("1.0.0".to_owned()), Ok("1.1.0".to_owned())));
    let error = version(&both, "c_sum@1.2").unwrap_err();
    assert!(
        error.starts_with("plugin c-fixture 1.2.0 (") && error.contains(") is not in plugins.lock, which has 1.0.0, 1.1.0 (line 3); "),
        "{error}"
    );
    let other = with(vec![locked(3, "1.1.0", &here, &"0".repeat(64))]);
    let error = version(&other, "c_sum").unwrap_err();
    let expected = format!("plugin c-fixture 1.1.0 is another one than in plugins.lock:3: expected sha256:{}, ", "0".repeat(64));
    assert!(error.starts_with(&expected) && error.contains(&hash("1.1.0")), "{error}");
    let elsewhere = with(vec![locked(3, "1.2.0", "pdp11-linux", &hash("1.2.0"))]);
    let error = version(&elsewhere, "c_sum").unwrap_err();
    let expected = format!(
        "plugin c-fixture 1.2.0 has no hash for {here} in plugins.lock:3, which has pdp11-linux; `standpipe plugin lock` writes what is found now"
    );
    assert_eq!(error, expected);
    let error = version(&with(Vec::new()), "c_sum").unwrap_err();
    assert!(error.ends_with("c.so) is not in plugins.lock; `standpipe plugin lock` writes what is found now"), "{error}");
}
