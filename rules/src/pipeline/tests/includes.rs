//! Included pipelines: where their steps come to stand, and what they see.

use super::*;

/// A pipeline with the files that it includes.
fn with_files(files: &[(&str, &str)], text: &str) -> Checked {
    let includes = |path: &str| {
        let found = files.iter().find(|(name, _)| *name == path);
        found.map_or_else(|| nothing(path), |(_, text)| Ok((*text).to_owned()))
    };
    load("p.yaml", text, &includes, &defaults())
}

#[test]
fn included_pipelines_take_the_place_of_their_step() {
    let includes = |path: &str| {
        match path {
        "ci/image.pipeline.yaml" => Ok(
            "name: image\nparams:\n  tag: { type: string }\n  ctx: .\nsteps:\n\
             - { id: build, uses: build.container, with: { context: \"${{ params.ctx }}\" } }\n\
             - { id: push, uses: registry.push, with: { image: \"r/a:${{ params.tag }}\" } }\n\
             - { id: tell, uses: notify.webhook, with: { url: \"https://a/\", body: \"${{ steps.push.outputs.digest }}\" }, needs: [push] }\n\
             outputs: { image: \"${{ steps.push.outputs.image }}\" }\n"
                .to_owned(),
        ),
        "loop.yaml" => Ok("name: l\nsteps: [{ id: x, include: loop.yaml }]".to_owned()),
        other => nothing(other),
    }
    };
    let text = "name: p\nparams: { v: { type: string } }\nsteps:\n\
                - { id: first, uses: filegroup, with: { srcs: [a] } }\n\
                - { id: img, include: ci/image.pipeline.yaml, with: { tag: \"v${{ params.v }}\" } }\n\
                - { id: sign, uses: supplychain.sign, with: { subject: \"${{ steps.img.outputs.image }}\" } }\n\
                - { id: last, uses: filegroup, with: { srcs: [b] }, needs: [img] }\n";
    let checked = load("p.yaml", text, &includes, &defaults());
    assert_eq!(told(&checked), Vec::<String>::new());
    let pipeline = checked.pipeline.expect("no errors");
    assert_eq!(
        edges(&pipeline),
        "first>img.build:s img.build>img.push:d img.push>img.tell:d \
         img.push>sign:d img.tell>sign:e img.tell>last:n"
    );
    let scope = Scope { params: serde_json::json!({"v": "7"}), ..Scope::default() };
    let push = pipeline.step(pipeline.find("img.push").expect("it is there")).expect("a step");
    assert_eq!(eval(push.argument("image").expect("given"), &scope), Ok("r/a:v7".into()));

    let check = |step: &str, expect: &str| {
        let text = format!("name: p\nsteps:\n- {step}");
        let checked = load("p.yaml", &text, &includes, &defaults());
        assert_eq!(told(&checked).join("\n"), expect, "{text}");
    };
    check(
        "{ id: a, include: loop.yaml }",
        "2:27 MAE0614 pipelines include each other: `loop.yaml` → `loop.yaml`",
    );
    check(
        "{ id: a, include: none.yaml }",
        "3:21 MAE0614 `none.yaml` cannot be included: there is no file `none.yaml`",
    );
    check(
        "{ id: a, include: ci/image.pipeline.yaml, with: { tga: x } }",
        "3:9 MAE0605 the included pipeline needs param `tag` | ci/image.pipeline.yaml:3:3: it is declared here | add `with: { tag: … }`\n3:53 MAE0607 the included pipeline has no param `tga` | did you mean `tag`?",
    );
}

/// A build and an effect that needs nothing of it.
const SHIP: &str = "name: ship\nsteps:\n\
                    - { id: build, uses: filegroup, with: { srcs: [a] }, needs: [] }\n\
                    - { id: tell, uses: notify.webhook, with: { url: \"https://a/\" }, needs: [] }\n";
/// Work without effects.
const WORK: &str = "name: work\nsteps:\n\
                    - { id: a, uses: filegroup, with: { srcs: [a] } }\n\
                    - { id: b, uses: filegroup, with: { srcs: [a] }, needs: [] }\n";
/// Includes [`SHIP`] behind a step of its own.
const DEEP: &str = "name: deep\nsteps:\n\
                    - { id: a, uses: filegroup, with: { srcs: [a] } }\n\
                    - { id: in, include: ship.yaml, needs: [] }\n";
const FILES: &[(&str, &str)] = &[("ship.yaml", SHIP), ("work.yaml", WORK), ("deep.yaml", DEEP)];

