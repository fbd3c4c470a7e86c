//! Steps that ask a model.

use maestro_core::ActionClass;

use super::FieldKind::{Any, Bool, Choice, Int, List, Map, Number, Path, Steps, Text};
use super::Presence::{Default, Optional, Project, ProjectIfAny};
use super::{Artifact, FieldDefinition, OutputDefinition, StepDefinition, artifact, field, output};

const PROVIDER: FieldDefinition =
    field("provider", Choice(&["litellm", "ollama"]), Default("\"litellm\""), "What answers.");
const MODEL: FieldDefinition =
    field("model", Text, Project("llm.model"), "The name of the model, as the provider knows it.");
const SYSTEM: FieldDefinition =
    field("system", Text, Optional, "The instructions that stand before the prompt.");
const CONTEXT: FieldDefinition =
    field("context_from", Steps, Optional, "Steps whose outputs stand in the prompt.");
const FILES: FieldDefinition = field(
    "context_files",
    List(&Path),
    Optional,
    "Files of the workspace that stand in the prompt, as globs.",
);
const SCHEMA: FieldDefinition =
    field("schema", Any, Optional, "The JSON Schema that the answer must have, or its path.");
const TEMPERATURE: FieldDefinition =
    field("temperature", Number(0.0, 2.0), Default("0"), "How freely the model answers.");
const SEED: FieldDefinition =
    field("seed", Int(0, i64::MAX), Optional, "The seed that is sent to the provider.");
const TOKENS: FieldDefinition = field(
    "max_output_tokens",
    Int(1, 10_000_000),
    ProjectIfAny("llm.max_output_tokens"),
    "The longest answer, in tokens; 4096 where nothing says it. The budget reserves as much.",
);
const BUDGET: FieldDefinition = field(
    "budget_tokens",
    Int(1, 1_000_000_000),
    Optional,
    "The most tokens that all calls of the step take, prompt and answer together.",
);
const FALLBACKS: FieldDefinition =
    field("fallbacks", List(&Text), Optional, "Models that are asked where the first is down.");

const ANSWER: &[OutputDefinition] = &[
    output("text", Text, "The answer."),
    output("json", Any, "The answer as a value, where `schema` is given."),
    output("model", Text, "The model that answered."),
    output("tokens", Int(0, i64::MAX), "Tokens of prompt and answer."),
];

pub(super) const STEPS: &[StepDefinition] = &[
    StepDefinition {
        name: "llm.plan",
        class: ActionClass::Recorded,
        about: "Asks a model what is to be done.",
        fields: &[
            PROVIDER,
            MODEL,
            field("prompt", Text, Project("llm.plan.prompt"), "What is asked."),
            SYSTEM,
            CONTEXT,
            FILES,
            SCHEMA,
            TEMPERATURE,
            SEED,
            TOKENS,
            BUDGET,
            FALLBACKS,
        ],
        outputs: ANSWER,
        rules: &[],
        far_side: None,
    },
    StepDefinition {
        name: "llm.generate",
        class: ActionClass::Recorded,
        about: "Asks a model for a file or a patch, which is checked to apply.",
        fields: &[
            PROVIDER,
            MODEL,
            field("prompt", Text, Project("llm.generate.prompt"), "What is asked."),
            SYSTEM,
            CONTEXT,
            FILES,
            field(
                "output",
                Path,
                Default("\"answer.md\""),
                "The file that the answer becomes; a `.patch` or `.diff` must apply.",
            ),
            SCHEMA,
            TEMPERATURE,
            SEED,
            TOKENS,
            BUDGET,
            FALLBACKS,
        ],
        outputs: &[
            output("text", Text, "The answer."),
            output("json", Any, "The answer as a value, where `schema` is given."),
            output("model", Text, "The model that answered."),
            output("tokens", Int(0, i64::MAX), "Tokens of prompt and answer."),
            artifact("file", Path, Artifact::Patch, "The file that was written."),
        ],
        rules: &[],
        far_side: None,
    },
    StepDefinition {
        name: "llm.review",
        class: ActionClass::Recorded,
        about: "Asks a model to judge a change, and gives a verdict.",
        fields: &[
            PROVIDER,
            MODEL,
            field("prompt", Text, Project("llm.review.prompt"), "What is to be judged, and how."),
            SYSTEM,
            CONTEXT,
            FILES,
            field(
                "criteria",
                Map(&Text),
                Optional,
                "Questions by their names; the verdict answers each.",
            ),
            field(
                "require",
                Bool,
                Default("false"),
                "Whether the step fails where the verdict is not `approve`.",
            ),
            TEMPERATURE,
            SEED,
            TOKENS,
            BUDGET,
            FALLBACKS,
        ],
        outputs: &[
            output("verdict", Choice(&["approve", "reject", "unsure"]), "What the model decided."),
            output("text", Text, "Its reasons."),
            output("json", Any, "The verdict with an answer for each criterion."),
            output("model", Text, "The model that answered."),
            output("tokens", Int(0, i64::MAX), "Tokens of prompt and answer."),
        ],
        rules: &[],
        far_side: None,
    },
];
