//! Rules for every Rust file: a header, a bearable length, nothing left undone, no sleeping in tests, no `unsafe`.

use std::path::Path;

use super::source::{is_identifier, mask, test_regions};
use super::{Finding, Severity};

/// The length to aim at.
const GOOD_LINES: usize = 500;
/// The length that is refused.
const MOST_LINES: usize = 600;

/// Signs of work that somebody meant to do later. Split, so that this file does not break its own rule.
const LEFT_UNDONE: [&str; 4] =
    [concat!("TO", "DO"), concat!("FIX", "ME"), concat!("to", "do!"), concat!("unimpl", "emented!")];

/// Modules that may be unsafe. Each is small and has a proof.
const UNSAFE_MODULES: [&str; 1] = ["state/src/prefetch.rs"];

/// What a line of a test says when its pause is not a way to wait.
const NOT_A_WAIT: &str = "// not a wait:";

pub fn check(file: &Path, source: &str) -> Vec<Finding> {
    if source.lines().next().is_some_and(|line| line.contains("@generated")) {
        return Vec::new();
    }
    let mut findings = Vec::new();
    findings.extend(header(file, source));
    findings.extend(length(file, source));
    findings.extend(left_undone(file, source));
    findings.extend(sleeping_tests(file, source));
    findings.extend(allowed_unsafety(file, source));
    findings
}

/// The compiler denies `unsafe`; this is about whoever allows it.
fn allowed_unsafety(file: &Path, source: &str) -> Vec<Finding> {
    if UNSAFE_MODULES.iter().any(|module| file == Path::new(module)) {
        return Vec::new();
    }
    let masked = mask(source);
    let allowing = masked.lines().zip(1..).filter(|(line, _)| contains_word(line, "unsafe_code"));
    allowing
        .map(|(_, line)| {
            let what = "`unsafe_code` is allowed here";
            let cure = "do without; a module that must be unsafe is named in xtask/src/structure/rust.rs and has a proof";
            Finding::error(file, line, what, cure)
        })
        .collect()
}

fn header(file: &Path, source: &str) -> Option<Finding> {
    let first = source.lines().find(|line| !line.trim().is_empty()).unwrap_or_default();
    (!first.starts_with("//!")).then(|| {
        Finding::error(
            file,
            1,
            "the file does not begin with a `//!` header",
            "say what it is, where on a record's or a command's way it stands, and its invariants",
        )
    })
}

fn length(file: &Path, source: &str) -> Option<Finding> {
    let lines = source.lines().count();
    if lines <= GOOD_LINES {
        return None;
    }
    let severity = if lines <= MOST_LINES { Severity::Warning } else { Severity::Error };
    let what = format!("{lines} lines, where {GOOD_LINES} are good and {MOST_LINES} the most");
    let cure = "split it along its nouns, one file each".to_owned();
    Some(Finding { file: file.into(), line: lines, severity, what, cure })
}

fn left_undone(file: &Path, source: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in source.lines().enumerate() {
        if let Some(sign) = LEFT_UNDONE.iter().find(|sign| contains_word(line, sign)) {
            let what = format!("`{sign}` says that something is not done");
            findings.push(Finding::error(
                file,
                index + 1,
                what,
                "do it, or write down as a known limit what is missing",
            ));
        }
    }
    findings
}

/// Whether the word stands there by itself, not as part of an identifier.
fn contains_word(line: &str, word: &str) -> bool {
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_identifier) && (word.ends_with('!') || !after.is_some_and(is_identifier))
    })
}

fn sleeping_tests(file: &Path, source: &str) -> Vec<Finding> {
    let masked = mask(source);
    let whole_file = is_test_file(file) || masked.contains("#![cfg(test)]");
    let regions = test_regions(&masked);
    let lines: Vec<&str> = source.lines().collect();
    let mut findings = Vec::new();
    for (at, _) in masked.match_indices("sleep(") {
        let is_other_name = masked[..at].chars().next_back().is_some_and(is_identifier);
        let is_test = whole_file || regions.iter().any(|region| region.contains(&at));
        if is_other_name || !is_test {
            continue;
        }
        let index = masked[..at].matches('\n').count();
        let line_above = index.checked_sub(1).map(|above| lines[above]);
        if !has_reason(lines[index]) && !line_above.is_some_and(has_reason) {
            findings.push(Finding::error(
                file,
                index + 1,
                "a test sleeps",
                format!(
                    "wait for the state itself, with a deadline, or write `{NOT_A_WAIT} <reason>` beside it"
                ),
            ));
        }
    }
    findings
}

