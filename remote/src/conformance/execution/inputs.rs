//! What actions begin with: inputs, platform, environment, folders, links.

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::{protobuf, rpc};
use prost::Message as _;
use reapi::symlink_absolute_path_strategy::Value as AbsolutePaths;
use tonic::{Code, Status};

use super::super::content::{Blob, unique};
use super::super::peer::Peer;
use super::super::verdict::{Outcome, Verdict, ensure, failed, name, policy, same};
use super::{Job, execute, finished, offers, stdout};
use crate::precondition::PreconditionFailure;

/// How an execution was refused: while it began, or in its response.
struct Refusal {
    code: Code,
    details: Vec<protobuf::Any>,
}

/// Runs what should be refused; `None` where it was not.
async fn refusal(peer: &Peer, action: &Blob) -> Result<Option<Refusal>, Verdict> {
    let status = match execute(peer, action, |_| {}).await {
        Err(status) => return Ok(Some(refusal_of(&status))),
        Ok(operations) => finished(operations)?.status(),
    };
    let refused = status.code != 0;
    Ok(refused.then(|| Refusal { code: Code::from(status.code), details: status.details }))
}

fn refusal_of(status: &Status) -> Refusal {
    let details = rpc::Status::decode(status.details()).unwrap_or_default().details;
    Refusal { code: status.code(), details }
}

/// E02.
pub(in super::super) async fn missing_inputs(peer: Peer) -> Outcome {
    offers(&peer)?;
    let absent = [(); 2].map(|()| Blob::random(peer.function, 1_000));
    let [one, two] = absent.clone();
    let mut job = Job::shell(&peer, "exit 0").file("one", one).file("two", two);
    job.blobs.clear();
    let action = job.upload(&peer).await?;
    let refusal = refusal(&peer, &action).await?;
    let refusal = refusal.ok_or_else(|| failed("inputs that are not there: got success"))?;
    ensure(refusal.code == Code::FailedPrecondition, || {
        format!(
            "inputs that are not there: expected FAILED_PRECONDITION, got {}",
            name(refusal.code)
        )
    })?;
    let of = |any: &protobuf::Any| {
        let named = any.type_url.ends_with("/google.rpc.PreconditionFailure");
        PreconditionFailure::decode(any.value.as_slice()).ok().filter(|_| named)
    };
    let violations = refusal.details.iter().filter_map(of).flat_map(|failure| failure.violations);
    let mut subjects: Vec<String> = violations
        .filter(|violation| violation.kind == "MISSING")
        .map(|violation| violation.subject)
        .collect();
    subjects.sort();
    let segment = match peer.function {
        maestro_core::DigestFunction::Sha256 => "",
        maestro_core::DigestFunction::Blake3 => "blake3/",
    };
    let subject =
        |blob: &Blob| format!("blobs/{segment}{}/{}", blob.digest.hex(), blob.digest.size);
    let mut expected: Vec<String> = absent.iter().map(subject).collect();
    expected.sort();
    same("the subjects of the violations `MISSING`", &subjects, &expected)
}

/// E07.
#[allow(deprecated)] // the field is what the line is about
pub(in super::super) async fn platform(peer: Peer) -> Outcome {
    offers(&peer)?;
    let unknown = reapi::Platform {
        properties: vec![reapi::platform::Property {
            name: "maestro-conformance-unknown".to_owned(),
            value: unique(),
        }],
    };
    let mut preferred = Job::shell(&peer, "exit 0");
    preferred.action.platform = Some(super::platform(&peer).unwrap_or_default());
    preferred.succeed(&peer).await?;
    let mut odd = Job::shell(&peer, "exit 0");
    odd.action.platform = Some(unknown.clone());
    odd.command.platform = Some(unknown);
    let action = odd.upload(&peer).await?;
    match refusal(&peer, &action).await? {
        None => Err(policy("properties that nobody knows are ignored")),
        Some(refusal) if refusal.code == Code::DeadlineExceeded => {
            Err(policy("an action with properties that nobody knows waits for a worker"))
        }
        Some(_) => Ok(()),
    }
}

/// E08.
pub(in super::super) async fn environment(peer: Peer) -> Outcome {
    offers(&peer)?;
    let mut job = Job::shell(&peer, "echo \"$GREETING ${HOME_OF_HOST-none}\"; echo \"${PWD##*/}\"");
    let variable = reapi::command::EnvironmentVariable {
        name: "GREETING".to_owned(),
        value: "hello there".to_owned(),
    };
    job.command.environment_variables.insert(0, variable);
    job.command.working_directory = "inner".to_owned();
    let inner = job.folder(&peer, "inner", &reapi::Directory::default());
    let said = stdout(&peer, &inner.succeed(&peer).await?).await?;
    same("what the action said", &said, &"hello there none\ninner\n".to_owned())?;
    let mut nowhere = Job::shell(&peer, "exit 0");
    nowhere.command.working_directory = "nowhere".to_owned();
    let action = nowhere.upload(&peer).await?;
    match refusal(&peer, &action).await? {
        Some(_) => Ok(()),
        None => Err(policy("a working directory that is not in the input tree is made")),
    }
}

/// E10, the half of inputs.
pub(super) async fn absolute_input(peer: &Peer) -> Outcome {
    let strategy = peer.cache().symlink_absolute_path_strategy;
    let mut job = Job::shell(peer, "exit 0");
    job.root.symlinks.push(link("absolute", "/nowhere/at/all"));
    let action = job.upload(peer).await?;
    let refused = refusal(peer, &action).await?;
    match (AbsolutePaths::try_from(strategy), refused) {
        (Ok(AbsolutePaths::Allowed), Some(refusal)) => Err(failed(format!(
            "an absolute link, which is said to be allowed: expected success, got {}",
            name(refusal.code)
        ))),
        (Ok(AbsolutePaths::Disallowed), None) => {
            Err(failed("an absolute link, which is said to be refused: got success"))
        }
        _ => Ok(()),
    }
}

pub(super) fn link(name: &str, target: &str) -> reapi::SymlinkNode {
    reapi::SymlinkNode { name: name.to_owned(), target: target.to_owned(), ..Default::default() }
}

/// E15.
pub(in super::super) async fn canonical(peer: Peer) -> Outcome {
    offers(&peer)?;
    let [a, b] = [(); 2].map(|()| Blob::random(peer.function, 10));
    let sorted = Job::shell(&peer, "test -f a && test -f b").file("a", a.clone());
    sorted.file("b", b.clone()).succeed(&peer).await?;
    let outside = Job::shell(&peer, "exit 0").file("../outside", a.clone());
    let unsorted = Job::shell(&peer, "exit 0").file("b", b.clone()).file("a", a.clone());
    let twice = Job::shell(&peer, "exit 0").file("a", a).file("a", b);
    let mut taken = Vec::new();
    let odd = [
        ("not in order", unsorted),
        ("with a name twice", twice),
        ("with a name that leads outside", outside),
    ];
    for (what, job) in odd {
        let action = job.upload(&peer).await?;
        if refusal(&peer, &action).await?.is_none() {
            taken.push(what);
        }
    }
    match taken.is_empty() {
        true => Ok(()),
        false => Err(policy(format!("directories are taken {}", taken.join(", ")))),
    }
}
