//! Stage 0: is the file a complete shared library for this machine, and does it name the manifest symbol? Reads headers and symbol names only; no code of the file
//! runs. Without this a truncated file kills the process with SIGBUS, another architecture is reported as "no such file", and every foreign library in a
//! directory would be opened to find out that it is none of ours. Format: System V ABI, "Object Files" (ELF64, little endian).

use crate::error::LoadProblem;
use standpipe_sdk::abi::manifest::MANIFEST_SYMBOL;
use std::{fs::File, io, os::unix::fs::FileExt};

const HEADER: usize = 64;
const SEGMENT: usize = 56;
const SECTION: usize = 64;
const SECTION_NOBITS: u32 = 8;
const SECTION_DYNAMIC_SYMBOLS: u32 = 11;
const TYPE_SHARED: u16 = 3;

const MACHINES: [(u16, &str); 8] =
    [(3, "x86"), (21, "powerpc64"), (22, "s390x"), (40, "arm"), (62, "x86_64"), (183, "aarch64"), (243, "riscv64"), (258, "loongarch64")];

/// Looks at a file of that length.
pub(crate) fn check(file: &File, length: u64) -> Result<(), LoadProblem> {
    if length == 0 {
        return Err(LoadProblem::Empty);
    }
    let start = bytes(file, 0, length.min(HEADER as u64) as usize)?;
    if !start.starts_with(b"\x7fELF") {
        return Err(LoadProblem::NotALibrary(guess(&start).to_owned()));
    }
    if start.len() < HEADER {
        return Err(LoadProblem::Truncated { found: length, expected: HEADER as u64 });
    }
    check_header(&start)?;
    let segments = table(file, length, u64_at(&start, 32), u16_at(&start, 54), u16_at(&start, 56), SEGMENT)?;
    for segment in segments.chunks_exact(SEGMENT) {
        fits(length, u64_at(segment, 8), u64_at(segment, 32))?;
    }
    let sections = table(file, length, u64_at(&start, 40), u16_at(&start, 58), u16_at(&start, 60), SECTION)?;
    let mut names = None;
    for section in sections.chunks_exact(SECTION) {
        if u32_at(section, 4) != SECTION_NOBITS {
            fits(length, u64_at(section, 24), u64_at(section, 32))?;
        }
        if u32_at(section, 4) == SECTION_DYNAMIC_SYMBOLS {
            names = sections.chunks_exact(SECTION).nth(u32_at(section, 40) as usize);
        }
    }
    // A library whose section table was stripped can only be asked by opening it.
    let Some(names) = names else { return Ok(()) };
    let names = bytes(file, u64_at(names, 24), u64_at(names, 32) as usize)?;
    if !names.windows(MANIFEST_SYMBOL.len()).any(|name| name == MANIFEST_SYMBOL) {
        return Err(LoadProblem::NoManifest);
    }
    Ok(())
}

fn check_header(start: &[u8]) -> Result<(), LoadProblem> {
    let host = std::env::consts::ARCH;
    let machine = match (start[5], u16_at(start, 18)) {
        (2, swapped) => swapped.swap_bytes(),
        (_, machine) => machine,
    };
    let found = MACHINES.iter().find(|known| known.0 == machine).map_or_else(|| format!("processor {machine}"), |known| known.1.to_owned());
    if found != host || start[4] != 2 || start[5] != 1 {
        let found = if found == host { format!("{found} in another word size or byte order") } else { found };
        return Err(LoadProblem::Architecture { found, host });
    }
    match u16_at(start, 16) {
        TYPE_SHARED => Ok(()),
        1 => Err(LoadProblem::NotALibrary("an object file".to_owned())),
        2 => Err(LoadProblem::NotALibrary("an executable".to_owned())),
        other => Err(LoadProblem::NotALibrary(format!("an ELF file of type {other}"))),
    }
}

/// What a file that is no ELF file may be, by its first bytes.
fn guess(start: &[u8]) -> &'static str {
    match start {
        [0xcf | 0xce, 0xfa, 0xed, 0xfe, ..] | [0xfe, 0xed, 0xfa, 0xcf | 0xce, ..] | [0xca, 0xfe, 0xba, 0xbe, ..] => "built for macOS",
        [b'M', b'Z', ..] => "built for Windows",
        [0, b'a', b's', b'm', ..] => "a WebAssembly module",
        [b'!', b'<', b'a', b'r', b'c', b'h', b'>', ..] => "a static library",
        text if text.iter().all(|byte| matches!(byte, b'\t' | b'\n' | b'\r' | b' '..=b'~' | 0x80..)) => "a text file",
        _ => "no ELF file",
    }
}

/// A header table, read whole if it lies inside the file and its entries have the known size.
fn table(file: &File, length: u64, offset: u64, entry: u16, count: u16, known: usize) -> Result<Vec<u8>, LoadProblem> {
    if offset == 0 || count == 0 {
        return Ok(Vec::new());
    }
    let size = u64::from(entry) * u64::from(count);
    fits(length, offset, size)?;
    if usize::from(entry) != known {
        return Err(LoadProblem::NotALibrary("an ELF file with headers of an unknown size".to_owned()));
    }
    bytes(file, offset, size as usize)
}

fn fits(length: u64, offset: u64, size: u64) -> Result<(), LoadProblem> {
    match offset.saturating_add(size) {
        end if end > length => Err(LoadProblem::Truncated { found: length, expected: end }),
        _ => Ok(()),
    }
}

fn bytes(file: &File, offset: u64, size: usize) -> Result<Vec<u8>, LoadProblem> {
    let mut bytes = vec![0; size];
    file.read_exact_at(&mut bytes, offset).map_err(|error: io::Error| LoadProblem::Unreadable(error.to_string()))?;
    Ok(bytes)
}

/// Bytes at a fixed place of a header that is known to be long enough.
fn at<const N: usize>(header: &[u8], place: usize) -> [u8; N] {
    header.get(place..).and_then(|rest| rest.first_chunk()).copied().unwrap_or([0; N])
}

fn u16_at(header: &[u8], place: usize) -> u16 {
    u16::from_le_bytes(at(header, place))
}

fn u32_at(header: &[u8], place: usize) -> u32 {
    u32::from_le_bytes(at(header, place))
}

fn u64_at(header: &[u8], place: usize) -> u64 {
    u64::from_le_bytes(at(header, place))
}
