//! Packages of other ecosystems: what lock files become, and what is wrong with them.

use crate::workspace::{Memory, actions, errors_of, loaded};

/// A SHA-512 as lock files write it.
pub(crate) const INTEGRITY: &str = "sha512-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\
                                    AAAAAAAAAAAAAAAAAAAAAAAAAA==";

/// The packages of a lock file in which steps find their tools, and a package with a dependency.
pub(crate) const TOOLS: &str = r#"
    "node_modules/typescript": {"version": "5.0.0", "integrity": "I", "dev": true,
        "bin": {"tsc": "./bin/tsc"}},
    "node_modules/esbuild": {"version": "0.25.0", "integrity": "I", "dev": true,
        "bin": "bin/esbuild", "optionalDependencies": {"@esbuild/linux-x64": "1"}},
    "node_modules/@esbuild/linux-x64": {"version": "0.25.0", "integrity": "I", "dev": true,
        "optional": true, "os": ["linux"], "cpu": ["x64"]},
    "node_modules/@esbuild/win32-x64": {"version": "0.25.0", "integrity": "I", "dev": true,
        "optional": true, "os": ["win32"], "cpu": ["x64"]},
    "node_modules/a": {"version": "1.0.0", "integrity": "I", "dependencies": {"b": "2"}},
    "node_modules/a/node_modules/b": {"version": "2.0.0", "integrity": "I"},
    "node_modules/b": {"version": "1.0.0", "integrity": "I"}
"#;

/// A lock file with these packages; `"I"` stands for an integrity.
pub(crate) fn lock(packages: &str) -> String {
    let packages = packages.replace("\"I\"", &format!("\"{INTEGRITY}\""));
    format!("{{\"lockfileVersion\": 3, \"packages\": {{\"\": {{\"name\": \"p\"}},{packages}}}}}")
}

const NPM: &str = "load(\"@maestro//rules:npm.star\", \"node_modules\", \"npm_lock\")\n";

fn npm(body: &str, lock: &str) -> Vec<(String, String)> {
    vec![
        ("p/maestro.star".to_owned(), format!("{NPM}{body}")),
        ("p/package-lock.json".to_owned(), lock.to_owned()),
    ]
}

fn graph_of(files: &[(String, String)], target: &str) -> String {
    let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
    actions(&loaded(&files, &[target]).graph)
}

/// The one line that begins with `first`.
fn line<'t>(text: &'t str, first: &str) -> &'t str {
    let mut found = text.lines().filter(|line| line.starts_with(first));
    let line = found.next().unwrap_or_else(|| panic!("no `{first}` in\n{text}"));
    assert_eq!(found.next(), None, "`{first}` stands twice in\n{text}");
    line
}

#[test]
fn a_lock_becomes_downloads_packages_and_one_tree() {
    let text = graph_of(&npm("npm_lock(name = \"npm\")\n", &lock(TOOLS)), "//p:npm");
    assert_eq!(text.matches("\nFetch: ").count() + usize::from(text.starts_with("Fetch")), 6);
    assert!(!text.contains("win32"), "{text}");
    let fetch = line(&text, "Fetch: fetch {\"urls\":[\"npm:@esbuild/linux-x64/0.25.0\"]");
    assert!(fetch.contains(&format!("\"integrity\":\"{INTEGRITY}\"")), "{fetch}");
    let package = "NpmPackage: npm-package {\"archive\":\"maestro-out/shared/p/npm/_archives/\
                   typescript-5.0.0.tgz\"";
    assert!(line(&text, package).contains("\"programs\":[\"bin/tsc\"]"), "{text}");
    let tree = line(&text, "Tree: tree ");
    for entry in [
        "{\"path\":\".bin/esbuild\",\"link\":\"../esbuild/bin/esbuild\"}",
        "{\"path\":\".bin/tsc\",\"link\":\"../typescript/bin/tsc\"}",
        "{\"path\":\"a/node_modules/b\",\"from\":\"maestro-out/shared/p/npm/_packages/b-2.0.0\"}",
        "{\"path\":\"b\",\"from\":\"maestro-out/shared/p/npm/_packages/b-1.0.0\"}",
    ] {
        assert!(tree.contains(entry), "no `{entry}` in {tree}");
    }
}

