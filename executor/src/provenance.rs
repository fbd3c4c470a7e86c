//! Provenance of artifacts: an unsigned in-toto Statement with SLSA provenance v1.
//!
//! [`Build`] says what happened, [`statement`] renders it, [`walk`] gathers it from the build log.
//! Formats: in-toto Attestation Framework v1 (`Statement`, `ResourceDescriptor`, `DigestSet`) and
//! SLSA provenance v1. Fields of our own begin with `maestro_` and never change the meaning of
//! others.
//!
//! Not here: signatures, clocks, hashing of outputs.
//! Invariants. Equal builds render equal bytes: every list is sorted and free of duplicates.
//! Nothing is claimed that the build log does not hold; what is missing is listed in
//! `maestro_incomplete`. An answer that nobody vouches for is marked `unattested` and named by
//! its record, never attributed to a model.

pub mod walk;

use std::collections::BTreeMap;

use jiff::Timestamp;
use maestro_core::{ActionClass, Digest, DigestFunction};
use serde_json::{Map, Value, json};

/// The `_type` of a statement.
pub const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v1";
/// The predicate of a statement.
pub const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";
/// Says how to read the parameters: a label of a Maestro workspace and its params.
pub const BUILD_TYPE: &str = "https://maestro.build/provenance/action-graph/v1";
/// Who built, where a person ran Maestro on a machine of their own: what it states is not
/// protected from that person.
pub const LOCAL_BUILDER: &str = "https://maestro.build/builders/local/v1";

/// What happened, as far as it is known.
#[derive(Clone, Debug, Default)]
pub struct Build {
    /// What was asked for.
    pub label: String,
    /// The user's parameters.
    pub params: BTreeMap<String, String>,
    /// What came out of it.
    pub subjects: Vec<Subject>,
    /// The actions on the way, in any order.
    pub steps: Vec<Step>,
    /// Everything from outside the action graph.
    pub materials: Vec<Material>,
    /// The commit of the workspace, where the caller knows it.
    pub git: Option<GitCommit>,
    /// How commands were confined, such as `hermetic/1`.
    pub sandbox: String,
    /// Maestro's version.
    pub version: String,
    /// The invocation that made the subjects.
    pub invocation: Invocation,
    /// Files that tell about the build without being subjects: logs, an SBOM.
    pub byproducts: Vec<Subject>,
    /// What is not known, one sentence each.
    pub incomplete: Vec<String>,
}

/// A named content.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Subject {
    /// The path below the execution root.
    pub name: String,
    /// Its digests, one for each function that is known. Verifiers outside Maestro need SHA-256.
    pub digests: Vec<Digest>,
}

/// One action.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step {
    /// The target that owns it.
    pub label: String,
    /// What kind of action it is.
    pub mnemonic: String,
    /// Its class.
    pub class: String,
    /// Its cache key.
    pub key: Digest,
}

/// Something that the build used and did not make.
#[derive(Clone, Debug, PartialEq)]
pub enum Material {
    /// A file of the workspace.
    Source {
        /// Its path.
        path: String,
        /// Its content.
        digest: Digest,
    },
    /// A file that ships with Maestro.
    Builtin {
        /// Its path.
        path: String,
        /// Its content.
        digest: Digest,
    },
    /// A tree of host files.
    Toolchain {
        /// Its name.
        name: String,
        /// The root of its tree.
        root: Digest,
        /// Names and versions of its packages, where they are known.
        packages: Vec<(String, String)>,
    },
    /// A download pinned by digest.
    Fetched {
        /// Where it may be found.
        urls: Vec<String>,
        /// Its content.
        digest: Digest,
    },
    /// A recorded answer.
    Answer(Answer),
}

