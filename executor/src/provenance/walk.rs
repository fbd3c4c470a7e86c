//! Gathers a [`Build`] from the build log: from outputs back to everything that they came from.
//!
//! An input that an action made leads on to that action; any other is a material. Which is which
//! is read off the records alone: a path that some action's record lists as an output was made.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::Read as _;

use maestro_cas::{Store, StoreError};
use maestro_core::key::{InputPart, NATIVE_INPUTS, REQUEST_FILE, TOOLCHAINS_FILE};
use maestro_core::{ActionClass, Digest, DigestFunction, Node};
use serde_json::Value;

use super::{Answer, Build, Invocation, Material, Step, Subject, class_name};
use crate::records::Lock;
use crate::workspace::build_log::{ActionRecord, InvocationRecord};

/// Where the library that ships inside Maestro stands in execution roots.
const BUILTIN_PREFIX: &str = "external/maestro/";
/// Buffer for hashing, in bytes.
const CHUNK_BYTES: usize = 128 * 1024;

/// What a walk starts from.
pub struct Walk<'a> {
    /// The latest record of every action.
    pub actions: &'a [ActionRecord],
    /// Invocations, in any order.
    pub invocations: &'a [InvocationRecord],
    /// The lock, for what it tells about answers.
    pub lock: &'a Lock,
    /// Blobs.
    pub store: &'a Store,
    /// Packages of toolchains by name and tree, where they are known.
    pub packages: &'a BTreeMap<Digest, Vec<(String, String)>>,
}

