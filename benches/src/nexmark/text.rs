//! Texts without allocation: pieces of one shared text that are only copied when a record is encoded.
//!
//! Invariant: a [`Text`] always lies inside the shared text, also one that was decoded.

use std::fmt;

use thalweg::record::DecodeError;
use thalweg::schema::Schema;

/// The words that events name, one behind the other.
const WORDS: &str = "AZCAIDORWAWYPhoenixLos AngelesSan FranciscoBoisePortlandBendRedmondSeattleKentCheyenneGoogleFacebook\
                     BaiduApple";

/// Where the filling letters begin; the words lie before it.
const FILLING: usize = 256;

/// How many places there are where a filling text can begin: a power of two.
const STARTS: usize = 8192;

/// The longest filling text.
pub const LONGEST: usize = 512;

const BYTES: [u8; FILLING + STARTS + LONGEST] = {
    let mut bytes = [b' '; FILLING + STARTS + LONGEST];
    let words = WORDS.as_bytes();
    let mut at = 0;
    while at < words.len() {
        bytes[at] = words[at];
        at += 1;
    }
    at = FILLING;
    while at < bytes.len() {
        bytes[at] = b'a' + (splitmix(at as u64) % 26) as u8;
        at += 1;
    }
    bytes
};

/// All texts are pieces of this one.
static SHARED: &str = match std::str::from_utf8(&BYTES) {
    Ok(text) => text,
    // Never: it is made of ASCII.
    Err(_) => "",
};

/// The finaliser of the splitmix64 generator: random bits of a number, the same on every machine.
#[inline]
pub const fn splitmix(number: u64) -> u64 {
    let mut bits = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// A text of an event. Texts are equal when they are the same piece of the shared text.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Text {
    start: u16,
    length: u16,
}

impl Text {
    /// A word that events name. To be called when compiling: it searches.
    pub(crate) const fn word(word: &str) -> Self {
        let (words, word) = (WORDS.as_bytes(), word.as_bytes());
        let mut start = 0;
        let mut same = 0;
        while same < word.len() {
            assert!(start + same < words.len(), "the word is not in WORDS");
            if words[start + same] == word[same] {
                same += 1;
            } else {
                (start, same) = (start + 1, 0);
            }
        }
        Self { start: start as u16, length: same as u16 }
    }

    /// Letters without meaning: `length` of them, at most [`LONGEST`]; `bits` choose which.
    #[inline]
    pub fn filling(bits: u64, length: u64) -> Self {
        let start = FILLING + bits as usize % STARTS;
        Self { start: start as u16, length: length.min(LONGEST as u64) as u16 }
    }

    /// The text itself.
    pub fn as_str(self) -> &'static str {
        let start = usize::from(self.start);
        SHARED.get(start..start + usize::from(self.length)).unwrap_or_default()
    }

    /// How many bytes it has.
    #[inline]
    pub fn len(self) -> usize {
        usize::from(self.length)
    }

    /// Whether it has no bytes.
    #[inline]
    pub fn is_empty(self) -> bool {
        self.length == 0
    }

    /// A number that no other text has.
    #[inline]
    pub fn number(self) -> u32 {
        u32::from(self.start) << 16 | u32::from(self.length)
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

/// The number of the text, then its bytes: as many as any text of this length would have.
impl thalweg::Record for Text {
    #[inline]
    fn encode(&self, out: &mut Vec<u8>) {
        self.number().encode(out);
        out.extend_from_slice(self.as_str().as_bytes());
    }

    #[inline]
    fn decode(bytes: &mut &[u8]) -> Result<Self, DecodeError> {
        let number = u32::decode(bytes)?;
        let text = Self { start: (number >> 16) as u16, length: number as u16 };
        let piece = text.as_str();
        match bytes.strip_prefix(piece.as_bytes()) {
            Some(rest) if piece.len() == text.len() => {
                *bytes = rest;
                Ok(text)
            }
            _ => Err(DecodeError::new::<Self>(format!("text {number:#x} is not what follows its number"))),
        }
    }

    fn schema() -> Schema {
        Schema::primitive("nexmark text")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use thalweg::record::Record as _;

    #[test]
    fn words_are_found_and_filling_has_its_length() {
        assert_eq!(Text::word("Portland").as_str(), "Portland");
        assert_eq!(Text::word("OR").as_str(), "OR");
        for bits in [0, 1, u64::MAX] {
            let longest = Text::filling(bits, 10_000);
            assert_eq!(longest.as_str().len(), LONGEST);
            assert!(longest.as_str().bytes().all(|byte| byte.is_ascii_lowercase()));
        }
    }

    #[test]
    fn a_text_comes_back_and_rubbish_is_refused() {
        let text = Text::filling(77, 20);
        let mut bytes = Vec::new();
        text.encode(&mut bytes);
        assert_eq!(bytes.len(), 24);
        assert_eq!(Text::decode(&mut bytes.as_slice()), Ok(text));
        assert!(Text::decode(&mut &bytes[..23]).is_err(), "truncated");
        bytes[10] ^= 1;
        assert!(Text::decode(&mut bytes.as_slice()).is_err(), "another text");
        assert!(Text::decode(&mut [255; 40].as_slice()).is_err(), "outside the shared text");
    }
}
