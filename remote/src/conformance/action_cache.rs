//! Checks of action results: complete ones alone, inlined contents, what is kept and what is not.

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use prost::Message as _;
use tonic::{Code, Status};

use super::content::{Blob, Described};
use super::execution::{self, caching};
use super::peer::{Peer, bounded};
use super::verdict::{
    Outcome, Verdict, ensure, failed, good, not_offered, policy, refused, same, same_bytes, told,
};

const BLOB_BYTES: usize = 1_000;
/// More than a message may have, in bytes.
const LARGE_BYTES: usize = 5_000_000;

/// A01.
pub(super) async fn completeness(peer: Peer) -> Outcome {
    let unknown = Described::new(peer.function, |_| {});
    let found = get(&peer, &unknown.action, |_| {}).await;
    refused("a result that nobody stored", &[Code::NotFound], found)?;
    offers_updates(&peer)?;
    let whole = Outputs::stored(&peer).await?;
    let described = described(&peer, |_| {}).await?;
    good("a whole result", update(&peer, &described.action, whole.result()).await)?;
    let found = good("a whole result", get(&peer, &described.action, |_| {}).await)?;
    same("its output files", &names(&found), &vec!["out.txt".to_owned()])?;
    same("the digest of its file", &digest_of_file(&found), &Some(whole.file.wire()))?;
    let mut loose = Vec::new();
    for (what, result) in whole.with_gaps(&peer) {
        let described = self::described(&peer, |_| {}).await?;
        if update(&peer, &described.action, result).await.is_err() {
            continue;
        }
        match get(&peer, &described.action, |_| {}).await {
            Err(status) if status.code() == Code::NotFound => {}
            Err(status) => {
                let told = told(&status);
                return Err(failed(format!("without {what}: expected NOT_FOUND, got {told}")));
            }
            Ok(_) => loose.push(what),
        }
    }
    match loose.is_empty() {
        true => Ok(()),
        false => Err(policy(format!("results are given although these are gone: {loose:?}"))),
    }
}

/// Every kind of blob that a result may name.
struct Outputs {
    file: Blob,
    stdout: Blob,
    tree: Blob,
    root: Blob,
}

impl Outputs {
    async fn stored(peer: &Peer) -> Result<Self, Verdict> {
        let [file, stdout, inner] = [(); 3].map(|()| Blob::random(peer.function, BLOB_BYTES));
        let root = folder(&inner);
        let tree = tree_of(peer, &root);
        let root = Blob::message(peer.function, &root);
        let blobs = [file, stdout, tree, root, inner];
        peer.store(&blobs).await?;
        let [file, stdout, tree, root, _] = blobs;
        Ok(Self { file, stdout, tree, root })
    }

    fn result(&self) -> reapi::ActionResult {
        let directory = reapi::OutputDirectory {
            path: "folder".to_owned(),
            tree_digest: Some(self.tree.wire()),
            root_directory_digest: Some(self.root.wire()),
            ..Default::default()
        };
        reapi::ActionResult {
            output_files: vec![output("out.txt", &self.file)],
            output_directories: vec![directory],
            stdout_digest: Some(self.stdout.wire()),
            execution_metadata: Some(metadata()),
            ..Default::default()
        }
    }

    /// The same result, each time with one name of what is not there.
    fn with_gaps(&self, peer: &Peer) -> Vec<(&'static str, reapi::ActionResult)> {
        let absent = Blob::random(peer.function, BLOB_BYTES);
        let changed = |change: &dyn Fn(&mut reapi::ActionResult)| {
            let mut result = self.result();
            change(&mut result);
            result
        };
        let tree = |digest: &Blob| {
            let digest = digest.wire();
            changed(&|result| {
                for directory in &mut result.output_directories {
                    directory.tree_digest = Some(digest.clone());
                    directory.root_directory_digest = None;
                }
            })
        };
        let hollow = Blob::message(peer.function, &folder(&absent));
        vec![
            ("an output file", changed(&|r| r.output_files.push(output("gone", &absent)))),
            ("standard output", changed(&|r| r.stdout_digest = Some(absent.wire()))),
            ("standard error", changed(&|r| r.stderr_digest = Some(absent.wire()))),
            ("a tree", tree(&absent)),
            (
                "a root directory",
                changed(&|result| {
                    for directory in &mut result.output_directories {
                        directory.tree_digest = None;
                        directory.root_directory_digest = Some(hollow.wire());
                    }
                }),
            ),
        ]
    }
}

fn folder(file: &Blob) -> reapi::Directory {
    let name = "inner.txt".to_owned();
    let node = reapi::FileNode { name, digest: Some(file.wire()), ..Default::default() };
    reapi::Directory { files: vec![node], ..Default::default() }
}

