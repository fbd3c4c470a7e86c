//! Names of resources of the ByteStream service: how they are read and written. Pure.
//!
//! A name is `{instance}/blobs/{hash}/{size}` to read, and
//! `{instance}/uploads/{uuid}/blobs/{hash}/{size}{/anything}` to write. Compressed content has
//! `compressed-blobs/{compressor}` in the place of `blobs`; hash and size are those of the content
//! without compression. The name of the digest function stands before the hash where it is not one
//! of the old ones; BLAKE3 must be named, SHA-256 must not. Instance names have any number of
//! segments, of which none may be a keyword.
//!
//! Both sides of the wire use this: what is parsed here and written again is the same.

use std::fmt;

use maestro_core::{Digest, DigestError, DigestFunction, limits};

/// Segments that no instance name may have.
const KEYWORDS: [&str; 7] = [
    "blobs",
    "uploads",
    "actions",
    "actionResults",
    "operations",
    "capabilities",
    "compressed-blobs",
];

/// How the bytes of a blob travel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// As they are.
    Identity,
    /// As zstd frames.
    Zstd,
}

/// The name of a blob to read, or to write where there is an upload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Resource {
    /// The instance; empty where the server has one.
    pub instance: String,
    /// The id that the client gave to the upload; `None` for reading.
    pub upload: Option<String>,
    /// How the bytes travel.
    pub encoding: Encoding,
    /// The content.
    pub digest: Digest,
}

/// Why a name is none of a resource.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResourceError {
    /// It is longer than any that we take.
    #[error("the resource name has more than {limit} bytes")]
    TooLong {
        /// The bound, in bytes.
        limit: usize,
    },
    /// It has no part that says what it is.
    #[error("`{name}` is not a resource name; it needs `{wanted}`")]
    Shape {
        /// The offending name.
        name: String,
        /// The form that it lacks.
        wanted: &'static str,
    },
    /// The instance is none.
    #[error(transparent)]
    Instance(#[from] InstanceError),
    /// The compressor is not known.
    #[error("the compressor `{name}` is not supported; `zstd` is")]
    Compressor {
        /// What was asked for.
        name: String,
    },
    /// The digest function is not known, or must not be named.
    #[error("the digest function `{name}` is not supported in resource names; `blake3` is")]
    Function {
        /// What was asked for.
        name: String,
    },
    /// The hash is none.
    #[error(transparent)]
    Hash(#[from] DigestError),
    /// The size is none.
    #[error("`{text}` is not the size of a blob")]
    Size {
        /// The offending text.
        text: String,
    },
}

/// Why an instance name is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InstanceError {
    /// It is longer than any that we take.
    #[error("the instance name has more than {limit} bytes")]
    TooLong {
        /// The bound, in bytes.
        limit: usize,
    },
    /// A segment is empty, a keyword, or has characters that names do not have.
    #[error("`{segment}` cannot stand in an instance name")]
    Segment {
        /// The offending segment.
        segment: String,
    },
}

/// Checks the name of an instance, which may be empty.
pub fn check_instance(name: &str) -> Result<(), InstanceError> {
    let limit = limits::INSTANCE_NAME_BYTES_MAX;
    if name.len() > limit {
        return Err(InstanceError::TooLong { limit });
    }
    if name.is_empty() {
        return Ok(());
    }
    for segment in name.split('/') {
        let control = segment.chars().any(char::is_control);
        if segment.is_empty() || control || KEYWORDS.contains(&segment) {
            return Err(InstanceError::Segment { segment: segment.escape_debug().to_string() });
        }
    }
    Ok(())
}

