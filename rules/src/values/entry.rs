//! `entry`: one member of a tree or an archive that an action composes.

use std::fmt;

use allocative::Allocative;
use maestro_core::ArtifactId;
use serde_json::{Value as Json, json};
use starlark::starlark_simple_value;
use starlark::values::{
    NoSerialize, ProvidesStaticType, StarlarkPagablePanic, StarlarkValue, starlark_value,
};

/// One member, already in the shape that the native step reads.
#[derive(Clone, Debug, ProvidesStaticType, NoSerialize, StarlarkPagablePanic, Allocative)]
pub(crate) struct EntryValue {
    pub(crate) path: String,
    #[allocative(skip)]
    pub(crate) what: EntryKind,
}

/// What stands at the path.
#[derive(Clone, Debug)]
pub(crate) enum EntryKind {
    /// A file or tree, or what stands at `from` inside the tree `input`.
    From { input: ArtifactId, from: String, executable: Option<bool> },
    /// A symbolic link with this text.
    Link(String),
    /// A small text.
    Content { text: String, executable: bool },
    /// A folder, which may stay empty.
    Folder,
}

impl EntryValue {
    /// The entry as `docs/design/native-steps.md` defines it.
    pub(crate) fn to_json(&self) -> Json {
        let path = &self.path;
        match &self.what {
            EntryKind::From { from, executable: None, .. } => json!({"path": path, "from": from}),
            EntryKind::From { from, executable: Some(bit), .. } => {
                json!({"path": path, "from": from, "executable": bit})
            }
            EntryKind::Link(text) => json!({"path": path, "link": text}),
            EntryKind::Content { text, executable } => {
                json!({"path": path, "content": text, "executable": executable})
            }
            EntryKind::Folder => json!({"path": path, "folder": true}),
        }
    }

    /// The artifact that the entry reads.
    pub(crate) fn input(&self) -> Option<ArtifactId> {
        match &self.what {
            EntryKind::From { input, .. } => Some(*input),
            EntryKind::Link(_) | EntryKind::Content { .. } | EntryKind::Folder => None,
        }
    }
}

starlark_simple_value!(EntryValue);

impl fmt::Display for EntryValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "entry({})", self.to_json())
    }
}

#[starlark_value(type = "entry")]
impl<'v> StarlarkValue<'v> for EntryValue {}