#[test]
fn an_include_is_ordered_like_a_step() {
    let check = |steps: &str, expect: &str| {
        let text = format!("name: p\nsteps:\n{steps}");
        let checked = with_files(FILES, &text);
        assert_eq!(told(&checked), Vec::<String>::new(), "{text}");
        assert_eq!(edges(&checked.pipeline.expect("no errors")), expect, "{text}");
    };
    let gate = "- { id: gate, uses: gate.approval, with: { message: m } }\n";
    let side = "- { id: side, uses: filegroup, with: { srcs: [a] }, needs: [] }\n";
    // The gate is not the step right above, and holds all the same, at any depth.
    check(
        &format!("{gate}{side}- {{ id: x, include: ship.yaml }}"),
        "gate>x.build:s side>x.build:s gate>x.tell:e side>x.tell:e",
    );
    check(
        &format!("{gate}{side}- {{ id: x, include: deep.yaml }}"),
        "gate>x.a:s side>x.a:s gate>x.in.build:s side>x.in.build:s gate>x.in.tell:e side>x.in.tell:e",
    );
    // What acts on nothing waits for what stands right above.
    check(&format!("{gate}{side}- {{ id: x, include: work.yaml }}"), "side>x.a:s side>x.b:s");
    // `needs` is all that it waits for, as with a step.
    check(
        &format!("{gate}{side}- {{ id: x, include: ship.yaml, needs: [side] }}"),
        "side>x.build:n side>x.tell:n",
    );
    check(&format!("{gate}- {{ id: x, include: ship.yaml, needs: [] }}"), "");
    // Who needs it follows all its ends, an include too, and what stands below it as well.
    check(
        "- { id: x, include: work.yaml }\n- { id: y, include: work.yaml, needs: [x] }\n\
         - { id: z, uses: filegroup, with: { srcs: [a] } }",
        "x.a>y.a:n x.b>y.a:n x.a>y.b:n x.b>y.b:n y.a>z:s y.b>z:s",
    );
    // One that stands below is named by all its steps.
    check(
        "- { id: a, uses: filegroup, with: { srcs: [a] }, needs: [y] }\n\
         - { id: y, include: work.yaml, needs: [] }",
        "y.a>a:n y.b>a:n",
    );
}

#[test]
fn names_and_values_of_one_file_mean_nothing_in_another() {
    let check = |inner: &str, rest: &str, expect: &str| {
        let params = "params:\n  t: { type: string, default: d, enum: [d, e] }\n  l: { type: list, \
                      default: [] }\n";
        let inner = format!("name: i\n{params}steps:\n{inner}\n");
        let text = format!(
            "name: p\nparams: {{ o: {{ type: string, enum: [e, f] }}, s: {{ type: secret }}, n: 3 \
             }}\nsteps:\n- {{ id: a, uses: filegroup, with: {{ srcs: [x] }} }}\n{rest}\n"
        );
        let checked = with_files(&[("i.yaml", &inner)], &text);
        assert_eq!(told(&checked).join("\n"), expect, "{text}\n{inner}");
    };
    let group = |srcs: &str| format!("- {{ id: b, uses: filegroup, with: {{ srcs: {srcs} }} }}");
    let include = |with: &str| format!("- {{ id: x, include: i.yaml, with: {{ {with} }} }}");
    // A step of the other file is none here, nor a param.
    check(
        &group("[\"${{ steps.a.outputs.digest }}\"]"),
        &include(""),
        "6:55 MAE0607 the pipeline that `x` includes has no step `a` | `a` stands in a file that includes \
         this one, which sees its own steps only; hand in what it makes as a param",
    );
    check(
        &group("[\"${{ params.o }}\"]"),
        &include(""),
        "6:56 MAE0607 there is no `o` here | did you mean `l`?",
    );
    // `params` as a whole are those of the file that says so.
    check(&group("[\"${{ params['t'] }}\", \"${{ json(params) }}\"]"), &include("t: e"), "");
    // A value sees what the include sees, not the loop that it is put into.
    check(
        "- { id: b, uses: filegroup, with: { srcs: [\"${{ params.t }}\"] }, \
         foreach: \"${{ params.l }}\", max: 3 }",
        &include("t: \"${{ item }}\""),
        "5:45 MAE0607 `item` exists only in a step with `foreach`",
    );
    // Its type is checked, whether it is used or not; so is what a secret is put into.
    check(
        &group("[y]"),
        &include("t: \"${{ params.n }}\""),
        "5:45 MAE0608 param `t` takes one of `d`, `e`, and this is an int",
    );
    check(&group("[\"${{ params.t }}\"]"), &include("t: \"${{ params.o }}\""), "");
    check(
        &group("[\"${{ params.t }}\"]"),
        &include("t: \"${{ params.s }}\""),
        "5:45 MAE0613 a secret cannot become part of another value | hand it on as a whole: in `secrets`, or in a field that takes a secret",
    );
    let check = |k: &str, expect: &str| {
        let inner = format!(
            "name: i\nparams: {{ k: {{ type: secret }} }}\nsteps:\n{}\n",
            group("[\"${{ params.k }}\"]")
        );
        let text = format!("name: p\nsteps:\n{}\n", include(&format!("k: {k}")));
        let checked = with_files(&[("i.yaml", &inner)], &text);
        assert_eq!(told(&checked).join("\n"), expect);
    };
    let item = "4:49 MAE0604 an item of `srcs` of `filegroup` is a text, and this is a secret";
    check("TOKEN", item);
    let text = "3:45 MAE0613 param `k` is the name of a secret, and this is a text | write its \
                name, or a param of type `secret`";
    check("\"${{ git.sha }}\"", &format!("{text}\n{item}"));
}

