//! The workspace that is edited, and what an edit is made of.

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
    /// What this and later builds ask for: the command and a pattern.
    Ask(&'static str, &'static str),
    /// An environment variable of this and of later builds.
    Env(&'static str, &'static str),
    /// `maestro clean`.
    Clean,
}

/// How the binary is called.
#[derive(Clone, Debug)]
pub struct Call {
    /// `build` or `test`.
    pub command: &'static str,
    /// What is asked for.
    pub pattern: &'static str,
    /// Further flags.
    pub flags: Vec<&'static str>,
    /// Variables of the environment.
    pub env: Vec<(&'static str, &'static str)>,
}

impl Default for Call {
    fn default() -> Self {
        Self { command: "build", pattern: "//...", flags: Vec::new(), env: Vec::new() }
    }
}

impl Step {
    /// Does it.
    pub fn take(&self, ws: &Workspace, call: &mut Call) {
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
                call.flags = now.to_vec();
                Ok(())
            }
            Self::Ask(command, pattern) => {
                (call.command, call.pattern) = (command, pattern);
                Ok(())
            }
            Self::Env(name, value) => {
                call.env.push((name, value));
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

const STEPS: &str = r#"load("@maestro//rules:basics.star", "genrule", "sh_test")
genrule(name = "by_tool", outs = ["tool.out"], tools = ["tool.sh"], cmd = "sh $(location tool.sh) > $@")
genrule(name = "by_env", outs = ["env.out"], env = {"WORD": "w"}, cmd = "echo $$WORD > $@")
genrule(name = "once", outs = ["once.out"], cmd = "echo once > $@")
genrule(name = "after", srcs = [":once"], outs = ["after.out"], cmd = "cat $(SRCS) > $@")
sh_test(name = "check", srcs = ["check.sh"], data = ["expect.txt"])
sh_test(name = "other", srcs = ["other.sh"])
"#;

const KIT: &str = r#"load(":kit.star", "kit")
package(default_visibility = ["public"])
toolchain_type(name = "type")
kit(name = "plain", word = "plain")
kit(name = "fine", word = "fine")
toolchain(name = "a", toolchain = ":plain", toolchain_type = ":type")
toolchain(name = "b", toolchain = ":fine", toolchain_type = ":type")
"#;

const KIT_RULES: &str = r#"visibility(["//..."])
def _kit_impl(ctx):
    return [ToolchainInfo(word = ctx.attr.word)]

kit = rule(implementation = _kit_impl, attrs = {"word": attr.string()}, provides = [ToolchainInfo])

def _kitted_impl(ctx):
    out = ctx.actions.declare_file(ctx.label.name + ".out")
    ctx.actions.write(out, ctx.toolchains["//kit:type"].word)
    return [DefaultInfo(files = depset([out]))]

kitted = rule(implementation = _kitted_impl, toolchains = ["//kit:type"])
"#;

/// `maestro.toml` as it is at first.
pub const SETTINGS: &str = "[workspace]\ntoolchains = [\"//kit:a\"]\n";

/// Writes the workspace.
pub fn write(ws: &Workspace) {
    ws.write("maestro.toml", SETTINGS);
    ws.write("steps/maestro.star", STEPS);
    ws.write("steps/tool.sh", "echo tool\n");
    ws.write("steps/check.sh", "grep -q yes steps/expect.txt\n");
    ws.write("steps/expect.txt", "yes\n");
    ws.write("steps/other.sh", "true\n");
    ws.write("kit/maestro.star", KIT);
    ws.write("kit/kit.star", KIT_RULES);
    ws.write(
        "kit/use/maestro.star",
        "load(\"//kit:kit.star\", \"kitted\")\nkitted(name = \"kitted\")\n",
    );
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
    Step::Link("data/link", "one.ref").take(ws, &mut Call::default());
}
