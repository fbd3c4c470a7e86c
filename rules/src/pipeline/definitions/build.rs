//! Steps that make things of sources: the rules that pipelines share with `maestro.star`.

use maestro_core::ActionClass;

use super::FieldKind::{Any, Bool, Choice, Duration, Int, List, Map, Path, Text};
use super::Presence::{Default, Optional, Required};
use super::{Artifact, FieldRule, OutputDefinition, StepDefinition, artifact, field, output};

const FILES: &[OutputDefinition] = &[
    artifact("files", List(&Path), Artifact::Files, "The files that it made."),
    output("digest", Text, "The digest of all of them."),
];

pub(super) const STEPS: &[StepDefinition] = &[
    StepDefinition {
        name: "build.container",
        class: ActionClass::Pure,
        about: "Builds a container image from a Dockerfile, or from layers.",
        fields: &[
            field(
                "dockerfile",
                Path,
                Optional,
                "The Dockerfile; without it `layers` are assembled.",
            ),
            field("context", Path, Default("\".\""), "The folder that the Dockerfile sees."),
            field("target", Text, Optional, "The stage of the Dockerfile."),
            field("args", Map(&Text), Optional, "Build arguments."),
            field("layers", List(&Text), Optional, "Labels whose files become layers, in order."),
            field("base", Text, Optional, "The image below the layers, pinned by digest."),
            field("entrypoint", List(&Text), Optional, "What the image runs."),
            field("labels", Map(&Text), Optional, "Labels of the image."),
            field("platforms", List(&Text), Default("[\"linux/amd64\"]"), "What it is built for."),
            field("cache", Bool, Default("true"), "Whether layers of earlier builds are used."),
            field("sbom", Bool, Default("false"), "Whether a bill of materials is made."),
        ],
        outputs: &[
            artifact("image", Text, Artifact::Image, "The image, by digest."),
            output("digest", Text, "The digest of its manifest."),
            artifact(
                "sbom",
                Path,
                Artifact::Sbom,
                "Its bill of materials, where one was asked for.",
            ),
        ],
        rules: &[],
        far_side: None,
    },
    StepDefinition {
        name: "genrule",
        class: ActionClass::Pure,
        about: "Runs a shell command that makes files of files, in the sandbox.",
        fields: &[
            field("srcs", List(&Text), Default("[]"), "Files and labels that it reads."),
            field("outs", List(&Path), Required, "Files that it makes."),
            field(
                "cmd",
                Text,
                Required,
                "The command; `$@`, `$<`, `$(SRCS)` and `$(OUTS)` mean what they mean in Bazel.",
            ),
            field("tools", List(&Text), Default("[]"), "Labels of programs that it runs."),
        ],
        outputs: FILES,
        rules: &[],
        far_side: None,
    },
    StepDefinition {
        name: "test",
        class: ActionClass::Pure,
        about: "Runs tests of the workspace, or a command that passes or fails.",
        fields: &[
            field("targets", List(&Text), Default("[]"), "Labels and patterns of tests."),
            field("cmd", Text, Optional, "A command instead."),
            field("srcs", List(&Text), Default("[]"), "Files and labels that the command reads."),
            field(
                "size",
                Choice(&["small", "medium", "large", "enormous"]),
                Default("\"medium\""),
                "How long it may take.",
            ),
            field(
                "shards",
                Int(1, 1_000),
                Default("1"),
                "Into how many parts the command is split.",
            ),
            field(
                "flaky_attempts",
                Int(1, 10),
                Default("1"),
                "How often it may run until it passes.",
            ),
            field(
                "timeout",
                Duration,
                Optional,
                "How long it may take, in place of what `size` says.",
            ),
        ],
        outputs: &[
            artifact("report", Path, Artifact::Report, "Its results, as JUnit XML."),
            output("passed", Int(0, i64::MAX), "How many tests passed."),
            output("failed", Int(0, i64::MAX), "How many tests failed."),
            output("summary", Any, "Each test with its result."),
        ],
        rules: &[FieldRule { when: &[("targets", &["[]"])], needs: &["cmd"], excludes: &[] }],
        far_side: None,
    },
    StepDefinition {
        name: "filegroup",
        class: ActionClass::Pure,
        about: "Gives files a name.",
        fields: &[field("srcs", List(&Text), Required, "Files, globs and labels.")],
        outputs: FILES,
        rules: &[],
        far_side: None,
    },
    StepDefinition {
        name: "copy",
        class: ActionClass::Pure,
        about: "Copies a file or a tree.",
        fields: &[
            field("src", Text, Required, "The file or label."),
            field("out", Path, Required, "Where the copy lies."),
        ],
        outputs: FILES,
        rules: &[],
        far_side: None,
    },
    StepDefinition {
        name: "tar",
        class: ActionClass::Pure,
        about: "Packs files into an archive with the same bytes each time.",
        fields: &[
            field("srcs", List(&Text), Required, "Files and labels."),
            field("out", Path, Required, "The archive."),
            field("prefix", Path, Optional, "The folder within the archive."),
            field(
                "compression",
                Choice(&["none", "gzip"]),
                Default("\"gzip\""),
                "How it is packed.",
            ),
        ],
        outputs: FILES,
        rules: &[],
        far_side: None,
    },
];
