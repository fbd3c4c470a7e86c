//! What lookups, updates and upkeep do together, over a workspace in a temporary folder.

use std::fs;
use std::path::Path;

use jiff::civil::date;
use maestro_cas::{Store, StoreOptions};
use maestro_core::{ActionClass, DigestFunction, Label, Node};
use serde_json::{Value, json};

use super::fixture::{Script, Step, World, request};
use super::*;
use crate::runner::RunError;

const A: &str = r#"{"tests": ["a"]}"#;
const B: &str = r#"{"tests": ["b"]}"#;
const STORED_A: &str = "{\"tests\":[\"a\"]}\n";
const STORED_B: &str = "{\"tests\":[\"b\"]}\n";

#[test]
fn a_recorded_answer_is_found_again_and_nowhere_else() {
    let world = World::new();
    let step = world.plan("one");
    let records = world.records();
    assert!(records.is_empty());
    let error = world.answer(&records, &step).expect_err("nothing is recorded");
    assert_eq!(
        error,
        "step `plan` of `//p:plan` asks model `m`, which `maestro.lock` does not pin"
    );

    let report = world.record(&[&step], &[A]);
    assert!(report.changed);
    assert_eq!(report.cost_usd_micros, 7);
    let records = world.records();
    assert_eq!(world.answer(&records, &step).as_deref(), Ok(STORED_A));
    let found = world.find(&records, &step, Reach::Lock).expect("recorded");
    assert_eq!((found.saved_usd_micros, found.record.found_in), (7, FoundIn::Lock));
    assert!(!found.record.record.is_attested());
    // Another folder of the cache: the lock alone is enough.
    let root = world.folder.path().join("other");
    let elsewhere = Store::open(StoreOptions { root, function: DigestFunction::Sha256 });
    let elsewhere = elsewhere.expect("an empty store opens");
    let elsewhere = World { folder: tempfile::tempdir().expect("temporary"), store: elsewhere };
    let step = elsewhere.plan("one");
    assert_eq!(elsewhere.answer(&records, &step).as_deref(), Ok(STORED_A));
}

#[test]
fn a_miss_names_step_change_and_mend() {
    let world = World::new();
    world.record(&[&world.plan("one")], &[A]);
    let records = world.records();
    let check = |step: &Step, expect: &str| {
        let error = world.answer(&records, step).expect_err("nothing fits");
        assert!(error.contains(expect), "{error}\ndoes not say\n{expect}");
    };
    let changed = world.plan("two");
    check(
        &changed,
        "step `plan` of `//p:plan` has no recorded answer for its present input: \
         `p/changes.patch` changed since it was recorded on 2026-11-23",
    );
    let hints = world.find(&records, &changed, Reach::Cache).expect_err("nothing").hints();
    assert!(hints.iter().any(|h| h.contains("`maestro lock --update //p:plan`")), "{hints:?}");
    assert!(hints.iter().any(|h| h.contains("restoring `p/changes.patch`")), "{hints:?}");
    let with = |edit: &dyn Fn(&mut Value)| {
        let mut request = request();
        edit(&mut request);
        world.step("plan", request, &[("p/changes.patch", "one"), ("p/new", "n")])
    };
    check(&with(&|r| r["sampling"]["seed"] = json!(43)), "prompt, schema or sampling changed");
    check(&with(&|r| r["model"] = json!("other")), "asks model `other`, which");
    let renamed = |r: &mut Value| {
        r["step"] = json!("generate");
        r["sampling"]["seed"] = json!(43);
    };
    check(&with(&renamed), "step `generate` of `//p:plan` was never recorded");
    check(&with(&|r| r["sample"] = json!(1)), "(sample 1) was never recorded");
    check(
        &with(&|r| r["messages"][1]["content"] = json!([{"context": "p/new"}])),
        "`p/new` was added, `p/changes.patch` was removed",
    );
    assert_eq!(records.asked().len(), 7);
}