#[test]
fn what_a_param_is_given_is_checked_when_the_run_knows_it() {
    let inner = "name: i\nparams: { t: { type: string, pattern: \"[a-z]+\" } }\nsteps:\n\
                 - { id: b, uses: filegroup, with: { srcs: [\"x-${{ params.t }}\"] } }\n";
    let text = "name: p\nparams: { o: { type: string } }\nsteps:\n\
                - { id: x, include: i.yaml, with: { t: \"${{ params.o }}\" } }\n";
    let pipeline = with_files(&[("i.yaml", inner)], text).pipeline.expect("no errors");
    let check = |given: &str, expect: &str| {
        let params = serde_json::json!({"o": given});
        let scope = Scope { params, ..Scope::default() };
        let found = eval(pipeline.steps()[0].argument("srcs").expect("given"), &scope);
        let found = found.map_or_else(
            |error| {
                pipeline.diagnose(&error).to_string().lines().next().unwrap_or_default().to_owned()
            },
            |value| value.to_string(),
        );
        assert_eq!(found, expect);
    };
    check("abc", "[\"x-abc\"]");
    check("${{ 1 }}", "error[MAE0615]: param `t` does not fit `[a-z]+`");
}

#[test]
fn outputs_of_includes_are_handed_on() {
    let inner = "name: i\nparams: { v: { type: string } }\nsteps:\n\
                 - { id: b, uses: filegroup, with: { srcs: [\"${{ params.v }}\"] } }\n\
                 outputs: { v: \"${{ params.v }}\", d: \"${{ steps.b.outputs.digest }}\" }\n";
    let check = |steps: &str, expect: &str| {
        let text = format!("name: p\nsteps:\n{steps}");
        let checked = with_files(&[("i.yaml", inner)], &text);
        let found = match &checked.pipeline {
            Some(pipeline) => edges(pipeline),
            None => told(&checked).join("\n"),
        };
        assert_eq!(found, expect, "{text}");
    };
    // A value of `x`, by way of `y`.
    check(
        "- { id: x, include: i.yaml, with: { v: a } }\n\
         - { id: y, include: i.yaml, with: { v: \"${{ steps.x.outputs.d }}\" }, needs: [] }\n\
         - { id: z, uses: filegroup, with: { srcs: [\"${{ steps.y.outputs.v }}\"] }, needs: [] }\n",
        "x.b>y.b:d x.b>z:d",
    );
    // Also to what is called when all has ended.
    let text = "name: p\nsteps:\n- { id: x, include: i.yaml, with: { v: a } }\non_failure:\n- { id: \
                undo, uses: run.command, with: { command: [\"${{ steps.x.outputs.d }}\"] } }\n";
    assert_eq!(told(&with_files(&[("i.yaml", inner)], text)), Vec::<String>::new());
    let each_other = "- { id: x, include: i.yaml, with: { v: \"${{ steps.y.outputs.v }}\" } }\n\
                      - { id: y, include: i.yaml, with: { v: \"${{ steps.x.outputs.v }}\" } }\n";
    let checked = with_files(&[("i.yaml", inner)], &format!("name: p\nsteps:\n{each_other}"));
    let found = told(&checked);
    assert!(
        found.iter().any(|line| line.contains("MAE0609 output `v` of `y` is made of itself")),
        "{found:?}"
    );
    assert!(checked.pipeline.is_none());
}

