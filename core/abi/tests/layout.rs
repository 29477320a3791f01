//! What of the contract has been released stays as it is. `layout/MAJOR.MINOR.txt` lists all that crosses, as a C compiler sees it: constants, types, every member with its
//! place, size and type (so of a function its arguments). The list of the current minor version must be what the header says; those of earlier ones must still be in it: no
//! line of them may change, and what has a size may only have grown at its end.
//!
//! `STANDPIPE_BLESS=1` writes the list of a minor version that is not released. Once it is ([`RELEASED`]), what changes belongs to the next one.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use standpipe_abi::{ABI_MAJOR, ABI_MINOR};
use std::{
    collections::BTreeMap,
    fmt::Write,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// So many minor versions have been released: nothing writes their lists any more.
const RELEASED: u32 = 1;

/// A line for the thing itself, and for each of its members one.
type Layout = BTreeMap<String, Vec<String>>;

/// A struct of the header: its members' names, and how each is declared.
struct Struct {
    name: String,
    members: Vec<(String, String)>,
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("layout")
}

fn header() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("include/standpipe_plugin.h")).unwrap()
}

/// The header without comments and with one space between any two words.
fn without_comments(header: &str) -> String {
    let mut rest = header;
    let mut text = String::new();
    while let Some((before, comment)) = rest.split_once("/*") {
        text.push_str(before);
        rest = comment.split_once("*/").expect("comments end").1;
    }
    text + rest
}

/// Constants, but for those that count versions.
fn constants(text: &str) -> Layout {
    let constant = |line: &str| {
        let (name, value) = line.strip_prefix("#define ")?.split_once(' ')?;
        let counts = matches!(name, "STANDPIPE_ABI_MINOR" | "STANDPIPE_ABI_CANDIDATE" | "STANDPIPE_EXPORT");
        (!counts && !name.contains('(')).then(|| (format!("constant {name}"), vec![value.trim().to_owned()]))
    };
    text.lines().filter_map(constant).collect()
}

/// What stands between the semicolons outside of braces.
fn declarations(text: &str) -> Vec<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#') && !line.starts_with("extern \"C\"") && *line != "}");
    let text = lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ");
    let mut depth = 0;
    let parts = text.split(|character| {
        match character {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
        character == ';' && depth == 0
    });
    parts.map(|part| part.trim().to_owned()).filter(|part| !part.is_empty()).collect()
}

/// The name that a declaration gives: in `uint32_t (*cancelled)(void *ctx)` it is `cancelled`, in `int64_t reserved[3]` it is `reserved`.
fn declared(declaration: &str) -> String {
    let inner = declaration.split_once("(*").map_or(declaration, |(_, rest)| rest.split_once(')').unwrap().0);
    let inner = inner.split('[').next().unwrap();
    inner.rsplit(|character: char| !(character.is_alphanumeric() || character == '_')).find(|word| !word.is_empty()).unwrap().to_owned()
}

fn read_struct(declaration: &str) -> Option<Struct> {
    let (head, body) = declaration.split_once('{')?;
    let name = head.trim().strip_prefix("struct ")?.to_owned();
    let members = body.trim_end_matches('}').split(';').map(str::trim).filter(|member| !member.is_empty());
    Some(Struct { name, members: members.map(|member| (declared(member), member.to_owned())).collect() })
}

/// Places and sizes as a C compiler sees them, a line for each struct and member, in order.
fn measured(structs: &[Struct]) -> Vec<String> {
    let directory = tempfile::tempdir().unwrap();
    let (source, program) = (directory.path().join("layout.c"), directory.path().join("layout"));
    let mut text = "#include \"standpipe_plugin.h\"\n#include <stdio.h>\nint main(void) {\n".to_owned();
    for Struct { name, members } in structs {
        writeln!(text, "  printf(\"%zu bytes, aligned to %zu\\n\", sizeof(struct {name}), _Alignof(struct {name}));").unwrap();
        for (member, _) in members {
            let size = format!("sizeof(((struct {name} *)0)->{member})");
            writeln!(text, "  printf(\"%zu..%zu\\n\", offsetof(struct {name}, {member}), offsetof(struct {name}, {member}) + {size});")
                .unwrap();
        }
    }
    fs::write(&source, text + "  return 0;\n}\n").unwrap();
    let include = Path::new(env!("CARGO_MANIFEST_DIR")).join("include");
    let compiled = Command::new("cc").arg("-std=c11").arg("-I").arg(include).arg(&source).arg("-o").arg(&program).output().expect("cc");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    String::from_utf8(Command::new(program).output().unwrap().stdout).unwrap().lines().map(str::to_owned).collect()
}

/// All that the header declares.
fn layout(header: &str) -> Layout {
    let text = without_comments(header);
    let mut layout = constants(&text);
    let declarations = declarations(&text);
    let structs: Vec<Struct> = declarations.iter().filter_map(|declaration| read_struct(declaration)).collect();
    let mut measured = measured(&structs).into_iter();
    for Struct { name, members } in structs {
        let mut lines = vec![measured.next().unwrap()];
        lines.extend(members.into_iter().map(|(_, declaration)| format!("{} {declaration}", measured.next().unwrap())));
        layout.insert(format!("struct {name}"), lines);
    }
    for declaration in declarations.iter().filter(|declaration| !declaration.contains('{')) {
        let kind = if declaration.starts_with("typedef") { "typedef" } else { "function" };
        let name = match kind {
            "typedef" => declared(declaration),
            _ => declared(declaration.split('(').next().unwrap()),
        };
        layout.insert(format!("{kind} {name}"), vec![declaration.clone()]);
    }
    layout
}

