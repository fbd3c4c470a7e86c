//! The table: each edit with what it runs and what it evaluates.

use super::fixture::{SETTINGS, Step};

/// What a build evaluates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Evaluated {
    /// No file and no target.
    Nothing,
    /// The files of these packages and the implementations of these targets; the rest is
    /// remembered.
    These(Vec<String>, Vec<String>),
    /// All that the request needs, since nothing is remembered.
    All,
}

/// An edit and what it comes to.
pub struct Row {
    pub name: &'static str,
    pub steps: Vec<Step>,
    /// The labels of the actions that run, sorted.
    pub ran: Vec<&'static str>,
    /// What is evaluated, also where the build fails.
    pub evaluated: Evaluated,
    /// What the message of the failure says, where the build fails.
    pub fails: Option<&'static str>,
}

/// A row that evaluates nothing and succeeds.
fn row(name: &'static str, steps: Vec<Step>, ran: &[&'static str]) -> Row {
    Row { name, steps, ran: ran.to_vec(), evaluated: Evaluated::Nothing, fails: None }
}

impl Row {
    fn evaluates(mut self, packages: &[&str], targets: &[&str]) -> Self {
        let owned = |names: &[&str]| names.iter().map(|&name| name.to_owned()).collect();
        self.evaluated = Evaluated::These(owned(packages), owned(targets));
        self
    }

    fn evaluates_all(mut self) -> Self {
        self.evaluated = Evaluated::All;
        self
    }

    fn fails(mut self, message: &'static str) -> Self {
        self.fails = Some(message);
        self
    }
}

/// The table.
pub fn rows() -> Vec<Row> {
    let mut rows = sources();
    rows.extend(evaluation());
    rows.extend(loaded());
    rows.extend(settings());
    rows.extend(folders());
    rows.extend(outputs());
    rows.extend(tools());
    rows.extend(toolchains());
    rows.extend(requests());
    rows
}

/// Edits of what actions read.
fn sources() -> Vec<Row> {
    use Step::{Age, Disguise, Link, Mode, Write};
    let texts = &["//data:names", "//data:texts"];
    vec![
        row("nothing", vec![], &[]),
        row("a source", vec![Write("app/one.c", "ONE\n")], &["//app:all", "//app:one"]),
        row("a source, back", vec![Write("app/one.c", "one\n")], &[]),
        row(
            "a header that two share",
            vec![Write("lib/low.h", "LOW\n")],
            &["//app:all", "//app:one", "//app:two"],
        ),
        row("a header of one", vec![Write("lib/top.h", "TOP\n")], &["//app:all", "//app:one"]),
        row("written again alike", vec![Write("app/two.c", "two\n")], &[]),
        row("its time alone, backwards", vec![Age("app/two.c", 1_000_000)], &[]),
        row(
            "another text of an age ago",
            vec![Write("app/two.c", "2\n"), Age("app/two.c", 2_000_000)],
            &["//app:all", "//app:two"],
        ),
        row(
            "same length and time",
            vec![Disguise("app/two.c", "3\n")],
            &["//app:all", "//app:two"],
        ),
        row("an executable bit", vec![Mode("data/run.sh", 0o755)], &["//data:bit"]),
        row("the bit again", vec![Mode("data/run.sh", 0o644)], &[]),
        row("a link's target", vec![Link("data/link", "two.ref")], &["//data:linked"]),
        row("behind a link", vec![Write("data/two.ref", "II\n")], &["//data:linked"]),
        row("what no one reads", vec![Write("data/one.ref", "I\n")], &[]),
        row("in a glob, changed", vec![Write("data/a.txt", "A\n")], texts),
        row(
            "two at once",
            vec![Write("app/one.c", "1\n"), Write("data/a.txt", "aa\n")],
            &["//app:all", "//app:one", "//data:names", "//data:texts"],
        ),
    ]
}

