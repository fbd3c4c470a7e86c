//! Rollouts by commits to a real bare repository, raced for, broken off, and attacked.

#[path = "support/far.rs"]
mod far;
#[path = "support/hub.rs"]
mod hub;
#[path = "support/server.rs"]
mod server;
#[path = "support/shop.rs"]
mod shop;

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use far::{Far, Kill, World};
use hub::{APP, Hub};
use maestro_core::run::FailureClass;
use maestro_executor::step::{Effect as _, Reply, Stop};
use serde_json::{Value, json};

#[tokio::test]
async fn a_commit_sets_the_image_and_names_its_key() {
    let hub = Hub::new();
    let before = hub.git(&["rev-parse", "main"]);
    let reply = hub.send("00ff", json!({})).await;
    let Reply::Done(success) = reply else { panic!("{reply:?}") };
    let revision = hub.git(&["rev-parse", "main"]);
    let expected = json!({
        "previous": before, "result": "deployed", "revision": revision, "weight": 100,
    });
    assert_eq!(json!(success.outputs), expected);
    assert_eq!(hub.show("app.yaml"), APP.replace("sha256:00", "sha256:0f"));
    let message = hub.git(&["log", "-1", "--format=%an <%ae>%n%B", "main"]);
    assert_eq!(
        message,
        "Maestro <maestro@localhost>\nRoll out app@sha256:0f to prod\n\n\
         Maestro-Env: prod\nMaestro-Key: 00ff"
    );
    assert!(matches!(hub.send("00ff", json!({})).await, Reply::Done(_)));
    assert_eq!(hub.git(&["rev-parse", "main"]), revision, "the same key is the same commit");
    let left = std::fs::read_dir(hub.folder()).expect("a folder").count();
    assert_eq!(left, 1, "nothing is left beside the repository");
}

#[tokio::test]
async fn writers_that_race_all_get_there() {
    let hub = Hub::new();
    for number in 0..6 {
        hub.commit(&format!("{number}.yaml"), "100644", "image: old\n");
    }
    let sends = (0..6).map(|number| {
        let changes = json!({"path": format!("{number}.yaml"), "subject": format!("v{number}")});
        let hub = &hub;
        async move { hub.send(&format!("a{number}"), changes).await }
    });
    let replies = futures(sends.collect()).await;
    assert!(replies.iter().all(|reply| matches!(reply, Reply::Done(_))), "{replies:?}");
    for number in 0..6 {
        assert_eq!(hub.show(&format!("{number}.yaml")), format!("image: v{number}\n"));
    }
    assert_eq!(hub.subjects().len(), 1 + 6 + 6);
}

/// Waits for all of them, side by side.
async fn futures<T>(all: Vec<impl Future<Output = T>>) -> Vec<T> {
    use std::task::Poll;
    let mut all: Vec<_> = all.into_iter().map(Box::pin).collect();
    let mut done: Vec<Option<T>> = all.iter().map(|_| None).collect();
    std::future::poll_fn(move |context| {
        for (future, done) in all.iter_mut().zip(&mut done) {
            if done.is_none()
                && let Poll::Ready(value) = future.as_mut().poll(context)
            {
                *done = Some(value);
            }
        }
        match done.iter().all(Option::is_some) {
            true => Poll::Ready(done.iter_mut().filter_map(Option::take).collect()),
            false => Poll::Pending,
        }
    })
    .await
}

/// Where git breaks.
#[derive(Clone, Copy, Debug)]
enum Break {
    /// At a call, before it does anything.
    Before(u32),
    /// At a push, after it was heard. Other calls change nothing that anybody sees.
    AfterPush(u32),
}

/// A git that breaks once.
fn breaking_git(folder: &Path, at: Break) -> PathBuf {
    let (program, count) = (folder.join("git.sh"), folder.join("calls").display().to_string());
    let (counted, run, number) = match at {
        Break::Before(number) => ("*", "", number),
        Break::AfterPush(number) => ("push*", "git \"$@\"; ", number),
    };
    let script = format!(
        "#!/bin/sh\ncase \"$*\" in {counted}) echo x >> '{count}'\n\
         if [ \"$(wc -l < '{count}')\" -eq {number} ]; then {run}echo broken >&2; exit 70; fi;; \
         esac\nexec git \"$@\"\n"
    );
    std::fs::write(&program, script).expect("a script");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("a program");
    program
}