#[test]
fn a_part_has_what_its_packages_need() {
    let body = "npm_lock(name = \"npm\")\n\
                node_modules(name = \"some\", lock = \":npm\", packages = [\"a\"])\n";
    let text = graph_of(&npm(body, &lock(TOOLS)), "//p:some");
    let expect = "Tree: tree {\"entries\":[\
                  {\"path\":\"a\",\"from\":\"maestro-out/shared/p/npm/_packages/a-1.0.0\"},\
                  {\"path\":\"a/node_modules/b\",\
                  \"from\":\"maestro-out/shared/p/npm/_packages/b-2.0.0\"}]}";
    assert!(text.lines().any(|line| line == expect), "{text}");
}

#[test]
fn what_is_installed_is_chosen_as_npm_does() {
    let packages = r#"
        "node_modules/dev": {"version": "1.0.0", "integrity": "I", "dev": true},
        "node_modules/peer": {"version": "1.0.0", "integrity": "I", "peer": true},
        "node_modules/musl": {"version": "1.0.0", "integrity": "I", "optional": true,
            "libc": ["musl"]},
        "node_modules/not-mac": {"version": "1.0.0", "integrity": "I", "os": ["!darwin"]},
        "node_modules/mac": {"version": "1.0.0", "integrity": "I", "optional": true,
            "os": ["darwin"]},
        "node_modules/mac/node_modules/below": {"version": "1.0.0", "integrity": "I",
            "optional": true}
    "#;
    let check = |arguments: &str, expect: &[&str]| {
        let body = format!("npm_lock(name = \"npm\", {arguments})\n");
        let text = graph_of(&npm(&body, &lock(packages)), "//p:npm");
        let mut got: Vec<&str> = text
            .split("\"urls\":[\"npm:")
            .skip(1)
            .filter_map(|rest| rest.split('/').next())
            .collect();
        got.sort_unstable();
        assert_eq!(got, expect, "{arguments}");
    };
    check("", &["dev", "not-mac", "peer"]);
    check("omit = [\"dev\"]", &["not-mac", "peer"]);
    check("omit = [\"dev\", \"peer\"], libc = \"musl\"", &["musl", "not-mac"]);
    check("os = \"openbsd\"", &["dev", "not-mac", "peer"]);
}

#[test]
fn packages_are_taken_from_where_the_lock_says() {
    let packages = format!(
        r#""node_modules/a": {{"version": "1.0.0", "integrity": "{INTEGRITY}",
            "resolved": "https://r.example/npm/a/-/a-1.0.0.tgz"}},
        "node_modules/@s/b": {{"version": "1.0.0", "integrity": "sha1-x {INTEGRITY}",
            "resolved": "https://r.example/@s%2fb/-/b-1.0.0.tgz"}},
        "node_modules/c": {{"name": "real", "version": "1.0.0", "integrity": "{INTEGRITY}"}},
        "node_modules/d": {{"version": "1.0.0", "integrity": "{INTEGRITY}",
            "resolved": "https://example.com/d.tgz"}},
        "node_modules/e": {{"version": "1.0.0", "integrity": "{INTEGRITY}",
            "resolved": "file:vendor/e.tgz"}},
        "node_modules/@s/f": {{"version": "1.0.0", "integrity": "{INTEGRITY}"}}"#
    );
    let body = "npm_lock(name = \"npm\", archives = [\"vendor/s-f-1.0.0.tgz\"])\n";
    let mut files = npm(body, &lock(&packages));
    for name in ["p/vendor/e.tgz", "p/vendor/s-f-1.0.0.tgz"] {
        files.push((name.to_owned(), String::new()));
    }
    let text = graph_of(&files, "//p:npm");
    for url in ["npm:a/1.0.0", "npm:@s/b/1.0.0", "npm:real/1.0.0", "https://example.com/d.tgz"] {
        line(&text, &format!("Fetch: fetch {{\"urls\":[\"{url}\"]"));
    }
    assert_eq!(text.matches("\"urls\":").count(), 4, "{text}");
    for path in ["p/vendor/e.tgz", "p/vendor/s-f-1.0.0.tgz"] {
        line(&text, &format!("NpmPackage: npm-package {{\"archive\":\"{path}\""));
    }
}