#[test]
fn an_include_shares_its_name_with_nothing() {
    let check = |steps: &str, expect: &[&str]| {
        let checked = with_files(FILES, &format!("name: p\nsteps:\n{steps}"));
        assert_eq!(told(&checked), expect, "{steps}");
        assert!(checked.pipeline.is_none());
    };
    let twice = |place: &str, other: &str, what: &str| {
        format!(
            "{place} MAE0602 two steps are called `{what}` | p.yaml:{other}: the other stands here"
        )
    };
    let gate = "- { id: x, uses: gate.approval, with: { message: m } }\n";
    let include = "- { id: x, include: work.yaml }\n";
    check(&format!("{gate}{include}"), &[&twice("4:9", "3:9", "x")]);
    check(&format!("{include}{gate}"), &[&twice("4:9", "3:9", "x")]);
    check(&format!("{include}- {{ id: x, include: ship.yaml }}\n"), &[&twice("4:9", "3:9", "x")]);
}

#[test]
fn an_include_says_nothing_of_failures_for_its_steps() {
    let inner = "name: i\nsteps:\n- { id: a, uses: test, with: { targets: [x] } }\n\
                 - { id: b, uses: notify.webhook, with: { url: \"https://a/\" } }\n";
    for (condition, name, column) in [
        ("always()", "always", 34),
        ("git.tag == '' || failure()", "failure", 51),
        ("success()", "success", 34),
        ("!cancelled()", "cancelled", 35),
    ] {
        let text =
            format!("name: p\nsteps:\n- {{ id: x, include: i.yaml, if: \"{condition}\" }}\n");
        let checked = with_files(&[("i.yaml", inner)], &text);
        let expect = format!(
            "3:{column} MAE0608 `{name}()` cannot be asked for all steps of an include | write it in the \
             `if` of the steps that are meant, in the included file"
        );
        assert_eq!(told(&checked).first(), Some(&expect));
        assert!(checked.pipeline.is_none());
    }
    // What its steps ask for themselves they ask within the condition of the include.
    let inner = inner.replace("targets: [x] }", "targets: [x] }, if: always()");
    let text = "name: p\nsteps:\n- { id: x, include: i.yaml, if: \"git.tag == ''\" }\n";
    let pipeline = with_files(&[("i.yaml", &inner)], text).pipeline.expect("no errors");
    let asked = |at: usize| pipeline.steps()[at].condition.as_ref().map(|c| c.outcomes().len());
    assert_eq!((asked(0), asked(1)), (Some(1), Some(0)));
}

#[test]
fn a_name_on_the_other_side_of_an_include_is_told_to_be_there() {
    let inner = "name: i\nsteps:\n- { id: build, uses: filegroup, with: { srcs: [a] } }\n\
                 outputs: { d: \"${{ steps.build.outputs.digest }}\" }\n";
    let check = |step: &str, expect: &str| {
        let text =
            format!("name: p\nsteps:\n- {{ id: x, include: i.yaml }}\n- {{ id: a, {step} }}\n");
        let checked = with_files(&[("i.yaml", inner)], &text);
        assert_eq!(told(&checked).join("\n"), expect, "{text}");
        assert!(checked.findings.iter().all(|found| found.fix.is_none()), "{text}");
    };
    let inside = "`build` stands in the pipeline that `x` includes; declare what it makes in `outputs` \
                  there, and take `steps.x.outputs.…`";
    check(
        "uses: test, with: { targets: [x] }, if: \"steps.build.status == 'failed'\"",
        &format!("4:59 MAE0607 there is no step `build` | {inside}"),
    );
    check(
        "uses: test, with: { targets: [x] }, needs: [build]",
        &format!("4:56 MAE0607 there is no step `build` | {inside}"),
    );
    check(
        "uses: test, with: { targets: [x] }, if: \"steps.x.status == 'failed'\"",
        "4:59 MAE0607 there is no step `x` | `x` is an include, of which others see what it declares: \
         `steps.x.outputs.…`",
    );
    check(
        "uses: test, with: { targets: [x] }, needs: [x.biuld]",
        "4:56 MAE0607 the pipeline that `x` includes has no step `biuld` | did you mean `build`?",
    );
    check("uses: test, with: { targets: [x] }, needs: [x.build]", "");
}

