//! The rule library that ships inside Maestro, as repository `@maestro`.
//!
//! It has no privileges: a file of it that is copied into a workspace behaves the same and gives
//! the same cache keys.

/// The name of the repository.
pub(crate) const REPO: &str = "maestro";

macro_rules! embedded {
    ($($path:literal => $file:literal,)*) => {
        /// Every embedded file: its path in the repository and its text.
        pub(crate) const FILES: &[(&str, &str)] =
            &[$(($path, include_str!(concat!("../library/", $file))),)*];
    };
}

embedded! {
    "rules/maestro.star" => "rules.star",
    "rules/basics.star" => "basics.star",
    "rules/cc.star" => "cc.star",
    "rules/py.star" => "py.star",
    "rules/rust.star" => "rust.star",
    "rules/git.star" => "git.star",
    "rules/http.star" => "http.star",
    "rules/node.star" => "node.star",
    "rules/npm.star" => "npm.star",
    "rules/pip.star" => "pip.star",
    "rules/proto.star" => "proto.star",
    "rules/repositories.star" => "repositories.star",
    "rules/oci.star" => "oci.star",
    "rules/release.star" => "release.star",
    "rules/llm.star" => "llm.star",
    "rules/toolchain.star" => "toolchain.star",
    "rules/params.star" => "params.star",
    "platforms/maestro.star" => "platforms/maestro.star",
    "platforms/os/maestro.star" => "platforms/os.star",
    "platforms/cpu/maestro.star" => "platforms/cpu.star",
    "toolchains/maestro.star" => "toolchains/maestro.star",
    "toolchains/chromium/maestro.star" => "toolchains/chromium.star",
    "toolchains/node/maestro.star" => "toolchains/node.star",
    "toolchains/patch/maestro.star" => "toolchains/patch.star",
    "toolchains/protobuf/maestro.star" => "toolchains/protobuf.star",
    "toolchains/rust/maestro.star" => "toolchains/rust.star",
}

/// The text of an embedded file.
pub(crate) fn read(path: &str) -> Option<&'static str> {
    FILES.iter().find(|(name, _)| *name == path).map(|(_, text)| *text)
}

/// The embedded files directly inside a folder, by name.
pub(crate) fn list(folder: &str) -> impl Iterator<Item = &'static str> + '_ {
    FILES.iter().filter_map(move |(path, _)| match path.rsplit_once('/') {
        Some((parent, name)) if parent == folder => Some(name),
        _ => None,
    })
}
