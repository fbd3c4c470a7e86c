//! What a build that has nothing to do reads: one file, checked by asking for stat signatures.
//!
//! A snapshot is written at the end of a successful build, one for each request. It holds
//! everything that the build depended on: build files and globbed folders, environment variables
//! and parameters with their values, source files, toolchains, and the requested outputs as they
//! lie on disk; and, as text that this module does not look into, what the command line prints
//! about them. If all of it is still as it was, the request is done: nothing is evaluated, no
//! database and no `.star` file is opened, and nothing is read but files whose signature was racy.
//!
//! | part | checked by |
//! |---|---|
//! | request (command, patterns, options, Maestro's build) | the file's name |
//! | environment variables, parameters | comparing values |
//! | files, folders, sources, outputs | [`FactTable`], two threads |
//! | toolchains | the list file of each, a [`FactTable`] over `/` |
//!
//! A missing, damaged or outdated snapshot is never an error: the build then does its usual work.
//! Invariant: a check writes nothing.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use maestro_cas::StatSignature;
use maestro_core::host::FileType;
use maestro_core::{Digest, Node};
use rkyv::rancor;
use rustix::fs::{AtFlags, CWD, statat};

use super::facts::{
    Content, Fact, FactTable, PlainDigest, Signature, is_racy_output, now_ns, to_archive,
};
use super::listing::type_code;
use super::sealed_file::{self, Format, Sealed};
use super::toolchain::ToolchainList;

const FOLDER: &str = "snapshots";
const FORMAT: Format = Format { magic: *b"MAESNAP\0", version: 1 };
/// Most snapshots that one workspace keeps; the oldest go first.
const SNAPSHOTS_MAX: usize = 32;

/// What was asked for. Two equal requests share a snapshot.
#[derive(Clone, Debug)]
pub struct SnapshotRequest<'a> {
    /// The command, such as `build`.
    pub command: &'a str,
    /// The target patterns in order.
    pub patterns: &'a [String],
    /// Every option that can change the result, in a fixed order.
    pub options: &'a [String],
    /// What tells one build of Maestro from another.
    pub maestro_build: &'a str,
}

impl SnapshotRequest<'_> {
    /// The file that holds the snapshot of this request.
    pub fn path(&self, state_dir: &Path) -> PathBuf {
        let Self { command, patterns, options, maestro_build } = self;
        let mut hasher = blake3::Hasher::new();
        let mut add = |texts: &[&str]| {
            hasher.update(&(texts.len() as u64).to_le_bytes());
            for text in texts {
                hasher.update(&(text.len() as u64).to_le_bytes());
                hasher.update(text.as_bytes());
            }
        };
        add(&[command, maestro_build]);
        add(&patterns.iter().map(String::as_str).collect::<Vec<_>>());
        add(&options.iter().map(String::as_str).collect::<Vec<_>>());
        let name: String = hasher.finalize().to_hex().chars().take(32).collect();
        state_dir.join(FOLDER).join(name)
    }
}

/// A requested output as it lies on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotOutput {
    /// The path below the workspace.
    pub path: String,
    /// What stands there; a tree stands for an empty folder, other trees are listed file by file.
    pub node: Node,
}

/// A toolchain that the build used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SnapshotToolchain {
    /// Its list file: [`super::toolchain::ResolvedToolchain::list_path`].
    pub list: PathBuf,
    /// The digest of its tree.
    pub root: Digest,
}

/// Everything that a snapshot is made of.
#[derive(Clone, Debug, Default)]
pub struct SnapshotContent {
    /// What evaluation saw, what sources were read, other files such as the lock.
    pub facts: Vec<(String, Fact)>,
    /// Environment variables that were read, with their values.
    pub env: Vec<(String, Option<String>)>,
    /// Parameters that were read, with their values.
    pub params: Vec<(String, Option<String>)>,
    /// Toolchains that were used.
    pub toolchains: Vec<SnapshotToolchain>,
    /// Requested outputs, which lie on disk now.
    pub outputs: Vec<SnapshotOutput>,
    /// Text that the command line needs to report the request as done.
    pub payload: String,
}

