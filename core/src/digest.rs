//! Content digests: a hash function, 32 bytes of hash and the length of the content.
//!
//! Follows REAPI v2 `Digest` (hash in lower-case hex, size in bytes); both functions are 256 bits
//! wide.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use sha2::Digest as _;

/// The hash function of a [`Digest`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DigestFunction {
    /// BLAKE3, the default.
    #[default]
    Blake3,
    /// SHA-256, for remotes that speak nothing else and for records.
    Sha256,
}

impl DigestFunction {
    /// The name used in text forms and on the wire: `blake3` or `sha256`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Blake3 => "blake3",
            Self::Sha256 => "sha256",
        }
    }

    /// Digests `bytes` that are in memory.
    pub fn digest(self, bytes: &[u8]) -> Digest {
        let mut hasher = self.hasher();
        hasher.update(bytes);
        hasher.finish()
    }

    /// Starts an incremental digest.
    pub fn hasher(self) -> Hasher {
        let state = match self {
            Self::Blake3 => HasherState::Blake3(Box::new(blake3::Hasher::new())),
            Self::Sha256 => HasherState::Sha256(sha2::Sha256::new()),
        };
        Hasher { state, size: 0 }
    }
}

/// An incremental digest that also counts bytes.
pub struct Hasher {
    state: HasherState,
    size: u64,
}

enum HasherState {
    Blake3(Box<blake3::Hasher>),
    Sha256(sha2::Sha256),
}

impl Hasher {
    /// Adds `bytes`.
    pub fn update(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        match &mut self.state {
            HasherState::Blake3(h) => {
                h.update(bytes);
            }
            HasherState::Sha256(h) => h.update(bytes),
        }
    }

    /// Ends the digest.
    pub fn finish(self) -> Digest {
        let (function, hash) = match self.state {
            HasherState::Blake3(h) => (DigestFunction::Blake3, *h.finalize().as_bytes()),
            HasherState::Sha256(h) => (DigestFunction::Sha256, h.finalize().into()),
        };
        Digest { function, hash, size: self.size }
    }
}

/// The identity of a blob: function, hash and length in bytes.
///
/// Text form: `blake3:<64 hex digits>/<size>`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest {
    /// The hash function.
    pub function: DigestFunction,
    /// The hash itself.
    pub hash: [u8; 32],
    /// The length of the content in bytes.
    pub size: u64,
}

impl Digest {
    /// The hash in lower-case hex.
    pub fn hex(&self) -> String {
        let mut out = String::with_capacity(64);
        for byte in self.hash {
            for nibble in [byte >> 4, byte & 15] {
                out.push(char::from_digit(u32::from(nibble), 16).expect("a nibble is below 16"));
            }
        }
        out
    }

    /// The first 12 hex digits, for people.
    pub fn short(&self) -> String {
        self.hex()[..12].to_owned()
    }

    /// Whether this is the digest of no bytes at all.
    pub fn is_empty_blob(&self) -> bool {
        self.size == 0
    }

    /// Builds a digest from 64 hex digits and a size.
    pub fn from_hex(function: DigestFunction, hex: &str, size: u64) -> Result<Self, DigestError> {
        let bad = || DigestError::Hash { text: hex.to_owned() };
        if hex.len() != 64 {
            return Err(bad());
        }
        let mut hash = [0u8; 32];
        for (byte, pair) in hash.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
            let digit = |c: u8| match c {
                b'0'..=b'9' => Some(c - b'0'),
                b'a'..=b'f' => Some(c - b'a' + 10),
                _ => None,
            };
            let (high, low) = match pair {
                [high, low] => (digit(*high), digit(*low)),
                _ => (None, None),
            };
            *byte = high.zip(low).map(|(h, l)| h << 4 | l).ok_or_else(bad)?;
        }
        Ok(Self { function, hash, size })
    }
}

/// What is wrong with the text of a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// The text has no `function:hash/size` shape.
    #[error("`{text}` is not a digest of the form `blake3:HASH/SIZE` or `sha256:HASH/SIZE`")]
    Shape {
        /// The offending text.
        text: String,
    },
    /// The hash is not 64 lower-case hex digits.
    #[error("`{text}` is not a hash of 64 lower-case hex digits")]
    Hash {
        /// The offending text.
        text: String,
    },
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let shape = || DigestError::Shape { text: text.to_owned() };
        let (function, rest) = text.split_once(':').ok_or_else(shape)?;
        let function = match function {
            "blake3" => DigestFunction::Blake3,
            "sha256" => DigestFunction::Sha256,
            _ => return Err(shape()),
        };
        let (hash, size) = rest.split_once('/').ok_or_else(shape)?;
        Self::from_hex(function, hash, size.parse().map_err(|_| shape())?)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}/{}", self.function.name(), self.hex(), self.size)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if serializer.is_human_readable() {
            serializer.collect_str(self)
        } else {
            let function = matches!(self.function, DigestFunction::Sha256);
            (function, self.hash, self.size).serialize(serializer)
        }
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        if deserializer.is_human_readable() {
            let text = String::deserialize(deserializer)?;
            text.parse().map_err(serde::de::Error::custom)
        } else {
            let (sha256, hash, size) = <(bool, [u8; 32], u64)>::deserialize(deserializer)?;
            let function = if sha256 { DigestFunction::Sha256 } else { DigestFunction::Blake3 };
            Ok(Self { function, hash, size })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_round_trips() {
        for function in [DigestFunction::Blake3, DigestFunction::Sha256] {
            let digest = function.digest(b"maestro");
            assert_eq!(digest.to_string().parse(), Ok(digest));
        }
    }

    #[test]
    fn known_hashes() {
        let check = |function: DigestFunction, hex: &str| {
            assert_eq!(function.digest(b"").hex(), hex);
        };
        check(
            DigestFunction::Sha256,
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        );
        check(
            DigestFunction::Blake3,
            "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262",
        );
    }

    #[test]
    fn bad_text_is_refused() {
        for text in ["", "md5:00/1", "blake3:zz/1", "blake3:00", "sha256:00/x"] {
            assert!(text.parse::<Digest>().is_err(), "{text}");
        }
        let upper = format!("blake3:{}/0", "A".repeat(64));
        assert!(upper.parse::<Digest>().is_err());
    }
}
