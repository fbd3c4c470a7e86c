//! Steps that bring artifacts to where they are used.

use maestro_core::ActionClass;

use super::Artifact::{Image, Published};
use super::FieldKind::{
    self, Any, Choice, Duration, Int, List, Map, Number, Path, Secret, Text, Url,
};
use super::Presence::{Bound, BoundIfAny, Default, Optional, Project, ProjectIfAny, Required};
use super::{FarSide, FieldRule, StepDefinition, artifact, field, output};

pub(super) const STEPS: &[StepDefinition] = &[
    StepDefinition {
        name: "registry.push",
        class: ActionClass::Effect,
        about: "Pushes an image to a registry, by digest, with its signatures.",
        fields: &[
            field("subject", FieldKind::Artifact, Bound(&[Image]), "The image."),
            field("image", Text, Required, "Where it goes: `HOST/NAME:TAG`."),
            field("tags", List(&Text), Optional, "Further tags."),
            field("auth", Secret, Optional, "The credentials of the registry."),
        ],
        outputs: &[
            artifact("image", Text, Published, "The image in the registry, by digest."),
            output("digest", Text, "Its digest."),
        ],
        rules: &[],
        far_side: Some(FarSide::Idempotent),
    },
    StepDefinition {
        name: "registry.promote",
        class: ActionClass::Effect,
        about: "Gives an image that is in a registry another name, without building it again.",
        fields: &[
            field("subject", FieldKind::Artifact, Bound(&[Published]), "The image."),
            field("image", Text, Required, "Its new name: `HOST/NAME:TAG`."),
            field("auth", Secret, Optional, "The credentials of the registry."),
        ],
        outputs: &[
            artifact("image", Text, Published, "The image under its new name, by digest."),
            output("digest", Text, "Its digest."),
        ],
        rules: &[],
        far_side: Some(FarSide::Idempotent),
    },
    StepDefinition {
        name: "cd.rollout",
        class: ActionClass::Effect,
        about: "Brings a version to an environment, in steps that a probe decides, or back.",
        fields: &[
            field(
                "subject",
                Text,
                BoundIfAny(&[Published, Image]),
                "What is rolled out: an image, or a digest; it may be left out where `values` say it.",
            ),
            field("env", Text, Project("cd.env"), "The environment."),
            field(
                "strategy",
                Choice(&["all-at-once", "canary", "blue-green"]),
                Default("\"all-at-once\""),
                "How it gets there.",
            ),
            field(
                "via",
                Choice(&["gitops", "gate"]),
                Project("cd.via"),
                "By a commit to a Git repository, or by an HTTP deployment gate.",
            ),
            field(
                "repository",
                Text,
                ProjectIfAny("cd.repository"),
                "The Git repository, for `gitops`.",
            ),
            field("branch", Text, Default("\"main\""), "Its branch."),
            field(
                "path",
                Path,
                ProjectIfAny("cd.path"),
                "The file of the repository that names the version, for `gitops`.",
            ),
            field(
                "gate",
                Url,
                ProjectIfAny("cd.gate"),
                "The URL of the deployment gate, for `gate`.",
            ),
            field("auth", Secret, Optional, "The credentials of the gate or the repository."),
            field(
                "traffic",
                Url,
                ProjectIfAny("cd.traffic"),
                "The weights of the proxy that splits the traffic, for `canary` and `blue-green`.",
            ),
            field(
                "proxy",
                Choice(&["http", "caddy"]),
                Default("\"http\""),
                "The language of that proxy: a resource with a weight, or Caddy's admin API.",
            ),
            field(
                "weights",
                List(&Int(1, 100)),
                Default("[5, 25, 50, 100]"),
                "Percent of the traffic at each step of a canary, rising.",
            ),
            field("pause", Duration, Default("\"1m\""), "How long each step is watched."),
            field("probe", Url, Optional, "The URL that is asked whether all is well."),
            field(
                "probe_command",
                List(&Text),
                Optional,
                "The command that tells, in place of `probe`.",
            ),
            field(
                "max_error_rate",
                Number(0.0, 1.0),
                Default("0.01"),
                "The part of bad answers from which on it is rolled back.",
            ),
            field(
                "rollback",
                Choice(&["automatic", "manual"]),
                Default("\"automatic\""),
                "Who decides where the probe is bad.",
            ),
            field(
                "values",
                Map(&Any),
                Optional,
                "Keys that are set in `path`, in place of `image`; what the gate is told besides.",
            ),
        ],
        outputs: &[
            output("revision", Text, "The commit or deployment that was made."),
            output("previous", Text, "The one before it."),
            output(
                "result",
                Choice(&["deployed"]),
                "How it ended; what is rolled back has failed.",
            ),
            output("weight", Int(0, 100), "Percent of the traffic at the end."),
        ],
        rules: &[
            FieldRule {
                when: &[("via", &["\"gitops\""])],
                needs: &["repository", "path"],
                excludes: &["gate"],
            },
            FieldRule {
                when: &[("via", &["\"gate\""])],
                needs: &["gate"],
                excludes: &["repository", "path"],
            },
            FieldRule {
                when: &[("via", &["\"gitops\""]), ("strategy", &["\"canary\"", "\"blue-green\""])],
                needs: &["traffic"],
                excludes: &[],
            },
            FieldRule {
                when: &[("strategy", &["\"all-at-once\""])],
                needs: &[],
                excludes: &["traffic"],
            },
        ],
        far_side: Some(FarSide::Conditional),
    },
];