/// Runs a canary with a git that breaks everywhere in turn, and settles what is left; answers with
/// the number of breaks.
async fn break_everywhere(bad_from: u64, judge: impl Fn(&Hub, &Far, Reply, Break)) -> u32 {
    let mut points = 0;
    for kind in [Break::Before, Break::AfterPush] {
        let mut number = 1;
        while break_once(kind(number), bad_from, &judge).await {
            number += 1;
            assert!(number < 200, "git is called without end");
        }
        points += number - 1;
    }
    points
}

/// Whether git came to the break.
async fn break_once(at: Break, bad_from: u64, judge: &impl Fn(&Hub, &Far, Reply, Break)) -> bool {
    let (hub, tools) = (Hub::new(), tempfile::tempdir().expect("a folder"));
    let far = Far::start(World::default(), bad_from, Kill::Never);
    let changes = json!({
        "strategy": "canary", "weights": [25, 100],
        "traffic": format!("{}/weight", far.server.url),
        "probe": format!("{}/probe", far.server.url),
    });
    let rollout = hub.rollout(&breaking_git(tools.path(), at));
    let request = rollout.render(&hub.inputs(changes)).expect("a request");
    let mut reply = rollout.send(&request, "00ff", &Stop::new()).await;
    let again = match &reply {
        Reply::Unclear(_) => true,
        Reply::Refused(failure) => failure.class == FailureClass::Infrastructure,
        Reply::Done(_) => false,
    };
    if again {
        reply = shop::settle(&rollout, &request, "00ff").await;
    }
    judge(&hub, &far, reply, at);
    let calls = std::fs::read_to_string(tools.path().join("calls")).unwrap_or_default();
    let (Break::Before(number) | Break::AfterPush(number)) = at;
    calls.lines().count() >= number as usize
}

#[tokio::test]
async fn wherever_git_breaks_there_is_one_commit_and_each_weight_is_set_once() {
    let points = break_everywhere(101, |hub, far, reply, point| {
        assert!(matches!(reply, Reply::Done(_)), "{point:?}: {reply:?}");
        assert_eq!(hub.subjects().len(), 2, "{point:?}");
        assert_eq!(far.world().weights, [25, 100], "{point:?}");
    })
    .await;
    assert!(points > 10, "{points}");
}

#[tokio::test]
async fn wherever_git_breaks_a_rollback_is_whole() {
    let points = break_everywhere(100, |hub, far, reply, point| {
        let Reply::Refused(failure) = reply else { panic!("{point:?}: {reply:?}") };
        assert!(failure.message.starts_with("rolled back"), "{point:?}: {}", failure.message);
        assert_eq!(far.world().weights, [25, 100, 0], "{point:?}");
        assert_eq!(hub.subjects().len(), 3, "{point:?}");
        assert_eq!(hub.show("app.yaml"), APP, "{point:?}");
    })
    .await;
    assert!(points > 15, "{points}");
}

fn canary(far: &Far, changes: Value) -> Value {
    let url = &far.server.url;
    let mut inputs = json!({
        "strategy": "canary", "weights": [25, 100],
        "traffic": format!("{url}/weight"), "probe": format!("{url}/probe"),
    });
    for (name, value) in changes.as_object().expect("an object") {
        inputs[name] = value.clone();
    }
    inputs
}

#[tokio::test]
async fn a_rollout_that_ended_well_is_not_climbed_again() {
    let (hub, far) = (Hub::new(), Far::start(World::default(), 101, Kill::Never));
    assert!(matches!(hub.send("00:ff", canary(&far, json!({}))).await, Reply::Done(_)));
    let mark = hub.git(&["rev-parse", "refs/maestro/00-ff"]);
    assert_eq!(mark, hub.git(&["rev-parse", "main"]));
    // The version that came is the one that stays, and others go on from there.
    far.world().weight = 0;
    hub.commit("app.yaml", "100644", "image: app@sha256:77\nreplicas: 2\n");
    let again = hub.send("00:ff", canary(&far, json!({}))).await;
    assert!(matches!(again, Reply::Done(_)), "{again:?}");
    assert_eq!(far.world().weights, [25, 100]);
    // A commit that nothing follows says all by itself.
    assert!(matches!(hub.send("01", json!({})).await, Reply::Done(_)));
    assert_eq!(
        hub.git(&["for-each-ref", "--format=%(refname)", "refs/maestro"]),
        "refs/maestro/00-ff"
    );
    hub.commit("app.yaml", "100644", "image: app@sha256:78\nreplicas: 2\n");
    assert!(matches!(hub.send("01", json!({})).await, Reply::Done(_)));
    assert_eq!(hub.show("app.yaml"), "image: app@sha256:78\nreplicas: 2\n");
}

