//! What executions leave in the action cache, and what they take from it.

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use tonic::Code;

use super::super::action_cache::{get, update};
use super::super::peer::Peer;
use super::super::verdict::{Outcome, ensure, good, policy, refused, same, same_bytes};
use super::{Job, execute, finished, lifecycle, offers, output};

/// A04, the half of executions: a lookup that is skipped repairs a poisoned entry.
pub(in super::super) async fn skipped_lookup(peer: &Peer) -> Outcome {
    let job = Job::shell(peer, "echo right > out.txt").outputs(&["out.txt"]);
    let action = job.upload(peer).await?;
    let poison = peer.stored(100).await?;
    let file = reapi::OutputFile {
        path: "out.txt".to_owned(),
        digest: Some(poison.wire()),
        ..Default::default()
    };
    let metadata = reapi::ExecutedActionMetadata { worker: "poison".into(), ..Default::default() };
    let result = reapi::ActionResult {
        output_files: vec![file],
        execution_metadata: Some(metadata),
        ..Default::default()
    };
    good("a poisoned result", update(peer, &action, result).await)?;
    let run = execute(peer, &action, |request| request.skip_cache_lookup = true).await;
    let run = finished(good("an execution that skips the cache", run)?)?;
    ensure(!run.response.cached_result, || {
        "an execution that skips the cache: expected a run, got a cached result".to_owned()
    })?;
    same_bytes("its output", &output(peer, &run.result()?, "out.txt").await?, b"right\n")?;
    let found = good("the result afterwards", get(peer, &action, |_| {}).await)?;
    match output(peer, &found, "out.txt").await? == b"right\n" {
        true => Ok(()),
        false => Err(policy("an execution that skips the cache leaves the earlier result there")),
    }
}

/// A05, the half of executions.
pub(in super::super) async fn uncached(peer: &Peer) -> Outcome {
    let mut job = Job::shell(peer, "exit 0");
    job.action.do_not_cache = true;
    let action = job.upload(peer).await?;
    for _ in 0..2 {
        let run = finished(good("`Execute`", execute(peer, &action, |_| {}).await)?)?;
        run.result()?;
        same("`cached_result`", &run.response.cached_result, &false)?;
    }
    let found = get(peer, &action, |_| {}).await;
    refused("the result of an action that is not to be cached", &[Code::NotFound], found)
}

/// A07.
pub(in super::super) async fn errors_uncached(peer: Peer) -> Outcome {
    offers(&peer)?;
    let (action, finished) = lifecycle::timed_out(&peer).await?;
    ensure(finished.status().code != 0, || {
        "an action above its time limit: expected an error, got success".to_owned()
    })?;
    let found = get(&peer, &action, |_| {}).await;
    refused("the result of an action that ended in an error", &[Code::NotFound], found)
}
