//! `File`: a source, an output, or a toolchain tree, as a value. Its content is not known here.

use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use allocative::Allocative;
use maestro_core::{ArtifactId, ArtifactKind, Label, RelPath};
use starlark::collections::StarlarkHasher;
use starlark::environment::{Methods, MethodsBuilder};
use starlark::starlark_module;
use starlark::starlark_simple_value;
use starlark::values::{
    NoSerialize, ProvidesStaticType, StarlarkPagablePanic, StarlarkValue, Value, starlark_value,
};

use super::label::LabelValue;

/// The folder of all outputs, below the execution root. Below it there is a folder for each
/// trimmed configuration.
pub(crate) const OUTPUT_FOLDER: &str = "maestro-out";

/// What a [`FileValue`] stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FileOrigin {
    Source,
    Output,
    Toolchain,
}

/// An artifact of the graph under construction.
#[derive(Clone, Debug, ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative)]
pub(crate) struct FileValue {
    #[allocative(skip)]
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    artifact: ArtifactId,
    path: RelPath,
    kind: ArtifactKind,
    origin: FileOrigin,
    owner: Label,
}

starlark_simple_value!(FileValue);

impl FileValue {
    pub(crate) fn new(
        artifact: ArtifactId,
        path: RelPath,
        kind: ArtifactKind,
        origin: FileOrigin,
        owner: Label,
    ) -> Self {
        Self { inner: Arc::new(Inner { artifact, path, kind, origin, owner }) }
    }

    pub(crate) fn artifact(&self) -> ArtifactId {
        self.inner.artifact
    }

    /// The target that makes the file, or the label of the source itself.
    pub(crate) fn owner(&self) -> &Label {
        &self.inner.owner
    }

    /// Where it stands below the execution root.
    pub(crate) fn path(&self) -> &RelPath {
        &self.inner.path
    }

    pub(crate) fn is_tree(&self) -> bool {
        self.inner.kind == ArtifactKind::Tree
    }

    pub(crate) fn is_source(&self) -> bool {
        self.inner.origin == FileOrigin::Source
    }

    pub(crate) fn is_toolchain(&self) -> bool {
        self.inner.origin == FileOrigin::Toolchain
    }

    /// The path without the output folder: where the file would be if it were a source.
    pub(crate) fn short_path(&self) -> &str {
        let path = self.inner.path.as_str();
        let below = path.strip_prefix(OUTPUT_FOLDER).and_then(|p| p.strip_prefix('/'));
        below.and_then(|p| p.split_once('/')).map_or(path, |(_configuration, p)| p)
    }

    /// Where the file stands in a runfiles tree: below `main/`, or below its repository's name.
    pub(crate) fn runfiles_path(&self) -> String {
        let short = self.short_path();
        match short.strip_prefix("external/") {
            Some(rest) => rest.to_owned(),
            None => format!("main/{short}"),
        }
    }
}

impl fmt::Display for FileValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.inner.path.as_str())
    }
}

starlark::methods_static!(FILE_METHODS = file_methods);

#[starlark_value(type = "File")]
impl<'v> StarlarkValue<'v> for FileValue {
    fn get_methods() -> Option<&'static Methods> {
        Some(FILE_METHODS.methods())
    }

    fn collect_repr(&self, collector: &mut String) {
        collector.push_str("<file ");
        collector.push_str(self.inner.path.as_str());
        collector.push('>');
    }

    fn equals(&self, other: Value<'v>) -> starlark::Result<bool> {
        Ok(Self::from_value(other).is_some_and(|o| o.inner.artifact == self.inner.artifact))
    }

    fn compare(&self, other: Value<'v>) -> starlark::Result<std::cmp::Ordering> {
        match Self::from_value(other) {
            Some(other) => Ok(self.inner.path.cmp(&other.inner.path)),
            None => starlark::values::ValueError::unsupported_with(self, "cmp()", other),
        }
    }

    fn write_hash(&self, hasher: &mut StarlarkHasher) -> starlark::Result<()> {
        self.inner.artifact.hash(hasher);
        Ok(())
    }
}

#[starlark_module]
fn file_methods(builder: &mut MethodsBuilder) {
    /// Where the file stands below the execution root.
    #[starlark(attribute)]
    fn path(this: &FileValue) -> starlark::Result<String> {
        Ok(this.inner.path.to_string())
    }

    /// The path without the output folder; in runfiles, the path below `main`.
    #[starlark(attribute)]
    fn short_path(this: &FileValue) -> starlark::Result<String> {
        Ok(this.short_path().to_owned())
    }

    /// The last segment of the path.
    #[starlark(attribute)]
    fn basename(this: &FileValue) -> starlark::Result<String> {
        Ok(this.inner.path.name().to_owned())
    }

    /// The path without its last segment.
    #[starlark(attribute)]
    fn dirname(this: &FileValue) -> starlark::Result<String> {
        Ok(this.inner.path.parent().map(|p| p.to_string()).unwrap_or_default())
    }

    /// What follows the last dot of the name, without the dot.
    #[starlark(attribute)]
    fn extension(this: &FileValue) -> starlark::Result<String> {
        let name = this.inner.path.name();
        Ok(name.rsplit_once('.').map(|(_, extension)| extension.to_owned()).unwrap_or_default())
    }

    /// Whether it is a source of the workspace or of the library.
    #[starlark(attribute)]
    fn is_source(this: &FileValue) -> starlark::Result<bool> {
        Ok(this.is_source())
    }

    /// Whether it is a tree.
    #[starlark(attribute)]
    fn is_directory(this: &FileValue) -> starlark::Result<bool> {
        Ok(this.is_tree())
    }

    /// The target that makes the file, or the label of the source itself.
    #[starlark(attribute)]
    fn owner(this: &FileValue) -> starlark::Result<LabelValue> {
        Ok(LabelValue { label: this.inner.owner.clone() })
    }
}
