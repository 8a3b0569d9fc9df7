//! Rules for every text file: nothing in it may depend on the machine it was written on.

use std::path::Path;

use super::Finding;

/// Beginnings of paths that exist on one machine only. Split, so that this file does not break its own rule.
const MACHINE_PATHS: [&str; 3] = [concat!("/ho", "me/"), concat!("/ro", "ot/"), concat!("/wo", "rk/")];

pub fn check(file: &Path, contents: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (index, line) in contents.lines().enumerate() {
        if let Some(path) = MACHINE_PATHS.iter().find(|path| contains_path(line, path)) {
            findings.push(Finding::error(
                file,
                index + 1,
                format!("the path {path}... exists on one machine only"),
                "use a path relative to the file or the checkout, a temporary directory or an environment variable",
            ));
        }
    }
    findings
}

/// Whether the path stands there by itself, not as the middle of a longer one (`src/work/`) or of a URL.
fn contains_path(line: &str, path: &str) -> bool {
    line.match_indices(path).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        before.is_none_or(|character| !(character.is_alphanumeric() || "._-)}>~*%".contains(character)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_paths_are_found_where_they_begin() {
        for line in ["cd {}x", "a = \"{}me/x\"", "DIR={}x", "file://{}x", "`{}x`"] {
            let contents = format!("fine\n{}\n", line.replace("{}", MACHINE_PATHS[0]));
            let findings = check(Path::new("notes.md"), &contents);
            assert_eq!(findings.len(), 1, "{contents}");
            assert_eq!(findings[0].line, 2);
        }
    }

    #[test]
    fn the_same_letters_within_other_paths_are_fine() {
        for line in ["src{}x", "https://example.com{}x", "${HOME}{}x", "~{}x", "/var{}x"] {
            let contents = line.replace("{}", MACHINE_PATHS[2]);
            assert_eq!(check(Path::new("notes.md"), &contents), [], "{contents}");
        }
    }
}
