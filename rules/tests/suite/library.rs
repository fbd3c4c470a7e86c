//! The built-in rules: what they declare, and that they have no privileges.

use maestro_core::TargetPattern;
use maestro_rules::LoadOptions;

use crate::packages::{TOOLS, lock};
use crate::workspace::{Memory, actions, keys, loaded, render};

const PACKAGE: &str = "
load(\"BASICS\", \"genrule\", \"tar\", \"tree\", \"copy_file\", \"write_file\", \"filegroup\")
load(\"CC\", \"cc_binary\", \"cc_library\", \"cc_test\")
load(\"PY\", \"py_binary\", \"py_library\", \"py_test\")
load(\"HTTP\", \"http_archive\", \"http_file\")
load(\"OCI\", \"oci_image\", \"oci_tarball\")
load(\"RELEASE\", \"release\")
load(\"LLM\", \"llm_generate\", \"llm_plan\")
load(\"PIP\", \"pip_lock\", \"py_console_script_binary\")
load(\"PROTO\", \"proto_library\")
load(\"GIT\", \"git_source\")
load(\"NPM\", \"node_modules\", \"npm_lock\")
load(\"NODE\", \"node_binary\", \"node_bundle\", \"node_library\", \"node_run\", \"node_test\", \"ts_project\")

cc_library(name = \"lib\", srcs = [\"lib.cc\", \"private.h\"], hdrs = [\"lib.h\"], includes = [\".\"], defines = [\"D=1\"], linkopts = [\"-lm\"])
cc_library(name = \"always\", srcs = [\"always.c\"], deps = [\":lib\"], alwayslink = True)
cc_binary(name = \"bin\", srcs = [\"bin.cc\"], deps = [\":always\"], copts = [\"-Wall\"])
cc_test(name = \"cc_test\", srcs = [\"bin.cc\"], deps = [\":lib\"])
py_library(name = \"pylib\", srcs = [\"pylib.py\"], imports = [\".\"])
py_binary(name = \"serve\", srcs = [\"serve.py\"], deps = [\":pylib\"], data = [\":bin\"])
py_test(name = \"py_test\", srcs = [\"py_test.py\"], deps = [\":pylib\"])
genrule(name = \"gen\", srcs = [\"lib.h\"], outs = [\"gen.txt\"], cmd = \"wc $< > $@\")
write_file(name = \"note\", content = [\"a\", \"b\"])
copy_file(name = \"copied\", src = \":note\")
filegroup(name = \"group\", srcs = [\":gen\", \":note\"])
tree(name = \"root\", files = {\":bin\": \"app/bin\", \":group\": \"etc/\"}, symlinks = {\"app/latest\": \"bin\"}, empty_dirs = [\"var\"])
tar(name = \"archive\", srcs = [\"lib.h\", \":gen\"], package_dir = \"inc\", compression = \"gzip\")
oci_image(name = \"image\", base = \"@maestro//toolchains:python\", layers = [\":root\", \":archive\"], entrypoint = [\"/app/bin\"], image_env = {\"A\": \"b\"})
oci_tarball(name = \"image_tar\", image = \":image\")
http_file(name = \"file\", urls = [\"https://example.com/f\"], sha256 = \"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\")
http_archive(name = \"src\", urls = [\"https://example.com/a.tgz\"], integrity = \"sha256-AAAA\", strip_prefix = \"a\")
llm_plan(name = \"plan\", model = \"m\", prompt = \"Plan.\", system = \"You plan.\", context = [\"changes.patch\"], schema = json.encode({\"type\": \"object\"}), max_tokens = 64)
llm_generate(name = \"notes\", model = \"m\", prompt = \"Write.\", context = [\":plan\"], temperature = \"0.5\")
npm_lock(name = \"npm\")
node_modules(name = \"some\", lock = \":npm\", packages = [\"a\"])
ts_project(name = \"ts\", srcs = [\"web/main.ts\"], node_modules = \":npm\", tsconfig = \"tsconfig.json\")
node_library(name = \"jslib\", srcs = [\"lib.js\"], deps = [\":ts\"])
node_binary(name = \"node_bin\", main = \"lib.js\", deps = [\":jslib\"])
node_test(name = \"node_test\", main = \":web/main.js\", deps = [\":ts\"], node_modules = \":some\")
node_bundle(name = \"bundle\", entry_point = \"web/main.js\", deps = [\":ts\"], node_modules = \":npm\", source_map = True)
node_run(name = \"ran\", tool = \"tsc\", srcs = [\"lib.js\"], arguments = [\"$(location lib.js)\", \"$(OUT)\"], outs = [\"ran.txt\"], node_modules = \":npm\")
pip_lock(name = \"pip\")
py_console_script_binary(name = \"tool\", pkg = \":pip\")
proto_library(name = \"proto\", srcs = [\"m.proto\"])
git_source(name = \"git\", remote = \"https://example.com/a.git\", commit = \"0123456789abcdef0123456789abcdef01234567\", sha256 = \"0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef\", patches = [\"changes.patch\"])
release(name = \"release\", artifacts = {\":image_tar\": \"image.tar\", \":group\": \"files/\"}, srcs = [\":plan\"])
";

const FILES: [&str; 13] = [
    "lib.cc",
    "private.h",
    "lib.h",
    "always.c",
    "bin.cc",
    "pylib.py",
    "serve.py",
    "py_test.py",
    "changes.patch",
    "lib.js",
    "m.proto",
    "web/main.ts",
    "tsconfig.json",
];

/// The files of the library that the package uses.
const LIBRARY: [&str; 12] =
    ["basics", "cc", "py", "http", "oci", "release", "llm", "npm", "node", "pip", "proto", "git"];

/// The package with its rules from the library, or from copies of it in the workspace.
fn workspace(copied: bool) -> Vec<(String, String)> {
    let library = concat!(env!("CARGO_MANIFEST_DIR"), "/library");
    let mut text = PACKAGE.to_owned();
    let mut files = Vec::new();
    for name in LIBRARY {
        let label = match copied {
            true => format!("//third_party/other:my_{name}.star"),
            false => format!("@maestro//rules:{name}.star"),
        };
        text = text.replace(&format!("\"{}\"", name.to_uppercase()), &format!("\"{label}\""));
        let mut source =
            std::fs::read_to_string(format!("{library}/{name}.star")).expect("readable");
        for other in LIBRARY {
            source =
                source.replace(&format!("\":{other}.star\""), &format!("\":my_{other}.star\""));
        }
        files.push((format!("third_party/other/my_{name}.star"), source));
    }
    files.push(("third_party/other/maestro.star".to_owned(), String::new()));
    files.push(("p/maestro.star".to_owned(), text));
    files.push(("p/package-lock.json".to_owned(), lock(TOOLS)));
    let pin = format!("--hash=sha256:{}", "0".repeat(64));
    files.push(("p/requirements.txt".to_owned(), format!("idna==3.7 {pin}\n")));
    files.extend(FILES.iter().map(|name| (format!("p/{name}"), String::new())));
    files
}

fn load(copied: bool) -> maestro_rules::Loaded {
    let files = workspace(copied);
    let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
    loaded(&files, &["//p/..."])
}

#[test]
fn copied_rules_give_the_same_keys() {
    let (original, copied) = (keys(&load(false).graph), keys(&load(true).graph));
    assert_eq!(original, copied);
    assert!(original.len() > 30, "{}", original.len());
}

#[test]
fn the_number_of_threads_does_not_show() {
    let files = workspace(true);
    let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
    let host = Memory::new(&files);
    let text = |threads| {
        let patterns = vec![(false, TargetPattern::parse("//...", "").expect("a pattern"))];
        match maestro_rules::load(LoadOptions::new(&host, patterns, threads)) {
            Ok(loaded) => actions(&loaded.graph),
            Err(errors) => panic!("{}", render(&errors)),
        }
    };
    assert_eq!(text(1), text(8));
}

#[test]
fn every_graph_plans() {
    let loaded = load(false);
    let graph = &loaded.graph;
    let files: Vec<_> =
        loaded.requested.iter().flat_map(|id| graph.target(*id).files.clone()).collect();
    let plan = graph.plan(&files).expect("it plans");
    assert!(plan.order.len() > 20);
}

/// The actions whose first line begins like this.
fn check(first: &str, expect: &str) {
    let text = actions(&load(false).graph);
    let start = text.find(first).unwrap_or_else(|| panic!("no `{first}` in\n{text}"));
    let rest = text.get(start..).unwrap_or_default();
    let lines: Vec<&str> = rest.lines().collect();
    let end =
        lines.iter().skip(1).position(|l| !l.starts_with("  ")).map_or(lines.len(), |n| n + 1);
    let got = lines.get(..end).unwrap_or_default().join("\n");
    assert_eq!(got, expect, "\n--- got:\n{got}\n---");
}

#[test]
fn compiles_and_links() {
    check(
        "CppCompile: /usr/bin/g++ -c p/bin.cc -o maestro-out/shared/p/_objs/bin/",
        "CppCompile: /usr/bin/g++ -c p/bin.cc -o maestro-out/shared/p/_objs/bin/p/bin.cc.o -iquote . -iquote maestro-out/shared -isystemp -isystemmaestro-out/shared/p -DD=1 -O2 -fPIC -ffile-prefix-map=/proc/self/cwd=. -frandom-seed=maestro-out/shared/p/_objs/bin/p/bin.cc.o -Wdate-time -Werror=date-time -fdiagnostics-color=never -std=c++17 -Wall
  in:  p/bin.cc p/lib.h
  out: maestro-out/shared/p/_objs/bin/p/bin.cc.o
  toolchain: cc
  env: PWD=/proc/self/cwd",
    );
    check(
        "CppArchive",
        "CppArchive: /usr/bin/ar rcsD maestro-out/shared/p/liblib.a maestro-out/shared/p/_objs/lib/p/lib.cc.o
  in:  maestro-out/shared/p/_objs/lib/p/lib.cc.o
  out: maestro-out/shared/p/liblib.a
  toolchain: cc",
    );
    check(
        "CppLink: /usr/bin/g++ -o maestro-out/shared/p/bin",
        "CppLink: /usr/bin/g++ -o maestro-out/shared/p/bin maestro-out/shared/p/_objs/bin/p/bin.cc.o maestro-out/shared/p/_objs/always/p/always.c.o maestro-out/shared/p/liblib.a -Wl,--build-id=none -fdiagnostics-color=never -lm
  in:  maestro-out/shared/p/_objs/always/p/always.c.o maestro-out/shared/p/_objs/bin/p/bin.cc.o maestro-out/shared/p/liblib.a
  out: maestro-out/shared/p/bin
  toolchain: cc
  env: PWD=/proc/self/cwd",
    );
}

#[test]
fn models_are_asked_with_their_context() {
    check(
        "Llm: llm {\"model\":\"m\",\"messages\":[{\"role\":\"system\"",
        "Llm: llm {\"model\":\"m\",\"messages\":[{\"role\":\"system\",\"content\":[{\"text\":\"You plan.\"}]},{\"role\":\"user\",\"content\":[{\"text\":\"Plan.\"},{\"text\":\"\\n\"},{\"context\":\"p/changes.patch\"}]}],\"schema\":{\"type\":\"object\"},\"sampling\":{\"max_tokens\":64,\"seed\":42,\"temperature\":0},\"step\":\"plan\",\"sample\":0}
  in:  in/p/changes.patch
  out: maestro-out/shared/p/plan.json",
    );
}

#[test]
fn images_and_releases() {
    let text = actions(&load(false).graph);
    let line = text.lines().find(|line| line.starts_with("OciImage")).expect("an image");
    assert!(line.contains("\"layers\":[\".maestro/toolchain/"), "{line}");
    assert!(
        line.contains("\"maestro-out/shared/p/root\",\"maestro-out/shared/p/archive.tar.gz\"]"),
        "{line}"
    );
    check(
        "Manifest: manifest {\"format\":\"sha256sums\"",
        "Manifest: manifest {\"format\":\"sha256sums\",\"files\":[{\"name\":\"files/gen.txt\",\"from\":\"maestro-out/shared/p/gen.txt\"},{\"name\":\"files/note\",\"from\":\"maestro-out/shared/p/note\"},{\"name\":\"image.tar\",\"from\":\"maestro-out/shared/p/image_tar.tar\"},{\"name\":\"manifest.json\",\"from\":\"maestro-out/shared/p/_release/release/manifest.json\"},{\"name\":\"plan.json\",\"from\":\"maestro-out/shared/p/plan.json\"}]}
  in:  in/maestro-out/shared/p/_release/release/manifest.json in/maestro-out/shared/p/gen.txt in/maestro-out/shared/p/image_tar.tar in/maestro-out/shared/p/note in/maestro-out/shared/p/plan.json
  out: maestro-out/shared/p/_release/release/SHA256SUMS",
    );
}