#[test]
fn the_key_sees_what_the_far_side_sees() {
    let world = World::new();
    let base = world.plan("one");
    let key = |step: &Step| {
        let question = Question::of(&step.spec, &step.prepared, &world.store).expect("asks");
        question.key("name:x").expect("canonical").to_string()
    };
    let moved = request().to_string().replace("p/changes.patch", "q/moved.patch");
    let moved = serde_json::from_str(&moved).expect("JSON");
    let moved = world.step("renamed", moved, &[("q/moved.patch", "one")]);
    assert_eq!(key(&base), key(&moved));
    // A golden, computed by another program: record keys are a format.
    let golden = "sha256:abc61fc9db3b9c0815ee433f29082e025239343bd51b46692c48ff0126802cbe";
    assert_eq!(key(&base), golden);
    let mut other = request();
    other["step"] = json!("another");
    let other = world.step("plan", other, &[("p/changes.patch", "one")]);
    assert_eq!(key(&base), key(&other));
    assert_ne!(key(&base), key(&world.plan("two")));
}

#[test]
fn malformed_requests_are_the_rules_fault() {
    let world = World::new();
    let check = |edit: &dyn Fn(&mut Value), expect: &str| {
        let mut request = request();
        edit(&mut request);
        let step = world.step("plan", request, &[("p/changes.patch", "one")]);
        let error = Question::of(&step.spec, &step.prepared, &world.store).expect_err(expect);
        assert!(error.to_string().contains(expect), "{error}");
    };
    check(&|r| r["temperature"] = json!(1), "unknown field `temperature`");
    check(&|r| r["sampling"] = json!({"seed": 1}), "missing field `max_tokens`");
    check(&|r| r["sampling"]["max_tokens"] = json!(0), "`sampling.max_tokens` is 0");
    check(&|r| r["sampling"]["temperature"] = json!(-1), "out of range");
    check(&|r| r["sampling"]["top_p"] = json!(1.5), "out of range");
    check(&|r| r["messages"] = json!([]), "`messages`");
    check(&|r| r["messages"][0]["role"] = json!("tool"), "unknown variant `tool`");
    check(&|r| r["schema"] = json!("string"), "neither an object nor null");
    check(&|r| r["step"] = json!(""), "`step` is empty");
    let other = json!([{"context": "../../etc/passwd"}]);
    check(&|r| r["messages"][1]["content"] = other.clone(), "is not an input file");
    let step = world.step("plan", request(), &[("p/changes.patch", "x")]);
    let mut spec = step.spec.clone();
    spec.class = ActionClass::Pure;
    assert!(Question::of(&spec, &step.prepared, &world.store).is_err());
}

#[test]
fn context_that_is_no_text_or_gone_is_said() {
    let world = World::new();
    let step = world.plan("one");
    let digest = step.prepared.tree.entries.iter().find_map(|(path, node)| match node {
        Node::File { digest, .. } if path.as_str() == "in/p/changes.patch" => Some(*digest),
        _ => None,
    });
    let elsewhere = World::new();
    let error = elsewhere.find(&elsewhere.records(), &step, Reach::Lock).expect_err("gone");
    assert!(
        matches!(&error, FindError::MissingBlobs(lost) if Some(lost.as_slice()) ==
            digest.as_ref().map(std::slice::from_ref)),
        "{error:?}"
    );
    assert!(matches!(RunError::from(error), RunError::MissingBlobs(_)));
    let digest = world.store.put_bytes(b"\xff").expect("stored");
    let mut odd = world.plan("one");
    for (path, node) in &mut odd.prepared.tree.entries {
        if path.as_str() == "in/p/changes.patch" {
            *node = Node::File { digest, executable: false };
        }
    }
    let error = world.answer(&world.records(), &odd).expect_err("not text");
    assert_eq!(error, "the context file `p/changes.patch` is not UTF-8 text");
}