impl Walk<'_> {
    /// The build of these outputs, each an execution path. `label`, `params`, `git` and `version`
    /// are left for the caller.
    pub fn build(&self, outputs: &[String]) -> Result<Build, StoreError> {
        let mut made: HashMap<&str, &ActionRecord> = HashMap::new();
        for action in self.actions {
            made.extend(action.outputs.iter().map(|output| (output.path.as_str(), action)));
        }
        let mut build = Build::default();
        let mut newest: Option<&ActionRecord> = None;
        let mut seen: BTreeSet<&str> = BTreeSet::new();
        let mut materials: HashSet<&str> = HashSet::new();
        let mut stack: Vec<&ActionRecord> = Vec::new();
        for path in outputs {
            match made.get(path.as_str()) {
                Some(action) => {
                    self.subject(&mut build, action, path)?;
                    stack.push(action);
                }
                None => build.incomplete.push(format!("no record tells how `{path}` was made")),
            }
        }
        while let Some(action) = stack.pop() {
            if !seen.insert(&action.identity) {
                continue;
            }
            if newest.is_none_or(|n| n.start_unix_ms < action.start_unix_ms) {
                newest = Some(action);
            }
            self.step(&mut build, action)?;
            for (path, part) in inputs_of(action) {
                match made_by(&made, path) {
                    Some(producer) => stack.push(producer),
                    None if materials.insert(path) => material(&mut build, action, path, part),
                    None => {}
                }
            }
        }
        build.sandbox = sandbox_of(self.actions, &seen);
        self.invocation(&mut build, newest);
        Ok(build)
    }

    fn subject(
        &self,
        build: &mut Build,
        action: &ActionRecord,
        path: &str,
    ) -> Result<(), StoreError> {
        let Some(output) = action.outputs.iter().find(|o| o.path == path) else { return Ok(()) };
        if !output.tree {
            let digests = both(self.store, &output.digest)?;
            build.subjects.push(Subject { name: path.to_owned(), digests });
            return Ok(());
        }
        for entry in self.store.tree_files(&output.digest)? {
            if let Node::File { digest, .. } = entry.node {
                let name = format!("{path}/{}", entry.path);
                build.subjects.push(Subject { name, digests: both(self.store, &digest)? });
            }
        }
        Ok(())
    }

    fn step(&self, build: &mut Build, action: &ActionRecord) -> Result<(), StoreError> {
        build.steps.push(Step {
            label: action.label.to_string(),
            mnemonic: action.mnemonic.clone(),
            class: class_name(action.class),
            key: action.key.0,
        });
        for (name, root) in &action.parts.toolchains {
            let packages = self.packages.get(root).cloned().unwrap_or_default();
            let material = Material::Toolchain { name: name.clone(), root: *root, packages };
            build.materials.push(material);
        }
        if action.class == ActionClass::Recorded {
            self.answer(build, action);
        }
        if action.parts.arguments.first().is_some_and(|a| a == "@maestro//fetch") {
            self.download(build, action)?;
        }
        Ok(())
    }

    fn answer(&self, build: &mut Build, action: &ActionRecord) {
        let Some(used) = &action.record else {
            let why = format!("no record tells which answer `{}` used", action.label);
            build.incomplete.push(why);
            return;
        };
        let Some(output) = action.outputs.first() else { return };
        let locked = self.lock.records.iter().find(|record| record.key.0.matches(&used.key));
        build.materials.push(Material::Answer(Answer {
            label: action.label.to_string(),
            record_key: used.key.hex(),
            content: output.digest,
            model: used.subject.clone(),
            identity: used.identity.clone(),
            date: locked.map(|record| record.date.to_string()),
            attested: used.attested,
            edited: locked.is_some_and(|record| record.edited),
            stale: used.stale,
        }));
    }

    /// A download's addresses stand in its request, which the key names by digest.
    fn download(&self, build: &mut Build, action: &ActionRecord) -> Result<(), StoreError> {
        let Some(output) = action.outputs.first() else { return Ok(()) };
        let request = action.parts.inputs.iter().find_map(|(path, part)| match part {
            InputPart::File { digest, .. } if path == REQUEST_FILE => Some(digest),
            _ => None,
        });
        let bytes = match request.map(|digest| self.store.read(digest)) {
            Some(Ok(bytes)) => bytes,
            None | Some(Err(StoreError::Missing { .. })) => {
                let why = format!("the addresses of `{}` are no longer known", output.path);
                build.incomplete.push(why);
                return Ok(());
            }
            Some(Err(error)) => return Err(error),
        };
        let request: Value = serde_json::from_slice(&bytes).unwrap_or_default();
        let urls = request.get("urls").and_then(Value::as_array).into_iter().flatten();
        let urls = urls.filter_map(Value::as_str).map(str::to_owned).collect();
        build.materials.push(Material::Fetched { urls, digest: output.digest });
        Ok(())
    }

    /// The invocation in which the newest of the steps ran.
    fn invocation(&self, build: &mut Build, newest: Option<&ActionRecord>) {
        let Some(newest) = newest else { return };
        let found = self.invocations.iter().find(|i| i.id == newest.invocation_id);
        if found.is_none() {
            build.incomplete.push("the times of the invocation are no longer known".to_owned());
        }
        build.invocation = Invocation {
            id: newest.invocation_id.clone(),
            started_unix_ms: found.map(|i| i.start_unix_ms),
            finished_unix_ms: found.map(|i| i.end_unix_ms),
        };
    }
}

/// Inputs that came from somewhere, at their execution paths: without the files that the key
/// itself makes (request, list of toolchains, param files).
fn inputs_of(action: &ActionRecord) -> impl Iterator<Item = (&str, &InputPart)> {
    let native = action.parts.arguments.first().is_some_and(|a| a.starts_with("@maestro//"));
    let params = format!("{}-", action.identity);
    action.parts.inputs.iter().filter_map(move |(path, part)| {
        if native {
            let inside = path.strip_prefix(NATIVE_INPUTS)?.strip_prefix('/')?;
            return Some((inside, part));
        }
        let number = path.strip_prefix(&params).and_then(|rest| rest.strip_suffix(".params"));
        let spilled = number.is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
        (path != TOOLCHAINS_FILE && !spilled).then_some((path.as_str(), part))
    })
}

/// The action that made a path, or the tree that the path lies in.
fn made_by<'a>(made: &HashMap<&str, &'a ActionRecord>, path: &str) -> Option<&'a ActionRecord> {
    let mut above = Some(path);
    while let Some(path) = above {
        if let Some(action) = made.get(path) {
            return Some(action);
        }
        above = path.rsplit_once('/').map(|(parent, _)| parent);
    }
    None
}

