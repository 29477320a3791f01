//! Stage 0: is the file a complete shared library for this machine, and does it name the manifest symbol? Reads headers and symbol names only; no code of the file
//! runs. Without this a truncated file kills the process with SIGBUS, another architecture is reported as "no such file", and every foreign library in a
//! directory would be opened to find out that it is none of ours. Format: System V ABI, "Object Files" (ELF64, little endian).

use crate::error::LoadProblem;
use standpipe_sdk::abi::manifest::MANIFEST_SYMBOL;
use std::{io, os::unix::fs::FileExt};

const HEADER: usize = 64;
const SEGMENT: usize = 56;
const SECTION: usize = 64;
const SECTION_STRINGS: u32 = 3;
const SECTION_NOBITS: u32 = 8;
const SECTION_DYNAMIC_SYMBOLS: u32 = 11;
const TYPE_SHARED: u16 = 3;
const SEGMENT_DYNAMIC: u32 = 2;
const DYNAMIC: usize = 16;
/// `DT_FLAGS_1` and `DF_1_PIE` of the GNU linker: an executable that may lie anywhere, which otherwise looks like a library. The system's loader refuses it, too.
const DYNAMIC_FLAGS: u64 = 0x6fff_fffb;
const FLAG_EXECUTABLE: u64 = 0x0800_0000;

const MACHINES: [(u16, &str); 8] =
    [(3, "x86"), (21, "powerpc64"), (22, "s390x"), (40, "arm"), (62, "x86_64"), (183, "aarch64"), (243, "riscv64"), (258, "loongarch64")];

/// Looks at a file of that length.
pub(crate) fn check(file: &impl FileExt, length: u64) -> Result<(), LoadProblem> {
    if length == 0 {
        return Err(LoadProblem::Empty);
    }
    let start = bytes(file, length, 0, length.min(HEADER as u64))?;
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
    // A library has one. Of a file that claims more, not each is read.
    if let Some(dynamic) = segments.chunks_exact(SEGMENT).find(|segment| u32_at(segment, 0) == SEGMENT_DYNAMIC) {
        let entries = bytes(file, length, u64_at(dynamic, 8), u64_at(dynamic, 32))?;
        let mut flags = entries.chunks_exact(DYNAMIC).filter(|entry| u64_at(entry, 0) == DYNAMIC_FLAGS);
        if flags.any(|entry| u64_at(entry, 8) & FLAG_EXECUTABLE != 0) {
            return Err(executable());
        }
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
    if u32_at(names, 4) != SECTION_STRINGS {
        return Err(LoadProblem::NotALibrary("an ELF file whose names of symbols are no strings".to_owned()));
    }
    let names = bytes(file, length, u64_at(names, 24), u64_at(names, 32))?;
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
        2 => Err(executable()),
        other => Err(LoadProblem::NotALibrary(format!("an ELF file of type {other}"))),
    }
}

