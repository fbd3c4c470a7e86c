//! What is appended is read again; damage ends the log there and nowhere else.

use super::*;
use maestro_core::DigestFunction;
use maestro_core::key::InputPart;

/// A compile-like action: inputs are (path, content), the output's content is `made`.
pub(crate) fn action(
    identity: &str,
    invocation: &str,
    inputs: &[(&str, &str)],
    made: &str,
) -> ActionRecord {
    let digest = |text: &str| DigestFunction::Blake3.digest(text.as_bytes());
    let file = |text: &str| InputPart::File { digest: digest(text), executable: false };
    let parts = KeyParts {
        arguments: vec!["/usr/bin/cc".to_owned()],
        environment: Vec::new(),
        outputs: vec![identity.to_owned()],
        platform: Vec::new(),
        timeout_ms: None,
        do_not_cache: false,
        salt: "{}".to_owned(),
        inputs: inputs.iter().map(|(p, text)| ((*p).to_owned(), file(text))).collect(),
        toolchains: Vec::new(),
    };
    let key = postcard::to_stdvec(&parts).expect("plain data serializes");
    let output = RecordedOutput {
        path: identity.to_owned(),
        digest: digest(made),
        tree: false,
        executable: false,
    };
    ActionRecord {
        identity: identity.to_owned(),
        label: Label::new("", "p", "t").expect("valid"),
        mnemonic: "CppCompile".to_owned(),
        class: ActionClass::Pure,
        key: ActionKey(DigestFunction::Blake3.digest(&key)),
        parts,
        outputs: vec![output],
        outcome: Outcome::Executed,
        invocation_id: invocation.to_owned(),
        start_unix_ms: 1,
        duration_ms: 2,
        cpu_ms: 3,
        memory_bytes: 4,
        cost_usd_micros: 0,
        worker: "local".to_owned(),
        record: None,
    }
}

fn invocation(id: &str) -> Entry {
    Entry::Invocation(InvocationRecord {
        id: id.to_owned(),
        command: "build".to_owned(),
        patterns: vec!["//p".to_owned()],
        start_unix_ms: 1,
        end_unix_ms: 2,
        exit_code: 0,
        counts: ActionCounts::default(),
    })
}

#[test]
fn only_deltas_are_appended_and_two_states_are_kept() {
    let folder = tempfile::tempdir().expect("a temp dir");
    let append = |entries: Vec<Entry>| {
        let log = BuildLog::open(folder.path()).expect("absent is no error");
        log.append(entries).expect("writable").entries
    };
    let first = action("o", "1", &[("a.cc", "old")], "x");
    assert_eq!(append(vec![Entry::Action(first.clone()), invocation("1")]), 2);

    let same = ActionRecord {
        invocation_id: "2".to_owned(),
        outcome: Outcome::Cached,
        duration_ms: 99,
        ..first.clone()
    };
    let size = || std::fs::metadata(folder.path().join(FILE)).expect("there").len();
    let before = size();
    assert_eq!(append(vec![Entry::Action(same)]), 0);
    assert_eq!(size(), before);

    let second = action("o", "3", &[("a.cc", "new")], "y");
    let failed = ActionRecord {
        outcome: Outcome::Failed,
        outputs: Vec::new(),
        ..action("o", "4", &[("a.cc", "bad")], "")
    };
    assert_eq!(append(vec![Entry::Action(second.clone()), Entry::Action(failed.clone())]), 2);
    let log = BuildLog::open(folder.path()).expect("readable");
    assert_eq!(log.current("o"), Some(failed));
    assert_eq!(log.previous("o"), Some(second));
    assert_eq!(log.last_change("o"), Some("4"));
    assert_eq!(log.current("zz"), None);
    assert_eq!(log.invocations().count(), 1);
}

#[test]
fn a_log_cut_at_any_byte_loads_a_prefix_and_goes_on() {
    let folder = tempfile::tempdir().expect("a temp dir");
    let log = BuildLog::open(folder.path()).expect("absent is no error");
    let states: Vec<ActionRecord> =
        (0..3).map(|n| action("o", "1", &[("a", &n.to_string())], "x")).collect();
    log.append(states.iter().cloned().map(Entry::Action)).expect("writable");
    let path = folder.path().join(FILE);
    let good = std::fs::read(&path).expect("readable");
    for cut in 0..good.len() {
        std::fs::write(&path, &good[..cut]).expect("writable");
        let log = BuildLog::open(folder.path()).expect("readable");
        let current = log.current("o");
        assert!(current.is_none() || states[..2].contains(current.as_ref().expect("some")));
        let last = Entry::Action(states[2].clone());
        assert_eq!(log.append([last]).expect("writable").entries, 1, "after a cut at {cut}");
        let log = BuildLog::open(folder.path()).expect("readable");
        assert_eq!(log.current("o").as_ref(), Some(&states[2]));
        assert_eq!(log.previous("o"), current);
    }
}

#[test]
fn a_bloated_log_is_rewritten_without_loss() {
    let folder = tempfile::tempdir().expect("a temp dir");
    let large = "x".repeat(200);
    let inputs: Vec<(String, &str)> = (0..200).map(|n| (format!("{large}/{n}"), "")).collect();
    for round in 0..100 {
        let text = round.to_string();
        let mut inputs: Vec<(&str, &str)> =
            inputs.iter().map(|(path, text)| (path.as_str(), *text)).collect();
        inputs.push(("z", &text));
        let record = action("o", &text, &inputs, &text);
        let log = BuildLog::open(folder.path()).expect("absent is no error");
        log.append([Entry::Action(record), invocation(&text)]).expect("writable");
    }
    let size = std::fs::metadata(folder.path().join(FILE)).expect("there").len();
    assert!(size < 2 * COMPACT_BYTES_MIN, "{size}");
    let log = BuildLog::open(folder.path()).expect("readable");
    assert_eq!(log.last_change("o"), Some("99"));
    assert_eq!(log.previous("o").expect("kept").invocation_id, "98");
    assert_eq!(log.invocations().count(), 100);
    let last = log.invocations().next_back().expect("kept");
    assert_eq!(last.id, "99");
}