#[test]
fn an_edited_answer_is_refused_until_it_is_accepted() {
    let world = World::new();
    let step = world.plan("one");
    let report = world.record(&[&step], &[A]);
    let name = report.recorded[0].content_file.clone().expect("short");
    let file = format!("{CONTENT_DIR}/{name}");
    assert!(name.ends_with(".json"));

    world.write(&file, "{ \"tests\": [\"edited\"] }");
    let error = world.find(&world.records(), &step, Reach::Cache).expect_err("edited");
    assert_eq!(
        error.to_string(),
        format!("`{file}`, the recorded answer of `//p:plan`, was changed by hand")
    );
    assert!(error.hints()[0].contains("maestro lock accept //p:plan"));
    let accepted = accept(&world.root(), &step.label).expect("JSON");
    assert!(accepted[0].record.edited && accepted[0].reformatted);
    let stored = "{\"tests\":[\"edited\"]}\n";
    assert_eq!(world.answer(&world.records(), &step).as_deref(), Ok(stored));
    assert!(world.lock_text().contains("edited = true\n"));
    assert_eq!(accept(&world.root(), &step.label).expect("nothing to do"), []);

    world.write(&file, "{\"tests\": \"no list\"}");
    accept(&world.root(), &step.label).expect("JSON, though it does not fit");
    let error = world.answer(&world.records(), &step).expect_err("does not fit");
    assert!(error.contains("does not fit its schema at `/tests`"), "{error}");
    world.write(&file, "no JSON");
    assert!(matches!(accept(&world.root(), &step.label), Err(upkeep::AcceptError::Answer { .. })));
    fs::remove_file(world.root().join(&file)).expect("there");
    let error = world.answer(&world.records(), &step).expect_err("gone");
    assert!(error.ends_with("is missing"), "{error}");
    let missing = Label::new("", "p", "none").expect("valid");
    assert!(matches!(accept(&world.root(), &missing), Err(upkeep::AcceptError::NoRecord { .. })));
}

#[test]
fn a_record_that_no_longer_fits_its_schema_is_refused() {
    let world = World::new();
    let step = world.plan("one");
    world.record(&[&step], &[A]);
    // The answer of the lock is the same; only its block claims to answer another request.
    let mut strict = request();
    strict["schema"]["properties"]["tests"]["minItems"] = json!(2);
    let strict = world.step("plan", strict, &[("p/changes.patch", "one")]);
    let question = Question::of(&strict.spec, &strict.prepared, &world.store).expect("asks");
    let key = question.key("name:m-2026-01-01").expect("canonical").to_string();
    let old = world.records().lock().records[0].key.to_string();
    world.write(LOCK_FILE, &world.lock_text().replace(&old, &key));
    let error = world.answer(&world.records(), &strict).expect_err("does not fit");
    assert!(error.contains("`//p:plan` can no longer be used: the answer does not fit"), "{error}");
    assert!(error.contains("at `/tests`"), "{error}");
}

#[test]
fn a_record_whose_metadata_lies_is_refused() {
    let world = World::new();
    let step = world.plan("one");
    world.record(&[&step], &[A]);
    let text = world.lock_text();
    let check = |from: &str, to: &str, expect: &str| {
        world.write(LOCK_FILE, &text.replace(from, to));
        let error = world.answer(&world.records(), &step).expect_err(expect);
        assert!(error.contains(expect), "{error}");
    };
    check("\nmodel = \"m\"", "\nmodel = \"gpt-9\"", "has a `model` that contradicts its key");
    check("\nseed = 42", "\nseed = 7", "has a `seed` that contradicts its key");
    check("identity = \"name:m-2", "identity = \"name:x-2", "has a `identity` that");
}

#[test]
fn updates_ask_once_and_touch_only_what_they_name() {
    let world = World::new();
    let (plan, twin) =
        (world.plan("one"), world.step("twin", request(), &[("p/changes.patch", "one")]));
    let script = Script::new(&[A, B]);
    let updater = world.updater(&script, &[]);
    for step in [&plan, &twin, &plan] {
        world.run(&updater, step).expect("an answer");
    }
    assert_eq!(script.calls(), 1);
    let report = updater.finish().expect("written");
    assert_eq!((report.recorded.len(), report.cost_usd_micros), (2, 7));
    let before = world.lock_text();
    assert_eq!(before.matches("[[record]]").count(), 2);
    assert_eq!(before.matches("content_file").count(), 2);

    // Only the twin is named: the plan is not asked, but who asks the same gets the same.
    let updater = world.updater(&script, &["//p:twin"]);
    let error = world.run(&updater, &plan).expect_err("not named");
    assert!(error.to_string().contains("this update does not name it"), "{error}");
    world.run(&updater, &twin).expect("an answer");
    updater.finish().expect("written");
    assert_eq!(script.calls(), 2);
    let records = world.records();
    assert_eq!(world.answer(&records, &plan).as_deref(), Ok(STORED_B));
    assert_eq!(world.answer(&records, &twin).as_deref(), Ok(STORED_B));
}

