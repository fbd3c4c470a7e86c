//! What a pipeline must not be able to do: pass by a gate, or give a secret away.

use super::*;

#[test]
fn an_effect_is_skipped_with_what_guards_it() {
    let check = |steps: &[&str], expect: &[(&str, &str, &str)]| {
        let steps: String = steps.iter().map(|step| format!("- {{ {step} }}\n")).collect();
        let text = format!("name: p\nparams: {{ e: x }}\nsteps:\n{steps}");
        let expect = expect.iter().map(|(place, effect, guard)| {
            format!("{place} MAE0619 `{effect}` is denied by policy where `{guard}` before it is skipped")
        });
        let checked = read(&text);
        let found = told(&checked);
        let found = found.iter().map(|line| line.split(" | ").next().unwrap_or_default());
        assert_eq!(found.collect::<Vec<_>>(), expect.collect::<Vec<_>>(), "{text}");
        assert!(checked.pipeline.is_some());
    };
    let gate = "id: gate, uses: gate.approval, if: params.e == 'x'";
    let act = |rest: &str| format!("id: act, uses: run.command, with: {{ command: [x] }}{rest}");
    let tell = "id: tell, uses: notify.webhook, with: { url: \"https://a/\" }";
    check(&[gate, &act("")], &[("5:9", "act", "gate")]);
    check(&[gate, &act(", if: params.e == 'y'")], &[("5:9", "act", "gate")]);
    check(&[gate, &act(", if: params.e == 'x' || git.tag != ''")], &[("5:9", "act", "gate")]);
    check(&[gate, &act(", if: \"${{ git.tag != '' && params.e=='x' }}\"")], &[]);
    // At any distance; a step that acts on nothing is not asked about.
    check(
        &[gate, "id: t, uses: test, with: { targets: [x] }", &act(", needs: [t]"), tell],
        &[("6:9", "act", "gate"), ("7:9", "tell", "gate")],
    );
    check(&[gate, &act(", needs: []")], &[]);
    check(&["id: gate, uses: gate.approval, if: true", &act("")], &[]);
    // For each case a gate and an effect.
    check(
        &[
            gate,
            &act(", if: params.e == 'x'"),
            "id: other, uses: gate.approval, if: params.e != 'x', needs: []",
            &format!("{tell}, if: params.e != 'x', needs: [other]"),
        ],
        &[],
    );
    check(
        &[
            "id: b, uses: build.container",
            "id: scan, uses: security.scan, if: git.tag != ''",
            "id: push, uses: registry.push, with: { image: r }",
        ],
        &[("6:9", "push", "scan")],
    );
}

#[test]
fn secrets_stay_secrets_in_loops_lists_and_fields() {
    let check = |step: &str, expect: &str| {
        let text = format!(
            "name: p\nparams: {{ t: {{ type: secret }}, l: {{ type: list, items: {{ type: secret }} }} \
             }}\nsteps:\n- {{ id: a, {step} }}\n"
        );
        let found = told(&read(&text));
        let found = found.iter().map(|line| line.split(" | ").next().unwrap_or_default());
        assert_eq!(found.collect::<Vec<_>>().join("; "), expect, "{text}");
    };
    let run =
        |word: &str| format!("uses: run.command, with: {{ command: [\"${{{{ {word} }}}}\"] }}");
    let tell =
        |body: &str| format!("uses: notify.webhook, with: {{ url: \"https://a/\", body: {body} }}");
    let word = "4:54 MAE0604 an item of `command` of `run.command` is a text, and this is a secret";
    check(&format!("{}, foreach: \"${{{{ params.l }}}}\", max: 3", run("item")), word);
    check(&format!("{}, foreach: [\"${{{{ params.t }}}}\"]", run("item")), word);
    check(
        &format!("{}, foreach: [\"${{{{ params.t }}}}\", x]", run("item")),
        &word.replace("a secret", "something with a secret in it"),
    );
    check(&format!("{}, matrix: {{ k: [\"${{{{ params.t }}}}\"] }}", run("matrix.k")), word);
    let body = "MAE0613 `body` of `notify.webhook` cannot be a secret";
    check(&tell("[\"${{ params.t }}\"]"), &format!("4:67 {body}"));
    check(&tell("{ a: { b: \"${{ params.t }}\" } }"), &format!("4:67 {body}"));
    check(&tell("\"${{ params }}\""), &format!("4:72 {body}"));
    // As a whole it is handed on, also by a loop.
    check(
        "uses: notify.webhook, with: { url: \"https://a/\", secret: \"${{ item }}\" }, foreach: \
         \"${{ params.l }}\", max: 3",
        "",
    );
}
