//! Rust source, as far as the rules need to understand it: what is code, and which code is only for tests.
//!
//! Invariant: masked text has the same length and the same lines as the original, so that positions carry over.

use std::ops::Range;

/// The source with comments and the contents of literals replaced by spaces.
pub fn mask(source: &str) -> String {
    let mut masked = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(first) = rest.chars().next() {
        let hidden = hidden_length(rest, masked.chars().next_back());
        if hidden == 0 {
            masked.push(first);
            rest = &rest[first.len_utf8()..];
        } else {
            masked.extend(rest[..hidden].bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
            rest = &rest[hidden..];
        }
    }
    masked
}

/// The length in bytes of the comment or literal that begins here; 0 when none does.
fn hidden_length(rest: &str, before: Option<char>) -> usize {
    if rest.starts_with("//") {
        return rest.find('\n').unwrap_or(rest.len());
    }
    if rest.starts_with("/*") {
        return block_comment_length(rest);
    }
    // `r"..."`, `br#"..."#`, `b"..."`; but not the end of an identifier such as `for"`.
    if !before.is_some_and(is_identifier) {
        let prefix = rest.bytes().take_while(|byte| matches!(byte, b'b' | b'c' | b'r')).count();
        let hashes = rest[prefix..].bytes().take_while(|&byte| byte == b'#').count();
        if rest[..prefix].contains('r') && rest[prefix + hashes..].starts_with('"') {
            let open = prefix + hashes + 1;
            let close = format!("\"{}", "#".repeat(hashes));
            return rest[open..].find(&close).map_or(rest.len(), |at| open + at + close.len());
        }
    }
    match rest.as_bytes()[0] {
        b'"' => quoted_length(rest, b'"'),
        b'\'' => char_length(rest),
        _ => 0,
    }
}

fn block_comment_length(rest: &str) -> usize {
    let bytes = rest.as_bytes();
    let (mut depth, mut at) = (0_usize, 0);
    while at < bytes.len() {
        match &bytes[at..bytes.len().min(at + 2)] {
            b"/*" => {
                depth += 1;
                at += 2;
            }
            b"*/" => {
                depth -= 1;
                at += 2;
                if depth == 0 {
                    return at;
                }
            }
            _ => at += 1,
        }
    }
    at
}

fn quoted_length(rest: &str, quote: u8) -> usize {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' => at += 2,
            byte if byte == quote => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// A character literal's length; 0 for a lifetime.
fn char_length(rest: &str) -> usize {
    let mut characters = rest.chars().skip(1);
    match (characters.next(), characters.next()) {
        (Some('\\'), _) => quoted_length(rest, b'\''),
        (Some(character), Some('\'')) => character.len_utf8() + 2,
        _ => 0,
    }
}

pub fn is_identifier(character: char) -> bool {
    character.is_alphanumeric() || character == '_'
}

/// The byte ranges of items under `#[cfg(test)]` in masked source.
pub fn test_regions(masked: &str) -> Vec<Range<usize>> {
    let mut regions: Vec<Range<usize>> = Vec::new();
    for (start, attribute) in masked.match_indices("#[cfg(test)]") {
        if regions.last().is_some_and(|region| region.contains(&start)) {
            continue;
        }
        let end = item_end(masked, start + attribute.len());
        regions.push(start..end);
    }
    regions
}

/// Where the item that begins here ends: behind its closing brace, or at its semicolon.
fn item_end(masked: &str, start: usize) -> usize {
    let (mut braces, mut brackets) = (0_usize, 0_usize);
    for (at, byte) in masked.bytes().enumerate().skip(start) {
        match byte {
            b'{' => braces += 1,
            b'}' => {
                braces = braces.saturating_sub(1);
                if braces == 0 {
                    return at + 1;
                }
            }
            b'(' | b'[' => brackets += 1,
            b')' | b']' => brackets = brackets.saturating_sub(1),
            b';' if braces == 0 && brackets == 0 => return at + 1,
            _ => {}
        }
    }
    masked.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_and_literals_are_blanked_and_code_stays() {
        let cases = [
            ("a // b\nc", "a     \nc"),
            ("a /* b /* c */ d */ e", "a                   e"),
            (r#"f("x // y", 1)"#, "f(        , 1)"),
            (r##"f(r#"a " b"#, 2)"##, "f(          , 2)"),
            (r#"f(b"\"x")"#, "f(b     )"),
            ("let c = '\"'; d", "let c =    ; d"),
            (r"let c = '\''; d", "let c =     ; d"),
            ("fn f<'a>(x: &'a str) {}", "fn f<'a>(x: &'a str) {}"),
            ("\"two\nlines\" x", "    \n       x"),
            ("\"unfinished", "           "),
        ];
        for (source, expected) in cases {
            assert_eq!(mask(source), expected, "{source}");
        }
    }

    #[test]
    fn masking_keeps_positions_even_beyond_ascii() {
        let source = "let ä = \"ü€\"; // ß\nlet ö = 'é';";
        let masked = mask(source);
        assert_eq!(masked.len(), source.len());
        assert_eq!(masked.find("let ö"), source.find("let ö"));
    }

    #[test]
    fn a_test_module_reaches_to_its_closing_brace() {
        let source = "fn a() {}\n#[cfg(test)]\nmod tests {\n  fn b() { let x = \"}\"; }\n}\nfn c() {}\n";
        let masked = mask(source);
        let regions = test_regions(&masked);
        assert_eq!(regions.len(), 1);
        let region = &source[regions[0].clone()];
        assert!(region.starts_with("#[cfg(test)]") && region.ends_with("}\n}"), "{region}");
    }

    #[test]
    fn items_without_a_body_end_at_their_semicolon() {
        let masked = mask("#[cfg(test)]\nuse x;\n#[cfg(test)]\nconst A: [u8; 2] = [1; 2];\nfn c() {}");
        let ends: Vec<_> = test_regions(&masked).into_iter().map(|region| &masked[region]).collect();
        assert_eq!(ends, ["#[cfg(test)]\nuse x;", "#[cfg(test)]\nconst A: [u8; 2] = [1; 2];"]);
    }
}
