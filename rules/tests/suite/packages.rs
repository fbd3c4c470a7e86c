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
fn packages_that_are_called_alike_are_kept_apart() {
    let packages = r#"
        "node_modules/@a/b": {"version": "1.0.0", "integrity": "I"},
        "node_modules/a-b": {"version": "1.0.0", "integrity": "I"},
        "node_modules/A-b": {"version": "1.0.0", "integrity": "I"}
    "#;
    let text = graph_of(&npm("npm_lock(name = \"npm\")\n", &lock(packages)), "//p:npm");
    for stem in ["a-b-1.0.0", "a-b-1.0.0_2", "A-b-1.0.0"] {
        let first = format!(
            "NpmPackage: npm-package {{\"archive\":\"maestro-out/shared/p/npm/_archives/{stem}.tgz\""
        );
        line(&text, &first);
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

const PIP: &str = "load(\"@maestro//rules:pip.star\", \"pip_lock\")\n";
const SHA256: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

fn pip(arguments: &str, requirements: &str) -> Vec<(String, String)> {
    let text = requirements.replace("HASH", &format!("--hash=sha256:{SHA256}"));
    vec![
        ("p/maestro.star".to_owned(), format!("{PIP}pip_lock(name = \"pip\"{arguments})\n")),
        ("p/requirements.txt".to_owned(), text),
    ]
}

#[test]
fn requirements_become_downloads_and_one_tree() {
    let requirements = "# This file was made by a tool\n--index-url https://example.com/simple\n\n\
                        Zope.Interface==6.0 \\\n    HASH \\\n    HASH  # why\n    # via nobody\n\
                        idna[all]==3.7 ; python_version >= \"3.8\" HASH\n\
                        direct @ https://example.com/direct-1.0-py3-none-any.whl HASH\n";
    let text = graph_of(&pip("", requirements), "//p:pip");
    let fetch = line(&text, "FetchWheel: fetch-wheel {\"project\":\"zope-interface\"");
    let expect = format!(
        "\"version\":\"6.0\",\"sha256\":[\"{SHA256}\"],\"python\":\"3.11\",\
         \"platforms\":[\"manylinux_2_36_x86_64\",\"manylinux_2_35_x86_64\""
    );
    assert!(fetch.contains(&expect), "{fetch}");
    line(&text, "FetchWheel: fetch-wheel {\"project\":\"idna\",\"version\":\"3.7\"");
    line(&text, "Fetch: fetch {\"urls\":[\"https://example.com/direct-1.0-py3-none-any.whl\"]");
    assert_eq!(text.matches("Wheel: wheel {\"archive\":\"maestro-out/").count(), 3, "{text}");
}

#[test]
fn markers_are_those_of_the_platform() {
    let check = |marker: &str, arguments: &str, installed: bool| {
        let text = graph_of(&pip(arguments, &format!("idna==3.7 ; {marker} HASH\n")), "//p:pip");
        assert_eq!(text.contains("fetch-wheel"), installed, "{marker}");
    };
    for (marker, holds) in [
        ("python_version >= \"3.8\"", true),
        ("python_version < '3.9'", false),
        ("'3.9' > python_version", false),
        ("python_version == '3.*'", true),
        ("python_version ~= '3.8'", true),
        ("python_full_version == '3.11'", true),
        ("sys_platform == 'win32' or os_name == 'posix'", true),
        ("sys_platform == 'win32' and os_name == 'posix' or extra == ''", true),
        ("sys_platform == 'win32' and (os_name == 'posix' or extra == '')", false),
        ("(sys_platform == 'linux')", true),
        ("'linux' in sys_platform", true),
        ("sys_platform not in 'linux, darwin'", false),
        ("platform_machine != 'x86_64'", false),
    ] {
        check(marker, "", holds);
    }
    check("python_version < '3.9'", ", python_version = \"3.8\"", true);
    check("platform_machine == 'aarch64'", ", machine = \"aarch64\"", true);
}

#[test]
fn bad_requirements_are_refused_in_words() {
    let check = |requirements: &str, expect: &str| {
        let files = pip("", requirements);
        let files: Vec<(&str, &str)> =
            files.iter().map(|(p, t)| (p.as_str(), t.as_str())).collect();
        let got = errors_of(&Memory::new(&files), &["//p:pip"]);
        assert!(got.contains(expect), "`{expect}`\n--- got:\n{got}");
        assert!(got.contains("p/maestro.star:2:1"), "the line of the call:\n{got}");
    };
    check("idna==3.7\n", "requirements.txt:1: `idna` has no `--hash=sha256:…`");
    check(
        "\n\nidna>=3.7 HASH\n",
        "requirements.txt:3: `idna`: `>=3.7` is not pinned to one version",
    );
    check("idna HASH\n", "`any version` is not pinned");
    check("idna==3.* HASH\n", "`==3.*` is not pinned");
    check("idna==3.7,<4 HASH\n", "is not pinned");
    check("idna==3.7 --hash=md5:00\n", "`--hash=md5:00` is no SHA-256");
    check("idna==3.7 --hash=sha256:00\n", "`--hash=sha256:00` is no SHA-256");
    check("-r other.txt\n", "`-r` is not supported; write one file");
    check("-e .\n", "`-e` is not supported");
    check("a @ https://example.com/a.tar.gz HASH\n", "is no URL of a wheel");
    check("a @ file:///etc/passwd.whl HASH\n", "is no URL of a wheel");
    check("idna==3.7 HASH\nIDNA==3.7 HASH\n", "`idna` is required twice");
    check("idna==3.7 ; odd == '1' HASH\n", "`odd` is no variable of markers");
    check("idna==3.7 ; (python_version > '3' HASH\n", "the marker is malformed");
    check("idna==3.7 ; python_version > '3') HASH\n", "a parenthesis too many");
    check("idna==3.7 ; python_version > HASH\n", "is malformed");
    check("idna==3.7 ; python_version > '3 HASH\n", "ends inside a text");
    check("../../etc==1 HASH\n", "is no requirement");
}
