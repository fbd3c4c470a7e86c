//! Large and hostile pipelines: they take little time, or are refused.

use super::*;

#[test]
fn large_files_take_little_time_or_are_refused() {
    let huge = format!("name: p\nsteps:\n{}", "# x\n".repeat(3_000_000));
    let start = Instant::now();
    let checked = read(&huge);
    assert!(
        told(&checked)[0].contains("MAE0601 the file has 12000015 bytes"),
        "{:?}",
        told(&checked)
    );
    assert!(start.elapsed() < Duration::from_secs(30), "{:?}", start.elapsed());

    let mut many = "name: p\nsteps:\n".to_owned();
    for at in 0..10_000 {
        let what = if at % 10 == 9 {
            "notify.webhook, with: { url: \"https://a/\" }"
        } else {
            "genrule, with: { outs: [x], cmd: \"y\" }"
        };
        many.push_str(&format!("- {{ id: s{at}, uses: {what} }}\n"));
    }
    let pipeline = good(&many);
    assert_eq!((pipeline.steps().len(), pipeline.edges.len()), (10_000, 9_999));
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
}

#[test]
fn what_copies_itself_is_refused() {
    // Each level uses its param ten times.
    let level = |inner: &str| {
        let uses = "${{ params.v }}".repeat(10);
        format!(
            "name: l\nparams: {{ v: {{ type: string }} }}\nsteps:\n- {{ id: a, include: {inner}, \
             with: {{ v: \"{uses}\" }} }}\n"
        )
    };
    let includes = |path: &str| match path.strip_suffix(".yaml").and_then(|n| n.parse().ok()) {
        Some(0) => Ok("name: l\nparams: { v: { type: string } }\nsteps:\n- { id: a, uses: \
                       filegroup, with: { srcs: [\"${{ params.v }}\"] } }\n"
            .to_owned()),
        Some(n) => Ok(level(&format!("{}.yaml", n - 1))),
        None => nothing(path),
    };
    let text = "name: p\nparams: { v: { type: string } }\nsteps:\n- { id: a, include: 12.yaml, with: \
                { v: \"${{ params.v }}\" } }\n";
    let checked = load("p.yaml", text, &includes, &defaults());
    let found = told(&checked);
    assert!(found.iter().any(|line| line.contains("come to more than 400000 parts")), "{found:?}");
    assert!(checked.pipeline.is_none());
}

#[test]
fn what_each_step_of_an_include_gets_is_counted() {
    let steps = (0..5_000)
        .map(|at| format!("- {{ id: s{at}, uses: filegroup, with: {{ srcs: [a] }} }}\n"))
        .collect::<String>();
    let check = |env: &str, condition: &str, expect: bool| {
        let includes = |_: &str| Ok(format!("name: many\n{env}steps:\n{steps}"));
        let text =
            format!("name: p\nsteps:\n- {{ id: a, include: m.yaml, if: \"{condition}\" }}\n");
        let checked = load("p.yaml", &text, &includes, &defaults());
        let refused = told(&checked).iter().any(|line| line.contains("MAE0601 values of params"));
        assert_eq!((checked.pipeline.is_none(), refused), (expect, expect), "{condition}");
    };
    check("", "git.tag == 'x'", false);
    check("", &["git.tag == 'x'"; 100].join(" || "), true);
    let many = (0..100).map(|at| format!("  V{at}: x\n")).collect::<String>();
    check(&format!("env:\n{many}"), "true", true);
}

#[test]
fn a_plan_that_a_run_refuses_is_refused_before_it() {
    let check = |steps: String, expect: &str| {
        let checked = read(&format!("name: p\nsteps:\n{steps}"));
        assert_eq!(told(&checked), [expect]);
        assert!(checked.pipeline.is_none());
    };
    let gate = |at: usize| format!("- {{ id: g{at}, uses: gate.approval }}\n");
    check(
        (0..257).map(gate).collect(),
        "259:9 MAE0601 a run has up to 256 gates, scans and signatures | one gate can guard many effects",
    );
    let undone = |at: usize| {
        format!(
            "- {{ id: s{at}, uses: test, with: {{ targets: [x] }}, on_failure: [{{ id: u{at}, uses: \
             test, with: {{ targets: [x] }} }}] }}\n"
        )
    };
    check(
        (0..10_001).map(undone).collect(),
        "10003:9 MAE0601 a run has up to 20000 steps, with their gates and the steps that they call | steps that differ in a value only are one, with `foreach`",
    );
}

#[test]
fn steps_beyond_the_bound_are_an_error() {
    let step = "- { id: ID, uses: filegroup, with: { srcs: [a] } }\n";
    let many = (0..15_000).map(|at| step.replace("ID", &format!("s{at}"))).collect::<String>();
    let includes = |_: &str| Ok(format!("name: many\nsteps:\n{many}"));
    let text = "name: p\nsteps:\n- { id: a, include: m.yaml }\n- { id: b, include: m.yaml }\n- { id: \
                gate, uses: gate.approval }\n";
    let checked = load("p.yaml", text, &includes, &defaults());
    assert_eq!(
        told(&checked),
        [
            "4:9 MAE0601 a pipeline has up to 20000 steps, with those of what it includes | steps that \
             differ in a value only are one, with `foreach`"
        ]
    );
    assert!(checked.pipeline.is_none());
}

