//! What a download must be: digests, any one of which the file may have.
//!
//! SHA-256 is how Maestro and Python's requirements pin, SHA-512 is what npm's locks hold. Weaker
//! functions are not taken.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256, Sha512};

/// A hash function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Function {
    Sha256,
    Sha512,
}

impl Function {
    fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SHA-256",
            Self::Sha512 => "SHA-512",
        }
    }

    /// As it stands in file names.
    fn word(self) -> &'static str {
        match self {
            Self::Sha256 => "sha256",
            Self::Sha512 => "sha512",
        }
    }

    fn bytes(self) -> usize {
        match self {
            Self::Sha256 => 32,
            Self::Sha512 => 64,
        }
    }
}

/// The digests of which a file has one, all of one function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pin {
    function: Function,
    /// At least one.
    allowed: Vec<Vec<u8>>,
}

impl Pin {
    /// Reads 64 lower-case hex digits.
    pub(crate) fn of_hex(text: &str) -> Result<Self, String> {
        Self::of_hexes(&[text.to_owned()])
    }

    /// Reads several SHA-256 digests, at least one.
    pub(crate) fn of_hexes(texts: &[String]) -> Result<Self, String> {
        if texts.is_empty() {
            return Err("at least one digest is needed".to_owned());
        }
        let hash = |text: &String| {
            maestro_core::Digest::from_hex(maestro_core::DigestFunction::Sha256, text, 0)
                .map(|digest| digest.hash.to_vec())
                .map_err(|error| error.to_string())
        };
        let allowed = texts.iter().map(hash).collect::<Result<_, _>>()?;
        Ok(Self { function: Function::Sha256, allowed })
    }

    /// Reads `sha256-BASE64` or `sha512-BASE64`, as Subresource Integrity writes them.
    pub(crate) fn of_integrity(text: &str) -> Result<Self, String> {
        let parse = |name: &str, function: Function| {
            let bytes = STANDARD.decode(text.strip_prefix(name)?).ok()?;
            (bytes.len() == function.bytes()).then(|| Self { function, allowed: vec![bytes] })
        };
        parse("sha256-", Function::Sha256)
            .or_else(|| parse("sha512-", Function::Sha512))
            .ok_or_else(|| format!("`{text}` is neither `sha256-BASE64` nor `sha512-BASE64`"))
    }

    /// The one SHA-512 in hex, by which the npm client names what it has downloaded.
    pub(crate) fn sha512_hex(&self) -> Option<String> {
        match (self.function, self.allowed.as_slice()) {
            (Function::Sha512, [hash]) => Some(hex(hash)),
            _ => None,
        }
    }

    /// The name of the file where files stand under their digests: that of the first that it may
    /// have.
    pub(crate) fn name(&self) -> String {
        let hash = self.allowed.first().map(|hash| hex(hash)).unwrap_or_default();
        format!("{}-{hash}", self.function.word())
    }

    /// The pin that such a name stands for.
    pub(crate) fn of_name(name: &str) -> Option<Self> {
        let parse = |function: Function| {
            let digits = name.strip_prefix(function.word())?.strip_prefix('-')?;
            let digit =
                |byte: u8| char::from(byte).to_digit(16).filter(|_| !byte.is_ascii_uppercase());
            let pairs = digits.as_bytes().chunks(2).map(|pair| match pair {
                [high, low] => u8::try_from(digit(*high)? * 16 + digit(*low)?).ok(),
                _ => None,
            });
            let bytes: Vec<u8> = pairs.collect::<Option<_>>()?;
            (bytes.len() == function.bytes()).then(|| Self { function, allowed: vec![bytes] })
        };
        parse(Function::Sha256).or_else(|| parse(Function::Sha512))
    }

    /// Hashes a file that is compared with this pin.
    pub(crate) fn hasher(&self) -> PinHasher {
        match self.function {
            Function::Sha256 => PinHasher::Sha256(Sha256::new()),
            Function::Sha512 => PinHasher::Sha512(Sha512::new()),
        }
    }

    /// Whether what was hashed is what is pinned.
    pub(crate) fn check(&self, hasher: PinHasher) -> Result<(), Mismatch> {
        let actual = match hasher {
            PinHasher::Sha256(hasher) => hasher.finalize().to_vec(),
            PinHasher::Sha512(hasher) => hasher.finalize().to_vec(),
        };
        if self.allowed.contains(&actual) {
            return Ok(());
        }
        let function = self.function;
        Err(Mismatch { function, allowed: self.allowed.clone(), actual })
    }
}

/// A running hash.
pub(crate) enum PinHasher {
    Sha256(Sha256),
    Sha512(Sha512),
}

impl PinHasher {
    pub(crate) fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }
}

/// A file that is not the pinned one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mismatch {
    function: Function,
    allowed: Vec<Vec<u8>>,
    actual: Vec<u8>,
}

impl Mismatch {
    /// What to write where the change is wanted.
    pub(crate) fn hint(&self) -> String {
        match self.function {
            Function::Sha256 => {
                let actual = hex(&self.actual);
                format!("if the file changed on purpose, pin `sha256 = \"{actual}\"`")
            }
            Function::Sha512 => {
                "if the file changed on purpose, pin the new digest; in a lock file, by the \
                 client that wrote it"
                    .to_owned()
            }
        }
    }

    /// The digest of the file that came, in hex.
    pub(crate) fn actual_hex(&self) -> String {
        hex(&self.actual)
    }

    fn text(&self, hash: &[u8]) -> String {
        match self.function {
            Function::Sha256 => hex(hash),
            Function::Sha512 => format!("sha512-{}", STANDARD.encode(hash)),
        }
    }
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.function.name();
        write!(f, "{name} {}, pinned is ", self.text(&self.actual))?;
        match self.allowed.as_slice() {
            [only] => f.write_str(&self.text(only)),
            all => write!(f, "none of the {} that are allowed", all.len()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_must_have_one_of_the_digests() {
        let check = |pin: &Pin, bytes: &[u8]| {
            let mut hasher = pin.hasher();
            hasher.update(bytes);
            pin.check(hasher).map_err(|mismatch| mismatch.to_string())
        };
        let (a, b) = (hex(&Sha256::digest(b"a")), hex(&Sha256::digest(b"b")));
        let both = Pin::of_hexes(&[a.clone(), b]).expect("digests");
        assert_eq!(check(&both, b"a"), Ok(()));
        assert_eq!(check(&both, b"b"), Ok(()));
        let other = check(&both, b"c").expect_err("another file");
        assert!(other.ends_with(", pinned is none of the 2 that are allowed"), "{other}");
        let text = format!("sha512-{}", STANDARD.encode(Sha512::digest(b"a")));
        let long = Pin::of_integrity(&text).expect("a digest");
        assert_eq!(check(&long, b"a"), Ok(()));
        let other = check(&long, b"c").expect_err("another file");
        assert!(other.starts_with("SHA-512 sha512-") && other.ends_with(&text), "{other}");
        assert_eq!(both.sha512_hex(), None);
        assert_eq!(long.sha512_hex(), Some(hex(&Sha512::digest(b"a"))));
    }
}
