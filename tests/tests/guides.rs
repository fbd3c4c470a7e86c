//! The guides do what they say, for somebody who has nothing but them.

use maestro_tests::Workspace;
use maestro_tests::guide::{Step, follow, page, steps};

#[test]
fn a_fresh_repository_with_a_rule_set_of_its_own_works() {
    let ws = Workspace::new();
    std::fs::remove_file(ws.root.join("maestro.toml")).expect("the guide writes its own");
    let runs = follow(&ws, &steps("add-a-rule.md"));
    assert_eq!(runs.len(), 13, "commands");

    // What the guide claims: three megabytes of arguments, which went through a file.
    let large = ws.read("maestro-out/shared/phrases/large.txt");
    assert_eq!((large.lines().count(), large.len() > 3_000_000), (10_003, true));
    let queried = ws.run(&["aquery", "//phrases:large_pages"]);
    assert!(queried.stdout.contains("@maestro-out/shared/phrases/large_pages-0.params"));
    let tested = ws.ok(&["test", "//phrases/..."]);
    assert_eq!(tested["success"], true);
    // And nothing is left to do in the end.
    let build = || ws.run(&["build", "//phrases:large", "//phrases:large_pages"]).stderr;
    assert!(build().contains("0 executed"));
    assert!(build().contains("up to date"));
}

#[test]
fn pipelines_are_written_checked_and_mended() {
    let ws = Workspace::new();
    let runs = follow(&ws, &steps("write-a-pipeline.md"));
    assert_eq!(runs.len(), 13, "commands");
    assert!(ws.read("release.svg").ends_with("</svg>\n"));
    let findings = ws.read("findings.sarif");
    let level = |level: &str| findings.contains(&format!("\"level\": \"{level}\""));
    assert!(level("note") && !level("warning") && !level("error"), "{findings}");
}

#[test]
fn a_cache_is_shared_by_two_checkouts() {
    let ws = Workspace::new();
    assert_eq!(follow(&ws, &steps("share-a-cache-across-ci.md")).len(), 7, "commands");
}

#[test]
fn a_project_adds_a_step_of_its_own() {
    let ws = Workspace::new();
    let runs = follow(&ws, &steps("add-a-step.md"));
    assert_eq!(runs.len(), 11, "commands");
}

#[test]
fn a_failed_run_is_investigated_and_goes_on() {
    let ws = Workspace::new();
    let runs = follow(&ws, &steps("investigate-a-failed-run.md"));
    assert_eq!(runs.len(), 14, "commands");
}

#[test]
fn a_gate_holds_a_run_until_people_agree() {
    let ws = Workspace::new();
    std::fs::remove_file(ws.root.join("maestro.toml")).expect("the guide writes its own");
    assert_eq!(follow(&ws, &steps("approve-a-gate.md")).len(), 11, "commands");
    let last = ws.outside().join("state/roles.toml");
    assert!(last.exists(), "the roles lie beside the journal");
}

#[test]
fn commands_of_the_documents_exist() {
    let ws = Workspace::new();
    let mut seen = 0;
    for folder in ["guides", "concepts"] {
        for entry in std::fs::read_dir(page(folder)).expect("the folder is there") {
            let path = entry.expect("it can be read").path();
            let text = std::fs::read_to_string(&path).expect("it can be read");
            for line in text.lines().filter_map(|line| line.strip_prefix("    maestro ")) {
                // Remarks stand behind two spaces. `--help` is refused after what does not exist.
                let line = line.split("  ").next().unwrap_or_default();
                let help = format!("maestro {line} --help > /dev/null");
                let line = Step::Run { line: help, prints: None };
                follow(&ws, &[line]);
                seen += 1;
            }
        }
    }
    assert!(seen > 30, "{seen} commands");
}
