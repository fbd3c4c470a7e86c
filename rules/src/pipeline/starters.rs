//! Pipelines to begin with: each is a file with a few questions in it.
//!
//! Placeholders `@key@` stand within double quotes or where a plain name may stand; answers are put
//! there escaped, and what comes out is checked like any other pipeline.

/// A pipeline to begin with.
#[derive(Debug)]
pub struct Starter {
    /// Its name.
    pub name: &'static str,
    /// What it is for, in one sentence.
    pub about: &'static str,
    /// What must be known.
    pub questions: &'static [Question],
    text: &'static str,
}

/// Something that a starter must know.
#[derive(Debug)]
pub struct Question {
    /// The name of the answer.
    pub key: &'static str,
    /// The question.
    pub ask: &'static str,
    /// The answer where none is given.
    pub default: &'static str,
}

const NAME: &str = "name";
/// What stands on both sides of the key of a placeholder.
const MARK: char = '@';

const fn question(key: &'static str, ask: &'static str, default: &'static str) -> Question {
    Question { key, ask, default }
}

const REPOSITORY: Question =
    question("repository", "Which repository describes the environments?", "./environments.git");
const PATH: Question = question("path", "Which of its files names the version?", "apps/app.yaml");
const TRAFFIC: Question = question(
    "traffic",
    "Which URL has the weight of the new version?",
    "https://proxy.example.com/weight",
);

/// All of them.
pub const STARTERS: &[Starter] = &[
    Starter {
        name: "build-and-test",
        about: "Builds targets and runs tests, for every push and every proposed change.",
        questions: &[
            question("target", "What is built?", "//:release"),
            question("tests", "Which tests run?", "//..."),
        ],
        text: include_str!("starters/build-and-test.pipeline.yaml"),
    },
    Starter {
        name: "container-release",
        about: "Builds an image, scans, signs and pushes it, and rolls it out by a canary.",
        questions: &[
            question("dockerfile", "Which Dockerfile?", "./Dockerfile"),
            question("image", "What is the image called?", "registry.example.com/team/app"),
            REPOSITORY,
            PATH,
            TRAFFIC,
        ],
        text: include_str!("starters/container-release.pipeline.yaml"),
    },
    Starter {
        name: "gitops-canary",
        about: "Builds, tests, asks two people, rolls out by a GitOps canary, and tells.",
        questions: &[
            question("target", "What is built?", "//:release"),
            REPOSITORY,
            PATH,
            TRAFFIC,
            question("probe", "Which URL tells whether it is well?", "https://example.com/health"),
            question("role", "Who may approve?", "release-manager"),
            question("webhook", "Where is the outcome told?", "https://hooks.example.com/releases"),
        ],
        text: include_str!("starters/gitops-canary.pipeline.yaml"),
    },
    Starter {
        name: "nightly-scan",
        about: "Looks for new vulnerabilities every night, and tells where there are some.",
        questions: &[
            question("dockerfile", "Which Dockerfile?", "./Dockerfile"),
            question("webhook", "Where are findings told?", "https://hooks.example.com/security"),
        ],
        text: include_str!("starters/nightly-scan.pipeline.yaml"),
    },
];

impl Starter {
    /// A starter by its name.
    pub fn find(name: &str) -> Option<&'static Self> {
        STARTERS.iter().find(|starter| starter.name == name)
    }

    /// The pipeline with a name, and with answers in place of its questions. What an answer says
    /// is never taken for a placeholder.
    pub fn filled(&self, name: &str, answer: &dyn Fn(&Question) -> String) -> String {
        let answer = |key: &str| match self.questions.iter().find(|question| question.key == key) {
            Some(question) => Some(answer(question)),
            None => (key == NAME).then(|| name.to_owned()),
        };
        let mut parts = self.text.split(MARK);
        let mut out = parts.next().unwrap_or_default().to_owned();
        while let Some(key) = parts.next() {
            match answer(key) {
                Some(text) => {
                    out.push_str(&escaped(&text));
                    out.push_str(parts.next().unwrap_or_default());
                }
                None => {
                    out.push(MARK);
                    out.push_str(key);
                }
            }
        }
        out
    }
}

/// A text as it stands within double quotes.
fn escaped(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    let inner = quoted.strip_prefix('"').and_then(|text| text.strip_suffix('"'));
    inner.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pipeline::{Defaults, load};

    #[test]
    fn every_starter_is_a_pipeline_whatever_the_answers() {
        let check = |starter: &Starter, answer: &dyn Fn(&Question) -> String| {
            let text = starter.filled("mine", answer);
            let none = |path: &str| Err(format!("there is no file `{path}`"));
            let checked = load("mine.pipeline.yaml", &text, &none, &Defaults::new());
            let told: Vec<String> =
                checked.findings.iter().map(|found| found.diagnostic.to_string()).collect();
            assert!(checked.pipeline.is_some(), "{}: {}", starter.name, told.join("\n"));
            assert!(!text.contains('@'), "{}: {text}", starter.name);
        };
        for starter in STARTERS {
            check(starter, &|question| question.default.to_owned());
        }
        // Quotes stay where they are put.
        let starter = Starter::find("build-and-test").expect("it is there");
        let text = starter.filled("mine", &|_| "\" \\ # : {".to_owned());
        assert!(text.contains(r#""\" \\ # : {""#), "{text}");
        // So do placeholders in answers.
        let text = starter.filled("@tests@", &|question| format!("@{}@", question.key));
        assert!(text.contains("name: @tests@\n") && text.contains("uses: \"@target@\""), "{text}");
        assert!(text.contains("targets: [\"@tests@\"]"), "{text}");
    }
}