impl Resource {
    /// Reads the name of a blob to read.
    pub fn parse_read(name: &str) -> Result<Self, ResourceError> {
        let wanted = "{instance}/blobs/{hash}/{size}";
        let segments = segments(name)?;
        let at = segments.iter().position(|s| matches!(*s, "blobs" | "compressed-blobs"));
        let (instance, rest) =
            at.and_then(|at| segments.split_at_checked(at)).ok_or_else(|| shape(name, wanted))?;
        let (encoding, digest, rest) = content(name, rest, wanted)?;
        if !rest.is_empty() {
            return Err(shape(name, wanted));
        }
        Ok(Self { instance: joined(instance)?, upload: None, encoding, digest })
    }

    /// Reads the name of a blob to write. What follows the size is for the client alone.
    pub fn parse_write(name: &str) -> Result<Self, ResourceError> {
        let wanted = "{instance}/uploads/{uuid}/blobs/{hash}/{size}";
        let segments = segments(name)?;
        let at = segments.iter().position(|segment| *segment == "uploads");
        let split = at.and_then(|at| segments.split_at_checked(at));
        let (instance, rest) = split.ok_or_else(|| shape(name, wanted))?;
        let [_, upload, rest @ ..] = rest else { return Err(shape(name, wanted)) };
        if upload.is_empty() {
            return Err(shape(name, wanted));
        }
        let (encoding, digest, _) = content(name, rest, wanted)?;
        let upload = Some((*upload).to_owned());
        Ok(Self { instance: joined(instance)?, upload, encoding, digest })
    }
}

fn segments(name: &str) -> Result<Vec<&str>, ResourceError> {
    let limit = limits::RESOURCE_NAME_BYTES_MAX;
    if name.len() > limit {
        return Err(ResourceError::TooLong { limit });
    }
    Ok(name.split('/').collect())
}

fn joined(instance: &[&str]) -> Result<String, ResourceError> {
    let instance_name = instance.join("/");
    if !instance.is_empty() && instance_name.is_empty() {
        return Err(InstanceError::Segment { segment: String::new() }.into());
    }
    check_instance(&instance_name)?;
    Ok(instance_name)
}

/// Reads `blobs/{function/}{hash}/{size}` and gives what follows.
fn content<'n, 'a>(
    name: &str,
    segments: &'n [&'a str],
    wanted: &'static str,
) -> Result<(Encoding, Digest, &'n [&'a str]), ResourceError> {
    let (encoding, rest) = match segments {
        ["blobs", rest @ ..] => (Encoding::Identity, rest),
        ["compressed-blobs", "zstd", rest @ ..] => (Encoding::Zstd, rest),
        ["compressed-blobs", other, ..] => {
            return Err(ResourceError::Compressor { name: (*other).to_owned() });
        }
        _ => return Err(shape(name, wanted)),
    };
    let (function, rest) = match rest {
        ["blake3", rest @ ..] => (DigestFunction::Blake3, rest),
        [other, hash, size, ..] if !is_hash(other) && is_hash(hash) && is_number(size) => {
            return Err(ResourceError::Function { name: (*other).to_owned() });
        }
        rest => (DigestFunction::Sha256, rest),
    };
    let [hash, size, rest @ ..] = rest else { return Err(shape(name, wanted)) };
    let bytes = parse_size(size).ok_or_else(|| ResourceError::Size { text: (*size).to_owned() })?;
    Ok((encoding, Digest::from_hex(function, hash, bytes)?, rest))
}

fn is_hash(text: &str) -> bool {
    text.len() >= 32 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn is_number(text: &str) -> bool {
    parse_size(text).is_some()
}

/// Sizes are 63 bits wide on the wire, and have no sign and no superfluous zero.
fn parse_size(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit());
    let zeros = text.len() > 1 && text.starts_with('0');
    let size = text.parse::<u64>().ok().filter(|_| plain && !zeros)?;
    (size <= i64::MAX as u64).then_some(size)
}