#[test]
fn one_step_has_one_record() {
    let world = World::new();
    let updater = world.updater(&Script::new(&[A, B]), &[]);
    world.run(&updater, &world.plan("one")).expect("an answer");
    let error = world.run(&updater, &world.plan("two")).expect_err("the same step");
    assert_eq!(error.to_string(), "two actions of `//p:plan` record step `plan`, sample 0");
    assert_eq!(updater.finish().expect("written").recorded.len(), 1);
}

#[test]
fn what_fails_leaves_no_trace() {
    let world = World::new();
    let step = world.plan("one");
    for bad in ["", "no JSON", "{\"tests\": 3}"] {
        let script = Script::new(&[bad]);
        let updater = world.updater(&script, &[]);
        assert!(world.run(&updater, &step).is_err(), "{bad:?}");
        let report = updater.finish().expect("nothing to do");
        assert!(!report.changed);
    }
    let updater = world.updater(&Script::new(&[]), &[]);
    assert!(matches!(world.run(&updater, &step), Err(RunError::Machine { .. })));
    assert!(!world.root().join(LOCK_FILE).exists());
    assert!(!world.root().join(CONTENT_DIR).exists());
}

#[test]
fn the_cache_remembers_what_the_lock_forgot() {
    let world = World::new();
    let step = world.plan("one");
    world.record(&[&step], &[A]);
    let records = world.records();
    prune(&world.root(), &records.lock().records).expect("written");
    // The pin went with its last record; it is what the cache is asked under.
    let pin = "version = 1\n\n[models.\"m\"]\nname = \"m-2026-01-01\"\n";
    world.write(LOCK_FILE, pin);
    let records = world.records();
    let found = world.find(&records, &step, Reach::Cache).expect("in the cache");
    assert_eq!(found.record.found_in, FoundIn::Cache);
    assert!(matches!(world.find(&records, &step, Reach::Lock), Err(FindError::Miss(_))));

    // An update writes it down without asking again, with the day and cost of its own time.
    let script = Script::new(&[]);
    let updater = world.updater(&script, &[]);
    assert_eq!(world.run(&updater, &step).expect("remembered"), 0);
    let report = updater.finish().expect("written");
    assert_eq!((script.calls(), report.recorded.len(), report.cost_usd_micros), (0, 1, 0));
    assert_eq!(world.answer(&world.records(), &step).as_deref(), Ok(STORED_A));
    assert_eq!(world.records().lock().records[0].cost_usd_micros, 7);

    world.write(LOCK_FILE, &pin.replace("01-01", "02-02"));
    let error = world.find(&world.records(), &step, Reach::Cache);
    assert!(matches!(error, Err(FindError::Miss(_))), "another model must not answer");
}

#[test]
fn stale_answers_are_marked() {
    let world = World::new();
    world.record(&[&world.plan("one")], &[A]);
    let records = world.records();
    let two = world.plan("two");
    let found = world.find(&records, &two, Reach::Stale).expect("the last answer");
    assert_eq!(found.record.found_in, FoundIn::Stale);
    assert!(records.asked().iter().all(|asked| asked.missed.is_some()));
}