/// Why a request is not known to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stale {
    /// A file or folder is not as it was; the path is relative to the workspace.
    Path(String),
    /// A file of a toolchain, or the toolchain as a whole, is not as it was.
    Toolchain(String),
    /// An environment variable has another value.
    Env(String),
    /// A parameter has another value.
    Param(String),
}

/// Why a snapshot was not read or written.
#[derive(Debug, thiserror::Error)]
#[error("cannot access `{}`", .path.display())]
pub struct SnapshotError {
    /// The file.
    pub path: PathBuf,
    /// The system's reason.
    #[source]
    pub source: io::Error,
}

#[derive(rkyv::Archive, rkyv::Serialize, rkyv::Deserialize)]
struct Stored {
    facts: FactTable,
    env: Vec<(String, Option<String>)>,
    params: Vec<(String, Option<String>)>,
    toolchains: Vec<(String, PlainDigest)>,
    payload: String,
}

/// A whole snapshot that was read, checked against damage but not yet against the world.
#[derive(Debug)]
pub struct Snapshot {
    sealed: Sealed,
    opened_at_ns: i64,
}

impl Snapshot {
    /// Reads a snapshot, or `None` where there is none that can be used.
    pub fn open(path: &Path) -> Result<Option<Self>, SnapshotError> {
        let opened_at_ns = now_ns();
        let sealed = sealed_file::read(path, FORMAT)
            .map_err(|source| SnapshotError { path: path.to_owned(), source })?;
        let usable = |sealed: &Sealed| {
            rkyv::access::<ArchivedStored, rancor::Error>(sealed.payload()).is_ok()
        };
        Ok(sealed.filter(usable).map(|sealed| Self { sealed, opened_at_ns }))
    }

    /// The text that the command line stored.
    pub fn payload(&self) -> &str {
        self.stored().payload.as_str()
    }

    /// Finds out whether everything is as it was. `env` and `params` give the values of now.
    pub fn check(
        &self,
        workspace_root: &Path,
        env: &dyn Fn(&str) -> Option<String>,
        params: &dyn Fn(&str) -> Option<String>,
    ) -> Result<(), Stale> {
        let stored = self.stored();
        let changed = |list: &rkyv::vec::ArchivedVec<_>, now: &dyn Fn(&str) -> Option<String>| {
            changed_value(list.as_slice(), now)
        };
        if let Some(name) = changed(&stored.env, env) {
            return Err(Stale::Env(name));
        }
        if let Some(name) = changed(&stored.params, params) {
            return Err(Stale::Param(name));
        }
        match stored.facts.first_change(workspace_root) {
            Ok(None) => {}
            Ok(Some(path)) => return Err(Stale::Path(path)),
            Err(_) => return Err(Stale::Path(String::new())),
        }
        for toolchain in stored.toolchains.iter() {
            check_toolchain(toolchain.0.as_str(), toolchain.1.plain())?;
        }
        Ok(())
    }

    /// To be called once [`Self::check`] held: writes the snapshot again without the marks of racy
    /// files that were read and are old by now, so that the next check does not read them.
    /// Does nothing where there are none, which is so from the second time on.
    ///
    /// A build that writes the same snapshot meanwhile may lose: facts that no longer hold are
    /// found by the next check, as in any old snapshot.
    pub fn settle(&self, path: &Path) -> Result<(), SnapshotError> {
        if !self.stored().facts.has_racy() {
            return Ok(());
        }
        let Ok(mut stored) = rkyv::deserialize::<Stored, rancor::Error>(self.stored()) else {
            return Ok(());
        };
        if !stored.facts.settle(self.opened_at_ns) {
            return Ok(());
        }
        sealed_file::write(path, FORMAT, &to_archive(&stored))
            .map_err(|source| SnapshotError { path: path.to_owned(), source })
    }