/// A recorded answer that the build used.
#[derive(Clone, Debug, PartialEq)]
pub struct Answer {
    /// The target that asked.
    pub label: String,
    /// The record key, in hex.
    pub record_key: String,
    /// The answer's content.
    pub content: Digest,
    /// The model's name as asked for.
    pub model: String,
    /// What the name was pinned to.
    pub identity: Option<String>,
    /// The day of the answer, where the lock tells.
    pub date: Option<String>,
    /// Whether its recorder vouches for it and nobody edited it.
    pub attested: bool,
    /// Whether a person changed it.
    pub edited: bool,
    /// Whether it answers an older input than the one it was used for.
    pub stale: bool,
}

/// A commit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GitCommit {
    /// The repository's address without user and password.
    pub repository: Option<String>,
    /// The commit's hash.
    pub commit: String,
    /// Whether the workspace differed from it.
    pub dirty: bool,
}

/// When and under which name it happened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invocation {
    /// A UUID.
    pub id: String,
    /// When it began, in milliseconds since 1970.
    pub started_unix_ms: Option<u64>,
    /// When it ended.
    pub finished_unix_ms: Option<u64>,
}

/// The statement about a build.
pub fn statement(build: &Build) -> Value {
    let Build {
        label,
        params,
        subjects,
        steps,
        materials,
        git,
        sandbox,
        version,
        invocation,
        byproducts,
        incomplete,
    } = build;
    let mut dependencies: Vec<Value> = materials.iter().map(material).collect();
    dependencies.extend(git.as_ref().map(commit));
    let dependencies = ordered(dependencies);
    let mut predicate = json!({
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"label": label, "params": params},
            "internalParameters": {"sandbox": sandbox, "maestro_steps": step_list(steps)},
            "resolvedDependencies": dependencies,
        },
        "runDetails": {
            "builder": {"id": LOCAL_BUILDER, "version": {"maestro": version}},
            "metadata": metadata(invocation),
            "byproducts": resources(byproducts),
        },
    });
    if !incomplete.is_empty() {
        let mut reasons = incomplete.clone();
        reasons.sort_unstable();
        reasons.dedup();
        insert(&mut predicate, "maestro_incomplete", json!(reasons));
    }
    json!({
        "_type": STATEMENT_TYPE,
        "subject": resources(subjects),
        "predicateType": PREDICATE_TYPE,
        "predicate": predicate,
    })
}

fn metadata(invocation: &Invocation) -> Value {
    let Invocation { id, started_unix_ms, finished_unix_ms } = invocation;
    let mut out = json!({"invocationId": id});
    for (name, ms) in [("startedOn", started_unix_ms), ("finishedOn", finished_unix_ms)] {
        let at = ms.and_then(|ms| Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok());
        if let Some(at) = at {
            // RFC 3339 in UTC, whole seconds: SLSA's Timestamp.
            insert(&mut out, name, json!(at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()));
        }
    }
    out
}

fn step_list(steps: &[Step]) -> Value {
    let mut steps = steps.to_vec();
    steps.sort_unstable();
    steps.dedup();
    let render = |Step { label, mnemonic, class, key }: &Step| {
        json!({
            "label": label, "mnemonic": mnemonic, "class": class, "key": digest_set(&[*key]),
        })
    };
    steps.iter().map(render).collect()
}

fn resources(subjects: &[Subject]) -> Value {
    let mut subjects = subjects.to_vec();
    subjects.sort_unstable();
    subjects.dedup();
    let render =
        |Subject { name, digests }: &Subject| json!({"name": name, "digest": digest_set(digests)});
    subjects.iter().map(render).collect()
}

fn material(material: &Material) -> Value {
    match material {
        Material::Source { path, digest } => file(path, digest, "source"),
        Material::Builtin { path, digest } => file(path, digest, "builtin"),
        Material::Toolchain { name, root, packages } => {
            let mut packages = packages.clone();
            packages.sort_unstable();
            let packages: Vec<String> =
                packages.iter().map(|(name, version)| format!("{name}={version}")).collect();
            json!({
                "name": format!("toolchain/{name}"),
                "digest": tree_digest(root),
                "annotations": {"kind": "toolchain", "packages": packages},
            })
        }
        Material::Fetched { urls, digest } => json!({
            "uri": urls.first(),
            "digest": digest_set(&[*digest]),
            "annotations": {"kind": "download", "mirrors": urls.get(1..).unwrap_or_default()},
        }),
        Material::Answer(answer) => answer_resource(answer),
    }
}

