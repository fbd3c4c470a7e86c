//! The workspace that is edited, and the table of the edits.

use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::time::{Duration, SystemTime};

use maestro_tests::Workspace;

/// One edit of the workspace or of the flags.
#[derive(Debug)]
pub enum Step {
    /// A file gets this text.
    Write(&'static str, &'static str),
    /// In a file, the one text becomes the other.
    Replace(&'static str, &'static str, &'static str),
    /// A file, a link or a folder goes.
    Remove(&'static str),
    /// A file or a folder gets another name.
    Rename(&'static str, &'static str),
    /// A file gets these permissions.
    Mode(&'static str, u32),
    /// A link leads there from now on.
    Link(&'static str, &'static str),
    /// A file was last written so many seconds ago, as its time says.
    Age(&'static str, u64),
    /// A file gets this text of the same length, and keeps its time.
    Disguise(&'static str, &'static str),
    /// Flags of this and of later builds.
    Flags(&'static [&'static str]),
    /// `maestro clean`.
    Clean,
}

impl Step {
    /// Does it.
    pub fn take(&self, ws: &Workspace, flags: &mut Vec<String>) {
        let at = |path: &str| ws.root.join(path);
        let done = match *self {
            Self::Write(path, text) => {
                ws.write(path, text);
                Ok(())
            }
            Self::Replace(path, from, to) => {
                let text = ws.read(path);
                assert!(text.contains(from), "`{from}` is in `{path}`:\n{text}");
                ws.write(path, text.replace(from, to));
                Ok(())
            }
            Self::Remove(path) if at(path).is_dir() && !at(path).is_symlink() => {
                std::fs::remove_dir_all(at(path))
            }
            Self::Remove(path) => std::fs::remove_file(at(path)),
            Self::Rename(from, to) => std::fs::rename(at(from), at(to)),
            Self::Mode(path, mode) => {
                std::fs::set_permissions(at(path), std::fs::Permissions::from_mode(mode))
            }
            Self::Link(path, target) => {
                let _ = std::fs::remove_file(at(path));
                symlink(target, at(path))
            }
            Self::Age(path, seconds) => {
                let file = std::fs::File::options().append(true).open(at(path));
                let time = SystemTime::now() - Duration::from_secs(seconds);
                file.and_then(|file| file.set_modified(time))
            }
            Self::Disguise(path, text) => {
                let time = at(path).metadata().and_then(|metadata| metadata.modified());
                assert_eq!(ws.read(path).len(), text.len(), "`{path}` keeps its length");
                ws.write(path, text);
                let file = std::fs::File::options().append(true).open(at(path));
                file.and_then(|file| file.set_modified(time?))
            }
            Self::Flags(now) => {
                *flags = now.iter().map(|&flag| flag.to_owned()).collect();
                Ok(())
            }
            Self::Clean => {
                ws.fails(0, &["clean"]);
                Ok(())
            }
        };
        done.unwrap_or_else(|e| panic!("{self:?}: {e}"));
    }
}

/// An edit and what it comes to.
pub struct Row {
    pub name: &'static str,
    pub steps: Vec<Step>,
    /// The labels of the actions that run, sorted.
    pub ran: Vec<&'static str>,
    /// The packages and the targets that are evaluated.
    pub reevaluated: Option<(Vec<&'static str>, Vec<&'static str>)>,
    /// What the message of the failure says, where the build fails.
    pub fails: Option<&'static str>,
}

fn row(name: &'static str, steps: Vec<Step>, ran: &[&'static str]) -> Row {
    Row { name, steps, ran: ran.to_vec(), reevaluated: None, fails: None }
}

impl Row {
    fn evaluates(mut self, packages: &[&'static str], targets: &[&'static str]) -> Self {
        self.reevaluated = Some((packages.to_vec(), targets.to_vec()));
        self
    }

    fn fails(mut self, message: &'static str) -> Self {
        self.fails = Some(message);
        self
    }
}

const DEFS: &str = r#"visibility(["//..."])
load("@maestro//rules:basics.star", "genrule")

HdrInfo = provider(fields = ["hdrs", "word"])

def _lib_impl(ctx):
    below = [dep[HdrInfo].hdrs for dep in ctx.attr.deps]
    hdrs = depset(ctx.files.hdrs, transitive = below)
    return [DefaultInfo(files = hdrs), HdrInfo(hdrs = hdrs, word = "word")]

lib = rule(implementation = _lib_impl, attrs = {
    "hdrs": attr.label_list(allow_files = True),
    "deps": attr.label_list(),
})

def _obj_impl(ctx):
    info = ctx.attr.dep[HdrInfo]
    out = ctx.actions.declare_file(ctx.label.name + ".o")
    ctx.actions.run_shell(
        outputs = [out],
        inputs = depset(ctx.files.src, transitive = [info.hdrs]),
        command = "o=$1; shift; echo $1 $2 > \"$o\"; shift 2; cat \"$@\" >> \"$o\"",
        arguments = [out.path, ctx.attr.opt, info.word, ctx.file.src.path] +
                    [hdr.path for hdr in info.hdrs.to_list()],
        toolchains = [ctx.toolchains["@maestro//toolchains:base_type"].toolchain],
        mnemonic = "Obj",
    )
    return [DefaultInfo(files = depset([out]))]

obj = rule(implementation = _obj_impl, attrs = {
    "src": attr.label(allow_single_file = True),
    "dep": attr.label(),
    "opt": attr.string(default = "O0"),
}, toolchains = ["@maestro//toolchains:base_type"])

def pair(name, word):
    for end in ["x", "y"]:
        cmd = "echo " + word + end + " > $@"
        genrule(name = name + "_" + end, outs = [name + "." + end], cmd = cmd)
"#;

const APP: &str = r#"load("@maestro//rules:basics.star", "genrule")
load("//tools:defs.star", "obj", "pair")
obj(name = "one", src = "one.c", dep = "//lib:top")
obj(name = "two", src = "two.c", dep = "//lib:low")
pair(name = "pair", word = "w")
genrule(name = "all", srcs = [":one", ":two"], outs = ["all.out"], cmd = "cat $(SRCS) > $@")
genrule(
    name = "mode",
    outs = ["mode.out"],
    cmd = select({"//cfg:release": "echo release > $@", "//conditions:default": "echo debug > $@"}),
)
"#;

const DATA: &str = r#"load("@maestro//rules:basics.star", "genrule")
genrule(name = "texts", srcs = glob(["**/*.txt"]), outs = ["texts.out"], cmd = "cat $(SRCS) > $@")
genrule(name = "names", srcs = glob(["**/*.txt"]), outs = ["names.out"], cmd = "echo $(SRCS) > $@")
genrule(
    name = "bit", srcs = ["run.sh"], outs = ["x.out"],
    cmd = "test -x $(SRCS) && echo x > $@ || echo - > $@",
)
genrule(name = "linked", srcs = ["link"], outs = ["link.out"], cmd = "cat $(SRCS) > $@")
"#;

const CFG: &str = r#"load("@maestro//rules:params.star", "string_param")
string_param(name = "mode", build_setting_default = "debug", values = ["debug", "release"])
config_setting(name = "release", flag_values = {"//cfg:mode": "release"}, visibility = ["public"])
"#;

const LIB: &str = r#"load("//tools:defs.star", "lib")
lib(name = "low", hdrs = ["low.h"], visibility = ["public"])
lib(name = "top", hdrs = ["top.h"], deps = [":low"], visibility = ["public"])
"#;

/// Writes the workspace.
pub fn write(ws: &Workspace) {
    ws.write("tools/maestro.star", "");
    ws.write("tools/defs.star", DEFS);
    ws.write("cfg/maestro.star", CFG);
    ws.write("app/maestro.star", APP);
    ws.write("app/one.c", "one\n");
    ws.write("app/two.c", "two\n");
    ws.write("lib/maestro.star", LIB);
    ws.write("lib/low.h", "low\n");
    ws.write("lib/top.h", "top\n");
    ws.write("data/maestro.star", DATA);
    ws.write("data/a.txt", "a\n");
    ws.write("data/run.sh", "echo run\n");
    ws.write("data/one.ref", "1\n");
    ws.write("data/two.ref", "2\n");
    Step::Link("data/link", "one.ref").take(ws, &mut Vec::new());
}

/// The table.
pub fn rows() -> Vec<Row> {
    let mut rows = sources();
    rows.extend(evaluation());
    rows.extend(settings());
    rows.extend(folders());
    rows.extend(outputs());
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

/// Edits of build files, of what they load, and of flags.
fn evaluation() -> Vec<Row> {
    use Step::Replace;
    const APP: &str = "app/maestro.star";
    const DEFS: &str = "tools/defs.star";
    let objects = &["//app:all", "//app:one", "//app:two"];
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
            "a macro's body",
            vec![Replace(DEFS, "echo \" +", "echo  -\" +")],
            &["//app:pair_x", "//app:pair_y"],
        ),
        row(
            "a comment in what is loaded",
            vec![Replace(DEFS, "def pair", "# Two.\ndef pair")],
            &[],
        ),
        row("a rule's body", vec![Replace(DEFS, "echo $1 $2", "echo $2 $1")], objects),
        row("an attribute's default", vec![Replace(DEFS, "\"O0\"", "\"O2\"")], objects),
        row(
            "a provider's field",
            vec![Replace(DEFS, "word = \"word\"", "word = \"term\"")],
            objects,
        ),
        row(
            "an attribute",
            vec![Replace(APP, "src = \"one.c\"", "src = \"one.c\", opt = \"O3\"")],
            &["//app:all", "//app:one"],
        )
        .evaluates(&["//app"], &["//app:one"]),
        row("a command", vec![Replace(APP, "cat $(SRCS)", "cat  $(SRCS)")], &["//app:all"])
            .evaluates(&["//app"], &["//app:all"]),
    ]
}

/// Edits of flags, of settings and of what may be seen, and mistakes.
fn settings() -> Vec<Row> {
    use Step::{Flags, Replace, Write};
    const APP: &str = "app/maestro.star";
    let release = &["--param", "//cfg:mode=release"];
    vec![
        row("a param", vec![Flags(release)], &["//app:mode"]),
        row("a param and a source", vec![Write("app/one.c", "p\n")], &["//app:all", "//app:one"]),
        row("no param", vec![Flags(&[])], &[]),
        row("a mistake", vec![Replace(APP, "pair(name", "pair((name")], &[]).fails("error"),
        row("mended", vec![Replace(APP, "pair((name", "pair(name")], &[]),
        row("a failing action", vec![Replace(APP, "cat  $(SRCS)", "false $(SRCS)")], &[])
            .fails("//app:all"),
        row("a command that works", vec![Replace(APP, "false $(SRCS)", "cat  $(SRCS)")], &[]),
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
        ),
        row(
            "settings",
            vec![Write("maestro.toml", "[config.x]\nparams = { \"//cfg:mode\" = \"release\" }\n")],
            &[],
        ),
        row("a profile", vec![Flags(&["--config", "x"])], &[]),
        row("no profile", vec![Flags(&[])], &[]),
    ]
}

/// Edits of what folders hold.
fn folders() -> Vec<Row> {
    use Step::{Remove, Rename, Write};
    let texts = &["//data:names", "//data:texts"];
    let package = "load(\"@maestro//rules:basics.star\", \"genrule\")\n\
                   genrule(name = \"new\", outs = [\"new.out\"], cmd = \"echo new > $@\")\n";
    vec![
        row("one more for a glob", vec![Write("data/b.txt", "b\n")], texts),
        row("renamed in a glob", vec![Rename("data/b.txt", "data/ü ber.txt")], texts),
        row("renamed again", vec![Rename("data/ü ber.txt", "data/über.txt")], texts),
        row("one less for a glob", vec![Remove("data/über.txt")], &[]),
        row("below, for a glob", vec![Write("data/sub/c.txt", "c\n")], texts),
        row("a package appears below", vec![Write("data/sub/maestro.star", "")], &[]),
        row("and vanishes", vec![Remove("data/sub/maestro.star")], &[]),
        row("a folder goes", vec![Remove("data/sub")], &[]),
        row("a new package", vec![Write("new/maestro.star", package)], &["//new:new"]),
        row("a package goes", vec![Remove("new")], &[]),
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
