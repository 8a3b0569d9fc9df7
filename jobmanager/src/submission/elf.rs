//! Whether a file is a program that this cluster can run: its ELF header, read by hand, and what else it may be instead.
//!
//! The first check of a submitted binary, before anything executes it. Everything is read with bounds checks; a file that
//! lies about its tables is truncated or damaged, and says so.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::Path;

/// Size of the header of a 64-bit ELF file.
const HEADER_BYTES: usize = 64;
/// Size of one program header of a 64-bit ELF file.
const PROGRAM_HEADER_BYTES: u64 = 56;
/// More program headers than any linker writes.
const MAX_PROGRAM_HEADERS: u16 = 1_024;

/// Why a file is not a program for this cluster.
#[derive(Debug, thiserror::Error)]
pub enum NotRunnable {
    /// It cannot be read.
    #[error("the binary cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    /// It is empty.
    #[error("the file is empty; submit the executable that `cargo build --release` made")]
    Empty,
    /// It is something else.
    #[error("the file is {what}, not a Linux executable; {cure}")]
    NotElf {
        /// What it looks like.
        what: &'static str,
        /// What to submit instead.
        cure: &'static str,
    },
    /// It ends too early.
    #[error(
        "the executable is truncated: {missing} lies behind its end at byte {size_bytes}; build or copy it again"
    )]
    Truncated {
        /// What is missing.
        missing: &'static str,
        /// The file's size.
        size_bytes: u64,
    },
    /// It is for 32-bit machines.
    #[error("the executable is a 32-bit one; build it for {}", host_target())]
    ThirtyTwoBit,
    /// It is for another machine.
    #[error(
        "the executable is built for {found}, this cluster runs on {}; build it with `--target {}`",
        std::env::consts::ARCH,
        host_target()
    )]
    OtherArchitecture {
        /// The machine's name.
        found: String,
    },
    /// It is an ELF file, but no program.
    #[error("the file is {what}, not an executable; submit the program that `cargo build --release` made")]
    NotExecutable {
        /// What it is.
        what: &'static str,
    },
}

fn host_target() -> String {
    format!("{}-unknown-linux-gnu", std::env::consts::ARCH)
}

/// Checks a file.
///
/// # Errors
/// Why it cannot run here.
pub fn check(path: &Path) -> Result<(), NotRunnable> {
    let mut file = File::open(path)?;
    let size_bytes = file.metadata()?.len();
    let mut start = Vec::with_capacity(HEADER_BYTES);
    file.by_ref().take(HEADER_BYTES as u64).read_to_end(&mut start)?;
    let header = Header::parse(&start, size_bytes)?;
    let mut table = vec![0; usize::from(header.program_headers) * PROGRAM_HEADER_BYTES as usize];
    file.seek(SeekFrom::Start(header.program_headers_offset))?;
    file.read_exact(&mut table)?;
    header.check_segments(&table, size_bytes)
}

/// The fields of an ELF header that matter here.
struct Header {
    program_headers_offset: u64,
    program_headers: u16,
}