fn file(path: &str, digest: &Digest, kind: &str) -> Value {
    json!({"name": path, "digest": digest_set(&[*digest]), "annotations": {"kind": kind}})
}

fn answer_resource(answer: &Answer) -> Value {
    let Answer { label, record_key, content, model, identity, date, attested, edited, stale } =
        answer;
    let mut annotations = json!({
        "kind": "recorded-answer",
        "recordKey": format!("sha256:{record_key}"),
        "attestation": if *attested { "attested" } else { "unattested" },
    });
    // Who is said to have answered; a claim of the lock until the record is signed.
    let claim = if *attested { "model" } else { "claimedModel" };
    let mut who = json!({"name": model});
    if let Some(identity) = identity {
        insert(&mut who, "identity", json!(identity));
    }
    insert(&mut annotations, claim, who);
    if let Some(date) = date {
        insert(&mut annotations, "date", json!(date));
    }
    for (name, value) in [("edited", edited), ("stale", stale)] {
        if *value {
            insert(&mut annotations, name, json!(true));
        }
    }
    json!({
        "name": format!("record/{label}"),
        "digest": digest_set(&[*content]),
        "annotations": annotations,
    })
}

fn commit(git: &GitCommit) -> Value {
    let GitCommit { repository, commit, dirty } = git;
    let mut out = json!({
        "name": "workspace",
        "digest": {"gitCommit": commit},
        "annotations": {"kind": "commit", "dirty": dirty},
    });
    if let Some(repository) = repository {
        insert(&mut out, "uri", json!(format!("git+{repository}@{commit}")));
    }
    out
}

/// A `DigestSet`: function name to hex.
fn digest_set(digests: &[Digest]) -> Value {
    let set: BTreeMap<&str, String> =
        digests.iter().map(|d| (d.function.name(), d.hex())).collect();
    json!(set)
}

/// The digest of a tree is that of its encoded REAPI `Directory`, which is not a file's.
fn tree_digest(root: &Digest) -> Value {
    let name = match root.function {
        DigestFunction::Blake3 => "maestro_directory_blake3",
        DigestFunction::Sha256 => "maestro_directory_sha256",
    };
    json!({ name: root.hex() })
}

/// Sorted by name or address, then by the whole text; each once.
fn ordered(mut values: Vec<Value>) -> Vec<Value> {
    let rank = |value: &Value| {
        let name = value.get("name").or_else(|| value.get("uri"));
        (name.and_then(Value::as_str).unwrap_or_default().to_owned(), value.to_string())
    };
    values.sort_by_cached_key(rank);
    values.dedup();
    values
}

fn insert(object: &mut Value, name: &str, value: Value) {
    if let Value::Object(fields) = object {
        let fields: &mut Map<String, Value> = fields;
        fields.insert(name.to_owned(), value);
    }
}

