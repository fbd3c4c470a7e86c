//! Between the digests of `core` and those of the wire.
//!
//! A digest on the wire is text and a signed number, and says nothing of its function: that stands
//! in the request, or is inferred from the length of the hash. Both functions that we speak are 256
//! bits wide, so a request that names none means SHA-256, as every client before REAPI 2.3 does.

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use maestro_core::{Digest, DigestError, DigestFunction};
use reapi::digest_function::Value;

/// Why a digest of the wire is none of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConvertError {
    /// A digest is missing where one must be.
    #[error("`{field}` is missing")]
    Absent {
        /// The field of the request.
        field: &'static str,
    },
    /// The digest function is not one of ours.
    #[error("the digest function {name} is not supported; SHA256 and BLAKE3 are")]
    Function {
        /// Its name, or its number where that has none.
        name: String,
    },
    /// The hash is not of 64 lower-case hex digits.
    #[error(transparent)]
    Hash(#[from] DigestError),
    /// The size is negative.
    #[error("{size} is not the size of a blob")]
    Size {
        /// What was said.
        size: i64,
    },
}

/// The function of a request.
pub fn function(value: i32) -> Result<DigestFunction, ConvertError> {
    match Value::try_from(value) {
        Ok(Value::Unknown | Value::Sha256) => Ok(DigestFunction::Sha256),
        Ok(Value::Blake3) => Ok(DigestFunction::Blake3),
        Ok(other) => Err(ConvertError::Function { name: other.as_str_name().to_owned() }),
        Err(_) => Err(ConvertError::Function { name: value.to_string() }),
    }
}

/// The number of a function on the wire.
pub fn function_value(function: DigestFunction) -> i32 {
    match function {
        DigestFunction::Sha256 => Value::Sha256 as i32,
        DigestFunction::Blake3 => Value::Blake3 as i32,
    }
}

/// A digest of the wire.
pub fn digest(function: DigestFunction, digest: &reapi::Digest) -> Result<Digest, ConvertError> {
    let size = u64::try_from(digest.size_bytes)
        .map_err(|_| ConvertError::Size { size: digest.size_bytes })?;
    Ok(Digest::from_hex(function, &digest.hash, size)?)
}

/// A digest that must be there.
pub fn required(
    function: DigestFunction,
    field: &'static str,
    found: Option<&reapi::Digest>,
) -> Result<Digest, ConvertError> {
    digest(function, found.ok_or(ConvertError::Absent { field })?)
}

/// A digest for the wire.
pub fn wire_digest(digest: &Digest) -> reapi::Digest {
    reapi::Digest { hash: digest.hex(), size_bytes: digest.size as i64 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digests_round_trip() {
        for function in [DigestFunction::Sha256, DigestFunction::Blake3] {
            let ours = function.digest(b"content");
            assert_eq!(digest(function, &wire_digest(&ours)), Ok(ours));
            assert_eq!(super::function(function_value(function)), Ok(function));
        }
    }

    #[test]
    fn odd_digests_are_refused() {
        let check = |hash: &str, size_bytes: i64| {
            let odd = reapi::Digest { hash: hash.to_owned(), size_bytes };
            assert!(digest(DigestFunction::Sha256, &odd).is_err(), "{odd:?}");
        };
        let hash = DigestFunction::Sha256.digest(b"").hex();
        check(&hash, -1);
        check(&hash.to_uppercase(), 0);
        check("", 0);
        check(&hash[1..], 0);
        let absent = required(DigestFunction::Sha256, "action_digest", None);
        assert_eq!(absent, Err(ConvertError::Absent { field: "action_digest" }));
        for value in [Value::Sha1 as i32, Value::Md5 as i32, 999] {
            assert!(function(value).is_err(), "{value}");
        }
    }
}
