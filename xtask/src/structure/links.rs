//! Links in Markdown files: a relative one leads to a file that exists.

use std::path::{Component, Path, PathBuf};

use super::Finding;

/// Checks one file. `exists` answers for paths relative to the workspace's root.
pub fn check(file: &Path, contents: &str, exists: impl Fn(&Path) -> bool) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut fence: Option<&str> = None;
    for (index, line) in contents.lines().enumerate() {
        let start = line.trim_start();
        let marker = ["```", "~~~"].into_iter().find(|marker| start.starts_with(marker));
        match (fence, marker) {
            (None, Some(_)) => fence = marker,
            (Some(open), Some(close)) if open == close => fence = None,
            _ => {}
        }
        if fence.is_some() || marker.is_some() {
            continue;
        }
        for target in targets(&without_code(line)) {
            let Some(path) = resolve(file, &target) else { continue };
            if !exists(&path) {
                findings.push(Finding::error(
                    file,
                    index + 1,
                    format!("the link `{target}` leads to {}, which does not exist", path.display()),
                    "correct the link or add the file",
                ));
            }
        }
    }
    findings
}

/// The line with `code` replaced by spaces.
fn without_code(line: &str) -> String {
    let mut inside = false;
    line.chars()
        .map(|character| {
            if character == '`' {
                inside = !inside;
            }
            if inside || character == '`' { ' ' } else { character }
        })
        .collect()
}

/// What `[text](target)`, `![text](target "title")` and `[name]: target` point at.
fn targets(line: &str) -> Vec<String> {
    let mut targets = Vec::new();
    let mut rest = line;
    while let Some(at) = rest.find("](") {
        rest = &rest[at + 2..];
        let end = closing_parenthesis(rest);
        targets.push(without_title(&rest[..end]));
        rest = &rest[end..];
    }
    if line.starts_with('[')
        && let Some((_, target)) = line.split_once("]: ")
    {
        targets.push(without_title(target));
    }
    targets
}

fn closing_parenthesis(text: &str) -> usize {
    let mut depth = 0_usize;
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' if depth == 0 => return at,
            ')' => depth -= 1,
            _ => {}
        }
    }
    text.len()
}

fn without_title(target: &str) -> String {
    let target = target.trim();
    if let Some((inside, _)) = target.strip_prefix('<').and_then(|target| target.split_once('>')) {
        return inside.to_owned();
    }
    target.split_whitespace().next().unwrap_or_default().to_owned()
}

/// The path that a relative link leads to, from the workspace's root; none for links to elsewhere.
fn resolve(file: &Path, target: &str) -> Option<PathBuf> {
    let has_scheme = target.split_once(':').is_some_and(|(scheme, _)| {
        !scheme.is_empty()
            && scheme.chars().all(|character| character.is_ascii_alphanumeric() || "+.-".contains(character))
    });
    let path = target.split(['#', '?']).next().unwrap_or_default().replace("%20", " ");
    if has_scheme || target.starts_with("//") || path.is_empty() {
        return None;
    }
    // As on code hosting sites, a leading slash means the repository's root.
    let joined = match path.strip_prefix('/') {
        Some(from_root) => PathBuf::from(from_root),
        None => file.parent().unwrap_or(Path::new("")).join(path),
    };
    let mut resolved = PathBuf::new();
    for component in joined.components() {
        match component {
            Component::ParentDir if resolved.parent().is_some() => {
                resolved.pop();
            }
            Component::CurDir => {}
            other => resolved.push(other),
        }
    }
    Some(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn broken(file: &str, contents: &str) -> Vec<(usize, String)> {
        let existing = ["README.md", "docs/guide.md", "docs/a b.md", "docs"];
        check(Path::new(file), contents, |path| path.to_str().is_some_and(|path| existing.contains(&path)))
            .into_iter()
            .map(|finding| (finding.line, finding.what))
            .collect()
    }

    #[test]
    fn links_to_existing_files_and_to_elsewhere_are_fine() {
        let contents = "\
[a](docs/guide.md) and [b](docs/guide.md#part \"title\"), ![c](<docs/a b.md>), [d](docs/a%20b.md), [e](docs/)
[web](https://example.com/x), [mail](mailto:a@b.c), [part](#part), [self](/README.md)
[name]: docs/guide.md
";
        assert_eq!(broken("README.md", contents), []);
        assert_eq!(broken("docs/guide.md", "[up](../README.md) [beside](./guide.md)"), []);
    }

    #[test]
    fn links_that_lead_nowhere_are_named_with_their_line() {
        let findings = broken("docs/guide.md", "fine\n[a](missing.md) [b](../missing.md)\n[c]: missing.md\n");
        let lines: Vec<_> = findings.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [2, 2, 3]);
        assert!(findings[0].1.contains("docs/missing.md"), "{findings:?}");
    }

    #[test]
    fn code_is_not_a_link() {
        let contents =
            "```rust\nlet a = b[0](missing.md);\n```\nand `[a](missing.md)` too\n~~~\n[b](missing.md)\n~~~\n";
        assert_eq!(broken("README.md", contents), []);
        assert_eq!(broken("README.md", "```\ncode\n```\n[a](missing.md)\n").len(), 1, "a fence ends");
    }
}
