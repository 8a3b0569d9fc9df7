//! Patterns of paths: `*` for anything but `/`, `**` for anything, `?` for one character. Pure.

/// Whether a path is of a pattern. A pattern without `/` is one of the file's name.
pub(super) fn matches(pattern: &str, path: &str) -> bool {
    if pattern.contains('/') {
        return fits(pattern.as_bytes(), path.as_bytes());
    }
    fits(pattern.as_bytes(), path.rsplit('/').next().unwrap_or(path).as_bytes())
}

/// Greedy, with one place to come back to for each kind of star.
fn fits(pattern: &[u8], path: &[u8]) -> bool {
    match pattern {
        [] => path.is_empty(),
        [b'*', b'*', b'/', rest @ ..] => {
            // No directory at all, or any number of them.
            fits(rest, path)
                || path
                    .iter()
                    .enumerate()
                    .any(|(at, byte)| *byte == b'/' && fits(rest, path.get(at + 1..).unwrap_or_default()))
        }
        [b'*', b'*', rest @ ..] => (0..=path.len()).any(|at| fits(rest, path.get(at..).unwrap_or_default())),
        [b'*', rest @ ..] => {
            let longest = path.iter().position(|byte| *byte == b'/').unwrap_or(path.len());
            (0..=longest).any(|at| fits(rest, path.get(at..).unwrap_or_default()))
        }
        [b'?', rest @ ..] => match path {
            [first, path @ ..] if *first != b'/' => {
                // The other bytes of the same character.
                let more = path.iter().take_while(|byte| **byte & 0xC0 == 0x80).count();
                fits(rest, path.get(more..).unwrap_or_default())
            }
            _ => false,
        },
        [wanted, rest @ ..] => {
            path.split_first().is_some_and(|(first, path)| first == wanted && fits(rest, path))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_names_and_double_stars_for_directories() {
        for (pattern, path, is_match) in [
            ("*.json", "a.json", true),
            ("*.json", "dir/a.json", true),
            ("*.json", "a.json.gz", false),
            ("dt=*/*.json", "dt=1/a.json", true),
            ("dt=*/*.json", "dt=1/hr=2/a.json", false),
            ("**/*.json", "a.json", true),
            ("**/*.json", "x/y/a.json", true),
            ("in/**", "in/x/y", true),
            ("in/**", "out/x", false),
            ("?.txt", "한.txt", true),
            ("?.txt", "ab.txt", false),
            ("a*b*c", "aXbXbXc", true),
            ("", "", true),
            ("a", "", false),
        ] {
            assert_eq!(matches(pattern, path), is_match, "{pattern} {path}");
        }
    }
}
