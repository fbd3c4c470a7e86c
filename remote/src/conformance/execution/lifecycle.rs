//! How executions begin, go on and end: errors, stages, waiting, time limits, priorities, times.

use bazel_remote_apis::build::bazel::remote::execution::v2 as reapi;
use bazel_remote_apis::google::longrunning::operation;
use bazel_remote_apis::google::protobuf::{Duration, Timestamp};
use reapi::execution_stage::Value as Stage;
use tonic::{Code, Status};

use super::super::content::{Blob, unique};
use super::super::peer::{Peer, bounded};
use super::super::verdict::{
    Outcome, Verdict, ensure, failed, good, name, not_offered, policy, refused, same,
};
use super::{Finished, Job, all, execute, finished, offers, stages, stdout};

/// More than any server allows, in seconds.
const TEN_YEARS: i64 = 10 * 365 * 24 * 3600;

/// E01.
pub(in super::super) async fn errors(peer: Peer) -> Outcome {
    offers(&peer)?;
    let failing = Job::shell(&peer, "exit 3").run(&peer).await?;
    same("the exit code of a command that fails", &failing.result()?.exit_code, &3)?;
    let unknown = Blob::random(peer.function, 100);
    error_in_place("an action that is not there", execute(&peer, &unknown, |_| {}).await)?;
    let garbage = peer.stored(100).await?;
    error_in_place("an action that is none", execute(&peer, &garbage, |_| {}).await)
}

type Operations = Vec<bazel_remote_apis::google::longrunning::Operation>;

/// An error is the status of the call, or that of the response; never that of the operation.
fn error_in_place(what: &str, answer: Result<Operations, Status>) -> Outcome {
    let operations = match answer {
        Err(status) if status.code() == Code::DeadlineExceeded => {
            return Err(failed(format!("{what}: expected an error, got no end")));
        }
        Err(_) => return Ok(()),
        Ok(operations) => operations,
    };
    let misplaced = |operation: &bazel_remote_apis::google::longrunning::Operation| {
        matches!(operation.result, Some(operation::Result::Error(_)))
    };
    ensure(!operations.iter().any(misplaced), || {
        format!("{what}: expected no `Operation.error`, got one")
    })?;
    let code = finished(operations)?.status().code;
    ensure(code != 0, || format!("{what}: expected an error, got success"))
}

/// E03.
pub(in super::super) async fn stage(peer: Peer) -> Outcome {
    offers(&peer)?;
    let finished = Job::shell(&peer, "exit 0").run(&peer).await?;
    let told = stages(&finished.operations)?;
    for (stage, done) in &told {
        ensure((*stage == Stage::Completed as i32) == *done, || {
            format!("expected COMPLETED where it is done and nowhere else, got {told:?}")
        })?;
    }
    let early = finished.operations.iter().rev().skip(1).any(|operation| operation.done);
    ensure(!early, || "expected nothing after the operation that is done, got more".to_owned())
}

/// E04.
pub(in super::super) async fn waiting(peer: Peer) -> Outcome {
    offers(&peer)?;
    let request = |name: String| reapi::WaitExecutionRequest { name };
    let mut client = peer.executions();
    let unknown =
        bounded(async { all(client.wait_execution(request(unique())).await?.into_inner()).await });
    refused("a wait for what nobody began", &[Code::NotFound], unknown.await)?;
    let action = Job::shell(&peer, "sleep 2; echo waited").upload(&peer).await?;
    let request_of_it = reapi::ExecuteRequest {
        instance_name: peer.instance(),
        action_digest: Some(action.wire()),
        digest_function: peer.function_value(),
        inline_stdout: true,
        ..Default::default()
    };
    let first = bounded(async {
        let mut stream = peer.executions().execute(request_of_it).await?.into_inner();
        stream.message().await
    });
    let first = good("the first message of `Execute`", first.await)?;
    let first = first.ok_or_else(|| failed("`Execute`: expected a message, got none"))?;
    // The stream is gone by now, as it is for a client that lost its connection.
    let waited = bounded(async {
        all(client.wait_execution(request(first.name)).await?.into_inner()).await
    });
    let finished = finished(good("`WaitExecution`", waited.await)?)?;
    same("standard output", &stdout(&peer, &finished.result()?).await?, &"waited\n".to_owned())
}