/// Edits of build files and of what they load.
fn evaluation() -> Vec<Row> {
    use Step::Replace;
    const APP: &str = "app/maestro.star";
    const LIB: &str = "lib/maestro.star";
    vec![
        row(
            "a comment",
            vec![Replace(APP, "obj(name = \"one\"", "# one\nobj(name = \"one\"")],
            &[],
        )
        .evaluates(&["//app"], &[]),
        row(
            "a macro's argument",
            vec![Replace(APP, "\"w\"", "\"v\"")],
            &["//app:pair_x", "//app:pair_y"],
        )
        .evaluates(&["//app"], &["//app:pair_x", "//app:pair_y"]),
        row(
            "an attribute",
            vec![Replace(APP, "src = \"one.c\"", "src = \"one.c\", opt = \"O3\"")],
            &["//app:all", "//app:one"],
        )
        .evaluates(&["//app"], &["//app:one"]),
        row("a command", vec![Replace(APP, "cat $(SRCS)", "cat  $(SRCS)")], &["//app:all"])
            .evaluates(&["//app"], &["//app:all"]),
        row("a branch not taken", vec![Replace(APP, "echo release", "echo  release")], &[])
            .evaluates(&["//app"], &[]),
        row(
            "a tag",
            vec![Replace(APP, "src = \"two.c\"", "src = \"two.c\", tags = [\"slow\"]")],
            &[],
        )
        .evaluates(&["//app"], &["//app:two"]),
        row(
            "a dependency less",
            vec![Replace(LIB, "deps = [\":low\"]", "deps = []")],
            &["//app:all", "//app:one"],
        )
        .evaluates(&["//lib"], &["//app:one", "//lib:top"]),
        row("a dependency more", vec![Replace(LIB, "deps = []", "deps = [\":low\"]")], &[])
            .evaluates(&["//lib"], &["//app:one", "//lib:top"]),
    ]
}

/// Edits of a file that packages load. All of its rules are made anew with it.
fn loaded() -> Vec<Row> {
    const DEFS: &str = "tools/defs.star";
    const RULED: [&str; 4] = ["//app:one", "//app:two", "//lib:low", "//lib:top"];
    let objects = &["//app:all", "//app:one", "//app:two"];
    let edit = |name, from, to, ran: &[&'static str]| {
        row(name, vec![Step::Replace(DEFS, from, to)], ran).evaluates(&["//app", "//lib"], &RULED)
    };
    vec![
        edit("a macro's body", "echo \" +", "echo  -\" +", &["//app:pair_x", "//app:pair_y"])
            .evaluates(
                &["//app", "//lib"],
                &[
                    "//app:one",
                    "//app:pair_x",
                    "//app:pair_y",
                    "//app:two",
                    "//lib:low",
                    "//lib:top",
                ],
            ),
        edit("a comment in what is loaded", "def pair", "# Two.\ndef pair", &[]),
        edit("a rule's body", "echo $1 $2", "echo $2 $1", objects),
        edit("an attribute's default", "\"O0\"", "\"O2\"", &["//app:all", "//app:two"]),
        edit("a provider's field", "word = \"word\"", "word = \"term\"", objects),
    ]
}

/// Edits of flags, of settings and of what may be seen, and mistakes.
fn settings() -> Vec<Row> {
    use Step::{Flags, Replace, Write};
    const APP: &str = "app/maestro.star";
    const PROFILE: &str = "[workspace]\ntoolchains = [\"//kit:a\"]\n\
                           [config.x]\nparams = { \"//cfg:mode\" = \"release\" }\n";
    let release = &["--param", "//cfg:mode=release"];
    vec![
        row("a param", vec![Flags(release)], &["//app:mode"]).evaluates_all(),
        row("a param and a source", vec![Write("app/one.c", "p\n")], &["//app:all", "//app:one"]),
        row("no param", vec![Flags(&[])], &[]),
        row("a mistake", vec![Replace(APP, "pair(name", "pair((name")], &[]).fails("error"),
        row("mended", vec![Replace(APP, "pair((name", "pair(name")], &[]).evaluates(&[], &[]),
        row("a failing action", vec![Replace(APP, "cat  $(SRCS)", "false $(SRCS)")], &[])
            .evaluates(&["//app"], &["//app:all"])
            .fails("//app:all"),
        row("a command that works", vec![Replace(APP, "false $(SRCS)", "cat  $(SRCS)")], &[])
            .evaluates(&["//app"], &["//app:all"]),
        row(
            "hidden",
            vec![Replace(
                "lib/maestro.star",
                "\"low.h\"], visibility = [\"public\"]",
                "\"low.h\"]",
            )],
            &[],
        )
        .fails("visib"),
        row(
            "shown again",
            vec![Replace("lib/maestro.star", "\"low.h\"]", "\"low.h\"], visibility = [\"//app\"]")],
            &[],
        )
        .evaluates(&["//lib"], &["//lib:low"]),
        row("settings", vec![Write("maestro.toml", PROFILE)], &[]).evaluates_all(),
        row("a profile", vec![Flags(&["--config", "x"])], &[]).evaluates_all(),
        row("no profile", vec![Flags(&[])], &[]),
    ]
}

