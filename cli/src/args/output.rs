//! What `--output` may say: two forms that every command has, and those of queries.

use maestro_rules::QueryForm;

/// The form of standard output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutputFormat {
    /// For people.
    Text,
    /// One JSON object at the end.
    Json,
    /// The files that targets make; for `cquery`.
    Files,
    /// SARIF 2.1.0; for `template lint`.
    Sarif,
    /// A form that only queries have.
    Query(QueryForm),
}

/// The names of the forms that only queries have; Bazel's, where Bazel has the form.
const QUERY_FORMS: [(&str, QueryForm); 13] = [
    ("label", QueryForm::Label),
    ("label_kind", QueryForm::LabelKind),
    ("location", QueryForm::Location),
    ("build", QueryForm::Build),
    ("package", QueryForm::Package),
    ("minrank", QueryForm::MinRank),
    ("maxrank", QueryForm::MaxRank),
    ("graph", QueryForm::Graph),
    ("jsonl", QueryForm::Jsonl),
    ("proto", QueryForm::Proto),
    ("streamed_proto", QueryForm::StreamedProto),
    ("jsonproto", QueryForm::JsonProto),
    ("streamed_jsonproto", QueryForm::StreamedJsonProto),
];

impl OutputFormat {
    /// Parses the value of `--output`.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text {
            "text" => return Ok(Self::Text),
            "json" => return Ok(Self::Json),
            "files" => return Ok(Self::Files),
            "sarif" => return Ok(Self::Sarif),
            _ => {}
        }
        match QUERY_FORMS.iter().find(|(name, _)| *name == text) {
            Some((_, form)) => Ok(Self::Query(*form)),
            None => {
                let names: Vec<&str> = QUERY_FORMS.iter().map(|(name, _)| *name).collect();
                let names = names.join(", ");
                Err(format!("it is `text` or `json`, and for queries also one of {names}, files"))
            }
        }
    }

    /// The name of a form that only queries have.
    pub fn query_form(self) -> Option<&'static str> {
        match self {
            Self::Text | Self::Json | Self::Sarif => None,
            Self::Files => Some("files"),
            Self::Query(form) => {
                QUERY_FORMS.iter().find(|(_, known)| *known == form).map(|(name, _)| *name)
            }
        }
    }
}