fn material(build: &mut Build, action: &ActionRecord, path: &str, part: &InputPart) {
    let material = match part {
        InputPart::File { digest, .. } => {
            let (path, digest) = (path.to_owned(), *digest);
            match path.strip_prefix(BUILTIN_PREFIX) {
                Some(_) => Material::Builtin { path, digest },
                None => Material::Source { path, digest },
            }
        }
        // Only a toolchain is a tree that no action made; a native step sees it as an input.
        InputPart::Tree(root) => {
            Material::Toolchain { name: path.to_owned(), root: *root, packages: Vec::new() }
        }
        InputPart::Symlink(_) => {
            let why = format!("`{}` reads the link `{path}`, which no action made", action.label);
            build.incomplete.push(why);
            return;
        }
    };
    build.materials.push(material);
}

/// How the commands among these actions were confined; the weakest where they differ.
fn sandbox_of(actions: &[ActionRecord], seen: &BTreeSet<&str>) -> String {
    let seen = actions.iter().filter(|a| seen.contains(a.identity.as_str()));
    let profile = |action: &ActionRecord| {
        let salt: Value = serde_json::from_str(&action.parts.salt).ok()?;
        Some(salt.get("sandbox")?.as_str()?.to_owned())
    };
    let profiles: BTreeSet<String> = seen.filter_map(profile).collect();
    let weak = profiles.iter().find(|name| name.starts_with("none"));
    weak.or(profiles.first()).cloned().unwrap_or_else(|| "in-process".to_owned())
}

/// The digest with its SHA-256, which verifiers outside Maestro need.
fn both(store: &Store, digest: &Digest) -> Result<Vec<Digest>, StoreError> {
    if digest.function == DigestFunction::Sha256 {
        return Ok(vec![*digest]);
    }
    let mut file = store.open_blob(digest)?;
    let mut hasher = DigestFunction::Sha256.hasher();
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = file
            .read(&mut buffer)
            .map_err(|source| StoreError::Io { path: store.root().to_owned(), source })?;
        match buffer.get(..count) {
            Some([]) | None => return Ok(vec![*digest, hasher.finish()]),
            Some(bytes) => hasher.update(bytes),
        }
    }
}

#[cfg(test)]
mod tests {
    use maestro_cas::StoreOptions;
    use maestro_core::event::Outcome;
    use maestro_core::key::KeyParts;
    use maestro_core::{ActionKey, Label};

    use super::*;
    use crate::provenance::statement;
    use crate::workspace::build_log::{RecordRef, RecordedOutput};

    struct Log {
        _folder: tempfile::TempDir,
        store: Store,
        actions: Vec<ActionRecord>,
    }

    impl Log {
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a temporary folder");
            let root = folder.path().join("cache");
            let options = StoreOptions { root, function: DigestFunction::Blake3 };
            let store = Store::open(options).expect("an empty store opens");
            Self { _folder: folder, store, actions: Vec::new() }
        }

        fn put(&self, text: &str) -> Digest {
            self.store.put_bytes(text.as_bytes()).expect("stored")
        }

        /// An action that makes `output` with its own path as content.
        fn action(
            &mut self,
            output: &str,
            argument: &str,
            inputs: &[(&str, Digest)],
        ) -> &mut ActionRecord {
            let digest = self.put(output);
            let file = |(path, digest): &(&str, Digest)| {
                let part = InputPart::File { digest: *digest, executable: false };
                ((*path).to_owned(), part)
            };
            self.actions.push(ActionRecord {
                identity: output.to_owned(),
                label: Label::new("", "p", output).expect("valid"),
                mnemonic: "Test".into(),
                class: ActionClass::Pure,
                key: ActionKey(self.put(&format!("key of {output}"))),
                parts: KeyParts {
                    arguments: vec![argument.to_owned()],
                    environment: vec![],
                    outputs: vec![output.to_owned()],
                    platform: vec![],
                    timeout_ms: None,
                    do_not_cache: false,
                    salt: r#"{"class":"pure","sandbox":"hermetic/1"}"#.into(),
                    inputs: inputs.iter().map(file).collect(),
                    toolchains: vec![],
                },
                outputs: vec![RecordedOutput {
                    path: output.to_owned(),
                    digest,
                    tree: false,
                    executable: false,
                }],
                outcome: Outcome::Executed,
                invocation_id: "i1".into(),
                start_unix_ms: 10,
                duration_ms: 1,
                cpu_ms: 1,
                memory_bytes: 0,
                cost_usd_micros: 0,
                worker: String::new(),
                record: None,
            });
            self.actions.last_mut().expect("just added")
        }

