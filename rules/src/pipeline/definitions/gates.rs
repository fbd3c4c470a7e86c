//! Steps that wait for people, and that tell them.

use maestro_core::ActionClass;

use super::FieldKind::{Any, Bool, Choice, Duration, Int, List, Map, Secret, Steps, Text, Url};
use super::Presence::{Default, Optional, ProjectIfAny, Required};
use super::{FarSide, GATE, StepDefinition, field, output};

pub(super) const STEPS: &[StepDefinition] = &[
    StepDefinition {
        name: GATE,
        class: ActionClass::Effect,
        about: "Waits until people approve exactly what the steps behind it will do.",
        fields: &[
            field(
                "approvals",
                Int(1, 100),
                Default("1"),
                "How many different people; never who began the run.",
            ),
            field("roles", List(&Text), ProjectIfAny("gate.roles"), "The roles that may approve."),
            field("expires", Duration, Default("\"7d\""), "When the gate gives up."),
            field("reason_required", Bool, Default("false"), "Whether a reason must be given."),
            field(
                "evidence",
                Steps,
                Optional,
                "Steps whose outputs are shown, and bound to the approval.",
            ),
            field("message", Text, Optional, "What people are asked."),
        ],
        outputs: &[
            output("approvers", List(&Text), "Who approved."),
            output("decision", Choice(&["approved", "rejected", "expired"]), "How it ended."),
        ],
        rules: &[],
        far_side: Some(FarSide::Idempotent),
    },
    StepDefinition {
        name: "notify.webhook",
        class: ActionClass::Effect,
        about: "Posts a message to a URL, signed by HMAC.",
        fields: &[
            field("url", Url, Required, "Where it goes."),
            field("secret", Secret, ProjectIfAny("notify.secret"), "The key of the signature."),
            field(
                "body",
                Any,
                Optional,
                "The message; else JSON with `run`, `template`, `step` and `status`: `running`, `failed` or `cancelled`.",
            ),
            field("headers", Map(&Text), Optional, "Further headers."),
            field("method", Choice(&["POST", "PUT"]), Default("\"POST\""), "The method."),
            field("timeout", Duration, Default("\"10s\""), "How long it may take."),
        ],
        outputs: &[output("status_code", Int(100, 599), "The status of the answer.")],
        rules: &[],
        far_side: Some(FarSide::Idempotent),
    },
];