/// The first line of what is said about a lock file, without the place in the library.
fn said(lock: &str) -> String {
    let files = npm("npm_lock(name = \"npm\")\n", lock);
    let files: Vec<(&str, &str)> = files.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
    let text = errors_of(&Memory::new(&files), &["//p:npm"]);
    assert!(text.contains("p/maestro.star:2:1"), "the line of the call:\n{text}");
    text.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn bad_locks_are_refused_in_words() {
    let check = |text: &str, expect: &str| {
        let got = said(text);
        assert!(got.contains(expect), "`{expect}`\n--- got:\n{got}");
    };
    check("{", "error[MAE0104]: `p/package-lock.json` is not JSON: EOF while parsing");
    check("[]", "is no lock file of npm 7 or newer");
    check("{\"lockfileVersion\": 1, \"dependencies\": {}}", "it has no `packages`");
    check("{\"lockfileVersion\": 4, \"packages\": {}}", "has the format 4");
    let one = |entry: &str| lock(&format!("\"node_modules/a\": {entry}"));
    check(&one("{\"version\": \"1.0.0\"}"), "`node_modules/a` is not pinned");
    check(
        &one("{\"version\": \"1.0.0\", \"integrity\": \"sha1-AAAA\"}"),
        "is pinned by `sha1-AAAA` alone, which is too weak",
    );
    check(&one("{\"integrity\": \"I\"}"), "`node_modules/a` has no version");
    check(
        &one("{\"version\": \"1\", \"integrity\": \"I\", \"resolved\": \"git+ssh://h/a.git\"}"),
        "comes from `git+ssh://h/a.git`, which is not supported",
    );
    check(
        &one("{\"version\": \"1\", \"integrity\": \"I\", \"bin\": {\"a\": \"../../x\"}}"),
        "has the program `a` at `../../x`, which is not in it",
    );
    check(
        &one("{\"version\": \"1\", \"integrity\": \"I\", \"bin\": {\"../a\": \"x\"}}"),
        "has the program `../a`",
    );
    check(
        &lock("\"node_modules/../../etc\": {\"version\": \"1\", \"integrity\": \"I\"}"),
        "is no place for a package",
    );
    check(&one("{\"resolved\": \"packages/a\", \"link\": true}"), "is a link to `packages/a`");
    check(&lock("\"packages/a\": {\"version\": \"1\"}"), "is a member of an npm workspace");
    check(
        &one("{\"version\": \"1\", \"integrity\": \"I\", \"os\": [\"win32\"]}"),
        "`node_modules/a` does not run on linux, x64: it wants `os` win32",
    );
}

#[test]
fn only_the_package_itself_reads_its_files() {
    let check = |body: &str, expect: &str| {
        let files = [
            ("p/maestro.star", "load(\":m.star\", \"m\")\nm()\n"),
            ("p/m.star", body),
            ("q/maestro.star", ""),
            ("q/x.json", "{}"),
            ("p/sub/maestro.star", ""),
            ("p/sub/x.json", "{}"),
        ];
        let got = errors_of(&Memory::new(&files), &["//p:all"]);
        assert!(got.contains(expect), "`{expect}`\n--- got:\n{got}");
    };
    let call = |call: &str| format!("def m():\n    {call}\n");
    check(&call("native.read_json(\"//q:x.json\")"), "`//q:x.json` lies in another package");
    check(&call("native.read_json(\"sub/x.json\")"), "reaches into package `//p/sub`");
    check(&call("native.read_file(\"none.txt\")"), "there is no file `p/none.txt`");
    check(&call("native.read_file(\"sub\")"), "`p/sub` is a folder");
    check(&call("native.read_file(\"../q/x.json\")"), "MAE0111");
    check(
        "x = native.read_file(\"a\")\ndef m():\n    pass\n",
        "`read_file` works only while a `maestro.star` file is evaluated",
    );
}