        fn build(&self, outputs: &[&str]) -> Build {
            let walk = Walk {
                actions: &self.actions,
                invocations: &[],
                lock: &Lock::default(),
                store: &self.store,
                packages: &BTreeMap::new(),
            };
            let outputs: Vec<String> = outputs.iter().map(|o| (*o).to_owned()).collect();
            walk.build(&outputs).expect("every blob is there")
        }
    }

    fn names(build: &Build) -> String {
        let name = |material: &Material| match material {
            Material::Source { path, .. } => format!("source {path}"),
            Material::Builtin { path, .. } => format!("builtin {path}"),
            Material::Toolchain { name, .. } => format!("toolchain {name}"),
            Material::Fetched { urls, .. } => format!("fetched {}", urls.join(" ")),
            Material::Answer(answer) => format!("answer {} {}", answer.label, answer.model),
        };
        let mut names: Vec<String> = build.materials.iter().map(name).collect();
        names.sort();
        names.join(", ")
    }

    #[test]
    fn everything_on_the_way_is_found_and_nothing_else() {
        let mut log = Log::new();
        let [source, tool, params, request] =
            ["source", "tool", "params", r#"{"urls":["https://a.example/x"]}"#].map(|t| log.put(t));
        log.action("out/x.tar", "@maestro//fetch", &[("request.json", request)]);
        let fetched = log.put("out/x.tar");
        let compile = log.action(
            "out/a.o",
            "cc",
            &[
                ("a.c", source),
                ("external/maestro/rules/launch.sh", tool),
                (".maestro/toolchains", tool),
                ("out/a.o-0.params", params),
                ("out/x.tar", fetched),
            ],
        );
        compile.parts.toolchains = vec![("cc".into(), tool)];
        let answer = log.action("out/plan", "@maestro//llm", &[("in/a.c", source)]);
        answer.class = ActionClass::Recorded;
        answer.record = Some(RecordRef {
            key: DigestFunction::Sha256.digest(b"key"),
            subject: "m".into(),
            identity: Some("name:m-2026-01-01".into()),
            attested: false,
            stale: false,
        });
        let (object, plan) = (log.put("out/a.o"), log.put("out/plan"));
        log.action("out/all", "@maestro//tar", &[("in/out/a.o", object), ("in/out/plan", plan)]);
        log.action("out/other", "cc", &[("never.c", source)]);

        let build = log.build(&["out/all"]);
        assert_eq!(
            names(&build),
            "answer //p:out/plan m, builtin external/maestro/rules/launch.sh, \
             fetched https://a.example/x, source a.c, toolchain cc"
        );
        assert_eq!(build.steps.len(), 4);
        assert_eq!(build.sandbox, "hermetic/1");
        let subject = build.subjects.first().expect("one subject");
        assert_eq!(subject.digests.last(), Some(&DigestFunction::Sha256.digest(b"out/all")));
        assert_eq!(build.incomplete, ["the times of the invocation are no longer known"]);
        let text = statement(&build).to_string();
        assert!(text.contains(r#""attestation":"unattested""#), "{text}");
        assert!(!text.contains("never.c"), "{text}");
    }

    #[test]
    fn the_weakest_confinement_is_named() {
        let mut log = Log::new();
        let middle = log.put("out/middle");
        let loose = log.action("out/middle", "cc", &[]);
        loose.parts.salt = r#"{"class":"pure","sandbox":"none/1"}"#.into();
        log.action("out/end", "cc", &[("out/middle", middle)]);
        assert_eq!(log.build(&["out/end"]).sandbox, "none/1");
    }

    #[test]
    fn what_is_not_known_is_said() {
        let mut log = Log::new();
        let recorded = log.action("out/plan", "@maestro//llm", &[]);
        recorded.class = ActionClass::Recorded;
        let build = log.build(&["out/plan", "out/ghost"]);
        assert_eq!(
            build.incomplete,
            [
                "no record tells how `out/ghost` was made",
                "no record tells which answer `//p:out/plan` used",
                "the times of the invocation are no longer known",
            ]
        );
    }
}
