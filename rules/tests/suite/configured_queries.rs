//! Queries about configured targets and about actions.

use maestro_rules::{
    ActionAnswer, ActionForm, OutputOptions, QueryForm, QueryOptions, aquery, cquery, cquery_files,
};

use crate::workspace::{Memory, render};

const RULES: &str = r#"
visibility(["public"])

def _join(ctx):
    out = ctx.actions.declare_file(ctx.label.name + ".txt")
    args = ctx.actions.args()
    args.add("-o", out)
    args.add_all(depset(ctx.files.srcs))
    ctx.actions.run(
        executable = "/bin/join it",
        arguments = [args],
        inputs = ctx.files.srcs,
        outputs = [out],
        env = {"MODE": "fast"},
        mnemonic = "Join",
        progress_message = "Joining " + ctx.label.name,
    )
    note = ctx.actions.declare_file(ctx.label.name + ".note")
    ctx.actions.write(note, "it's a note")
    return [DefaultInfo(files = depset([out]))]

join = rule(implementation = _join, attrs = {"srcs": attr.label_list(allow_files = True)})
"#;

fn workspace() -> Memory {
    Memory::new(&[
        ("rules.star", RULES),
        ("maestro.star", ""),
        (
            "a/maestro.star",
            r#"load("//:rules.star", "join")
join(name = "low", srcs = ["x.c"])
join(name = "top", srcs = [":low", "y.c"])
join(name = "hidden", tags = ["manual"])
"#,
        ),
        ("a/x.c", ""),
        ("a/y.c", ""),
    ])
}

fn options<'a>(host: &'a Memory, expression: &'a str) -> QueryOptions<'a> {
    QueryOptions::new(host, expression, 2)
}

/// An answer of `cquery` in lines, or its errors.
fn configured(expression: &str, expect: &str) {
    let host = workspace();
    let got = match cquery(options(&host, expression)) {
        Ok(answer) => {
            let mut out = Vec::new();
            let form = OutputOptions::new(QueryForm::Label);
            answer.write(&form, &mut out).expect("memory does not fail");
            String::from_utf8(out).expect("labels are UTF-8")
        }
        Err(errors) => render(&errors),
    };
    assert_eq!(got, expect, "{expression}");
}

fn actions(expression: &str) -> ActionAnswer {
    let host = workspace();
    aquery(options(&host, expression)).unwrap_or_else(|errors| panic!("{}", render(&errors)))
}

fn written(expression: &str, form: ActionForm) -> String {
    let answer = actions(expression);
    let facts = answer.facts().unwrap_or_else(|errors| panic!("{}", render(&errors)));
    let mut out = Vec::new();
    answer.write(form, &facts, &mut out).expect("memory does not fail");
    String::from_utf8(out).expect("actions are UTF-8")
}

#[test]
fn targets_have_configurations() {
    configured("//a/...", "//a:low (shared)\n//a:top (shared)\n");
    configured("//a:hidden", "//a:hidden (shared)\n");
    configured(
        "deps(//a:top)",
        "//a:low (shared)\n//a:top (shared)\n//a:x.c (null)\n//a:y.c (null)\n",
    );
    configured("config(deps(//a:top), null)", "//a:x.c (null)\n//a:y.c (null)\n");
    configured("config(deps(//a:top), shared) - //a:low", "//a:top (shared)\n");
    configured(
        "somepath(//a:top, //a:x.c)",
        "//a:top (shared)\n//a:low (shared)\n//a:x.c (null)\n",
    );
    configured(
        "config(//a:top, shred)",
        "error[MAE0140]: the query is malformed at column 17: no target is in a configuration \
         `shred`\nhint: did you mean `shared`?\nhint: configurations: shared, null",
    );
    configured(
        "siblings(//a:top)",
        "error[MAE0140]: the query is malformed at column 1: `cquery` has no function \
         `siblings`\nhint: use `maestro query`",
    );
}

#[test]
fn targets_make_files() {
    let host = workspace();
    let files = cquery_files(options(&host, "deps(//a:top)"));
    let files = files.unwrap_or_else(|errors| panic!("{}", render(&errors)));
    assert_eq!(
        files,
        ["maestro-out/shared/a/low.txt", "maestro-out/shared/a/top.txt", "a/x.c", "a/y.c"]
    );
}