/// Edits of what folders hold.
fn folders() -> Vec<Row> {
    use Step::{Remove, Rename, Write};
    let texts = &["//data:names", "//data:texts"];
    let package = "load(\"@maestro//rules:basics.star\", \"genrule\")\n\
                   genrule(name = \"new\", outs = [\"new.out\"], cmd = \"echo new > $@\")\n";
    let glob =
        |name, step, ran: &[&'static str]| row(name, vec![step], ran).evaluates(&["//data"], texts);
    vec![
        glob("one more for a glob", Write("data/b.txt", "b\n"), texts),
        glob("renamed in a glob", Rename("data/b.txt", "data/ü ber.txt"), texts),
        glob("renamed again", Rename("data/ü ber.txt", "data/über.txt"), texts),
        glob("one less for a glob", Remove("data/über.txt"), &[]),
        glob("below, for a glob", Write("data/sub/c.txt", "c\n"), texts),
        glob("a package appears below", Write("data/sub/maestro.star", ""), &[])
            .evaluates(&["//data", "//data/sub"], texts),
        glob("and vanishes", Remove("data/sub/maestro.star"), &[]),
        glob("a folder goes", Remove("data/sub"), &[]),
        row("a new package", vec![Write("new/maestro.star", package)], &["//new:new"])
            .evaluates(&["//new"], &["//new:new"]),
        row("a package goes", vec![Remove("new")], &[]).evaluates(&[], &[]),
        row("a file becomes a folder", vec![Remove("app/two.c"), Write("app/two.c/x", "x\n")], &[])
            .fails("two.c"),
        row(
            "a folder becomes a file",
            vec![Remove("app/two.c"), Write("app/two.c", "2\n")],
            &["//app:all", "//app:two"],
        ),
        row("a source goes", vec![Remove("app/two.c")], &[]).fails("two.c"),
        row("a source is back", vec![Write("app/two.c", "2\n")], &[]),
    ]
}

/// Edits of what was built.
fn outputs() -> Vec<Row> {
    use Step::{Clean, Remove, Write};
    const OUT: &str = "maestro-out/shared/app/all.out";
    vec![
        row("an output goes", vec![Remove(OUT)], &[]),
        row("an output is edited", vec![Remove(OUT), Write(OUT, "mine\n")], &[]),
        row(
            "an output becomes a folder",
            vec![Remove(OUT), Write("maestro-out/shared/app/all.out/x", "mine\n")],
            &[],
        ),
        row("all outputs go", vec![Remove("maestro-out")], &[]),
        row("clean", vec![Clean], &[]),
    ]
}

/// Edits of tools, and of what steps are told besides their inputs.
fn tools() -> Vec<Row> {
    use Step::{Env, Replace, Write};
    const STEPS: &str = "steps/maestro.star";
    let edit = |name, from, to, ran: &[&'static str]| {
        row(name, vec![Replace(STEPS, from, to)], ran).evaluates(&["//steps"], &[])
    };
    vec![
        row("a tool's script", vec![Write("steps/tool.sh", "echo TOOL\n")], &["//steps:by_tool"]),
        edit("a step's variable", "{\"WORD\": \"w\"}", "{\"WORD\": \"v\"}", &["//steps:by_env"])
            .evaluates(&["//steps"], &["//steps:by_env"]),
        row("a variable of the machine", vec![Env("WORD", "x")], &[]),
        // The name is in no key.
        edit("a target's name", "name = \"by_env\"", "name = \"env\"", &[])
            .evaluates(&["//steps"], &["//steps:env"]),
        row(
            "a name that another uses",
            vec![
                Replace(STEPS, "\"once\"", "\"first\""),
                Replace(STEPS, "\":once\"", "\":first\""),
            ],
            &[],
        )
        .evaluates(&["//steps"], &["//steps:after", "//steps:first"]),
        edit("a target goes", "genrule(name = \"after\"", "0 and genrule(name = \"after\"", &[]),
        // By now most of the graph is retired, so that it is made anew.
        edit("a target is back", "0 and genrule", "genrule", &[]).evaluates_all(),
    ]
}

/// Edits of toolchains.
fn toolchains() -> Vec<Row> {
    use Step::{Replace, Write};
    const KIT: &str = "kit/maestro.star";
    let edit = |name, from, to| row(name, vec![Replace(KIT, from, to)], &[]);
    let incompatible =
        "name = \"b\", target_compatible_with = [\"@maestro//platforms/os:windows\"],";
    let mut field = edit("a toolchain's field", "word = \"plain\"", "word = \"Plain\"");
    field.ran = vec!["//kit/use:kitted"];
    vec![
        field.evaluates(&["//kit"], &["//kit/use:kitted", "//kit:plain"]),
        edit("a toolchain that no one uses", "word = \"fine\"", "word = \"Fine\"")
            .evaluates(&["//kit"], &["//kit:fine"]),
        row(
            "another toolchain is registered",
            vec![Replace("maestro.toml", "//kit:a", "//kit:b")],
            &["//kit/use:kitted"],
        )
        .evaluates_all(),
        edit("a toolchain no longer fits", "name = \"b\",", incompatible)
            .fails("no toolchain of type `//kit:type` fits"),
        row("settings as before", vec![Write("maestro.toml", SETTINGS)], &[]).evaluates_all(),
    ]
}

/// Edits beside what is asked for, and tests. Each request has a memory of its own.
fn requests() -> Vec<Row> {
    use Step::{Ask, Flags, Replace, Write};
    const DATA: &str = "data/maestro.star";
    let release = &["--param", "//cfg:mode=release"];
    // A test is its program, the runfiles around it, and its run.
    let both = &["//steps:check", "//steps:check", "//steps:other", "//steps:other"];
    let other = &["//steps:other", "//steps:other", "//steps:other"];
    vec![
        row("a narrower request", vec![Ask("build", "//app/...")], &[]).evaluates_all(),
        row("a source beside it", vec![Write("data/a.txt", "beside\n")], &[]),
        row("a build file beside it", vec![Replace(DATA, "\"link\"", "fail()")], &[]),
        row("the tests", vec![Ask("test", "//steps/...")], both).evaluates_all(),
        row("a test's source", vec![Write("steps/other.sh", "exit 0\n")], other),
        row(
            "a test's data",
            vec![Write("steps/expect.txt", "yes, yes\n")],
            &["//steps:check", "//steps:check"],
        ),
        row("a param that no test reads", vec![Flags(release)], &[]).evaluates_all(),
        row(
            "a test that fails",
            vec![Write("steps/other.sh", "exit 1\n")],
            &["//steps:other", "//steps:other"],
        )
        .fails("//steps:other"),
        row("a test is mended", vec![Write("steps/other.sh", "exit 0\n")], &[]),
        // The runs of the edited tests stay due; nothing asks for them here.
        row(
            "everything again",
            vec![Flags(&[]), Ask("build", "//..."), Replace(DATA, "fail()", "\"link\"")],
            &["//data:names", "//data:texts"],
        )
        .evaluates(&[], &[]),
    ]
}