#[test]
fn what_came_through_an_include_is_mended_by_nobody_but_its_author() {
    let inner = "name: i\nparams:\n  t: { type: int, default: 3 }\n  m: { type: string, default: x }\n\
                 steps:\n- { id: a, uses: genrule, with: { outs: [x], cmd: \"${{ params.t }}\" } }\n\
                 - { id: b, uses: web.scrape, with: { urls: [\"https://a/\"], mode: \"${{ params.m }}\", \
                 respect_robots: yes } }\noutputs: { t: \"${{ params.t }}\" }\n";
    let text = "name: p\nsteps:\n- { id: x, include: i.yaml, with: { t: 7, m: headles } }\n\
                - { id: y, include: i.yaml }\n\
                - { id: z, uses: genrule, with: { outs: [x], cmd: \"${{ steps.x.outputs.t }}\" } }\n";
    let checked = with_files(&[("i.yaml", inner)], text);
    let fixes = checked.findings.iter().filter_map(|found| found.fix.as_ref());
    let fixes: Vec<_> = fixes.map(|fix| (&*fix.file, &*fix.text)).collect();
    // The step of the file that is included twice says `yes` once.
    assert_eq!(fixes, [("i.yaml", "true")]);
    assert_eq!(checked.findings.len(), 6, "{:?}", told(&checked));
    // A default of the project does not stand where its step has its name.
    let wrong = Defaults::from([("llm.model".to_owned(), 3.into())]);
    let text = "name: p\nsteps:\n- { id: a, uses: llm.generate, with: { prompt: x } }\n";
    let checked = load("p.yaml", text, &nothing, &wrong);
    assert!(checked.has_errors() && checked.findings.iter().all(|found| found.fix.is_none()));
}

#[test]
fn a_binding_stays_within_its_file() {
    let helper = "name: h\nsteps:\n- { id: tool, uses: build.container }\n\
                  - { id: scan, uses: security.scan }\noutputs: { i: \"${{ steps.tool.outputs.image }}\" }\n";
    let files =
        [("h.yaml", helper), ("scan.yaml", "name: s\nsteps:\n- { id: s, uses: security.scan }\n")];
    let check = |steps: &str, expect: &str| {
        let checked = with_files(&files, &format!("name: p\nsteps:\n{steps}"));
        let bound = checked.pipeline.as_ref().map(|pipeline| {
            let name = |id: StepId| pipeline.steps()[id.index()].id.value.clone();
            let bound =
                pipeline.bindings.iter().map(|b| format!("{}={}", name(b.step), name(b.maker)));
            bound.collect::<Vec<_>>().join(" ")
        });
        let found = [told(&checked).join("\n"), bound.unwrap_or_default()].join("");
        assert_eq!(found, expect, "{steps}");
    };
    let app = "- { id: app, uses: build.container }\n";
    let scan = "- { id: look, uses: security.scan }\n";
    let within = "a step is bound within its file: what an include makes is taken by its `outputs`, and \
                  what it works on is given to it by a param";
    check(&format!("{app}- {{ id: x, include: h.yaml }}\n{scan}"), "x.scan=x.tool look=app");
    check(
        &format!("- {{ id: x, include: h.yaml }}\n{scan}"),
        &format!(
            "4:9 MAE0610 `subject` of step `look` is bound to nothing | h.yaml:3:9: `x.tool` makes one | no \
             step above it in this file makes a `image` or `published image` or `files`; name one with `with: {{ subject: \
             … }}` | {within}"
        ),
    );
    check(
        &format!(
            "- {{ id: x, include: h.yaml }}\n{}",
            scan.replace(".scan", ".scan, with: { subject: \"${{ steps.x.outputs.i }}\" }")
        ),
        "x.scan=x.tool",
    );
    check(
        &format!("{app}- {{ id: x, include: scan.yaml }}\n"),
        &format!(
            "3:9 MAE0610 `subject` of step `x.s` is bound to nothing | p.yaml:3:9: `app` makes one | no \
             step above it in this file makes a `image` or `published image` or `files`; name one with `with: {{ subject: \
             … }}` | {within}"
        ),
    );
    // What need not be there is left out, and that is said.
    check(
        "- { id: x, include: h.yaml }\n- { id: go, uses: cd.rollout, with: { env: e } }\n",
        &format!(
            "4:9 MAE0610 `subject` of step `go` is bound to nothing | h.yaml:3:9: `x.tool` makes one | \
             {within}x.scan=x.tool"
        ),
    );
}