    fn stored(&self) -> &ArchivedStored {
        rkyv::access::<ArchivedStored, rancor::Error>(self.sealed.payload())
            .expect("`open` checked the same bytes")
    }
}

type ArchivedValue = rkyv::tuple::ArchivedTuple2<
    rkyv::string::ArchivedString,
    rkyv::option::ArchivedOption<rkyv::string::ArchivedString>,
>;

fn changed_value(list: &[ArchivedValue], now: &dyn Fn(&str) -> Option<String>) -> Option<String> {
    let differs = |pair: &&ArchivedValue| now(pair.0.as_str()).as_deref() != pair.1.as_deref();
    list.iter().find(differs).map(|pair| pair.0.as_str().to_owned())
}

fn check_toolchain(list: &str, root: PlainDigest) -> Result<(), Stale> {
    let stale = || Stale::Toolchain(list.to_owned());
    let list = ToolchainList::open(Path::new(list)).ok().flatten().ok_or_else(stale)?;
    if list.root() != root.into() {
        return Err(stale());
    }
    match list.first_change() {
        Ok(None) => Ok(()),
        Ok(Some(path)) => Err(Stale::Toolchain(path)),
        Err(_) => Err(stale()),
    }
}

/// Writes the snapshot of a request that is done, and drops the oldest ones beyond the limit.
pub fn write_snapshot(
    request: &SnapshotRequest<'_>,
    state_dir: &Path,
    workspace_root: &Path,
    content: SnapshotContent,
) -> Result<(), SnapshotError> {
    let path = request.path(state_dir);
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| SnapshotError { path, source }
    };
    let folder = state_dir.join(FOLDER);
    fs::create_dir_all(&folder).map_err(at(&folder))?;
    let SnapshotContent { mut facts, env, params, toolchains, outputs, payload } = content;
    for output in outputs {
        let file = workspace_root.join(&output.path);
        let fact = output_fact(&file, output.node).map_err(at(&file))?;
        facts.push((output.path, fact));
    }
    let toolchains = toolchains
        .into_iter()
        .map(|SnapshotToolchain { list, root }| {
            // The cache's path is UTF-8 wherever it is given as text; another one makes a list
            // that is never found, hence a build that checks for itself.
            (list.to_string_lossy().into_owned(), root.into())
        })
        .collect();
    let stored = Stored { facts: FactTable::new(facts), env, params, toolchains, payload };
    sealed_file::write(&path, FORMAT, &to_archive(&stored)).map_err(at(&path))?;
    sweep(&folder).map_err(at(&folder))
}

/// What lies on disk for an output that was just written, or was seen to be up to date.
fn output_fact(file: &Path, node: Node) -> io::Result<Fact> {
    let digest = match node {
        Node::File { digest, executable: _ } => digest,
        Node::Symlink { target } => return Ok(Fact::Link { target }),
        Node::Tree { root: _ } => return Ok(Fact::Type(type_code(FileType::Directory))),
    };
    let seen_at_ns = now_ns();
    let signature = StatSignature::of_stat(&statat(CWD, file, AtFlags::empty())?);
    // A file of another size was changed since it was written; hashing it will tell.
    let racy = signature.size != digest.size || is_racy_output(&signature, seen_at_ns);
    let signature = Signature::from(&signature);
    Ok(Fact::Content(Content { signature, racy, digest: digest.into() }))
}

