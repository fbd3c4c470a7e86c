//! Memory between builds: what is evaluated again after an edit, exactly, and that the result is
//! what it would be without memory.

use std::collections::BTreeSet;

use maestro_rules::{ChangedPaths, LoadOptions, Reloaded, Remember, Remembered, reload};

use crate::workspace::{Memory, actions, keys, patterns, render, requested};

/// A workspace that is built again and again.
struct Session {
    files: Vec<(String, String)>,
    patterns: Vec<&'static str>,
    base: Vec<u8>,
    delta: Option<Vec<u8>>,
}

/// What a rule file is made of: a library that hands on its sources, and what it needs.
const RULES: &str = r#"
visibility(["//..."])
Info = provider(fields = ["files"])

def _lib(ctx):
    out = ctx.actions.declare_file(ctx.label.name + ".out")
    below = [dep[Info].files for dep in ctx.attr.deps]
    files = depset(ctx.files.srcs, transitive = below)
    ctx.actions.run_shell(outputs = [out], inputs = files, command = "cat > " + out.path + ctx.attr.flag)
    return [DefaultInfo(files = depset([out])), Info(files = files)]

lib = rule(_lib, attrs = {
    "srcs": attr.label_list(allow_files = True),
    "deps": attr.label_list(providers = [Info]),
    "flag": attr.string(),
})
"#;

const WORKSPACE: &[(&str, &str)] = &[
    ("build/maestro.star", ""),
    ("build/rules.star", RULES),
    ("build/names.star", "visibility([\"//...\"])\nprint('names')\nFLAG = ' a'\n"),
    (
        "app/maestro.star",
        "load(\"//build:rules.star\", \"lib\")\nload(\"//build:names.star\", \"FLAG\")\n\
         lib(name = \"app\", srcs = [\"a.txt\"], deps = [\"//lib\"], flag = FLAG)\n",
    ),
    ("app/a.txt", ""),
    (
        "lib/maestro.star",
        "load(\"//build:rules.star\", \"lib\")\n\
         lib(name = \"lib\", srcs = glob([\"*.txt\"]), visibility = [\"//app\"])\n",
    ),
    ("lib/l.txt", ""),
    ("other/maestro.star", "load(\"//build:rules.star\", \"lib\")\nlib(name = \"other\")\n"),
];