#[test]
fn variables_and_outputs_of_a_file_see_no_step_that_they_are_put_into() {
    let check = |head: &str, expect: &str| {
        let inner = format!(
            "name: i\nparams: {{ v: {{ type: list, default: [] }} }}\n{head}\nsteps:\n- {{ id: b, uses: \
             run.command, with: {{ command: [x] }}, foreach: \"${{{{ params.v }}}}\", max: 3 }}\n"
        );
        let text = "name: p\nenv: { O: o }\nsteps:\n- { id: a, uses: test, with: { targets: [x] } }\n\
                    - { id: x, include: i.yaml }\n- { id: c, uses: run.command, with: { command: [\"${{ \
                    default(steps.x.outputs.o, 'o') }}\"] }, foreach: [u] }\n";
        let checked = with_files(&[("i.yaml", &inner)], text);
        assert_eq!(told(&checked).join("\n"), expect, "{inner}");
    };
    check("outputs: { o: \"${{ git.sha }}\" }", "");
    let loops = "MAE0607 `item` exists only in a step with `foreach`";
    check("outputs: { o: \"${{ item }}\" }", &format!("3:20 {loops}"));
    check("outputs: { o: x }\nenv: { A: \"${{ item }}\" }", &format!("4:16 {loops}"));
    check(
        "outputs: { o: x }\nenv: { A: \"${{ steps.b.status }}\" }",
        "4:22 MAE0607 no step has run yet when this is looked at\n4:22 MAE0609 step `x.b` takes \
         something from itself | only `until` looks at what its own step made",
    );
    // Whether anything takes the output or not.
    check(
        "outputs: { o: x, p: \"${{ failure() }}\" }",
        "3:26 MAE0608 `failure` means something only in `if`",
    );
}

#[test]
fn what_skips_an_include_skips_its_gate_and_its_effects() {
    let inner = "name: i\nparams: { e: x }\nsteps:\n- { id: gate, uses: gate.approval, if: params.e == 'x' }\n\
                 - { id: act, uses: notify.webhook, with: { url: \"https://a/\" }, if: params.e == 'x' }\n";
    let check = |after: &str, expect: &[&str]| {
        let text = format!(
            "name: p\nsteps:\n- {{ id: x, include: i.yaml, if: git.tag != '', with: {{ e: \"${{{{ git.tag }}}}\" }} }}\n\
             - {{ id: tell, uses: notify.webhook, with: {{ url: \"https://a/\" }}{after} }}\n"
        );
        let found = told(&with_files(&[("i.yaml", inner)], &text));
        let found = found.iter().map(|line| line.split(" | ").next().unwrap_or_default());
        assert_eq!(found.collect::<Vec<_>>(), expect);
    };
    check("", &["4:9 MAE0619 `tell` is denied by policy where `x.gate` before it is skipped"]);
    check(", needs: []", &[]);
}

#[test]
fn lists_that_params_are_given_are_checked_item_by_item() {
    let check = |kind: &str, value: &str, expect: &str| {
        let inner = format!(
            "name: i\nparams: {{ l: {{ type: list, {kind} }} }}\nsteps:\n- {{ id: b, uses: test, with: {{ \
             targets: [x] }} }}\n"
        );
        let text = format!(
            "name: p\nparams: {{ s: {{ type: secret }} }}\nsteps:\n- {{ id: a, uses: run.command, with: {{ \
             command: [x] }} }}\n- {{ id: x, include: i.yaml, with: {{ l: {value} }} }}\n"
        );
        let found = told(&with_files(&[("i.yaml", &inner)], &text));
        let found = found.iter().map(|line| line.split(" | ").next().unwrap_or_default());
        assert_eq!(found.collect::<Vec<_>>().join("; "), expect, "{value}");
    };
    let code = "\"${{ steps.a.outputs.exit_code }}\"";
    let out = "\"${{ steps.a.outputs.stdout }}\"";
    check("items: string", &format!("[{out}, a]"), "");
    check(
        "items: string",
        &format!("[a, {code}]"),
        "5:49 MAE0608 an item of param `l` takes a text, and this is an int",
    );
    check(
        "items: int",
        &format!("[{code}, a]"),
        "5:77 MAE0604 an item of param `l` is an int, not a text",
    );
    check(
        "min: 3",
        &format!("[{out}, a]"),
        "5:40 MAE0604 param `l` has from 3 to any number items, not 2",
    );
    let secrets = "items: { type: secret }";
    check(secrets, "[TOKEN, \"${{ params.s }}\"]", "");
    check(
        secrets,
        &format!("[TOKEN, {out}]"),
        "5:53 MAE0613 an item of param `l` is the name of a secret, and this is a text",
    );
}