#[tokio::test]
async fn a_version_that_others_took_away_gets_no_more_traffic() {
    let (hub, far) = (Hub::new(), Far::start(World::default(), 101, Kill::Never));
    let inputs = canary(&far, json!({"pause": "1h"}));
    let rollout = hub.rollout(Path::new("git"));
    let request = rollout.render(&hub.inputs(inputs)).expect("a request");
    let stop = Stop::new();
    let cancel = async {
        while far.world().asked_at.is_empty() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    let (reply, ()) = tokio::join!(rollout.send(&request, "00ff", &stop), cancel);
    assert!(matches!(reply, Reply::Unclear(_)), "{reply:?}");
    // What is beside the value may change.
    hub.commit(
        "app.yaml",
        "100644",
        &APP.replace("00", "0f").replace("replicas: 2", "replicas: 3"),
    );
    hub.commit("app.yaml", "100644", "image: app@sha256:77\n");
    let reply = rollout.send(&request, "00ff", &Stop::new()).await;
    let Reply::Unclear(failure) = reply else { panic!("{reply:?}") };
    assert_eq!(failure.message, "`app.yaml` no longer says what this rollout set");
    assert_eq!(far.world().weights, [25]);
}

#[tokio::test]
async fn nothing_that_git_began_is_left_when_the_run_is_cancelled() {
    let (hub, tools) = (Hub::new(), tempfile::tempdir().expect("a folder"));
    let (program, pid) = (tools.path().join("git.sh"), tools.path().join("pid"));
    let shown = pid.display();
    let script = format!(
        "#!/bin/sh\ncase \"$1\" in fetch) sleep 600 & echo $! > '{shown}.new'; \
         mv '{shown}.new' '{shown}'; wait;; esac\nexec git \"$@\"\n"
    );
    std::fs::write(&program, script).expect("a script");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("a program");
    let rollout = hub.rollout(&program);
    let request = rollout.render(&hub.inputs(json!({}))).expect("a request");
    let stop = Stop::new();
    let cancel = async {
        while !pid.exists() {
            tokio::task::yield_now().await;
        }
        stop.cancel();
    };
    let (reply, ()) = tokio::join!(rollout.send(&request, "00ff", &stop), cancel);
    assert!(matches!(reply, Reply::Refused(_)), "{reply:?}");
    let process = format!("/proc/{}/stat", std::fs::read_to_string(&pid).expect("a pid").trim());
    // It is gone, or waits for whoever adopted it.
    let is_gone = || {
        let stat = std::fs::read_to_string(&process).unwrap_or_default();
        stat.is_empty() || stat.contains(") Z ")
    };
    for _ in 0..1_000_000 {
        if is_gone() {
            return;
        }
        std::thread::yield_now();
    }
    panic!("it still runs");
}

#[tokio::test]
async fn a_bad_probe_reverts_the_commit_and_the_weights() {
    let (hub, far) = (Hub::new(), Far::start(World::default(), 25, Kill::Never));
    let changes = json!({
        "strategy": "canary", "traffic": format!("{}/weight", far.server.url),
        "probe": format!("{}/probe", far.server.url),
    });
    let reply = hub.send("00ff", changes.clone()).await;
    let Reply::Refused(failure) = reply else { panic!("{reply:?}") };
    let tip = hub.git(&["rev-parse", "main"]);
    let said = "at 25 %, 1 of 1 answers were bad, the last: status 503";
    assert_eq!(failure.message, format!("rolled back to what was before, as `{tip}`: {said}"));
    assert_eq!(far.world().weights, [5, 25, 0]);
    assert_eq!(hub.show("app.yaml"), APP);
    let rollout = hub.git(&["rev-parse", "main^"]);
    let message = hub.git(&["log", "-1", "--format=%B", "main"]);
    assert_eq!(
        message,
        format!(
            "Revert \"Roll out app@sha256:0f to prod\"\n\nThis reverts commit {rollout}.\n\n\
             Maestro-Env: prod\nMaestro-Reason: {said}\nMaestro-Reverts: 00ff"
        )
    );
    let again = hub.send("00ff", changes).await;
    let Reply::Refused(failure) = again else { panic!("{again:?}") };
    assert_eq!(failure.message, format!("rolled back to what was before, as `{tip}`: {said}"));
    assert_eq!(hub.subjects().len(), 3);
}

#[tokio::test]
async fn keys_files_and_links_that_do_not_fit_are_said() {
    let hub = Hub::new();
    hub.commit("link.yaml", "120000", "/etc/passwd");
    hub.commit("away", "120000", "/etc");
    hub.commit("VERSION", "100755", "v1\n");
    hub.commit("binary.yaml", "100644", "a: 1\n");
    let check = async |changes: Value, part: &str| {
        let reply = hub.send("00ff", changes).await;
        let Reply::Refused(failure) = reply else { panic!("{reply:?}") };
        assert!(failure.message.contains(part), "{}", failure.message);
    };
    check(json!({"path": "link.yaml"}), "symbolic link").await;
    check(json!({"path": "away/passwd.yaml"}), "symbolic link").await;
    check(json!({"path": "VERSION/x.yaml"}), "passes what is no folder").await;
    check(json!({"path": "none.yaml"}), "has no file `none.yaml`").await;
    check(json!({"path": "binary.yaml"}), "has no `image`").await;
    check(json!({"values": {"spec.tag": "x"}}), "has no `spec.tag`").await;
    check(json!({"branch": "other"}), "cannot be reached").await;
    check(json!({"repository": "file:///no/such/repository"}), "cannot be reached").await;
    check(json!({"auth": "token"}), "means nothing to `file`").await;
    let subjects = hub.subjects();
    assert_eq!(subjects.len(), 5, "{subjects:?}");
    // A whole file, whose mode stays.
    assert!(matches!(hub.send("01", json!({"path": "VERSION"})).await, Reply::Done(_)));
    assert_eq!(hub.show("VERSION"), "app@sha256:0f\n");
    assert!(hub.git(&["ls-tree", "main", "VERSION"]).starts_with("100755"));
    assert!(matches!(hub.send("02", json!({"path": "new/VERSION"})).await, Reply::Done(_)));
    assert_eq!(hub.show("new/VERSION"), "app@sha256:0f\n");
}

#[tokio::test]
async fn a_repository_that_says_no_is_believed_and_hooks_of_the_user_do_not_run() {
    let hub = Hub::new();
    let hook = hub.path().join("hooks/pre-receive");
    std::fs::write(&hook, "#!/bin/sh\necho 'frozen until Monday' >&2\nexit 1\n").expect("a hook");
    std::fs::set_permissions(&hook, PermissionsExt::from_mode(0o755)).expect("a program");
    let reply = hub.send("00ff", json!({})).await;
    let Reply::Refused(failure) = reply else { panic!("{reply:?}") };
    assert!(failure.message.contains("frozen until Monday"), "{}", failure.message);
    assert_eq!(hub.subjects(), ["by hand"]);
}

#[tokio::test]
async fn names_cannot_write_trailers() {
    let hub = Hub::new();
    let hostile = json!({"env": "prod\n\nMaestro-Key: 11aa", "subject": "v1\nMaestro-Key: 11aa"});
    assert!(matches!(hub.send("00ff", hostile).await, Reply::Done(_)));
    let keys = ["log", "-1", "--format=%(trailers:key=Maestro-Key,valueonly)", "main"];
    assert_eq!(hub.git(&keys), "00ff");
}

#[tokio::test]
async fn a_token_goes_to_the_server_that_was_named_and_no_further() {
    let other = server::Server::start(|_| server::Say::status(200));
    let to = format!("Location: {}/info/refs", other.url);
    let server =
        server::Server::start(move |_| server::Say::Answer(302, vec![to.clone()], String::new()));
    let changes = json!({"repository": format!("{}/a.git", server.url), "auth": "token"});
    let reply = Hub::new().send("00ff", changes).await;
    let Reply::Refused(failure) = reply else { panic!("{reply:?}") };
    assert!(failure.message.contains("cannot be reached"), "{}", failure.message);
    assert!(!failure.message.contains("s3cret"), "{}", failure.message);
    let seen = server.seen();
    // x-access-token:s3cret
    let basic = "Basic eC1hY2Nlc3MtdG9rZW46czNjcmV0";
    assert!(!seen.is_empty());
    assert!(seen.iter().all(|s| s.headers.get("authorization").is_some_and(|a| a == basic)));
    assert!(other.seen().is_empty());
}
