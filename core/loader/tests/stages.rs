//! Every way in which a file is no plugin, and the one line that says so.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;

use common::{catalogue, compile, example};
use standpipe_loader::{LoadProblem, inspect};
use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::Command,
};
use tempfile::TempDir;

/// What loading says, without the path that every line begins with.
fn said(file: &Path) -> String {
    let catalogue = catalogue(&[file]);
    let line = catalogue.failures().first().map(ToString::to_string).unwrap_or_default();
    assert!(!line.contains('\n') && line.len() < 400, "{line}");
    let line = line.strip_prefix(&format!("{}: ", file.display())).map(str::to_owned);
    line.unwrap_or_else(|| panic!("no failure of {}", file.display()))
}

struct Files(TempDir);

impl Files {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    fn manifest(&self, name: &str, arguments: &[&str]) -> PathBuf {
        compile(self.0.path(), name, "manifest.c", arguments)
    }
}

#[test]
fn what_is_no_library() {
    let files = Files::new();
    assert_eq!(said(&files.0.path().join("none.so")), "cannot be read: No such file or directory (os error 2)");
    assert_eq!(said(&files.write("empty.so", b"")), "is empty");
    for (name, bytes, what) in [
        ("text.so", &b"GROUP ( libc.so.6 )\n"[..], "a text file"),
        ("mac.so", b"\xcf\xfa\xed\xfe\x07\x00\x00\x01", "built for macOS"),
        ("windows.so", b"MZ\x90\x00\x03", "built for Windows"),
        ("wasm.so", b"\0asm\x01\0\0\0", "a WebAssembly module"),
        ("static.so", b"!<arch>\nfoo.o/  ", "a static library"),
        ("noise.so", b"\x01\x02\x03\x04", "no ELF file"),
    ] {
        assert_eq!(said(&files.write(name, bytes)), format!("is {what}, not a shared library for Linux"));
    }
    let directory = inspect(files.0.path()).unwrap_err();
    assert_eq!(directory.to_string(), format!("{}: is a directory, not a plugin file", files.0.path().display()));
}

#[test]
fn a_file_without_permission() {
    let files = Files::new();
    let path = files.manifest("secret", &["-DTABLE_SIZE=0"]);
    fs::set_permissions(&path, fs::Permissions::from_mode(0o0)).unwrap();
    let said = std::thread::spawn(move || {
        // Root reads everything; as another file system user, of this thread alone, it does not.
        #[allow(unsafe_code, reason = "a system call without conditions")]
        let _ = unsafe { libc::setfsuid(65_534) };
        inspect(&path).unwrap_err().problem().clone()
    });
    assert_eq!(said.join().unwrap(), LoadProblem::Unreadable("Permission denied (os error 13)".to_owned()));
}

#[test]
fn a_file_that_was_cut() {
    let files = Files::new();
    let whole = fs::read(example("loader_fixture")).unwrap();
    let length = whole.len();
    for cut in [10, 63, 64, 1000, length / 2, length - 5000, length - 1] {
        let path = files.write(&format!("cut{cut}.so"), &whole[..cut]);
        match inspect(&path).unwrap_err().problem() {
            LoadProblem::Truncated { found, expected } => {
                assert!(*found == cut as u64 && *expected > *found && *expected <= length as u64, "{cut}: {expected}");
                assert_eq!(said(&path), format!("is truncated: it has {cut} bytes, its headers speak of {expected}"));
            }
            other => panic!("{cut}: {other}"),
        }
    }
}

#[test]
fn a_file_for_another_machine() {
    let files = Files::new();
    let whole = fs::read(example("loader_fixture")).unwrap();
    let patched = |name: &str, patches: &[(usize, u8)]| {
        let mut bytes = whole.clone();
        for (place, byte) in patches {
            bytes[*place] = *byte;
        }
        said(&files.write(name, &bytes))
    };
    let host = std::env::consts::ARCH;
    let (machine, name) = if host == "aarch64" { (62, "x86_64") } else { (183, "aarch64") };
    assert_eq!(patched("other.so", &[(18, machine)]), format!("is built for {name}, this host runs on {host}"));
    assert_eq!(patched("unknown.so", &[(18, 0xfe), (19, 0xfe)]), format!("is built for processor 65278, this host runs on {host}"));
    assert_eq!(patched("narrow.so", &[(4, 1), (18, 3)]), format!("is built for x86, this host runs on {host}"));
    assert_eq!(patched("program.so", &[(16, 2)]), "is an executable, not a shared library for Linux");
    assert_eq!(patched("object.so", &[(16, 1)]), "is an object file, not a shared library for Linux");
}