impl Header {
    fn parse(start: &[u8], size_bytes: u64) -> Result<Self, NotRunnable> {
        const CLASS_32_BIT: u8 = 1;
        const BIG_ENDIAN: u8 = 2;
        if start.is_empty() {
            return Err(NotRunnable::Empty);
        }
        if !start.starts_with(b"\x7fELF") {
            let (what, cure) = looks_like(start);
            return Err(NotRunnable::NotElf { what, cure });
        }
        let truncated = |missing| NotRunnable::Truncated { missing, size_bytes };
        let (Some(class), Some(order)) = (start.get(4), start.get(5)) else {
            return Err(truncated("its header"));
        };
        if *class == CLASS_32_BIT {
            return Err(NotRunnable::ThirtyTwoBit);
        }
        let read = |at: usize, bytes: usize| -> Result<u64, NotRunnable> {
            let field = start.get(at..at + bytes).ok_or_else(|| truncated("its header"))?;
            let fold = |value: u64, byte: &u8| value << 8 | u64::from(*byte);
            Ok(match *order {
                BIG_ENDIAN => field.iter().fold(0, fold),
                _ => field.iter().rev().fold(0, fold),
            })
        };
        let machine = read(18, 2)?;
        if Some(machine) != host_machine() || *order == BIG_ENDIAN {
            return Err(NotRunnable::OtherArchitecture { found: machine_name(machine) });
        }
        let what = match read(16, 2)? {
            2 | 3 if read(24, 8)? != 0 => None,
            2 | 3 => Some("a shared library"),
            1 => Some("an object file"),
            4 => Some("a core dump"),
            _ => Some("an ELF file of an unknown type"),
        };
        if let Some(what) = what {
            return Err(NotRunnable::NotExecutable { what });
        }
        let inside = |offset: u64, entry_bytes: u64, entries: u64| {
            entries
                .checked_mul(entry_bytes)
                .and_then(|bytes| offset.checked_add(bytes))
                .is_some_and(|end| end <= size_bytes)
        };
        let (offset, entry_bytes, entries) = (read(32, 8)?, read(54, 2)?, read(56, 2)?);
        let program_headers = u16::try_from(entries).unwrap_or(u16::MAX);
        if entry_bytes != PROGRAM_HEADER_BYTES || entries == 0 || program_headers > MAX_PROGRAM_HEADERS {
            return Err(NotRunnable::NotExecutable {
                what: "an ELF file without a valid program header table",
            });
        }
        if !inside(offset, entry_bytes, entries) {
            return Err(truncated("its program header table"));
        }
        let (sections_offset, section_bytes, sections) = (read(40, 8)?, read(58, 2)?, read(60, 2)?);
        if !inside(sections_offset, section_bytes, sections) {
            return Err(truncated("its section header table"));
        }
        Ok(Self { program_headers_offset: offset, program_headers })
    }

    /// Checks that everything which is to be loaded is there.
    fn check_segments(&self, table: &[u8], size_bytes: u64) -> Result<(), NotRunnable> {
        const LOAD: u64 = 1;
        for entry in table.chunks_exact(PROGRAM_HEADER_BYTES as usize) {
            let read = |at: usize, bytes: usize| {
                let field = entry.get(at..at + bytes).unwrap_or_default();
                field.iter().rev().fold(0u64, |value, byte| value << 8 | u64::from(*byte))
            };
            let end = read(8, 8).checked_add(read(32, 8));
            if read(0, 4) == LOAD && end.is_none_or(|end| end > size_bytes) {
                return Err(NotRunnable::Truncated { missing: "a part that is to be loaded", size_bytes });
            }
        }
        Ok(())
    }
}

/// What a file that is not ELF starts like, and what to do.
fn looks_like(start: &[u8]) -> (&'static str, &'static str) {
    const BUILD_FOR_LINUX: &str = "build it for Linux, for example in a container or with `--target`";
    const SUBMIT_THE_PROGRAM: &str = "submit the executable that `cargo build --release` made";
    let table: [(&[u8], &str, &str); 13] = [
        (b"#!", "a script", "submit the executable itself"),
        (b"MZ", "a Windows executable", BUILD_FOR_LINUX),
        (b"\xcf\xfa\xed\xfe", "a macOS executable", BUILD_FOR_LINUX),
        (b"\xce\xfa\xed\xfe", "a macOS executable", BUILD_FOR_LINUX),
        (b"\xca\xfe\xba\xbe", "a macOS universal executable or a Java class", BUILD_FOR_LINUX),
        (b"PK\x03\x04", "a ZIP or JAR archive", SUBMIT_THE_PROGRAM),
        (b"\x1f\x8b", "a gzip archive", "unpack it first"),
        (b"BZh", "a bzip2 archive", "unpack it first"),
        (b"\xfd7zXZ", "an xz archive", "unpack it first"),
        (b"\x28\xb5\x2f\xfd", "a zstd archive", "unpack it first"),
        (b"!<arch>", "a static library", SUBMIT_THE_PROGRAM),
        (b"\0asm", "a WebAssembly module", BUILD_FOR_LINUX),
        (b"{", "a JSON text", SUBMIT_THE_PROGRAM),
    ];
    let known =
        table.iter().find(|(magic, ..)| start.starts_with(magic)).map(|(_, what, cure)| (*what, *cure));
    known.unwrap_or_else(|| {
        let is_text = start.iter().all(|byte| byte.is_ascii_graphic() || byte.is_ascii_whitespace());
        (if is_text { "a text" } else { "of an unknown kind" }, SUBMIT_THE_PROGRAM)
    })
}