#[test]
fn actions_are_chosen() {
    let check = |expression: &str, expect: &[&str]| {
        let facts = actions(expression).facts().expect("they can be described");
        let got: Vec<String> =
            facts.iter().map(|facts| format!("{} {}", facts.mnemonic, facts.target)).collect();
        assert_eq!(got, expect, "{expression}");
    };
    check("//a:top", &["Join //a:top", "Write //a:top"]);
    check("mnemonic(Join, deps(//a:top))", &["Join //a:low", "Join //a:top"]);
    check("mnemonic(Joi, deps(//a:top))", &[]);
    check("inputs(\"a/.*\\.c\", deps(//a:top))", &["Join //a:low", "Join //a:top"]);
    check("inputs(\".*/low.txt\", deps(//a:top))", &["Join //a:top"]);
    check("outputs(\".*note\", mnemonic(\".*\", //a:low))", &["Write //a:low"]);
    let host = workspace();
    let errors = aquery(options(&host, "deps(mnemonic(Join, //a:top))"));
    assert_eq!(
        render(&errors.expect_err("it stands inside")),
        "error[MAE0140]: the query is malformed at column 15: `inputs`, `outputs` and `mnemonic` \
         choose actions, not targets\nhint: let them stand around everything else: \
         `mnemonic(\"Cc.*\", deps(//x))`"
    );
}

#[test]
fn an_action_is_a_paragraph() {
    let text = written("//a:top", ActionForm::Text);
    let keyless: Vec<&str> =
        text.lines().filter(|line| !line.starts_with("  ActionKey: ")).collect();
    assert_eq!(
        keyless.join("\n"),
        "action 'Joining top'
  Mnemonic: Join
  Target: //a:top
  Configuration: shared
  ExecutionPlatform: @maestro//platforms:host
  Class: pure
  Inputs: [a/y.c, maestro-out/shared/a/low.txt]
  Outputs: [maestro-out/shared/a/top.txt]
  Environment: [HOME=/nonexistent, LANG=C.UTF-8, MODE=fast, PATH=/usr/bin:/bin, SOURCE_DATE_EPOCH=315532800, TMPDIR=/tmp, TZ=UTC]
  Command Line: (exec '/bin/join it' \\
    -o \\
    maestro-out/shared/a/top.txt \\
    maestro-out/shared/a/low.txt \\
    a/y.c)

action 'Write'
  Mnemonic: Write
  Target: //a:top
  Configuration: shared
  ExecutionPlatform: @maestro//platforms:host
  Class: pure
  Inputs: []
  Outputs: [maestro-out/shared/a/top.note]
  Native: @maestro//write 1
  Request: {\"content\":\"it's a note\",\"executable\":false}
"
    );
    assert_eq!(text.matches("  ActionKey: ").count(), 2);
}

#[test]
fn the_key_follows_the_declaration() {
    let key = |expression: &str| {
        let facts = actions(expression).facts().expect("they can be described");
        facts.into_iter().next().map(|facts| facts.key)
    };
    assert_eq!(key("mnemonic(Join, //a:top)"), key("mnemonic(Join, deps(//a:top) - //a:low)"));
    assert_ne!(key("mnemonic(Join, //a:top)"), key("mnemonic(Join, //a:low)"));
}

#[test]
fn messages_share_what_actions_share() {
    let json = written("mnemonic(Join, deps(//a:top))", ActionForm::JsonProto);
    let value: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    let names = |field: &str, key: &str| -> Vec<String> {
        let rows = value[field].as_array().cloned().unwrap_or_default();
        rows.iter().map(|row| format!("{} {}", row["id"], row[key])).collect()
    };
    assert_eq!(names("targets", "label"), ["1 \"//a:low\"", "2 \"//a:top\""]);
    assert_eq!(names("ruleClasses", "name"), ["1 \"join\""]);
    assert_eq!(
        names("pathFragments", "label"),
        [
            "1 \"maestro-out\"",
            "2 \"shared\"",
            "3 \"a\"",
            "4 \"low.txt\"",
            "5 \"a\"",
            "6 \"x.c\"",
            "7 \"top.txt\"",
            "8 \"y.c\"",
        ]
    );
    let second = &value["actions"][1];
    assert_eq!(second["arguments"][0], "/bin/join it");
    assert_eq!((&second["targetId"], &second["primaryOutputId"]), (&2.into(), &3.into()));
    assert_eq!(value["depSetOfFiles"].as_array().map(Vec::len), Some(2));
}
