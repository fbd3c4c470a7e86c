//! Commands of REAPI as they stand, in the real sandbox, on the folders of this machine.

use std::path::PathBuf;

use maestro_cas::{Store, StoreOptions};
use maestro_core::key::SandboxProfile;
use maestro_core::{Digest, DigestFunction, Node, RelPath};
use maestro_executor::command::{
    CommandOptions, CommandRunner, Ended, ForeignCommand, ForeignOutcome,
};
use maestro_executor::runner::{Cancel, RunError};

struct World {
    _dir: tempfile::TempDir,
    store: Store,
    runner: CommandRunner,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir().expect("a folder");
        let root = dir.path().join("cache");
        let store = Store::open(StoreOptions { root, function: DigestFunction::Sha256 });
        let store = store.expect("a store");
        let options = CommandOptions {
            program: PathBuf::from(env!("CARGO_BIN_EXE_maestro-spawn-server")),
            slots: 1,
            profile: SandboxProfile::Hermetic,
            host: vec![PathBuf::from("/usr")],
            workspace: None,
        };
        let runner = CommandRunner::new(&store, options);
        Self { _dir: dir, store, runner }
    }

    fn command(script: &str, outputs: &[&str]) -> ForeignCommand {
        ForeignCommand {
            arguments: ["/bin/sh", "-c", script].map(str::to_owned).to_vec(),
            environment: vec![("PATH".to_owned(), "/usr/bin:/bin".to_owned())],
            directory: String::new(),
            inputs: Vec::new(),
            outputs: outputs.iter().map(|path| RelPath::new(path).expect("valid")).collect(),
            toolchains: Vec::new(),
            timeout_ms: 60_000,
        }
    }

    fn run(&self, command: &ForeignCommand) -> ForeignOutcome {
        self.runner.run_foreign(command, 0, &Cancel::default()).expect("it runs")
    }

    fn text(&self, digest: &Option<Digest>) -> String {
        let Some(digest) = digest else { return String::new() };
        String::from_utf8(self.store.read(digest).expect("stored")).expect("UTF-8")
    }
}

#[test]
fn whatever_stands_at_an_output_path_is_an_output() {
    let world = World::new();
    let script = "mkdir -p made/in && echo a > made/in/a && ln -s /nowhere made/away \
                  && echo b > deep/b && ln -s ../up link && ln -s /abs deep/abs; exit 3";
    let outputs = ["absent", "deep/abs", "deep/b", "link", "made"];
    let outcome = world.run(&World::command(script, &outputs));
    assert_eq!(outcome.ended, Ended::Exited(3), "{}", world.text(&outcome.stderr));
    let files: Vec<&str> = outcome.files.iter().map(|file| file.path.as_str()).collect();
    assert_eq!(files, ["deep/b"]);
    let link = |path: &str, target: &str| (path.to_owned(), target.to_owned());
    assert_eq!(outcome.symlinks, [link("deep/abs", "/abs"), link("link", "../up")]);
    let [tree] = outcome.directories.as_slice() else { panic!("{:?}", outcome.directories) };
    let root = world.store.directory(&tree.root_directory_digest).expect("stored");
    assert_eq!(root.symlinks.first().map(|link| link.target.as_str()), Some("/nowhere"));
}

#[test]
fn the_working_directory_and_the_inputs_are_as_the_command_says() {
    let world = World::new();
    let digest = world.store.put_bytes(b"text").expect("stored");
    let file = Node::File { digest, executable: false };
    let input = (RelPath::new("work/input").expect("valid"), file);
    let mut command =
        World::command("pwd; cat input; rm input; echo other > input; cat input", &[]);
    command.inputs = vec![input];
    command.directory = "work".to_owned();
    let outcome = world.run(&command);
    assert_eq!(world.text(&outcome.stdout), "/build/work\ntextother\n");
    assert_eq!(world.store.read(&digest).expect("stored"), b"text", "the blob is untouched");
}

#[test]
fn the_machine_is_seen_where_it_is_shown_and_cannot_be_written_to() {
    let world = World::new();
    let script = "test -x /usr/bin/env && test ! -e /root && test ! -e /home \
                  && ! touch /usr/bin/maestro-was-here 2> /dev/null && cat /etc/hostname";
    let outcome = world.run(&World::command(script, &[]));
    assert_eq!(outcome.ended, Ended::Exited(0), "{}", world.text(&outcome.stderr));
    assert_eq!(world.text(&outcome.stdout), "maestro\n", "`/etc` is ours");
}

#[test]
fn ends_are_told_as_shells_tell_them() {
    let world = World::new();
    let check = |command: &ForeignCommand, ended: Ended, said: &str| {
        let outcome = world.run(command);
        assert_eq!(outcome.ended, ended, "{:?}", command.arguments);
        let text = world.text(&outcome.stdout) + &world.text(&outcome.stderr);
        assert!(text.contains(said), "{text}");
    };
    check(&World::command("kill -9 $$", &[]), Ended::Exited(137), "");
    let mut missing = World::command("", &[]);
    missing.arguments = vec!["no-such-program".to_owned()];
    check(&missing, Ended::Exited(127), "cannot start `no-such-program`");
    let mut slow = World::command("echo begun; sleep 60", &[]);
    slow.timeout_ms = 300;
    check(&slow, Ended::TimedOut, "begun");
    let odd = World::command("mkfifo pipe", &["pipe"]);
    let error = world.runner.run_foreign(&odd, 0, &Cancel::default()).expect_err("no output");
    assert!(matches!(&error, RunError::Failed { message, .. } if message.contains("pipe")));
}