fn executable() -> LoadProblem {
    LoadProblem::NotALibrary("an executable".to_owned())
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
fn table(file: &impl FileExt, length: u64, offset: u64, entry: u16, count: u16, known: usize) -> Result<Vec<u8>, LoadProblem> {
    if offset == 0 || count == 0 {
        return Ok(Vec::new());
    }
    let size = u64::from(entry) * u64::from(count);
    fits(length, offset, size)?;
    if usize::from(entry) != known {
        return Err(LoadProblem::NotALibrary("an ELF file with headers of an unknown size".to_owned()));
    }
    bytes(file, length, offset, size)
}

fn fits(length: u64, offset: u64, size: u64) -> Result<(), LoadProblem> {
    match offset.saturating_add(size) {
        end if end > length => Err(LoadProblem::Truncated { found: length, expected: end }),
        _ => Ok(()),
    }
}

/// A part of the file, which must lie in it: the sizes come from the file, so nothing is allocated before that is known.
fn bytes(file: &impl FileExt, length: u64, offset: u64, size: u64) -> Result<Vec<u8>, LoadProblem> {
    fits(length, offset, size)?;
    let mut bytes = vec![0; size as usize];
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

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use standpipe_hostile::bytes;
    use std::{path::Path, process::Command, sync::LazyLock};

    /// A file in memory with some bytes changed. Whoever reads more than there is has allocated more than there is.
    struct Changed<'a> {
        whole: &'a [u8],
        changes: Vec<(usize, Vec<u8>)>,
    }

    impl FileExt for Changed<'_> {
        fn read_at(&self, into: &mut [u8], offset: u64) -> io::Result<usize> {
            assert!(into.len() <= self.whole.len(), "{} bytes of a file of {}", into.len(), self.whole.len());
            let from = usize::try_from(offset).unwrap_or(usize::MAX).min(self.whole.len());
            let count = into.len().min(self.whole.len() - from);
            into[..count].copy_from_slice(&self.whole[from..from + count]);
            for (at, bytes) in &self.changes {
                for (index, byte) in bytes.iter().enumerate() {
                    if let Some(place) = (at + index).checked_sub(from).and_then(|place| into[..count].get_mut(place)) {
                        *place = *byte;
                    }
                }
            }
            Ok(count)
        }

        fn write_at(&self, _: &[u8], _: u64) -> io::Result<usize> {
            Err(io::ErrorKind::Unsupported.into())
        }
    }

    /// The fixture in C, a real library of some 20 KB.
    static LIBRARY: LazyLock<Vec<u8>> = LazyLock::new(|| {
        let directory = tempfile::tempdir().unwrap();
        let library = directory.path().join("plugin.so");
        let crate_directory = Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut compiler = Command::new("cc");
        compiler.args(["-fPIC", "-shared", "-I"]).arg(crate_directory.join("../abi/include"));
        assert!(compiler.arg(crate_directory.join("tests/c/plugin.c")).arg("-o").arg(&library).status().unwrap().success());
        std::fs::read(library).unwrap()
    });

    fn checked(changes: Vec<(usize, Vec<u8>)>) -> Result<(), LoadProblem> {
        check(&Changed { whole: &LIBRARY, changes }, LIBRARY.len() as u64)
    }

    /// Where the header of the names of symbols is.
    fn names() -> usize {
        let sections = u64_at(&LIBRARY, 40) as usize;
        let section = |index: usize| sections + index * SECTION;
        let all = (0..usize::from(u16_at(&LIBRARY, 60))).map(section);
        let symbols = all.into_iter().find(|at| u32_at(&LIBRARY, at + 4) == SECTION_DYNAMIC_SYMBOLS).unwrap();
        section(u32_at(&LIBRARY, symbols + 40) as usize)
    }

    #[test]
    fn a_real_library_passes() {
        assert_eq!(checked(Vec::new()), Ok(()));
    }

    #[test]
    fn names_of_symbols_that_take_no_place_or_too_much() {
        let size = |size: u64| (names() + 32, size.to_le_bytes().to_vec());
        let kind = |kind: u32| (names() + 4, kind.to_le_bytes().to_vec());
        let no_strings = LoadProblem::NotALibrary("an ELF file whose names of symbols are no strings".to_owned());
        for bytes in [1 << 62, i64::MAX as u64 + 1, u64::MAX] {
            assert_eq!(checked(vec![kind(SECTION_NOBITS), size(bytes)]), Err(no_strings.clone()));
            assert!(matches!(checked(vec![size(bytes)]), Err(LoadProblem::Truncated { .. })));
        }
        // Whoever asks for a part that is not in the file is refused before anything is allocated.
        let file = Changed { whole: &LIBRARY, changes: Vec::new() };
        assert!(matches!(bytes(&file, 256, 8, 1 << 62), Err(LoadProblem::Truncated { found: 256, .. })));
    }

    /// Where a change hurts: the header, a section's or segment's header, anywhere.
    fn place() -> impl Strategy<Value = usize> {
        let length = LIBRARY.len();
        let sections = u64_at(&LIBRARY, 40) as usize;
        prop_oneof![0..HEADER, HEADER..HEADER + 12 * SEGMENT, sections..length, names()..names() + SECTION, 0..length.min(1 << 16)]
    }

    fn change() -> impl Strategy<Value = (usize, Vec<u8>)> {
        let length = LIBRARY.len() as u64;
        let edges =
            prop::sample::select(vec![0, 1, 2, 3, 8, 11, length - 1, length, length + 1, 1 << 31, 1 << 32, 1 << 62, 1 << 63, u64::MAX]);
        let word = (place(), edges).prop_map(|(at, word)| (at / 8 * 8, word.to_le_bytes().to_vec()));
        let half = (place(), prop::sample::select(vec![0_u32, 1, 2, 3, 8, 11, 1 << 31, u32::MAX]));
        let half = half.prop_map(|(at, half)| (at / 4 * 4, half.to_le_bytes().to_vec()));
        prop_oneof![(place(), any::<u8>()).prop_map(|(at, byte)| (at, vec![byte])), word, half]
    }

    proptest! {
        #![proptest_config(standpipe_hostile::cases(4_096))]

        /// Whatever is damaged: an answer, no panic, and no allocation beyond the file's length (`Changed` looks).
        #[test]
        fn damaged_headers_are_answered(changes in prop::collection::vec(change(), 1..6), kept in any::<prop::sample::Index>(), cut in any::<bool>()) {
            let whole: &[u8] = if cut { &LIBRARY[..kept.index(LIBRARY.len())] } else { &LIBRARY };
            let _ = check(&Changed { whole, changes }, whole.len() as u64);
        }

        /// Parts that are gone, there twice or at another place, so that what follows is not where the headers say.
        #[test]
        fn a_file_that_was_turned_over_is_answered(changes in bytes::changes(&["\u{7f}ELF", "standpipe_plugin_manifest_v1\0", "\0\0\0\0\0\0\0\0"])) {
            let whole = bytes::changed(&LIBRARY, &changes);
            let said = check(&Changed { whole: &whole, changes: Vec::new() }, whole.len() as u64);
            let line = said.map_or_else(|problem| problem.to_string(), |()| String::new());
            prop_assert!(line.len() < 200 && !line.contains(char::is_control), "{line}");
        }

        #[test]
        fn any_bytes_are_answered(noise in prop::collection::vec(any::<u8>(), 0..200), begins in any::<bool>()) {
            let begin: &[u8] = if begins { &LIBRARY[..HEADER] } else { b"" };
            let whole = [begin, noise.as_slice()].concat();
            let said = check(&Changed { whole: &whole, changes: Vec::new() }, whole.len() as u64);
            prop_assert!(said.is_err());
        }
    }
}