fn host_machine() -> Option<u64> {
    match std::env::consts::ARCH {
        "x86_64" => Some(62),
        "aarch64" => Some(183),
        "riscv64" => Some(243),
        "powerpc64" => Some(21),
        "s390x" => Some(22),
        _ => None,
    }
}

fn machine_name(machine: u64) -> String {
    match machine {
        3 => "x86".to_string(),
        8 => "mips".to_string(),
        21 => "powerpc64".to_string(),
        22 => "s390x".to_string(),
        40 => "arm".to_string(),
        62 => "x86_64".to_string(),
        183 => "aarch64".to_string(),
        243 => "riscv".to_string(),
        258 => "loongarch".to_string(),
        other => format!("machine number {other}"),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]

    use super::*;
    use proptest::prelude::*;

    fn this_program() -> Vec<u8> {
        std::fs::read("/bin/true").unwrap()
    }

    fn verdict(bytes: &[u8]) -> Result<(), String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        check(file.path()).map_err(|error| error.to_string())
    }

    fn changed(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut program = this_program();
        program[at..at + bytes.len()].copy_from_slice(bytes);
        program
    }

    #[test]
    fn programs_of_this_machine_are_accepted() {
        assert_eq!(verdict(&this_program()), Ok(()));
        assert!(check(&std::env::current_exe().unwrap()).is_ok());
    }

    #[test]
    fn every_refusal_says_what_the_file_is() {
        let other = if std::env::consts::ARCH == "aarch64" { 62u8 } else { 183 };
        let other_name = machine_name(u64::from(other));
        let program = this_program();
        let table: Vec<(Vec<u8>, String)> = vec![
            (vec![], "the file is empty".into()),
            (b"#!/bin/sh\ntrue".to_vec(), "a script".into()),
            (b"MZ\x90".to_vec(), "a Windows executable".into()),
            (b"\xcf\xfa\xed\xfe\0\0".to_vec(), "a macOS executable".into()),
            (b"PK\x03\x04".to_vec(), "ZIP or JAR".into()),
            (b"fn main() {}\n".to_vec(), "a text".into()),
            (vec![0xf0, 1, 2], "of an unknown kind".into()),
            (b"\x7fEL".to_vec(), "of an unknown kind".into()),
            (b"\x7fELF".to_vec(), "truncated: its header".into()),
            (program[..40].to_vec(), "truncated: its header".into()),
            (program[..100].to_vec(), "truncated: its program header table".into()),
            (program[..program.len() / 2].to_vec(), "truncated: its section header table".into()),
            (program[..program.len() - 1].to_vec(), "truncated: its section header table".into()),
            (changed(4, &[1]), "32-bit".into()),
            (
                changed(18, &[other]),
                format!("built for {other_name}, this cluster runs on {}", std::env::consts::ARCH),
            ),
            (changed(18, &[0xee, 0xee]), "machine number 61166".into()),
            (changed(16, &[1]), "an object file".into()),
            (changed(16, &[4]), "a core dump".into()),
            (changed(24, &[0; 8]), "a shared library".into()),
            (changed(56, &[0; 2]), "without a valid program header table".into()),
            (changed(32, &[0xff; 8]), "truncated: its program header table".into()),
        ];
        for (bytes, expected) in table {
            let reason = verdict(&bytes).expect_err(&expected);
            assert!(reason.contains(&expected), "`{reason}` should contain `{expected}`");
        }
    }

    #[test]
    fn a_stripped_program_without_its_end_is_truncated() {
        // Without section headers only the segments tell that something is missing.
        let mut program = changed(40, &[0; 8]);
        program[60..62].copy_from_slice(&[0; 2]);
        assert_eq!(verdict(&program), Ok(()));
        let reason = verdict(&program[..program.len() / 2]).unwrap_err();
        assert!(reason.contains("a part that is to be loaded"), "{reason}");
    }

    proptest! {
        #[test]
        fn no_header_makes_the_parser_fail_otherwise(
            damage in proptest::collection::vec((4usize..64, any::<u8>()), 0..20),
            length in 0usize..4_096,
        ) {
            let mut bytes = this_program();
            for (at, byte) in damage {
                bytes[at] = byte;
            }
            bytes.truncate(length);
            // A verdict, whatever it is; never a panic or a huge allocation.
            let _ = verdict(&bytes);
        }
    }
}
