//! Whole pipelines: what they come to, and how wrong ones are refused.

mod bounds;
mod includes;
mod safety;

use std::time::{Duration, Instant};

use maestro_core::event::Severity;

use super::*;

const SAMPLE: &str = include_str!("../../../docs/examples/intelgraph-build.pipeline.yaml");

fn nothing(path: &str) -> Result<String, String> {
    Err(format!("there is no file `{path}`"))
}

fn defaults() -> Defaults {
    let pairs = [
        ("llm.model", "m"),
        ("llm.generate.prompt", "p"),
        ("llm.plan.prompt", "q"),
        ("cd.via", "gate"),
        ("cd.gate", "https://gate.example.com/"),
    ];
    pairs.into_iter().map(|(key, value)| (key.to_owned(), value.into())).collect()
}

/// What is found, one line each: place, code, message, hints behind `|`.
fn told(checked: &Checked) -> Vec<String> {
    let line = |found: &Finding| {
        let Diagnostic { code, message, location, trace, hints, .. } = &found.diagnostic;
        let place =
            location.as_ref().map(|p| format!("{}:{}", p.line, p.column)).unwrap_or_default();
        let more: Vec<String> =
            trace.iter().chain(hints).map(|hint| format!(" | {hint}")).collect();
        format!("{place} {code} {message}{}", more.concat())
    };
    checked.findings.iter().map(line).collect()
}

fn read(text: &str) -> Checked {
    load("p.yaml", text, &nothing, &defaults())
}

fn good(text: &str) -> Pipeline {
    let checked = read(text);
    let shown: String = text.chars().take(2_000).collect();
    assert_eq!(told(&checked), Vec::<String>::new(), "{shown}");
    checked.pipeline.expect("no errors")
}

