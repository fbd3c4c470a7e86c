//! Steps that call APIs and commands.

use maestro_core::ActionClass;

use super::FieldKind::{Any, Bool, Duration, Int, List, Map, Path, Secret, Text, Url};
use super::Presence::{Default, Optional, Required};
use super::{FarSide, StepDefinition, field, output};

pub(super) const STEPS: &[StepDefinition] = &[
    StepDefinition {
        name: "api.get",
        class: ActionClass::Recorded,
        about: "Calls an operation of an OpenAPI document that only reads.",
        fields: &[
            field("spec", Path, Required, "The OpenAPI document."),
            field("operation", Text, Required, "The `operationId`."),
            field("server", Url, Optional, "The server, where the document names several."),
            field(
                "parameters",
                Map(&Any),
                Optional,
                "Parameters of the operation, by their names.",
            ),
            field(
                "auth",
                Secret,
                Optional,
                "The credentials, for the scheme that the document names.",
            ),
            field("paginate", Bool, Default("false"), "Whether all pages are read."),
            field("max_pages", Int(1, 10_000), Default("100"), "The most pages."),
            field("timeout", Duration, Default("\"30s\""), "How long one call may take."),
            field("cache_ttl", Duration, Optional, "The age at which a run reads again."),
        ],
        outputs: &[
            output("json", Any, "The answer."),
            output("status_code", Int(100, 599), "The status of the answer."),
        ],
        rules: &[],
        far_side: None,
    },
    StepDefinition {
        name: "api.call",
        class: ActionClass::Effect,
        about: "Calls an operation of an OpenAPI document that may change something.",
        fields: &[
            field("spec", Path, Required, "The OpenAPI document."),
            field("operation", Text, Required, "The `operationId`."),
            field("server", Url, Optional, "The server, where the document names several."),
            field(
                "parameters",
                Map(&Any),
                Optional,
                "Parameters of the operation, by their names.",
            ),
            field("body", Any, Optional, "The body, checked against the document before the call."),
            field(
                "auth",
                Secret,
                Optional,
                "The credentials, for the scheme that the document names.",
            ),
            field(
                "idempotency_header",
                Text,
                Optional,
                "The header in which the far side takes a key; without it nothing is repeated.",
            ),
            field("timeout", Duration, Default("\"30s\""), "How long the call may take."),
        ],
        outputs: &[
            output("json", Any, "The answer."),
            output("status_code", Int(100, 599), "The status of the answer."),
        ],
        rules: &[],
        far_side: Some(FarSide::Opaque),
    },
    StepDefinition {
        name: "run.command",
        class: ActionClass::Effect,
        about: "Runs a command that acts on the world.",
        fields: &[
            field(
                "command",
                List(&Text),
                Required,
                "The program and its arguments; no shell reads them.",
            ),
            field("directory", Path, Default("\".\""), "The folder in which it runs."),
            field("stdin", Text, Optional, "What it reads."),
            field(
                "repeatable",
                Bool,
                Default("false"),
                "Whether running it again does no harm; else an unknown outcome waits for a person.",
            ),
            field(
                "query",
                List(&Text),
                Optional,
                "A command that ends with 0 where the effect has happened, and with 1 where not.",
            ),
        ],
        outputs: &[
            output("stdout", Text, "What it printed."),
            output("json", Any, "What it printed as a value, where that is JSON."),
            output("exit_code", Int(0, 255), "How it ended."),
        ],
        rules: &[],
        far_side: Some(FarSide::Opaque),
    },
];