#[test]
fn notes_hide_no_error_and_switch_no_check_off() {
    // Each of these leaves its model to the project, which is a note.
    let asks = (0..300)
        .map(|at| format!("- {{ id: s{at}, uses: llm.generate, with: {{ prompt: x }} }}\n"))
        .collect::<String>();
    let check = |last: &str| {
        let text = format!("name: p\nsteps:\n{asks}{last}");
        load("p.yaml", &text, &nothing, &Defaults::new())
    };
    let checked = check("- { id: gate, uses: gate.approval }\n");
    let pipeline = checked.pipeline.as_ref().expect("notes stop nothing");
    assert!(pipeline.find("gate").is_some());
    assert_eq!(checked.findings.len(), 100);
    let last = told(&checked).pop().expect("notes");
    assert!(last.ends_with(" | there are further notes; 100 are shown"), "{last}");
    let checked = check("- { id: gate, uses: gate.approval, with: { approvals: lots } }\n");
    assert!(checked.pipeline.is_none());
    let found = told(&checked);
    assert_eq!(found.len(), 101);
    assert!(found[100].contains("`approvals` of `gate.approval` is an int"), "{}", found[100]);
}

#[test]
fn more_errors_than_are_told_are_said_to_be_there() {
    let text = "- { id: a, uses: filegroup, with: { srcs: [a] }, needs: [none] }\n".repeat(9_000);
    let checked = read(&format!("name: p\nsteps:\n{text}"));
    let found = told(&checked);
    assert_eq!(found.len(), 100);
    assert!(found[99].ends_with(" | there are further errors; 100 are shown"), "{}", found[99]);
}

#[test]
fn what_is_found_often_hides_nothing_else() {
    let inner = "name: i\nsteps:\n- { id: a, uses: filegroup, with: { srcs: [1] } }\n";
    let many =
        (0..200).map(|at| format!("- {{ id: s{at}, include: i.yaml }}\n")).collect::<String>();
    let text = format!(
        "name: p\nsteps:\n{many}- {{ id: b, uses: test, with: {{ targets: [x] }}, needs: [c] }}\n"
    );
    let checked = load("p.yaml", &text, &|_: &str| Ok(inner.to_owned()), &defaults());
    assert_eq!(
        told(&checked),
        [
            "203:56 MAE0607 there is no step `c` | did you mean `b`?",
            "3:44 MAE0604 an item of `srcs` of `filegroup` is a text, not `1` | put it into quotes",
        ]
    );
}

#[test]
fn long_runs_and_wide_flows_are_walked_once() {
    // A million blanks within quotes, and behind an expression.
    let text = format!(
        "name: p\nsteps:\n- {{ id: a, uses: genrule, with: {{ outs: [x], cmd: \"${{{{ git.sha }}}}{}x\" }} }}\n",
        " ".repeat(1_000_000)
    );
    good(&text);
    // Steps side by side, then an effect, again and again; and makers that consumers are bound to.
    let mut text = "name: p\nsteps:\n".to_owned();
    for at in 0..3_000 {
        text.push_str(&format!(
            "- {{ id: i{at}, uses: build.container }}\n- {{ id: w{at}, uses: test, with: {{ targets: [x] }}, needs: [] }}\n- {{ id: s{at}, uses: security.sbom }}\n"
        ));
    }
    text.push_str("- { id: tell, uses: notify.webhook, with: { url: \"https://a/\" } }\n");
    let pipeline = good(&text);
    assert_eq!(pipeline.bindings.len(), 3_000);
    // Neither a factor of edges hides in many that need many.
    let names = (0..1_100).map(|at| format!("w{at}")).collect::<Vec<_>>();
    let mut text = "name: p\nsteps:\n".to_owned();
    for name in &names {
        text.push_str(&format!(
            "- {{ id: {name}, uses: filegroup, with: {{ srcs: [a] }}, needs: [] }}\n"
        ));
    }
    text.push_str("- { id: x, include: m.yaml }\n");
    let effects = (0..1_000).map(|at| {
        format!(
            "- {{ id: e{at}, uses: notify.webhook, with: {{ url: \"https://a/\" }}, needs: [] }}\n"
        )
    });
    let inner = format!("name: m\nsteps:\n{}", effects.collect::<String>());
    let checked = load("p.yaml", &text, &|_: &str| Ok(inner.clone()), &defaults());
    let found = told(&checked);
    assert!(
        found[0].contains("MAE0601 steps follow each other in more than 1000000 ways"),
        "{found:?}"
    );
}

#[test]
fn what_is_named_often_is_walked_once() {
    let steps = (0..5_000)
        .map(|at| format!("- {{ id: s{at}, uses: test, with: {{ targets: [x] }}, needs: [] }}\n"))
        .collect::<String>();
    let includes = |_: &str| Ok(format!("name: many\nsteps:\n{steps}"));
    let needs = ["x"; 100_000].join(", ");
    let text = format!(
        "name: p\nsteps:\n- {{ id: x, include: m.yaml }}\n- {{ id: y, uses: test, with: {{ targets: \
         [x] }}, needs: [{needs}] }}\n"
    );
    let checked = load("p.yaml", &text, &includes, &defaults());
    assert_eq!(told(&checked), Vec::<String>::new());
    assert_eq!(checked.pipeline.expect("no errors").edges.len(), 5_000);
}