/// The edges, as `from>to` with the first letter of the kind.
fn edges(pipeline: &Pipeline) -> String {
    let name = |id: StepId| pipeline.steps()[id.index()].id.value.as_str();
    let edge =
        |edge: &Edge| format!("{}>{}:{}", name(edge.from), name(edge.to), &edge.kind.as_str()[..1]);
    pipeline.edges.iter().map(edge).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_sample_is_clean_and_in_order() {
    let pipeline = good(SAMPLE);
    assert_eq!(
        edges(&pipeline),
        "plan>scrape-docs:s plan>gen:d scrape-docs>gen:d gen>build:s build>scan:d build>sign:d \
         scan>sign:e build>publish:d sign>publish:e publish>deploy:d"
    );
    let bound = pipeline.bindings.iter().map(|b| {
        let name = |id: StepId| pipeline.steps()[id.index()].id.value.clone();
        format!("{}.{}={}.{}", name(b.step), b.field, name(b.maker), b.output)
    });
    assert_eq!(
        bound.collect::<Vec<_>>(),
        [
            "scan.subject=build.image",
            "sign.subject=build.image",
            "publish.subject=build.image",
            "deploy.subject=publish.image"
        ]
    );
    // Without defaults there are notes, and nothing worse.
    let bare = load("p.yaml", SAMPLE, &nothing, &Defaults::new());
    assert!(bare.pipeline.is_some() && !bare.has_errors());
    assert!(bare.findings.iter().all(|f| f.diagnostic.severity == Severity::Info));
    let missing = bare.pipeline.expect("no errors").missing;
    assert_eq!(
        missing.iter().map(|m| m.key).collect::<Vec<_>>(),
        ["llm.model", "llm.generate.prompt", "cd.via"]
    );
}

#[test]
fn a_run_of_the_sample_sees_its_values() {
    let pipeline = good(SAMPLE);
    let given = [("env".to_owned(), Given::Text("prod".to_owned()))];
    let params = pipeline.template.bind(&given).expect("prod is allowed");
    let mut scope = Scope { params, git: serde_json::json!({"sha": "abc"}), ..Scope::default() };
    let image = serde_json::json!({"status": "succeeded", "outputs": {"image": "r@sha256:1"}});
    scope.steps.insert("publish".to_owned(), image);
    let value = |step: &str, field: &str| {
        let step = &pipeline.steps()[pipeline.find(step).expect("a step").index()];
        eval(step.argument(field).expect("a field"), &scope).expect("a value")
    };
    assert_eq!(value("publish", "image"), "ghcr.io/org/intelgraph:abc");
    assert_eq!(value("deploy", "env"), "prod");
    assert_eq!(value("deploy", "subject"), "r@sha256:1");
    assert_eq!(value("deploy", "branch"), "main");
    let error = eval(pipeline.steps()[4].argument("subject").expect("bound"), &scope);
    let told = pipeline.diagnose(&error.expect_err("build did not run")).to_string();
    assert!(told.starts_with("error[MAE0615]: there is no `steps.build`"), "{told}");
}

#[test]
fn steps_follow_what_they_say() {
    let check = |steps: &str, expect: &str| {
        let text = format!("name: p\nsteps:\n{steps}");
        assert_eq!(edges(&good(&text)), expect, "{text}");
    };
    let step = |id: &str, rest: &str| {
        format!("- {{ id: {id}, uses: filegroup, with: {{ srcs: [a] }}{rest} }}\n")
    };
    let act = |id: &str, rest: &str| {
        format!("- {{ id: {id}, uses: notify.webhook, with: {{ url: \"https://a.b/\" }}{rest} }}\n")
    };
    check(&[step("a", ""), step("b", ""), step("c", "")].concat(), "a>b:s b>c:s");
    check(&[step("a", ""), step("b", ", needs: []"), step("c", ", needs: [a]")].concat(), "a>c:n");
    // A reference adds an edge, and takes the place of the one above only for what is no effect.
    let from = ", if: \"steps.a.status == 'succeeded'\"";
    check(&[step("a", ""), step("b", ""), step("c", from)].concat(), "a>b:s a>c:d");
    check(&[step("a", ""), step("b", ""), act("c", from)].concat(), "a>b:s a>c:d b>c:e");
    // An effect follows all, over the last of each line.
    let wide = [step("a", ""), step("b", ", needs: [a]"), step("c", ", needs: [a]"), act("d", "")];
    check(&wide.concat(), "a>b:n a>c:n b>d:e c>d:e");
    check(&[act("a", ""), act("b", ", needs: []")].concat(), "");
    check(
        &[step("a", ""), step("b", ", needs: []"), step("c", ", approval: 2, needs: [b]")].concat(),
        "b>c:n",
    );
}

fn refused(text: &str, expect: &[&str]) {
    let checked = read(text);
    assert_eq!(told(&checked), expect, "{text}");
    assert!(checked.pipeline.is_none() && checked.has_errors(), "{text}");
}

/// A pipeline whose first step is `a`.
fn one(rest: &str) -> String {
    format!("name: p\nsteps:\n  - id: a\n{rest}")
}

#[test]
fn wrong_pipelines_are_refused() {
    let check = refused;
    check(
        "",
        &[
            "1:1 MAE0605 the file is empty | a pipeline has `name` and `steps`; `maestro template new` begins one",
        ],
    );
    check("- a", &["1:1 MAE0604 a pipeline is a mapping, not a list"]);
    check(
        "nmae: p\nsteps: []",
        &[
            "1:1 MAE0605 a pipeline needs `name` | such as `name: release`",
            "1:1 MAE0603 a pipeline has no key `nmae` | did you mean `name`?",
            "2:1 MAE0605 a pipeline needs a step at least",
        ],
    );
    check(
        &one("    uses: llm.paln\n    when: x"),
        &[
            "4:11 MAE0606 there is no kind of step `llm.paln` | did you mean `llm.plan`?",
            "5:5 MAE0603 a step has no key `when` | it is called `if` here",
        ],
    );
    check(
        &one(
            "    uses: web.scrape\n    with: { url: x, mode: headles, respect_robots: yes, rate: 0 }",
        ),
        &[
            "3:9 MAE0605 `web.scrape` needs `urls` | `urls` is a list, each item a URL",
            "5:13 MAE0603 `web.scrape` has no field `url` | did you mean `urls`?",
            "5:27 MAE0604 `mode` of `web.scrape` is one of `static`, `headless`, not `headles` | did you mean `headless`?",
            "5:52 MAE0604 `respect_robots` of `web.scrape` is a bool, not `yes` | write `true`",
            "5:63 MAE0604 `rate` of `web.scrape` is an int from 1 to 100, not `0`",
        ],
    );
    check(
        &one("    uses: cc_library"),
        &[
            "4:11 MAE0606 there is no kind of step `cc_library` | declare the target in a `maestro.star`, and use its label: `uses: //app:server`",
        ],
    );
    check(
        &one(
            "    uses: filegroup\n    with: { srcs: [a] }\n    foreach: ${{ steps.b.outputs.files }}\n  - id: b\n    uses: filegroup\n    with: { srcs: a }\n    until: true",
        ),
        &[
            "6:5 MAE0611 `foreach` needs `max` | the list is known at run time only; `max: 100` bounds it",
            "9:19 MAE0604 `srcs` of `filegroup` is a list, each item a text, not `a` | put it into brackets",
            "10:5 MAE0611 `until` needs `max` | the most rounds, such as `max: 30`",
        ],
    );
}

#[test]
fn pipelines_that_contradict_themselves_are_refused() {
    let check = refused;
    check(
        &one(
            "    uses: filegroup\n    with: { srcs: [1.10, \"${{ steps.b.outputs.fils }}\"] }\n    needs: [c]\n  - { id: b, uses: filegroup, with: { srcs: [a] }, needs: [a] }\n  - { id: c, uses: filegroup, with: { srcs: [a] } }",
        ),
        &[
            "3:9 MAE0609 steps wait for each other: `a` waits for `b` waits for `a` | p.yaml:3:9: `a` takes something from `b` | p.yaml:7:11: `b` needs `a` | a step that should begin at once has `needs: []`",
            "5:20 MAE0604 an item of `srcs` of `filegroup` is a text, not `1.1` | put it into quotes",
            "5:47 MAE0607 there is no `fils` here | did you mean `files`?",
        ],
    );
    check(
        &one(
            "    uses: filegroup\n    with: { srcs: [a] }\n    secrets: [TOKEN]\n  - id: a\n    uses: security.licenses",
        ),
        &[
            "6:15 MAE0604 a step with `secrets` is not pure, and `filegroup` is | what is pure sees nothing but its inputs; take what it needs from a step that downloads, asks or acts",
            "7:9 MAE0602 two steps are called `a` | p.yaml:3:9: the other stands here",
            "7:9 MAE0610 `sbom` of step `a` is bound to nothing | no step above it in this file makes a `bill of materials`; name one with `with: { sbom: … }`",
        ],
    );
    check(
        "name: p\nparams:\n  a: { type: string, enum: [x, y], default: z }\n  b: { type: int, max: 3, default: 4 }\n  c: { type: secret, default: hunter2 }\n  d: { type: strin }\n  e: string\nsteps:\n  - { id: a, uses: //x }",
        &[
            "3:45 MAE0604 the default of param `a` is one of `x`, `y`, not `z` | did you mean `x`?",
            "4:36 MAE0604 the default of param `b` is between -9223372036854775808 and 3, not 4",
            "5:31 MAE0613 param `c` is a secret, and a default would be for all to read | leave it out; `--param NAME=SECRET` names a stored secret",
            "6:14 MAE0604 the type of param `d` cannot be `strin` | did you mean `string`?",
            "7:6 MAE0604 param `e` would have the text `string` as default | a type is said by `{ type: string }`",
        ],
    );
}

#[test]
fn what_cannot_run_is_refused() {
    let check = |step: &str, expect: &str| {
        let text = format!("name: p\nsteps:\n- {{ id: a, {step} }}\n");
        assert_eq!(told(&read(&text)).join("\n"), expect, "{text}");
    };
    let gate = "3:9 MAE0603 a gate asks once | `approvals` is how many people must agree | `approval` \
                of a step that repeats asks once for all its instances";
    check("uses: gate.approval, foreach: [1, 2]", gate);
    check("uses: gate.approval, matrix: { os: [linux] }", gate);
    check("uses: gate.approval, until: true, max: 3", gate);
    check(
        "uses: gate.approval, with: { approvals: \"${{ length(steps.a.status) }}\" }, needs: []",
        "3:70 MAE0607 `approvals` of a gate is known when the run begins, and `a` has not run then | for each case a gate and an effect of its own can ask different people: both with the same `if`, and the effect with `needs`\n\
         3:70 MAE0609 step `a` takes something from itself | only `until` looks at what its own step made",
    );
    let act = "uses: run.command, with: { command: [x] }";
    check(&format!("{act}, approval: true, foreach: [1, 2]"), "");
    check(
        &format!(
            "{act}, matrix: {{ os: [l], py: [3], include: [{{ os: m }}, {{ os: w, py: 4 }}] }}"
        ),
        "3:93 MAE0605 a combination of `include` has no `py` | it is an instance of its own, with a value for each axis",
    );
    check(
        &format!("{act}, if: cancelled() || failure()"),
        "3:59 MAE0608 `cancelled()` never holds here: nothing begins once a run is cancelled | put the step into `on_cancel`",
    );
    check(
        "uses: run.command, with: { command: [\"${{ run.url }}\"] }",
        "3:58 MAE0607 there is no `url` here | there is `actor`, `id`, `template`",
    );
    check("uses: test", "3:9 MAE0605 `test` needs `cmd` where `targets` is `[]` | `cmd` is a text");
    // A rollout must be told all that its ways ask for.
    let rollout = |with: &str| format!("uses: cd.rollout, with: {{ env: e, {with} }}");
    let left = |fields: &str, hints: &str| {
        format!(
            "3:9 MAE0616 step `a` leaves {fields} to the project's defaults, which do not say it{hints}"
        )
    };
    let hint = |name: &str| {
        format!(" | `{name} = …` in `[defaults.cd]` of `maestro.toml` says it for all")
    };
    check(
        &rollout("via: gitops, strategy: canary"),
        &left(
            "`repository`, `path`, `traffic`",
            &[hint("repository"), hint("path"), hint("traffic")].concat(),
        ),
    );
    check(
        &rollout("via: gate, strategy: canary, path: x"),
        "3:75 MAE0603 `path` of `cd.rollout` means nothing where `via` is `gate` | leave it out",
    );
    check(
        &rollout("traffic: \"https://a/\""),
        "3:46 MAE0603 `traffic` of `cd.rollout` means nothing where `strategy` is `all-at-once` | leave it out",
    );
    check(&rollout("via: gate, strategy: blue-green"), "");
    // Files are no version; their digest is.
    let text = "name: p\nsteps:\n- { id: b, uses: //x }\n- { id: a, uses: cd.rollout, with: { env: e, \
                subject: \"${{ steps.b.outputs.WHAT }}\" } }\n";
    assert_eq!(told(&read(&text.replace("WHAT", "digest"))), Vec::<String>::new());
    assert!(
        told(&read(&text.replace("WHAT", "files")))[0].contains("is a text, and this is a list")
    );
}

#[test]
fn steps_after_a_failure_are_complete_and_checked() {
    let step = "- id: a\n  uses: run.command\n  with: { command: [x] }\n";
    let pipeline = good(&format!(
        "name: p\nsteps:\n{step}  on_failure:\n  - {{ id: undo, uses: run.command, with: {{ command: \
         [\"${{{{ steps.a.status }}}}\"] }} }}\non_cancel:\n- {{ id: tell, uses: notify.webhook, with: {{ url: \
         \"https://a/\" }} }}\n"
    ));
    let undo = &pipeline.steps()[0].on_failure[0];
    assert_eq!(undo.argument("repeatable").and_then(Expr::known), Some(false.into()));
    assert!(pipeline.template.on_cancel[0].argument("timeout").is_some());
    refused(
        &format!(
            "name: p\nsteps:\n{step}  on_failure:\n  - {{ id: s, uses: security.scan }}\n  - {{ id: a, uses: run.comand }}\n"
        ),
        &[
            "7:11 MAE0610 `subject` of step `s` must be named | a step that runs after a failure is bound to nothing | such as `subject: ${{ steps.build.outputs.image }}`",
            "8:20 MAE0606 there is no kind of step `run.comand` | did you mean `run.command`?",
        ],
    );
}

#[test]
fn what_could_not_be_read_causes_no_further_errors() {
    refused(
        "name: p\nsteps:\n- { id: a, uses: build.containr }\n- { id: b, uses: security.scan }\n\
         - { id: c, uses: filegroup, with: { srcs: [\"${{ steps.a.outputs.x }}\"] }, needs: [a] }\n",
        &[
            "3:18 MAE0606 there is no kind of step `build.containr` | did you mean `build.container`?",
        ],
    );
}

#[test]
fn what_is_ambiguous_is_not_bound() {
    let image = |id: &str, rest: &str| format!("  - {{ id: {id}, uses: build.container{rest} }}\n");
    let check = |steps: &[String], expect: &str| {
        let text = format!("name: p\nsteps:\n{}", steps.concat());
        let checked = read(&text);
        let found = match &checked.pipeline {
            Some(pipeline) => {
                let bound = pipeline.bindings.last().expect("one");
                pipeline.steps()[bound.maker.index()].id.value.clone()
            }
            None => told(&checked).join("\n"),
        };
        assert!(found.starts_with(expect), "{text}: {found}");
    };
    let scan = "  - { id: s, uses: security.scan }\n".to_owned();
    check(&[image("a", ""), image("b", ""), scan.clone()], "b");
    check(
        &[image("a", ""), image("b", ", needs: []"), scan.clone()],
        "5:11 MAE0610 `subject` of step `s` is ambiguous: `a` and `b` are made side by side",
    );
    check(
        &[image("a", ", matrix: { x: [1, 2] }"), scan],
        "4:11 MAE0610 `subject` of step `s` is ambiguous: `a` makes one for each of its instances",
    );
}

#[test]
fn every_cut_and_every_changed_byte_is_a_pipeline_or_an_error_with_a_place() {
    let start = Instant::now();
    let mut texts: Vec<String> = Vec::new();
    for at in 0..SAMPLE.len() {
        texts.push(SAMPLE[..at].to_owned());
        for byte in [b'{', b'"', b'\n', b'$'] {
            let mut bytes = SAMPLE.as_bytes().to_vec();
            bytes[at] = byte;
            texts.push(String::from_utf8(bytes).expect("ASCII"));
        }
        let mut flipped = SAMPLE.as_bytes().to_vec();
        flipped[at] ^= 1 << (at % 7);
        texts.push(String::from_utf8(flipped).expect("ASCII"));
    }
    for text in texts {
        let checked = read(&text);
        assert_eq!(checked.pipeline.is_some(), !checked.has_errors(), "{text}");
        for found in &checked.findings {
            let place = found.diagnostic.location.as_ref().expect("a place");
            let lines = text.split('\n').count() as u32;
            assert!((1..=lines).contains(&place.line), "{}\n{text}", found.diagnostic);
            assert!(!found.diagnostic.message.is_empty());
            if let Some(fix) = &found.fix {
                assert!(text.get(fix.range.clone()).is_some());
            }
        }
    }
    assert!(start.elapsed() < Duration::from_secs(120), "{:?}", start.elapsed());
}

#[test]
fn fixes_mend_what_they_say() {
    let check = |text: &str, expect: &str| {
        let mut text = text.to_owned();
        // What was hidden by a wrong key is seen once the key is right.
        while let Some(fixed) = apply_fixes("p.yaml", &text, &read(&text).findings) {
            text = fixed;
        }
        assert_eq!(text, expect);
        assert_eq!(told(&read(&text)), Vec::<String>::new());
    };
    check(
        "name: p\non: pull_request\nsteps:\n- id: a\n  uses: genrul\n  wiht: { outs: x, cmd: 7 }\n  \
         depends_on: []\n  continue-on-error: no\n",
        "name: p\non: pr\nsteps:\n- id: a\n  uses: genrule\n  with: { outs: [x], cmd: \"7\" }\n  \
         needs: []\n  continue_on_error: false\n",
    );
}

#[test]
fn what_stands_in_several_places_is_mended_by_hand() {
    let check = |text: &str| {
        let checked = read(text);
        assert!(checked.has_errors(), "{text}");
        assert_eq!(apply_fixes("p.yaml", text, &checked.findings), None, "{text}");
    };
    let step = |id: &str, with: &str| format!("- {{ id: {id}, uses: filegroup, with: {with} }}\n");
    // An alias, what it stands for, and a part of that.
    let first = "- { id: a, uses: notify.webhook, with: { url: \"https://a/\", body: &v 7 } }\n";
    check(&format!("name: p\nsteps:\n{first}{}", step("b", "{ srcs: [*v] }")));
    let (first, second) = (step("a", "{ srcs: &v x }"), step("b", "{ srcs: *v }"));
    check(&format!("name: p\nsteps:\n{first}{second}"));
    check(&format!("name: p\nsteps:\n{}{}", step("a", "&w { srcs: x }"), step("b", "*w")));
}