fn has_reason(line: &str) -> bool {
    line.split_once(NOT_A_WAIT).is_some_and(|(_, reason)| !reason.trim().is_empty())
}

fn is_test_file(file: &Path) -> bool {
    let is_test_directory = |part: &std::ffi::OsStr| {
        part == "tests" || part.to_str().is_some_and(|name| name.ends_with("-tests"))
    };
    let is_test_name =
        |name: &str| name == "tests.rs" || name.ends_with("_tests.rs") || name.ends_with("_test.rs");
    file.parent().is_some_and(|directory| directory.iter().any(is_test_directory))
        || file.file_name().and_then(|name| name.to_str()).is_some_and(is_test_name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whats(file: &str, source: &str) -> Vec<(usize, String)> {
        check(Path::new(file), source).into_iter().map(|finding| (finding.line, finding.what)).collect()
    }

    #[test]
    fn a_file_begins_with_its_header() {
        assert_eq!(whats("a.rs", "//! A header.\n\nfn a() {}\n"), []);
        for source in
            ["fn a() {}\n", "// A comment.\n//! A header.\n", "#![allow(dead_code)]\n//! A header.\n", ""]
        {
            let findings = whats("a.rs", source);
            assert_eq!(findings.len(), 1, "{source:?}");
            assert!(findings[0].1.contains("header"), "{findings:?}");
        }
    }

    #[test]
    fn long_files_are_warned_about_and_too_long_ones_refused() {
        let lines = |count: usize| format!("//! A header.\n{}", "fn a() {}\n".repeat(count - 1));
        let severity = |count| length(Path::new("a.rs"), &lines(count)).map(|finding| finding.severity);
        assert_eq!(severity(500), None);
        assert_eq!(severity(501), Some(Severity::Warning));
        assert_eq!(severity(600), Some(Severity::Warning));
        assert_eq!(severity(601), Some(Severity::Error));
    }

    #[test]
    fn generated_files_are_nobodys_fault() {
        assert_eq!(whats("a.rs", "// @generated by a program\nfn a() {}\n"), []);
    }

    #[test]
    fn unsafe_code_is_allowed_in_named_modules_only() {
        let source = "//! A header.\n#[allow(unsafe_code)]\nfn a() {}\n";
        assert_eq!(whats("a.rs", source), [(2, "`unsafe_code` is allowed here".to_owned())]);
        assert_eq!(whats(UNSAFE_MODULES[0], source), []);
    }

    #[test]
    fn nothing_is_left_undone() {
        for sign in LEFT_UNDONE {
            let source = format!("//! A header.\n\nfn a() {{ {sign}() }} // {sign}: later\n");
            let findings = whats("a.rs", &source);
            assert_eq!(findings.len(), 1, "{source}");
            assert_eq!(findings[0].0, 3);
            let inside_a_word = format!("//! A header.\n\nfn a() {{ my_{sign}() }}\n");
            assert_eq!(whats("a.rs", &inside_a_word), []);
        }
    }

    #[test]
    fn tests_do_not_sleep_wherever_they_stand() {
        let in_test_module =
            "//! A header.\n#[cfg(test)]\nmod tests {\n    fn a() { std::thread::sleep(x); }\n}\n";
        assert_eq!(whats("src/a.rs", in_test_module), [(4, "a test sleeps".to_owned())]);
        let elsewhere = "//! A header.\nasync fn a() { tokio::time::sleep(x).await; }\n";
        assert_eq!(whats("src/a.rs", elsewhere), []);
        for file in ["tests/a.rs", "src/tests.rs", "chaos-tests/src/kill.rs", "src/codec_tests.rs"] {
            assert_eq!(whats(file, elsewhere), [(2, "a test sleeps".to_owned())], "{file}");
        }
    }

    #[test]
    fn a_pause_that_is_not_a_wait_says_why() {
        let with = |comment: &str| format!("//! A header.\nfn a() {{ sleep(x); }} {comment}\n");
        assert_eq!(whats("tests/a.rs", &with("// not a wait: the pause between two looks")), []);
        assert_eq!(whats("tests/a.rs", &with("// not a wait:")).len(), 1, "a reason is needed");
        let above = "//! A header.\n// not a wait: it is what is measured\nfn a() { sleep(x); }\n";
        assert_eq!(whats("tests/a.rs", above), []);
    }

    #[test]
    fn words_in_comments_strings_and_other_names_are_not_sleeping() {
        let source = "//! A header.\n// sleep(1)\nfn a() { log(\"sleep(1)\"); oversleep(1); }\n";
        assert_eq!(whats("tests/a.rs", source), []);
    }
}