/// E05.
pub(in super::super) async fn time_limit(peer: Peer) -> Outcome {
    offers(&peer)?;
    let finished = timed_out(&peer).await?.1;
    let code = Code::from(finished.status().code);
    ensure(code == Code::DeadlineExceeded, || {
        format!("an action above its limit: expected DEADLINE_EXCEEDED, got {}", name(code))
    })?;
    let partial = match &finished.response.result {
        Some(result) => stdout(&peer, result).await?,
        None => String::new(),
    };
    let mut long = Job::shell(&peer, "exit 0");
    long.action.timeout = Some(Duration { seconds: TEN_YEARS, nanos: 0 });
    let action = long.upload(&peer).await?;
    let taken = match execute(&peer, &action, |_| {}).await {
        Err(_) => false,
        Ok(operations) => super::finished(operations)?.status().code == 0,
    };
    if partial != "partial\n" {
        return Err(policy("what was written before the limit is not given back"));
    }
    match taken {
        false => Ok(()),
        true => Err(policy("a time limit of ten years is taken: there is no largest one")),
    }
}

/// Runs an action beyond its limit of a second.
pub(super) async fn timed_out(peer: &Peer) -> Result<(Blob, Finished), Verdict> {
    let mut job = Job::shell(peer, "echo partial; sleep 15; echo late");
    job.action.timeout = Some(Duration { seconds: 1, nanos: 0 });
    let action = job.upload(peer).await?;
    let operations = good("`Execute`", execute(peer, &action, |_| {}).await)?;
    Ok((action, finished(operations)?))
}

/// E06.
pub(in super::super) async fn priority(peer: Peer) -> Outcome {
    offers(&peer)?;
    let execution = peer.capabilities.execution_capabilities.clone().unwrap_or_default();
    let ranges = execution.execution_priority_capabilities.unwrap_or_default().priorities;
    let Some(range) = ranges.first() else {
        return Err(not_offered("no `execution_priority_capabilities` are announced"));
    };
    ensure(range.min_priority <= range.max_priority, || {
        format!("expected a range, got {} to {}", range.min_priority, range.max_priority)
    })?;
    let action = Job::shell(&peer, "exit 0").upload(&peer).await?;
    let priority = range.min_priority;
    let answer = execute(&peer, &action, |request| {
        request.execution_policy = Some(reapi::ExecutionPolicy { priority });
    });
    finished(good("an action with a priority", answer.await)?)?.result().map(|_| ())
}

/// E13.
pub(in super::super) async fn times(peer: Peer) -> Outcome {
    offers(&peer)?;
    let result = Job::shell(&peer, "sleep 1").succeed(&peer).await?;
    let Some(times) = result.execution_metadata else {
        return Err(policy("results have no `execution_metadata`"));
    };
    let phases = [
        ("queued", &times.queued_timestamp),
        ("worker_start", &times.worker_start_timestamp),
        ("input_fetch_start", &times.input_fetch_start_timestamp),
        ("input_fetch_completed", &times.input_fetch_completed_timestamp),
        ("execution_start", &times.execution_start_timestamp),
        ("execution_completed", &times.execution_completed_timestamp),
        ("output_upload_start", &times.output_upload_start_timestamp),
        ("output_upload_completed", &times.output_upload_completed_timestamp),
        ("worker_completed", &times.worker_completed_timestamp),
    ];
    let told: Vec<(&str, (i64, i32))> =
        phases.iter().filter_map(|(name, at)| Some((*name, point(at.as_ref()?)))).collect();
    for (earlier, later) in told.iter().zip(told.iter().skip(1)) {
        ensure(earlier.1 <= later.1, || {
            format!("expected `{}` before `{}`, got it after", earlier.0, later.0)
        })?;
    }
    if let (Some(start), Some(end)) =
        (&times.execution_start_timestamp, &times.execution_completed_timestamp)
    {
        let seconds = end.seconds - start.seconds;
        ensure((0..15).contains(&seconds), || {
            format!("the execution of a second: expected about 1 s, got {seconds} s")
        })?;
    }
    if told.len() < phases.len() {
        return Err(policy(format!("{} of {} times are told", told.len(), phases.len())));
    }
    Ok(())
}

fn point(time: &Timestamp) -> (i64, i32) {
    (time.seconds, time.nanos)
}

/// E14.
pub(in super::super) async fn request_metadata(peer: Peer) -> Outcome {
    offers(&peer)?;
    // Every call of this suite carries the header; that it is logged cannot be seen from here.
    Job::shell(&peer, "exit 0").succeed(&peer).await.map(|_| ())
}
