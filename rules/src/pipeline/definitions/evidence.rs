//! Steps that find out about artifacts, and that vouch for them.

use maestro_core::ActionClass;

use super::Artifact::{Files, Image, Published, Report, Sbom};
use super::FieldKind::{self, Any, Bool, Choice, Int, List, Path, Secret, Text};
use super::Presence::{Bound, BoundIfAny, Default, Optional, Required};
use super::{FarSide, FieldDefinition, FieldRule, StepDefinition, artifact, field, output};

const SUBJECT: FieldDefinition =
    field("subject", FieldKind::Artifact, Bound(&[Image, Published, Files]), "What is looked at.");
const SIGNED: FieldDefinition = field(
    "subject",
    FieldKind::Artifact,
    Bound(&[Image, Published, Files]),
    "What is vouched for.",
);
const COUNT: FieldKind = Int(0, i64::MAX);

pub(super) const STEPS: &[StepDefinition] = &[
    StepDefinition {
        name: "security.sbom",
        class: ActionClass::Pure,
        about: "Makes a bill of materials.",
        fields: &[
            SUBJECT,
            field(
                "format",
                Choice(&["spdx", "cyclonedx"]),
                Default("\"spdx\""),
                "The form of the document.",
            ),
        ],
        outputs: &[
            artifact("sbom", Path, Sbom, "The document."),
            output("packages", COUNT, "How many packages it lists."),
        ],
        rules: &[],
        far_side: None,
    },
    StepDefinition {
        name: "security.scan",
        class: ActionClass::Pure,
        about: "Looks for known vulnerabilities, in a database that is pinned by digest.",
        fields: &[
            SUBJECT,
            field(
                "threshold",
                Choice(&["none", "low", "medium", "high", "critical"]),
                Default("\"high\""),
                "The severity from which on the step fails; policy can ask for less.",
            ),
            field("database", Text, Optional, "The database; the one of the lock else."),
            field("vex", List(&Path), Optional, "OpenVEX documents that say what does not apply."),
            field(
                "ignore_unfixed",
                Bool,
                Default("false"),
                "Whether what nobody has mended counts.",
            ),
        ],
        outputs: &[
            artifact("report", Path, Report, "What was found, as SARIF."),
            output(
                "severity",
                Choice(&["none", "low", "medium", "high", "critical"]),
                "The worst of it.",
            ),
            output("critical", COUNT, "How many critical ones."),
            output("high", COUNT, "How many high ones."),
            output("total", COUNT, "How many in all."),
        ],
        rules: &[],
        far_side: None,
    },
    StepDefinition {
        name: "security.licenses",
        class: ActionClass::Pure,
        about: "Checks the licences of everything in a bill of materials.",
        fields: &[
            field("sbom", FieldKind::Artifact, Bound(&[Sbom]), "The bill of materials."),
            field(
                "allow",
                List(&Text),
                Optional,
                "SPDX expressions that are allowed; all others are not.",
            ),
            field(
                "deny",
                List(&Text),
                Optional,
                "SPDX expressions that are not allowed; all others are.",
            ),
        ],
        outputs: &[
            artifact("report", Path, Report, "Each package with its licences."),
            output("denied", COUNT, "How many packages are not allowed."),
        ],
        rules: &[],
        far_side: None,
    },
    StepDefinition {
        name: "supplychain.sign",
        class: ActionClass::Effect,
        about: "Signs an artifact, compatibly with cosign.",
        fields: &[
            SIGNED,
            field(
                "provider",
                Choice(&["cosign"]),
                Default("\"cosign\""),
                "The form of the signature.",
            ),
            field("key", Secret, Optional, "The key; keyless where there is an identity else."),
            field(
                "annotations",
                FieldKind::Map(&Text),
                Optional,
                "What the signature says besides.",
            ),
        ],
        outputs: &[
            output("bundle", Path, "The Sigstore bundle."),
            output("key_id", Text, "The key that signed."),
        ],
        rules: &[],
        far_side: Some(FarSide::Idempotent),
    },
    StepDefinition {
        name: "supplychain.attest",
        class: ActionClass::Effect,
        about: "Signs a statement about an artifact: provenance, or any in-toto predicate.",
        fields: &[
            SIGNED,
            field(
                "predicate",
                Choice(&["slsa-provenance", "sbom", "scan", "custom"]),
                Default("\"slsa-provenance\""),
                "What is stated.",
            ),
            field("predicate_type", Text, Optional, "The type, for `custom`."),
            field("statement", Any, Optional, "The content, for `custom`."),
            field("report", FieldKind::Artifact, BoundIfAny(&[Report]), "The report, for `scan`."),
            field("sbom", FieldKind::Artifact, BoundIfAny(&[Sbom]), "The document, for `sbom`."),
            field("key", Secret, Optional, "The key; keyless where there is an identity else."),
        ],
        outputs: &[
            output("bundle", Path, "The Sigstore bundle."),
            output("key_id", Text, "The key that signed."),
        ],
        rules: &[FieldRule {
            when: &[("predicate", &["\"custom\""])],
            needs: &["predicate_type", "statement"],
            excludes: &[],
        }],
        far_side: Some(FarSide::Idempotent),
    },
    StepDefinition {
        name: "supplychain.verify",
        class: ActionClass::Pure,
        about: "Checks signatures and provenance of an artifact, offline.",
        fields: &[
            field("subject", FieldKind::Artifact, Required, "What is checked."),
            field("keys", List(&Path), Optional, "Public keys, one of which must have signed."),
            field("builder", Text, Optional, "The builder that the provenance must name."),
            field("source", Text, Optional, "The repository that the provenance must name."),
        ],
        outputs: &[output("verified", Bool, "Whether all holds; else the step fails.")],
        rules: &[],
        far_side: None,
    },
];
