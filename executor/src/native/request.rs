//! What rules ask of native steps: one closed struct a kind.
//!
//! The JSON shapes and their meaning are fixed in `docs/design/native-steps.md`; a change here
//! that alters bytes bumps the semantics number of the kind.
//! Structs are only shapes: what their texts must be is checked where they are used.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `write`: a file with constant text.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Write {
    /// The text.
    pub content: String,
    /// The execute bit.
    #[serde(default)]
    pub executable: bool,
}

/// `expand-template`: a file with some of its text replaced.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExpandTemplate {
    /// The path of the template.
    pub template: String,
    /// What is replaced by what.
    pub substitutions: BTreeMap<String, String>,
    /// The execute bit.
    #[serde(default)]
    pub executable: bool,
}

/// `copy`: a file or tree at another path.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Copy {
    /// The path of a file or tree.
    pub from: String,
    /// The execute bit, or the input's where absent.
    #[serde(default)]
    pub executable: Option<bool>,
}

/// One thing to be put into a tree or archive; exactly one of `from`, `link`, `content` and
/// `folder` is given.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// Where it stands; `.` is the root.
    pub path: String,
    /// The path of a file or tree.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// The text of a symbolic link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub link: Option<String>,
    /// The text of a small file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<String>,
    /// `true` for a folder that may stay empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<bool>,
    /// The execute bit of a file, or the input's where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub executable: Option<bool>,
}

/// `tree`: a tree composed of files, trees, links and folders.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tree {
    /// What stands in it, in any order.
    pub entries: Vec<Entry>,
}

/// `tar`: an archive whose bytes depend on its entries alone.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tar {
    /// What stands in it, in any order.
    pub entries: Vec<Entry>,
    /// Whether it is compressed.
    #[serde(default)]
    pub compression: Option<Compression>,
    /// The time of every entry, in seconds since 1970.
    #[serde(default)]
    pub mtime: Option<u64>,
    /// The owner of every entry.
    #[serde(default)]
    pub uid: Option<u64>,
    /// The group of every entry.
    #[serde(default)]
    pub gid: Option<u64>,
}

/// How an archive is compressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Compression {
    /// Not at all.
    #[default]
    None,
    /// RFC 1952, without name and time.
    Gzip,
}

/// `oci-image`: an image layout of the OCI image specification 1.0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OciImage {
    /// The path of a tree that is an image layout, whose layers come below.
    #[serde(default)]
    pub base: Option<String>,
    /// Paths of trees and tar files, bottom first.
    pub layers: Vec<String>,
    /// What it runs on.
    pub platform: Platform,
    /// How it is run.
    #[serde(default)]
    pub config: Option<ImageConfig>,
    /// The time of the image and of everything in it, in seconds since 1970.
    #[serde(default)]
    pub created: Option<u64>,
    /// The name of the manifest in the index.
    #[serde(default)]
    pub reference: Option<String>,
}

/// What an image runs on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Platform {
    /// `linux`, as Go's `GOOS` names it.
    pub os: String,
    /// `amd64` or another of Go's `GOARCH`.
    pub architecture: String,
    /// `v8`, for instance.
    #[serde(default)]
    pub variant: Option<String>,
}

/// How an image is run: the `config` of the OCI image configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageConfig {
    /// The program and its first arguments.
    #[serde(default)]
    pub entrypoint: Option<Vec<String>>,
    /// Further arguments, which users may replace.
    #[serde(default)]
    pub cmd: Option<Vec<String>>,
    /// Environment variables.
    #[serde(default)]
    pub env: Option<BTreeMap<String, String>>,
    /// The working folder.
    #[serde(default)]
    pub workdir: Option<String>,
    /// The user, such as `65532:65532`.
    #[serde(default)]
    pub user: Option<String>,
    /// Annotations of the configuration.
    #[serde(default)]
    pub labels: Option<BTreeMap<String, String>>,
    /// Ports, such as `8080/tcp`.
    #[serde(default)]
    pub exposed_ports: Option<Vec<String>>,
    /// The signal that stops it.
    #[serde(default)]
    pub stop_signal: Option<String>,
}