fn sweep(folder: &Path) -> io::Result<()> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let modified = entry.metadata().and_then(|metadata| metadata.modified());
        files.push((modified.unwrap_or(SystemTime::UNIX_EPOCH), entry.path()));
    }
    files.sort();
    let surplus = files.len().saturating_sub(SNAPSHOTS_MAX);
    for (_, path) in files.into_iter().take(surplus) {
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::workspace::host::{HostOptions, WorkspaceHost};
    use maestro_core::DigestFunction;
    use maestro_core::host::Host;

    struct Fixture {
        folder: tempfile::TempDir,
    }

    impl Fixture {
        /// A workspace with a build file and an output, and the snapshot of a build of it.
        fn new() -> Self {
            let folder = tempfile::tempdir().expect("a temp dir");
            let fixture = Self { folder };
            for path in ["ws/maestro.star", "ws/maestro-out/o", "state/x"] {
                let path = fixture.folder.path().join(path);
                fs::create_dir_all(path.parent().expect("has one")).expect("writable");
                fs::write(path, "text").expect("writable");
            }
            let host = WorkspaceHost::new(&fixture.root(), HostOptions::default()).expect("there");
            let path = maestro_core::RelPath::new("maestro.star").expect("valid");
            host.read(&path).expect("readable");
            host.list(None).expect("readable");
            let digest = DigestFunction::Blake3.digest(b"text");
            let node = Node::File { digest, executable: false };
            let content = SnapshotContent {
                facts: host.take_observations(),
                env: vec![("SET".into(), Some("1".into())), ("UNSET".into(), None)],
                params: vec![("mode".into(), Some("fast".into()))],
                toolchains: Vec::new(),
                outputs: vec![SnapshotOutput { path: "maestro-out/o".into(), node }],
                payload: "{\"targets\":[]}".into(),
            };
            fixture.write(&fixture.request(&["//a".to_owned()]), content);
            fixture
        }

        fn root(&self) -> PathBuf {
            self.folder.path().join("ws")
        }

        fn state(&self) -> PathBuf {
            self.folder.path().join("state")
        }

        fn write(&self, path: &Path, content: SnapshotContent) {
            // The request's own path and the one that is written must agree.
            let patterns = vec!["//a".to_owned()];
            assert_eq!(path, self.request(&patterns));
            write_snapshot(&request(&patterns), &self.state(), &self.root(), content)
                .expect("writable");
        }

        fn request(&self, patterns: &[String]) -> PathBuf {
            request(patterns).path(&self.state())
        }

        fn check(&self) -> Result<(), Stale> {
            let path = self.request(&["//a".to_owned()]);
            let snapshot = Snapshot::open(&path).expect("readable").expect("whole");
            assert_eq!(snapshot.payload(), "{\"targets\":[]}");
            let env = |name: &str| (name == "SET").then(|| "1".to_owned());
            snapshot.check(&self.root(), &env, &|_| Some("fast".to_owned()))
        }
    }

    fn request(patterns: &[String]) -> SnapshotRequest<'_> {
        SnapshotRequest { command: "build", patterns, options: &[], maestro_build: "1" }
    }

    fn check(edit: impl FnOnce(&Path), expect: Result<(), Stale>) {
        let fixture = Fixture::new();
        assert_eq!(fixture.check(), Ok(()));
        edit(&fixture.root());
        assert_eq!(fixture.check(), expect);
    }

    #[test]
    fn a_request_is_done_until_something_changes() {
        let path = |path: &str| Err(Stale::Path(path.to_owned()));
        check(|_| {}, Ok(()));
        check(|root| fs::write(root.join("maestro.star"), "x").expect("ok"), path("maestro.star"));
        check(|root| fs::write(root.join("new"), "x").expect("ok"), path(""));
        let output = "maestro-out/o";
        check(|root| fs::write(root.join(output), "TEXT").expect("ok"), path(output));
        check(|root| fs::remove_file(root.join(output)).expect("ok"), path(output));
        check(|root| fs::remove_dir_all(root.join("maestro-out")).expect("ok"), path(output));
    }

    #[test]
    fn racy_files_are_read_until_they_are_old() {
        let fixture = Fixture::new();
        let path = fixture.request(&["//a".to_owned()]);
        let open = || Snapshot::open(&path).expect("readable").expect("whole");
        let bytes = || fs::read(&path).expect("there");
        let (young, before) = (open(), bytes());
        assert!(young.stored().facts.has_racy());
        young.settle(&path).expect("writable");
        assert_eq!(bytes(), before, "nothing is old enough");
        Snapshot { opened_at_ns: i64::MAX, ..open() }.settle(&path).expect("writable");
        let settled = open();
        assert!(!settled.stored().facts.has_racy());
        assert_eq!(settled.payload(), young.payload());
        let env = |name: &str| (name == "SET").then(|| "1".to_owned());
        let check = || settled.check(&fixture.root(), &env, &|_| Some("fast".to_owned()));
        assert_eq!(check(), Ok(()));
        fs::write(fixture.root().join("maestro.star"), "TEXT").expect("writable");
        assert_eq!(check(), Err(Stale::Path("maestro.star".into())));
    }

    #[test]
    fn values_of_now_are_compared() {
        let fixture = Fixture::new();
        let path = fixture.request(&["//a".to_owned()]);
        let snapshot = Snapshot::open(&path).expect("readable").expect("whole");
        let check = |set: Option<&str>, unset: Option<&str>, mode: &str| {
            let env = |name: &str| match name {
                "SET" => set.map(str::to_owned),
                _ => unset.map(str::to_owned),
            };
            snapshot.check(&fixture.root(), &env, &|_| Some(mode.to_owned()))
        };
        assert_eq!(check(Some("1"), None, "fast"), Ok(()));
        assert_eq!(check(Some("2"), None, "fast"), Err(Stale::Env("SET".into())));
        assert_eq!(check(None, None, "fast"), Err(Stale::Env("SET".into())));
        assert_eq!(check(Some("1"), Some(""), "fast"), Err(Stale::Env("UNSET".into())));
        assert_eq!(check(Some("1"), None, "slow"), Err(Stale::Param("mode".into())));
    }

    #[test]
    fn other_requests_have_other_snapshots() {
        let fixture = Fixture::new();
        let texts = |list: &[&str]| list.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>();
        let (ab, a_b) = (texts(&["//ab"]), texts(&["//a", "b"]));
        assert_ne!(fixture.request(&ab), fixture.request(&a_b));
        let options = SnapshotRequest { patterns: &[], options: &ab, ..request(&[]) };
        assert_ne!(options.path(&fixture.state()), fixture.request(&ab));
        assert!(Snapshot::open(&fixture.request(&ab)).expect("absent is no error").is_none());
    }

    #[test]
    fn a_damaged_snapshot_is_none() {
        let fixture = Fixture::new();
        let path = fixture.request(&["//a".to_owned()]);
        let good = fs::read(&path).expect("there");
        for index in (0..good.len()).step_by(7) {
            let mut bad = good.clone();
            bad[index] ^= 0x10;
            fs::write(&path, &bad).expect("writable");
            assert!(Snapshot::open(&path).expect("readable").is_none(), "byte {index}");
            fs::write(&path, &good[..index]).expect("writable");
            assert!(Snapshot::open(&path).expect("readable").is_none(), "cut at {index}");
        }
        // A whole file whose payload is of another shape.
        sealed_file::write(&path, FORMAT, b"no archive").expect("writable");
        assert!(Snapshot::open(&path).expect("readable").is_none());
    }

    #[test]
    fn the_oldest_snapshots_go_first() {
        let fixture = Fixture::new();
        for number in 0..SNAPSHOTS_MAX + 5 {
            let patterns = vec![format!("//{number}")];
            let content = SnapshotContent::default();
            write_snapshot(&request(&patterns), &fixture.state(), &fixture.root(), content)
                .expect("writable");
        }
        let count = fs::read_dir(fixture.state().join(FOLDER)).expect("there").count();
        assert_eq!(count, SNAPSHOTS_MAX);
        let last = fixture.request(&[format!("//{}", SNAPSHOTS_MAX + 4)]);
        assert!(Snapshot::open(&last).expect("readable").is_some());
    }
}