#[test]
fn check_finds_stale_orphaned_and_aged() {
    let world = World::new();
    let (plan, other) =
        (world.plan("one"), world.step("other", request(), &[("p/changes.patch", "x")]));
    world.record(&[&plan, &other], &[A, B]);
    let options =
        |complete| CheckOptions { today: date(2027, 11, 23), age_days_max: Some(100), complete };
    let records = world.records();
    let _ = world.find(&records, &plan, Reach::Lock);
    let report = records.check(options(true));
    let names = |records: &[Record]| {
        records.iter().map(|r| r.label.to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names(&report.orphaned), "//p:other");
    assert_eq!(report.aged.iter().map(|(_, days)| *days).collect::<Vec<_>>(), [365]);
    assert!(report.stale.is_empty() && !report.is_clean());
    assert!(records.check(options(false)).orphaned.is_empty());
    // A stale step hides whoever reads its answer, so nobody is called an orphan then.
    let _ = world.find(&records, &world.plan("two"), Reach::Lock);
    let hidden = records.check(options(true));
    assert_eq!((hidden.stale.len(), hidden.orphaned.len()), (1, 0));
    assert!(!hidden.is_clean());

    let stray = format!("{CONTENT_DIR}/0123456789abcdef.txt");
    world.write(&stray, "left by a crash");
    world.write(&format!("{CONTENT_DIR}/README.md"), "not ours");
    let written = prune(&world.root(), &report.orphaned).expect("written");
    assert_eq!(written.removed.len(), 2);
    assert!(!world.root().join(stray).exists());
    assert!(world.root().join(CONTENT_DIR).join("README.md").exists());
    assert_eq!(names(&world.records().lock().records), "//p:plan");
}

#[test]
fn long_answers_stay_out_of_the_lock() {
    let world = World::new();
    let mut free = request();
    free["schema"] = Value::Null;
    let step = world.step("plan", free.clone(), &[("p/changes.patch", "one")]);
    let long = "word ".repeat(20_000);
    let report = world.record(&[&step], &[&long]);
    assert_eq!(report.recorded[0].content_file, None);
    assert!(!world.root().join(CONTENT_DIR).exists());
    let expect = format!("{}\n", long.trim_end());
    assert_eq!(world.answer(&world.records(), &step).as_deref(), Ok(expect.as_str()));
    let fresh = World::new();
    let step = fresh.step("plan", free, &[("p/changes.patch", "one")]);
    let error = fresh.answer(&world.records(), &step).expect_err("another cache");
    assert!(error.contains("is not in this cache"), "{error}");
}

#[test]
fn writers_at_the_same_time_lose_nothing() {
    let world = World::new();
    std::thread::scope(|scope| {
        for i in 0..8 {
            let world = &world;
            scope.spawn(move || {
                let patch = format!("patch {i}");
                let step =
                    world.step(&format!("t{i}"), request(), &[("p/changes.patch", patch.as_str())]);
                world.record(&[&step], &[A]);
            });
        }
    });
    assert_eq!(world.records().lock().records.len(), 8);
    let names: Vec<_> = fs::read_dir(world.root())
        .expect("there")
        .map(|e| e.expect("readable").file_name())
        .collect();
    assert_eq!(names.len(), 2, "no temporary file stays: {names:?}");
}

#[test]
fn links_are_not_followed() {
    let world = World::new();
    let step = world.plan("one");
    let secret = world.folder.path().join("secret");
    fs::write(&secret, "version = 1\n").expect("writable");
    std::os::unix::fs::symlink(&secret, world.root().join(LOCK_FILE)).expect("fresh");
    assert!(matches!(Records::load(&world.root()), Err(LockError::NotPlain { .. })));
    fs::remove_file(world.root().join(LOCK_FILE)).expect("there");
    let outside = world.folder.path().join("outside");
    fs::create_dir(&outside).expect("fresh");
    std::os::unix::fs::symlink(&outside, world.root().join(CONTENT_DIR)).expect("fresh");
    let updater = world.updater(&Script::new(&[A]), &[]);
    world.run(&updater, &step).expect("an answer");
    assert!(matches!(updater.finish(), Err(LockError::NotPlain { .. })));
    assert!(is_empty(&outside) && !world.root().join(LOCK_FILE).exists());
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).expect("a folder").next().is_none()
}