fn tree_of(peer: &Peer, root: &reapi::Directory) -> Blob {
    let tree = reapi::Tree { root: Some(root.clone()), children: Vec::new() };
    Blob::message(peer.function, &tree)
}

fn output(path: &str, blob: &Blob) -> reapi::OutputFile {
    let digest = Some(blob.wire());
    reapi::OutputFile { path: path.to_owned(), digest, ..Default::default() }
}

fn metadata() -> reapi::ExecutedActionMetadata {
    reapi::ExecutedActionMetadata { worker: "conformance".to_owned(), ..Default::default() }
}

fn names(result: &reapi::ActionResult) -> Vec<String> {
    result.output_files.iter().map(|file| file.path.clone()).collect()
}

fn digest_of_file(result: &reapi::ActionResult) -> Option<reapi::Digest> {
    result.output_files.first()?.digest.clone()
}

/// A02.
pub(super) async fn action_first(peer: Peer) -> Outcome {
    offers_updates(&peer)?;
    let known = described(&peer, |_| {}).await?;
    let answer = update(&peer, &known.action, plain()).await;
    let answer = good("a result of an action that is there", answer)?;
    same("the exit code that comes back", &answer.exit_code, &0)?;
    good("the result", get(&peer, &known.action, |_| {}).await)?;
    let unknown = Described::new(peer.function, |_| {});
    match update(&peer, &unknown.action, plain()).await {
        Ok(_) => Err(policy("results of actions that are not there are taken")),
        Err(status) if status.code() == Code::FailedPrecondition => {
            Err(policy("results of actions that are not there are refused"))
        }
        Err(status) => Err(failed(format!(
            "a result of an action that is not there: expected success or FAILED_PRECONDITION, \
             got {}",
            told(&status)
        ))),
    }
}

/// A03.
pub(super) async fn inlining(peer: Peer) -> Outcome {
    offers_updates(&peer)?;
    let [stdout, file] = [(); 2].map(|()| Blob::random(peer.function, BLOB_BYTES));
    let large = Blob::random(peer.function, LARGE_BYTES);
    peer.store(&[stdout.clone(), file.clone(), large.clone()]).await?;
    let described = described(&peer, |_| {}).await?;
    let result = |stdout: &Blob| reapi::ActionResult {
        output_files: vec![output("out.txt", &file)],
        stdout_digest: Some(stdout.wire()),
        execution_metadata: Some(metadata()),
        ..Default::default()
    };
    good("a result", update(&peer, &described.action, result(&stdout)).await)?;
    let bare = good("a result", get(&peer, &described.action, |_| {}).await)?;
    let wanted = get(&peer, &described.action, |request| {
        request.inline_stdout = true;
        request.inline_output_files = vec!["out.txt".to_owned()];
    });
    let wanted = good("a result with contents", wanted.await)?;
    let inlined = |result: &reapi::ActionResult| {
        result.output_files.first().map(|file| file.contents.clone()).unwrap_or_default()
    };
    for (what, got, whole) in [
        ("standard output", &wanted.stdout_raw, &stdout),
        ("an output file", &inlined(&wanted), &file),
    ] {
        if !got.is_empty() {
            same_bytes(&format!("{what} that is inlined"), got, &whole.bytes)?;
        }
    }
    let described = self::described(&peer, |_| {}).await?;
    good("a result with a large output", update(&peer, &described.action, result(&large)).await)?;
    let beyond = get(&peer, &described.action, |request| request.inline_stdout = true).await;
    let beyond = good("a result whose standard output is larger than a message", beyond)?;
    same("its digest", &beyond.stdout_digest, &Some(large.wire()))?;
    match bare.stdout_raw.is_empty() && inlined(&bare).is_empty() {
        true => Ok(()),
        false => Err(policy("contents are inlined for who does not ask")),
    }
}

/// A04.
pub(super) async fn overwriting(peer: Peer) -> Outcome {
    offers_updates(&peer)?;
    let described = described(&peer, |_| {}).await?;
    let [first, second] = [(); 2].map(|()| Blob::random(peer.function, BLOB_BYTES));
    peer.store(&[first.clone(), second.clone()]).await?;
    let result = |blob| reapi::ActionResult {
        output_files: vec![output("out.txt", blob)],
        execution_metadata: Some(metadata()),
        ..Default::default()
    };
    good("a result", update(&peer, &described.action, result(&first)).await)?;
    good("another result", update(&peer, &described.action, result(&second)).await)?;
    let found = good("the result", get(&peer, &described.action, |_| {}).await)?;
    let digest = digest_of_file(&found);
    ensure(digest.is_some(), || "the result: expected its output file, got none".to_owned())?;
    if digest == Some(first.wire()) {
        return Err(policy("the first result stays"));
    }
    same("the digest of the output file", &digest, &Some(second.wire()))?;
    match execution::is_offered(&peer) {
        true => caching::skipped_lookup(&peer).await,
        false => Ok(()),
    }
}