fn shape(name: &str, wanted: &'static str) -> ResourceError {
    ResourceError::Shape { name: name.escape_debug().to_string(), wanted }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.instance.is_empty() {
            write!(f, "{}/", self.instance)?;
        }
        if let Some(upload) = &self.upload {
            write!(f, "uploads/{upload}/")?;
        }
        f.write_str(match self.encoding {
            Encoding::Identity => "blobs/",
            Encoding::Zstd => "compressed-blobs/zstd/",
        })?;
        if self.digest.function == DigestFunction::Blake3 {
            f.write_str("blake3/")?;
        }
        write!(f, "{}/{}", self.digest.hex(), self.digest.size)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HASH: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_round_trip() {
        let check = |name: &str, instance: &str, upload: Option<&str>, size: u64| {
            let name = name.replace("HASH", HASH);
            let parsed = match upload {
                None => Resource::parse_read(&name),
                Some(_) => Resource::parse_write(&name),
            };
            let parsed = parsed.unwrap_or_else(|error| panic!("{name}: {error}"));
            assert_eq!(parsed.to_string(), name);
            assert_eq!((parsed.instance.as_str(), parsed.upload.as_deref()), (instance, upload));
            assert_eq!(parsed.digest.size, size);
        };
        check("blobs/HASH/0", "", None, 0);
        check("main/blobs/HASH/12", "main", None, 12);
        check("a/b/c/blobs/blake3/HASH/12", "a/b/c", None, 12);
        check("compressed-blobs/zstd/HASH/7", "", None, 7);
        check("a/compressed-blobs/zstd/blake3/HASH/7", "a", None, 7);
        check("uploads/u-1/blobs/HASH/12", "", Some("u-1"), 12);
        check("a/b/uploads/u/compressed-blobs/zstd/HASH/1", "a/b", Some("u"), 1);
    }

    #[test]
    fn what_follows_the_size_of_an_upload_is_free() {
        let name = format!("i/uploads/u/blobs/{HASH}/3/path/blobs/file.txt");
        let parsed = Resource::parse_write(&name).expect("it is a name");
        assert_eq!((parsed.instance.as_str(), parsed.digest.size), ("i", 3));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let check = |name: &str, write: bool, expect: &str| {
            let name = name.replace("HASH", HASH);
            let parsed =
                if write { Resource::parse_write(&name) } else { Resource::parse_read(&name) };
            let text = parsed.expect_err(&name).to_string();
            assert!(text.contains(expect), "{name}: {text}");
        };
        check("", false, "is not a resource name");
        check("blobs", false, "is not a resource name");
        check("blobs/HASH", false, "is not a resource name");
        check("blobs/HASH/1/more", false, "is not a resource name");
        check("/blobs/HASH/1", false, "cannot stand in an instance name");
        check("a//blobs/HASH/1", false, "cannot stand in an instance name");
        check("operations/blobs/HASH/1", false, "`operations` cannot stand");
        check("blobs/sha256/HASH/1", false, "`sha256` is not supported");
        check("blobs/HASH/-1", false, "`-1` is not the size");
        check("blobs/HASH/+1", false, "`+1` is not the size");
        check("blobs/HASH/01", false, "`01` is not the size");
        check("blobs/HASH/9223372036854775808", false, "is not the size");
        check("blobs/abc/1", false, "64 lower-case hex digits");
        check("compressed-blobs/brotli/HASH/1", false, "`brotli` is not supported");
        check("blobs/HASH/1", true, "is not a resource name");
        check("uploads/blobs/HASH/1", true, "is not a resource name");
        check("uploads//blobs/HASH/1", true, "is not a resource name");
        check(&"x".repeat(10_000), false, "more than");
    }

    #[test]
    fn instances_have_any_number_of_segments() {
        for name in ["", "main", "a/b/c", "team-1/linux x86"] {
            assert_eq!(check_instance(name), Ok(()), "{name}");
        }
        for name in ["/", "a/", "/a", "a//b", "a/blobs", "uploads", "a\nb", &"x".repeat(1000)] {
            assert!(check_instance(name).is_err(), "{name}");
        }
    }
}