#[test]
fn what_the_system_refuses() {
    let files = Files::new();
    assert_eq!(said(&files.manifest("calls", &["-DCALLS", "-DTABLE_SIZE=0"])), "the system's loader refuses it: undefined symbol: nowhere");
    let gone = files.manifest("libgone", &["-DNO_MANIFEST"]);
    let directory = format!("-L{}", files.0.path().display());
    let needs = files.manifest("needs", &["-DTABLE_SIZE=0", "-Wl,--no-as-needed", &directory, "-lgone"]);
    fs::remove_file(gone).unwrap();
    assert_eq!(said(&needs), "the system's loader refuses it: it needs the library libgone.so, which is not installed");
}

#[test]
fn manifests_that_are_wrong() {
    let files = Files::new();
    let none = "is no Standpipe plugin: it has no symbol standpipe_plugin_manifest_v1 (export_plugin! makes it)";
    assert_eq!(said(&files.manifest("no_manifest", &["-DNO_MANIFEST"])), none);
    let stripped = files.manifest("stripped", &["-DNO_MANIFEST"]);
    let mut bytes = fs::read(&stripped).unwrap();
    bytes[40..48].fill(0);
    bytes[60..62].fill(0);
    assert_eq!(said(&files.write("sections.so", &bytes)), none);
    for (name, argument, what) in [
        ("null", "-DNULL_MANIFEST", "there is none"),
        ("magic", "-DMAGIC=7", "it does not begin with STNDPIPE"),
        ("short", "-DSIZE=40", "it is too short: 40 bytes, 56 needed"),
        ("nameless", "-DNAME=0", "it has no name or no version"),
        ("flavour", "-DFLAVOUR=9", "its flavour is 9"),
        ("undescribed", "-DDESCRIPTION=0", "it has no description"),
    ] {
        assert_eq!(said(&files.manifest(name, &[argument])), format!("its plugin manifest is damaged: {what}"));
    }
    let text = said(&files.manifest("json", &["-DDESCRIPTION=\"[7\""]));
    assert!(text.starts_with("its plugin manifest is damaged: its description is no JSON that this host knows: "), "{text}");
}

#[test]
fn other_versions() {
    let files = Files::new();
    let version = |found: &str| {
        format!("plugin broken 0.1.0 speaks plugin ABI {found}, this host speaks 1.1: rebuild the plugin with standpipe-sdk 1.1")
    };
    assert_eq!(said(&files.manifest("major", &["-DMAJOR=2", "-DCANDIDATE=0"])), version("2.1"));
    assert_eq!(said(&files.manifest("candidate", &["-DCANDIDATE=7"])), version("1.1.0-rc.7"));
    let text = said(&example("loader_mismatch"));
    let expected = "plugin loader-mismatch 0.0.1 has another layout than its plugin ABI version says: ";
    assert_eq!(text, format!("{expected}mismatched package: the host has standpipe-abi, the plugin standpipe-loader"));
}

#[test]
fn interfaces_that_are_wrong() {
    let files = Files::new();
    let promised = |what: &str| format!("plugin broken 0.1.0 does not export what its manifest promises: {what}");
    assert_eq!(said(&files.manifest("no_interface", &[])), promised("the function standpipe_plugin_interface_v1"));
    let no_header = said(&files.manifest("no_header", &["-DFLAVOUR=0"]));
    assert_eq!(no_header, promised("abi_stable's header (an old SDK, or symbols stripped?)"));
    assert_eq!(said(&files.manifest("no_table", &["-DTABLE_SIZE=0"])), promised("sink \"hole\": the table sink/1 is missing"));
    let short = said(&files.manifest("short_table", &["-DTABLE_SIZE=16"]));
    assert_eq!(short, promised("sink \"hole\": the table sink/1 is too short: 16 bytes, 104 needed"));
    let null = said(&files.manifest("null_function", &["-DTABLE_SIZE=sizeof(struct StandpipeSinkTable)"]));
    assert_eq!(null, promised("sink \"hole\": the table sink/1 has no function at position 0"));
}

#[test]
fn a_library_without_the_manifest_symbol_is_never_opened() {
    // Its start-up code would end the process, and this test with it.
    let files = Files::new();
    let source = files.write("exits.c", b"#include <stdlib.h>\n__attribute__((constructor)) static void start(void) { exit(3); }\n");
    let library = files.0.path().join("exits.so");
    let built = Command::new("cc").args(["-shared", "-fPIC"]).arg(source).arg("-o").arg(&library).status().unwrap();
    assert!(built.success());
    assert!(said(&library).starts_with("is no Standpipe plugin"));
}