/// A05.
pub(super) async fn do_not_cache(peer: Peer) -> Outcome {
    if execution::is_offered(&peer) {
        caching::uncached(&peer).await?;
    }
    offers_updates(&peer)?;
    let described = described(&peer, |action| action.do_not_cache = true).await?;
    if update(&peer, &described.action, plain()).await.is_err() {
        return Ok(());
    }
    match get(&peer, &described.action, |_| {}).await {
        Err(status) if status.code() == Code::NotFound => Ok(()),
        Err(status) => Err(failed(format!("expected NOT_FOUND, got {}", told(&status)))),
        Ok(_) => Err(policy("a client that stores such a result gets it back")),
    }
}

/// A06.
pub(super) async fn salt(peer: Peer) -> Outcome {
    offers_updates(&peer)?;
    let plain_one = described(&peer, |_| {}).await?;
    let mut salted = reapi::Action::decode(plain_one.action.bytes.as_slice())
        .map_err(|error| failed(format!("cannot read an action: {error}")))?;
    salted.salt = b"conformance".to_vec();
    let salted = Blob::message(peer.function, &salted);
    peer.store(std::slice::from_ref(&salted)).await?;
    good("a result", update(&peer, &plain_one.action, plain()).await)?;
    let other = get(&peer, &salted, |_| {}).await;
    refused("the result of the same action with a salt", &[Code::NotFound], other)
}

/// A08.
pub(super) async fn failures(peer: Peer) -> Outcome {
    offers_updates(&peer)?;
    let described = described(&peer, |_| {}).await?;
    let failure = reapi::ActionResult { exit_code: 1, ..plain() };
    if let Err(status) = update(&peer, &described.action, failure).await {
        return Err(policy(format!(
            "results of actions that failed are refused: {}",
            told(&status)
        )));
    }
    match get(&peer, &described.action, |_| {}).await {
        Err(status) if status.code() == Code::NotFound => {
            Err(policy("results of actions that failed are taken, and not given"))
        }
        Err(status) => Err(failed(format!("expected an answer, got {}", told(&status)))),
        Ok(found) => {
            same("the exit code", &found.exit_code, &1)?;
            Err(policy("results of actions that failed are kept and given"))
        }
    }
}

/// A09.
pub(super) async fn empty_results(peer: Peer) -> Outcome {
    offers_updates(&peer)?;
    let described = described(&peer, |_| {}).await?;
    let empty = reapi::ActionResult::default();
    if let Err(status) = update(&peer, &described.action, empty).await {
        let told = told(&status);
        return Err(policy(format!("a result that says nothing is refused: {told}")));
    }
    let found = good("the result", get(&peer, &described.action, |_| {}).await)?;
    match found.encoded_len() {
        0 => Err(policy("an empty result comes back empty, as if there were none")),
        _ => Ok(()),
    }
}

/// A result without outputs.
fn plain() -> reapi::ActionResult {
    reapi::ActionResult { execution_metadata: Some(metadata()), ..Default::default() }
}

/// An action of which the server has everything.
async fn described(
    peer: &Peer,
    change: impl FnOnce(&mut reapi::Action),
) -> Result<Described, Verdict> {
    let described = Described::new(peer.function, change);
    peer.store(&described.blobs()).await?;
    Ok(described)
}

fn offers_updates(peer: &Peer) -> Outcome {
    let updates = peer.cache().action_cache_update_capabilities;
    match updates.is_some_and(|updates| updates.update_enabled) {
        true => Ok(()),
        false => Err(not_offered("clients may not store results: `update_enabled` is not said")),
    }
}

pub(super) async fn update(
    peer: &Peer,
    action: &Blob,
    result: reapi::ActionResult,
) -> Result<reapi::ActionResult, Status> {
    let request = reapi::UpdateActionResultRequest {
        instance_name: peer.instance(),
        action_digest: Some(action.wire()),
        action_result: Some(result),
        digest_function: peer.function_value(),
        ..Default::default()
    };
    Ok(bounded(peer.results().update_action_result(request)).await?.into_inner())
}

pub(super) async fn get(
    peer: &Peer,
    action: &Blob,
    change: impl FnOnce(&mut reapi::GetActionResultRequest),
) -> Result<reapi::ActionResult, Status> {
    let mut request = reapi::GetActionResultRequest {
        instance_name: peer.instance(),
        action_digest: Some(action.wire()),
        digest_function: peer.function_value(),
        ..Default::default()
    };
    change(&mut request);
    Ok(bounded(peer.results().get_action_result(request)).await?.into_inner())
}