impl Session {
    fn new(files: &[(&str, &str)], patterns: &[&'static str]) -> Self {
        let files = files.iter().map(|(p, t)| ((*p).to_owned(), (*t).to_owned())).collect();
        let mut out = Self { files, patterns: patterns.to_vec(), base: Vec::new(), delta: None };
        let first = out.cold().unwrap_or_else(|errors| panic!("{errors}"));
        let Remembered::Base(base) = first.remembered else { panic!("a base") };
        out.base = base;
        out
    }

    fn host(&self) -> Memory {
        let files: Vec<(&str, &str)> = self.files.iter().map(|(p, t)| (&**p, &**t)).collect();
        Memory::new(&files)
    }

    fn load(
        &self,
        memory: Option<maestro_rules::Memory<'_>>,
        remember: Remember,
    ) -> Result<Reloaded, String> {
        let host = self.host();
        let options = LoadOptions::new(&host, patterns(&self.patterns), 2);
        reload(options, memory, remember).map_err(|errors| render(&errors))
    }

    fn cold(&self) -> Result<Reloaded, String> {
        self.load(None, Remember::Base)
    }

    fn set(&mut self, path: &str, text: Option<&str>) {
        self.files.retain(|(own, _)| own != path);
        self.files.extend(text.map(|text| (path.to_owned(), text.to_owned())));
    }

    /// Edits files, builds with memory, and compares with a build without.
    fn edit(&mut self, edits: &[(&str, Option<&str>)]) -> Result<Reloaded, String> {
        let before = self.host();
        for (path, text) in edits {
            self.set(path, *text);
        }
        let changed = changes(&before, &self.host(), edits);
        let delta = self.delta.take();
        let memory = maestro_rules::Memory {
            base: &self.base,
            delta: delta.as_deref(),
            changed: &ChangedPaths::These(changed),
        };
        let warm = self.load(Some(memory), Remember::Delta);
        let cold = self.cold();
        match (&warm, &cold) {
            (Ok(warm), Ok(cold)) => {
                assert_same(warm, cold);
                let Remembered::Delta(bytes) = &warm.remembered else { panic!("a delta") };
                self.delta = Some(bytes.clone());
            }
            (Err(warm), Err(cold)) => {
                assert_eq!(warm, cold);
                self.delta = delta;
            }
            (warm, cold) => panic!("with memory {:?}, without {:?}", warm.is_ok(), cold.is_ok()),
        }
        warm
    }
}

/// The paths of edits, and the folders whose listings they change.
fn changes(before: &Memory, after: &Memory, edits: &[(&str, Option<&str>)]) -> BTreeSet<String> {
    use maestro_core::RelPath;
    use maestro_core::host::Host;
    let mut out = BTreeSet::new();
    for (path, _) in edits {
        out.insert((*path).to_owned());
        let mut folder = RelPath::new(path).expect("a path").parent();
        loop {
            let list = |host: &Memory| host.list(folder.as_ref()).expect("readable");
            if list(before) != list(after) {
                out.insert(folder.as_ref().map(ToString::to_string).unwrap_or_default());
            }
            let Some(inner) = folder else { break };
            folder = inner.parent();
        }
    }
    out
}

fn assert_same(warm: &Reloaded, cold: &Reloaded) {
    let (warm, cold) = (&warm.loaded, &cold.loaded);
    assert_eq!(requested(warm), requested(cold));
    assert_eq!(keys(&warm.graph), keys(&cold.graph));
    assert_eq!(actions(&warm.graph), actions(&cold.graph));
    assert_eq!(render(&warm.remarks), render(&cold.remarks));
    let places = |graph: &maestro_core::ActionGraph| -> BTreeSet<(String, String)> {
        graph.targets().map(|(_, t)| (t.label.to_string(), t.location.clone())).collect()
    };
    assert_eq!(places(&warm.graph), places(&cold.graph));
}

/// The files and packages that are evaluated after an edit of [`WORKSPACE`].
fn check(edits: &[(&str, Option<&str>)], files: &[&str], packages: &[&str]) {
    let mut session = Session::new(WORKSPACE, &["//..."]);
    let warm = session.edit(edits).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(warm.reevaluated.packages, packages, "packages after {edits:?}");
    assert_eq!(warm.reevaluated.files, files, "files after {edits:?}");
    // What was remembered of that build is as good as what was remembered of the first.
    let again = session.edit(&[]).unwrap_or_else(|errors| panic!("{errors}"));
    assert_eq!(again.reevaluated.packages, Vec::<String>::new(), "after {edits:?} and nothing");
}

#[test]
fn an_edit_evaluates_its_package_and_what_it_loads() {
    let rules = "build/rules.star";
    check(&[], &[rules], &[]);
    check(&[("app/a.txt", Some("new"))], &[rules], &[]);
    // A package file that changed, and one whose glob did.
    check(
        &[(
            "other/maestro.star",
            Some("load(\"//build:rules.star\", \"lib\")\n#\nlib(name = \"o\")"),
        )],
        &[rules, "other/maestro.star"],
        &["//other"],
    );
    check(&[("lib/m.txt", Some(""))], &[rules, "lib/maestro.star"], &["//lib"]);
    check(
        &[("lib/l.txt", None), ("lib/k.txt", Some(""))],
        &[rules, "lib/maestro.star"],
        &["//lib"],
    );
    // A file that one package loads, and one that all do.
    check(
        &[("build/names.star", Some("visibility([\"//...\"])\nFLAG = ' b'\n"))],
        &["app/maestro.star", "build/names.star", rules],
        &["//app"],
    );
    check(
        &[(rules, Some(&format!("{RULES}\n# comment\n")))],
        &["app/maestro.star", "build/names.star", rules, "lib/maestro.star", "other/maestro.star"],
        &["//app", "//lib", "//other"],
    );
    // A package that comes, and one that goes.
    check(
        &[("new/maestro.star", Some("load(\"//build:rules.star\", \"lib\")\nlib(name = \"n\")\n"))],
        &[rules, "new/maestro.star"],
        &["//new"],
    );
    check(&[("other/maestro.star", None)], &[rules], &[]);
    // A folder that was part of a glob becomes a package; a text that is written again as it was.
    check(
        &[("lib/sub/maestro.star", Some(""))],
        &[rules, "lib/maestro.star", "lib/sub/maestro.star"],
        &["//lib", "//lib/sub"],
    );
    check(&[(rules, Some(RULES))], &[rules], &[]);
}

#[test]
fn errors_are_the_same_with_memory() {
    let check = |edits: &[(&str, Option<&str>)], expect: &str| {
        let mut session = Session::new(WORKSPACE, &["//..."]);
        let error = session.edit(edits).expect_err("it is wrong");
        assert!(error.contains(expect), "{error}");
        let undone: Vec<(&str, Option<&str>)> = edits
            .iter()
            .map(|(path, _)| (*path, WORKSPACE.iter().find(|f| f.0 == *path).map(|f| f.1)))
            .collect();
        session.edit(&undone).expect("all is as it was");
    };
    check(&[("lib/maestro.star", Some("lib("))], "MAE0100");
    check(&[("lib/maestro.star", None)], "there is no package `//lib`");
    check(&[("app/a.txt", None)], "there is no target or file `//app:a.txt`");
    check(&[("build/rules.star", None)], "there is no file `build/rules.star`");
    // The target that is refused was not evaluated; the error shows its line all the same.
    let private = "load(\"//build:rules.star\", \"lib\")\nlib(name = \"lib\")\n";
    check(&[("lib/maestro.star", Some(private))], "3 | lib(name = \"app\", srcs");
    check(&[("app/sub/maestro.star", Some("fail('no')"))], "no");
}

#[test]
fn damaged_memory_is_no_memory() {
    let mut session = Session::new(WORKSPACE, &["//..."]);
    session.edit(&[("lib/m.txt", Some(""))]).expect("it loads");
    let (base, delta) = (session.base.clone(), session.delta.clone().expect("a delta"));
    let changed = ChangedPaths::These(BTreeSet::new());
    let cold = session.cold().expect("it loads");
    let check = |base: &[u8], delta: &[u8]| {
        let memory = maestro_rules::Memory { base, delta: Some(delta), changed: &changed };
        let warm = session.load(Some(memory), Remember::Delta).expect("it loads");
        assert_same(&warm, &cold);
    };
    check(&base, &delta);
    for length in (0..base.len()).step_by(7) {
        check(&base[..length], &delta);
    }
    for length in (0..delta.len()).step_by(7) {
        check(&base, &delta[..length]);
    }
}

#[test]
fn unknown_changes_are_found() {
    let mut session = Session::new(WORKSPACE, &["//..."]);
    session.set("lib/m.txt", Some(""));
    let memory =
        maestro_rules::Memory { base: &session.base, delta: None, changed: &ChangedPaths::Unknown };
    let warm = session.load(Some(memory), Remember::Delta).expect("it loads");
    assert_eq!(warm.reevaluated.packages, ["//lib"]);
    assert_same(&warm, &session.cold().expect("it loads"));
}