fn written(layout: &Layout) -> String {
    let mut text = String::new();
    for (name, lines) in layout {
        writeln!(text, "{name}").unwrap();
        lines.iter().for_each(|line| writeln!(text, "    {line}").unwrap());
    }
    text
}

fn read(text: &str) -> Layout {
    let mut layout = Layout::new();
    let mut name = String::new();
    for line in text.lines() {
        match line.strip_prefix("    ") {
            Some(line) => layout.get_mut(&name).expect("a name comes first").push(line.to_owned()),
            None => {
                line.clone_into(&mut name);
                layout.insert(name.clone(), Vec::new());
            }
        }
    }
    layout
}

/// Whether it begins with its size, and so may grow.
fn grows(lines: &[String]) -> bool {
    lines.iter().skip(1).take(2).any(|member| member.ends_with("uint32_t size") || member.ends_with("uint32_t struct_size"))
}

/// What of `old` is not in `new` as it was.
fn broken(old: &Layout, new: &Layout) -> Vec<String> {
    let mut found = Vec::new();
    for (name, was) in old {
        let Some(is) = new.get(name) else {
            found.push(format!("{name} is gone"));
            continue;
        };
        let kept = match grows(was) {
            // The first line has the bytes of all, which may be more now; what is aligned may not change.
            true => {
                is.len() >= was.len()
                    && was[1..] == is[1..was.len()]
                    && was[0].split_once(',').unwrap().1 == is[0].split_once(',').unwrap().1
            }
            false => was == is,
        };
        if !kept {
            found.push(format!("{name} was\n    {}\nand is\n    {}", was.join("\n    "), is.join("\n    ")));
        }
    }
    found
}

#[test]
fn the_current_minor_version_is_listed() {
    let path = folder().join(format!("{ABI_MAJOR}.{ABI_MINOR}.txt"));
    let now = written(&layout(&header()));
    if !(0..RELEASED).contains(&ABI_MINOR) && std::env::var_os("STANDPIPE_BLESS").is_some() {
        fs::write(&path, &now).unwrap();
    }
    let listed = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        listed == now,
        "{} is not what the header says; is this minor version released? Then this belongs to the next one",
        path.display()
    );
}

#[test]
fn what_has_been_released_stays() {
    let now = layout(&header());
    let mut released = 0;
    for minor in 0..=ABI_MINOR {
        let path = folder().join(format!("{ABI_MAJOR}.{minor}.txt"));
        let list = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let broken = broken(&read(&list), &now);
        assert!(broken.is_empty(), "what was in {ABI_MAJOR}.{minor} has changed:\n{}", broken.join("\n"));
        released += 1;
    }
    assert_eq!(fs::read_dir(folder()).unwrap().count(), released, "a list of no version");
}

/// The rule itself, on a header that is changed in each way that would break a plugin, and in those that would not.
#[test]
fn the_rule_tells_growth_from_a_break() {
    let was = layout(&header());
    let changed = |from: &str, to: &str| {
        let header = header();
        assert!(header.contains(from), "{from}");
        let text = without_comments(&header.replacen(from, to, 1));
        let mut now = was.clone();
        now.extend(constants(&text));
        for Struct { name, members } in declarations(&text).iter().filter_map(|declaration| read_struct(declaration)) {
            // Places are the compiler's; here what is declared is enough.
            let places =
                was[&format!("struct {name}")].iter().skip(1).map(|line| line.split(' ').next().unwrap()).chain(std::iter::repeat("9..9"));
            let lines = members.iter().zip(places).map(|((_, declaration), place)| format!("{place} {declaration}"));
            let first = was[&format!("struct {name}")][0].clone();
            now.insert(format!("struct {name}"), std::iter::once(first).chain(lines).collect());
        }
        broken(&was, &now).len()
    };
    assert_eq!(changed("#define STANDPIPE_STATUS_BUSY 1", "#define STANDPIPE_STATUS_BUSY 7"), 1);
    assert_eq!(changed("  size_t len;\n", "  size_t length;\n"), 1, "another name");
    assert_eq!(changed("  size_t len;\n", "  size_t len;\n  size_t more;\n"), 1, "a frozen struct has grown");
    assert_eq!(changed("int64_t (*now)(void *ctx);", "int64_t (*now)(void *ctx, int zone);"), 1, "another argument");
    assert_eq!(changed("int64_t (*now)(void *ctx);", "int64_t (*more)(void *ctx); int64_t (*now)(void *ctx);"), 1, "not at the end");
    assert_eq!(changed("int64_t (*now)(void *ctx);", ""), 1, "gone");
    assert_eq!(changed("int64_t (*now)(void *ctx);", "int64_t (*now)(void *ctx); int64_t (*more)(void *ctx);"), 0, "at the end");
}
