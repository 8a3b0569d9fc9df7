//! Digits at the beginning of a text, as timestamps have them. Pure.

/// The number that so many digits make, one at least, and what is behind them; nothing if there are others among them, or it is too large.
pub(crate) fn leading(text: &[u8], digits: usize) -> Option<(i64, &[u8])> {
    let (head, tail) = text.split_at_checked(digits).filter(|_| digits > 0)?;
    let mut value: i64 = 0;
    for byte in head {
        let digit = byte.is_ascii_digit().then(|| i64::from(byte - b'0'))?;
        value = value.checked_mul(10)?.checked_add(digit)?;
    }
    Some((value, tail))
}

/// How many digits a text begins with.
pub(crate) fn count(text: &[u8]) -> usize {
    text.iter().take_while(|byte| byte.is_ascii_digit()).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_a_number_and_nothing_else_is() {
        assert_eq!(leading(b"2024-01", 4), Some((2_024, &b"-01"[..])));
        for (text, digits) in [(&b"20x4"[..], 4), (b"1", 2), (b"1", 0), (b"99999999999999999999", 20)] {
            assert_eq!(leading(text, digits), None, "{text:?}");
        }
        assert_eq!((count(b"12a"), count(b"")), (2, 0));
    }
}
