//! Steps that bring what others made, pinned by digest.

use maestro_core::ActionClass;

use super::FieldKind::{Bool, List, Path, Text, Url};
use super::Presence::{Default, Optional, Required};
use super::{Artifact, FieldDefinition, OutputDefinition, StepDefinition, artifact, field, output};

const FILES: &[OutputDefinition] = &[
    artifact("files", List(&Path), Artifact::Files, "The files."),
    output("digest", Text, "The digest of all of them."),
];
const URLS: FieldDefinition = field("urls", List(&Url), Required, "Where it is, tried in order.");
const SHA256: FieldDefinition =
    field("sha256", Text, Required, "Its SHA-256, in hex; `maestro lock --update` finds it.");

pub(super) const STEPS: &[StepDefinition] = &[
    StepDefinition {
        name: "http_file",
        class: ActionClass::Pure,
        about: "Downloads a file.",
        fields: &[
            URLS,
            SHA256,
            field("out", Path, Optional, "What it is called; the last part of the URL else."),
            field("executable", Bool, Default("false"), "Whether it is a program."),
        ],
        outputs: FILES,
        rules: &[],
        far_side: None,
    },
    StepDefinition {
        name: "http_archive",
        class: ActionClass::Pure,
        about: "Downloads an archive and unpacks it.",
        fields: &[
            URLS,
            SHA256,
            field(
                "strip_prefix",
                Path,
                Optional,
                "The folder of the archive that becomes the root.",
            ),
        ],
        outputs: FILES,
        rules: &[],
        far_side: None,
    },
    StepDefinition {
        name: "git_source",
        class: ActionClass::Pure,
        about: "Takes the tree of a commit.",
        fields: &[
            field("remote", Text, Required, "The repository: a URL or a path."),
            field("commit", Text, Required, "The full hash of the commit."),
            field("paths", List(&Path), Optional, "The parts of the tree that are wanted."),
        ],
        outputs: FILES,
        rules: &[],
        far_side: None,
    },
    StepDefinition {
        name: "npm_lock",
        class: ActionClass::Pure,
        about: "Brings the packages of a `package-lock.json`.",
        fields: &[field("lock", Path, Required, "The lock file.")],
        outputs: FILES,
        rules: &[],
        far_side: None,
    },
    StepDefinition {
        name: "pip_lock",
        class: ActionClass::Pure,
        about: "Brings the packages of a requirements file with hashes.",
        fields: &[field("lock", Path, Required, "The requirements, each with its hashes.")],
        outputs: FILES,
        rules: &[],
        far_side: None,
    },
];