/// The name of a class in statements.
pub(crate) fn class_name(class: ActionClass) -> String {
    class.name().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blake3(text: &str) -> Digest {
        DigestFunction::Blake3.digest(text.as_bytes())
    }

    fn build() -> Build {
        let content = DigestFunction::Sha256.digest(b"release");
        Build {
            label: "//intelgraph:release".into(),
            params: [("env".to_owned(), "staging".to_owned())].into(),
            subjects: vec![Subject {
                name: "maestro-out/shared/r".into(),
                digests: vec![content, blake3("release")],
            }],
            steps: vec![
                Step {
                    label: "//b:b".into(),
                    mnemonic: "Tar".into(),
                    class: "pure".into(),
                    key: blake3("k"),
                },
                Step {
                    label: "//a:a".into(),
                    mnemonic: "Llm".into(),
                    class: "recorded".into(),
                    key: blake3("l"),
                },
            ],
            materials: vec![
                Material::Source { path: "b.c".into(), digest: blake3("b") },
                Material::Source { path: "a.c".into(), digest: blake3("a") },
                Material::Source { path: "b.c".into(), digest: blake3("b") },
                Material::Toolchain {
                    name: "cc".into(),
                    root: blake3("tree"),
                    packages: vec![("g++".into(), "12".into()), ("binutils".into(), "2".into())],
                },
                Material::Fetched {
                    urls: vec!["https://a.example/x".into(), "https://b.example/x".into()],
                    digest: content,
                },
                Material::Answer(Answer {
                    label: "//a:a".into(),
                    record_key: "ab".repeat(32),
                    content: blake3("answer"),
                    model: "m".into(),
                    identity: Some("sha256:12".into()),
                    date: Some("2026-11-23".into()),
                    attested: false,
                    edited: true,
                    stale: false,
                }),
            ],
            git: Some(GitCommit { repository: None, commit: "c0ffee".into(), dirty: true }),
            sandbox: "hermetic/1".into(),
            version: "0.1.0".into(),
            invocation: Invocation {
                id: "id".into(),
                started_unix_ms: Some(1_000),
                finished_unix_ms: Some(61_500),
            },
            ..Build::default()
        }
    }

    #[test]
    fn a_statement_has_the_fields_of_its_formats() {
        let statement = statement(&build());
        let check = |pointer: &str, expect: Value| {
            assert_eq!(statement.pointer(pointer), Some(&expect), "{pointer}");
        };
        check("/_type", json!("https://in-toto.io/Statement/v1"));
        check("/predicateType", json!("https://slsa.dev/provenance/v1"));
        check("/subject/0/digest/sha256", json!(DigestFunction::Sha256.digest(b"release").hex()));
        let definition = "/predicate/buildDefinition";
        check(
            &format!("{definition}/externalParameters"),
            json!({
                "label": "//intelgraph:release", "params": {"env": "staging"},
            }),
        );
        check(&format!("{definition}/internalParameters/maestro_steps/0/label"), json!("//a:a"));
        check("/predicate/runDetails/builder/id", json!(LOCAL_BUILDER));
        check(
            "/predicate/runDetails/metadata",
            json!({
                "invocationId": "id",
                "startedOn": "1970-01-01T00:00:01Z",
                "finishedOn": "1970-01-01T00:01:01Z",
            }),
        );
        let dependencies = statement.pointer(&format!("{definition}/resolvedDependencies"));
        let names: Vec<&str> = dependencies
            .and_then(Value::as_array)
            .expect("a list")
            .iter()
            .map(|d| d.get("name").or_else(|| d.get("uri")).and_then(Value::as_str).expect("one"))
            .collect();
        let expect =
            ["a.c", "b.c", "https://a.example/x", "record///a:a", "toolchain/cc", "workspace"];
        assert_eq!(names, expect);
        assert_eq!(statement.pointer("/predicate/maestro_incomplete"), None);
    }

    #[test]
    fn an_unattested_answer_is_not_attributed() {
        let annotations = |attested| {
            let Some(Material::Answer(mut answer)) = build().materials.pop() else {
                panic!("the last material is an answer")
            };
            answer.attested = attested;
            answer_resource(&answer).get("annotations").cloned().expect("annotated")
        };
        let unattested = annotations(false);
        assert_eq!(unattested.get("attestation"), Some(&json!("unattested")));
        assert_eq!(unattested.get("model"), None);
        assert_eq!(unattested.get("edited"), Some(&json!(true)));
        assert_eq!(annotations(true).pointer("/model/identity"), Some(&json!("sha256:12")));
    }

    #[test]
    fn the_order_of_facts_does_not_matter() {
        let mut shuffled = build();
        shuffled.materials.reverse();
        shuffled.steps.reverse();
        shuffled.incomplete = vec!["b".into(), "a".into()];
        let mut other = build();
        other.incomplete = vec!["a".into(), "b".into(), "a".into()];
        assert_eq!(statement(&shuffled).to_string(), statement(&other).to_string());
    }
}
