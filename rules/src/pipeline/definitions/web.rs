//! Steps that read pages.

use maestro_core::ActionClass;

use super::FieldKind::{Any, Bool, Choice, Duration, Int, List, Map, Path, Text, Url};
use super::Presence::{Default, Optional, Required};
use super::{Artifact, StepDefinition, artifact, field, output};

pub(super) const STEPS: &[StepDefinition] = &[StepDefinition {
    name: "web.scrape",
    class: ActionClass::Recorded,
    about: "Reads pages as Markdown or by selectors, politely, within an allowlist.",
    fields: &[
        field("urls", List(&Url), Required, "The pages."),
        field(
            "mode",
            Choice(&["static", "headless"]),
            Default("\"static\""),
            "Whether scripts of the page run.",
        ),
        field(
            "format",
            Choice(&["markdown", "html", "text"]),
            Default("\"markdown\""),
            "What a page becomes.",
        ),
        field("select", Map(&Text), Optional, "CSS selectors by the names of what they find."),
        field("follow", Int(0, 10), Default("0"), "How many links deep, on the same host."),
        field("max_pages", Int(1, 10_000), Default("100"), "The most pages in all."),
        field(
            "cache_ttl",
            Duration,
            Optional,
            "The age at which a run reads again; a build always takes the record.",
        ),
        field("rate", Int(1, 100), Default("1"), "The most requests a second to one host."),
        field("respect_robots", Bool, Default("true"), "Whether `robots.txt` is obeyed."),
        field("timeout", Duration, Default("\"30s\""), "How long one page may take."),
        field(
            "retention",
            Choice(&["public", "internal", "personal"]),
            Default("\"internal\""),
            "Who may read what was found, and how it is kept.",
        ),
    ],
    outputs: &[
        artifact("files", List(&Path), Artifact::Files, "The pages, as files."),
        output("text", Text, "All pages, one after the other."),
        output("pages", Int(0, 10_000), "How many pages were read."),
        output("json", Any, "What the selectors found, by page."),
    ],
    rules: &[],
    far_side: None,
}];