/// `unpack`: the tree that an archive holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Unpack {
    /// The path of the archive.
    pub archive: String,
    /// What it is.
    #[serde(default)]
    pub format: Option<ArchiveFormat>,
    /// Leading folders that every entry lies below.
    #[serde(default)]
    pub strip_prefix: Option<String>,
    /// A bound on the unpacked bytes, below Maestro's own.
    #[serde(default)]
    pub bytes_max: Option<u64>,
}

/// `npm-package`: the files of a package of npm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NpmPackage {
    /// The path of the archive, a tar compressed with gzip.
    pub archive: String,
    /// The digest that the archive must have, as `sha512-BASE64`.
    pub integrity: String,
    /// Paths in the package that are made programs, where they exist.
    #[serde(default)]
    pub programs: Vec<String>,
}

/// `wheel`: a package of Python, installed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wheel {
    /// The path of the wheel.
    pub archive: String,
    /// The absolute path of the interpreter that the package's scripts name.
    pub interpreter: String,
    /// The SHA-256 digests that the wheel may have, in lower-case hex.
    pub sha256: Vec<String>,
}

/// What an archive is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum ArchiveFormat {
    /// Told by its first bytes.
    #[default]
    #[serde(rename = "auto")]
    Auto,
    /// A plain tar.
    #[serde(rename = "tar")]
    Tar,
    /// A tar compressed with gzip.
    #[serde(rename = "tar.gz")]
    TarGz,
    /// A zip.
    #[serde(rename = "zip")]
    Zip,
}

/// `manifest`: checksums of files.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// How it is written.
    pub format: ManifestFormat,
    /// What it lists, in any order.
    pub files: Vec<ManifestFile>,
}

/// How a manifest is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ManifestFormat {
    /// Lines that `sha256sum --check` reads.
    Sha256sums,
    /// A JSON object with `files`.
    Json,
}

/// One file or tree of a manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ManifestFile {
    /// The name it has in the manifest; a folder's, or `.`, for a tree.
    pub name: String,
    /// The path of a file or tree.
    pub from: String,
}

#[cfg(test)]
mod tests {
    use serde::de::DeserializeOwned;

    use super::*;

    const PAGE: &str = include_str!("../../../docs/design/native-steps.md");

    /// The first JSON block of a kind's section.
    fn example(kind: &str) -> String {
        let (_, section) = PAGE.split_once(&format!("\n## `{kind}`\n")).expect("a section");
        let (_, block) = section.split_once("```json\n").expect("an example");
        let (block, _) = block.split_once("```").expect("an end");
        block.replace("[ … ]", "[]")
    }

    #[test]
    fn examples_of_the_page_are_requests() {
        fn check<T: DeserializeOwned>(kind: &str) {
            let example = example(kind);
            let request: Result<T, _> = serde_json::from_str(&example);
            assert!(request.is_ok(), "{kind}: {:?}", request.err());
        }
        check::<Write>("write");
        check::<ExpandTemplate>("expand-template");
        check::<Copy>("copy");
        check::<Tree>("tree");
        check::<Tar>("tar");
        check::<OciImage>("oci-image");
        check::<Unpack>("unpack");
        check::<NpmPackage>("npm-package");
        check::<Wheel>("wheel");
        check::<Manifest>("manifest");
    }

    #[test]
    fn examples_of_entries_are_entries() {
        let (_, section) = PAGE.split_once("\n## Entries\n").expect("a section");
        let (_, block) = section.split_once("```json\n").expect("an example");
        let (block, _) = block.split_once("```").expect("an end");
        assert_eq!(block.lines().count(), 6);
        for line in block.lines() {
            let entry: Result<Entry, _> = serde_json::from_str(line);
            assert!(entry.is_ok(), "{line}: {:?}", entry.err());
        }
    }

    #[test]
    fn the_page_lists_every_kind() {
        for kind in super::super::KINDS {
            let row = format!("| `{}` | {} |", kind.name, kind.semantics);
            assert!(PAGE.contains(&row), "{row}");
        }
    }
}
