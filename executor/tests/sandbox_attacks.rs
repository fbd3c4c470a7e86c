//! Attacks on the sandbox, each named for the rule that stops it; as root and as a normal user.
//!
//! Every script tries what a hostile action would, and prints what it got; the host is looked at
//! afterwards.

#[path = "sandbox/support.rs"]
mod support;

use std::fs;
use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use maestro_core::{DigestFunction, Node};
use maestro_executor::runner::RunError;
use support::{again_as_normal_user, eventually, fingerprint, mark, processes_with, world};

#[test]
fn as_a_normal_user() {
    again_as_normal_user();
}

/// Runs a script that reports each attempt as `name: ok` or `name: no`; none may say `ok`.
fn check_refused(script: &str, attempts: usize) {
    let helper = "try() { n=$1; shift; if \"$@\" >/dev/null 2>&1; then echo $n: ok; \
                  else echo $n: no; fi; }\n";
    let stdout = world().script(&format!("{helper}{script}")).stdout();
    assert_eq!(stdout.lines().count(), attempts, "{stdout}");
    assert!(!stdout.contains(": ok"), "{stdout}");
}

/// What system call `number` answers when perl calls it with `arguments`: 0 or more, or an errno.
fn errno_of(number: calls::Number, arguments: &str) -> i64 {
    let script = format!(
        "perl -e '@a = ({arguments}); $r = syscall({number}, @a); print $r < 0 ? -$!+0 : $r'"
    );
    let stdout = world().script(&script).stdout();
    stdout.trim().parse().unwrap_or_else(|_| panic!("not a number: {stdout}"))
}

/// Numbers of system calls on this architecture.
mod calls {
    pub(super) type Number = i64;
    #[cfg(target_arch = "x86_64")]
    pub(super) const TABLE: [(&str, Number, &str); 12] = [
        ("mount", 165, "\"x\", \"/tmp\", \"tmpfs\", 0, 0"),
        ("umount2", 166, "\"/tmp\", 2"),
        ("unshare a user namespace", 272, "0x10000000"),
        ("unshare a mount namespace", 272, "0x20000"),
        ("clone into a user namespace", 56, "0x10000011, 0, 0, 0, 0"),
        ("clone3", 435, "0, 0"),
        ("keyctl", 250, "0, -3, 0"),
        ("bpf", 321, "0, 0, 0"),
        ("perf_event_open", 298, "0, 0, -1, -1, 0"),
        ("io_uring_setup", 425, "1, 0"),
        ("open_by_handle_at", 304, "3, 0, 0"),
        ("userfaultfd", 323, "0"),
    ];
    #[cfg(not(target_arch = "x86_64"))]
    pub(super) const TABLE: [(&str, Number, &str); 0] = [];
}

#[test]
fn kernel_interfaces_are_refused() {
    const EPERM: i64 = -1;
    const ENOSYS: i64 = -38;
    for (name, number, arguments) in calls::TABLE {
        let answer = errno_of(number, arguments);
        assert!(answer == EPERM || answer == ENOSYS, "{name} answers {answer}");
    }
}

#[test]
fn kernel_settings_cannot_be_written() {
    let before = fs::read("/proc/sys/kernel/core_pattern").expect("readable");
    check_refused(
        "try write sh -c 'echo evil > /proc/sys/kernel/core_pattern'
         try sysrq sh -c 'echo h > /proc/sysrq-trigger'
         try see test -e /proc/sys
         try kcore test -e /proc/kcore
         try keys test -e /proc/keys
         try timers test -e /proc/timer_list
         try sys test -e /sys
         try modules test -e /proc/modules
         try again unshare -m true",
        9,
    );
    assert_eq!(fs::read("/proc/sys/kernel/core_pattern").expect("readable"), before);
}

#[test]
fn mounts_are_locked() {
    check_refused(
        "try remount mount -o remount,rw,bind /
         try remount-usr mount -o remount,rw /usr
         try over mount -t tmpfs x /usr
         try bind mount --bind /tmp /usr
         try unmount umount /build
         try unmount-proc umount -l /proc
         try in-userns unshare -Urm sh -c 'mount -o remount,rw,bind /; echo x > /etc/passwd'
         try in-mountns unshare -m mount -o remount,rw,bind /",
        8,
    );
}

#[test]
fn nothing_outside_of_build_and_tmp_can_be_written() {
    check_refused(
        "try root touch /x
         try usr touch /usr/x
         try etc sh -c 'echo x >> /etc/passwd'
         try dev touch /dev/x
         try dev-null rm /dev/null
         try proc sh -c 'echo 0 > /proc/1/oom_score_adj'
         try chmod chmod 777 /usr/bin/env
         try home mkdir /root
         try env sh -c 'echo x >> /usr/bin/env'
         try fd sh -c 'cd /proc/1/cwd && touch x'",
        10,
    );
}

#[test]
fn files_of_the_host_do_not_exist() {
    let world = world();
    let secret = world.outside().join("secret");
    fs::write(&secret, "secret").expect("a file");
    let cache = world.store.root().display().to_string();
    check_refused(
        &format!(
            "try outside cat {}
             try cache ls {cache}
             try root ls /root
             try home ls /home
             try var ls /var
             try opt ls /opt
             try shadow cat /etc/shadow
             try machine cat /etc/machine-id
             try skeleton ls /skeleton
             try scratch ls /scratch
             try lower ls /lower
             try layer ls /layer
             try up ls /build/../scratch
             try disk sh -c 'ls /dev/vda /dev/sda /dev/mem /dev/kmsg /dev/tty'
             try init-root ls /proc/1/root/scratch",
            secret.display()
        ),
        15,
    );
    let passwd = world.script("cat /etc/passwd").stdout();
    assert!(passwd.starts_with("maestro:x:1000:1000:") && !passwd.contains("root"), "{passwd}");
}

#[test]
fn a_blob_cannot_be_changed_through_its_hard_link() {
    let world = world();
    let text = "the content of a blob that everyone relies on";
    let stdout = world
        .script(
            "exec 2>/dev/null
             echo evil >> p/a
             chmod 777 p/a && echo evil >> p/a
             truncate -s 0 p/a
             perl -e 'open F, \"+<\", \"p/a\" and print F \"evil\"'
             ln p/a p/b && chmod u+w p/b && echo evil >> p/b
             ln -s a p/l && chmod 777 p/l && echo evil >> p/l
             touch p/a
             mv p/a p/c && echo evil > p/c
             rm -f p/a; echo evil > p/a
             echo done",
        )
        .input("p/a", text)
        .stdout();
    assert_eq!(stdout, "done\n");
    let digest = DigestFunction::Blake3.digest(text.as_bytes());
    assert_eq!(world.text(&digest), text);
    let blob = world.store.open_blob(&digest).expect("stored").metadata().expect("open");
    let (mode, mtime) = {
        use std::os::unix::fs::MetadataExt;
        (blob.mode() & 0o7777, blob.mtime())
    };
    assert_eq!((mode, mtime), (0o444, 315_532_800));
    // And the next action sees it as it was.
    assert_eq!(world.script("cat p/a").input("p/a", text).stdout(), text);
}

#[test]
fn toolchains_and_trees_cannot_be_changed() {
    let world = world();
    let make = "mkdir t; for i in $(seq 100); do echo $i > t/$i; done";
    let outcome = world.script(make).tree("t").run().expect("a tree");
    let root = outcome.result.output_directories.first().expect("one").root_directory_digest;
    let env = world.store.root().join("toolchain-of-tests/usr/bin/env");
    let before = fingerprint(&env);
    let stdout = world
        .script(
            "exec 2>/dev/null
             chmod 777 in/t/1 && echo evil >> in/t/1; echo evil > in/t/1; rm -rf in/t
             chmod 777 /usr/bin/env; rm -f /usr/bin/env; touch /usr/bin/env
             cat in/t/1",
        )
        .node("in/t", Node::Tree { root })
        .stdout();
    assert_eq!(stdout, "1\n");
    assert_eq!(fingerprint(&env), before);
}

#[test]
fn processes_of_the_host_cannot_be_seen_or_killed() {
    let world = world();
    let mut victim = Command::new("/bin/sleep").arg("1000").spawn().expect("a process");
    let outcome = world
        .script(&format!(
            "kill -9 {} 2>/dev/null; kill -9 -1 2>/dev/null; \
             for p in /proc/[0-9]*; do cat $p/cmdline | tr '\\0' ' '; echo; done",
            victim.id()
        ))
        .run();
    let alive = victim.try_wait().expect("our child").is_none();
    victim.kill().expect("our child");
    victim.wait().expect("our child");
    assert!(alive, "it was killed");
    let outcome = outcome.unwrap_or_else(|error| panic!("{}", world.explain(&error)));
    let stdout = world.text(&outcome.result.stdout_digest.expect("it lists processes"));
    // The sandbox's first process, the shell, and what the shell started.
    assert!(stdout.lines().count() <= 6, "{stdout}");
    assert!(!stdout.contains("sleep 1000"), "{stdout}");
}

#[test]
fn the_first_process_cannot_be_traced_or_killed() {
    let stdout = world()
        .script(
            "kill -9 1; kill -STOP 1; kill -TERM 1
             ls /proc/1/fd 2>/dev/null
             readlink /proc/1/root /proc/1/cwd /proc/1/exe
             cat /proc/1/environ /proc/1/maps /proc/1/mem 2>/dev/null
             perl -e 'print syscall(101, 16, 1, 0, 0), \"\\n\"'",
        )
        .stdout();
    assert_eq!(stdout, "-1\n");
}

#[test]
fn privileges_cannot_be_gained() {
    let world = world();
    let status = world.script("cat /proc/self/status").stdout();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.unwrap_or_else(|| panic!("no {name} in {status}")).trim().to_owned()
    };
    for name in ["CapInh:", "CapPrm:", "CapEff:", "CapBnd:", "CapAmb:"] {
        assert_eq!(field(name), "0000000000000000", "{name}");
    }
    assert_eq!((field("NoNewPrivs:"), field("Seccomp:")), ("1".to_owned(), "2".to_owned()));
    assert_eq!(field("Uid:"), "1000\t1000\t1000\t1000");
    let map = world.script("cat /proc/self/uid_map /proc/self/setgroups").stdout();
    let words: Vec<&str> = map.split_whitespace().collect();
    let [inner, outer, "1", "deny"] = words.as_slice() else { panic!("{map}") };
    assert_eq!(*inner, "1000");
    assert_ne!(*outer, "0", "the host's root is mapped");
    check_refused(
        "cp /usr/bin/env /tmp/env; chmod 4755 /tmp/env
         try setuid sh -c 'test $(/tmp/env id -u) != 1000'
         try root perl -e 'exit(syscall(105, 0) != 0)'
         try chown perl -e 'exit !chown 0, 0, \"/tmp/env\"'
         try device mknod /tmp/null c 1 3
         try disk mknod /build/disk b 254 0
         try chroot perl -e 'exit !chroot \"/tmp\"'
         try hostname perl -e '@a = (\"evil\", 4); exit(syscall(170, @a) != 0)'",
        7,
    );
}

#[test]
fn a_setuid_bit_does_not_reach_the_store() {
    let outcome = world()
        .script("cp /usr/bin/true out; chmod 6777 out")
        .file("out")
        .run()
        .expect("it is an executable");
    let file = outcome.result.output_files.first().expect("one");
    assert!(file.is_executable);
    let folder = tempfile::tempdir().expect("a folder");
    let dir = fs::File::open(folder.path()).expect("a folder");
    use std::os::fd::AsFd;
    world().store.link_into(&file.digest, true, dir.as_fd(), "tool").expect("linked");
    assert_eq!(fingerprint(&folder.path().join("tool")).1 & 0o7777, 0o555);
}

#[test]
fn the_network_is_a_loopback_device_and_nothing_else() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("bound").port();
    let name = mark();
    let address = SocketAddr::from_abstract_name(name.as_bytes()).expect("a name");
    let _abstract = UnixListener::bind_addr(&address).expect("a socket");
    let path = world().outside().join(format!("{name}.sock"));
    let _by_path = UnixListener::bind(&path).expect("a socket");
    let connect = |domain: &str, address: &str| {
        format!(
            "perl -MSocket -e 'socket(S, {domain}, SOCK_STREAM, 0) or exit 1; \
             exit !connect(S, {address})'"
        )
    };
    check_refused(
        &format!(
            "try host-loopback {}
             try outside {}
             try host-abstract {}
             try host-path {}
             try raw perl -MSocket -e 'exit !socket(S, AF_INET, SOCK_RAW, 1)'
             try packet perl -MSocket -e 'exit !socket(S, 17, SOCK_RAW, 768)'",
            connect("AF_INET", &format!("sockaddr_in({port}, INADDR_LOOPBACK)")),
            connect("AF_INET", "sockaddr_in(53, inet_aton(\"192.0.2.1\"))"),
            connect("AF_UNIX", &format!("pack(\"Sxa*\", AF_UNIX, \"{name}\")")),
            connect("AF_UNIX", &format!("pack_sockaddr_un(\"{}\")", path.display())),
        ),
        6,
    );
    let own = "perl -MSocket -e 'socket(L, AF_INET, SOCK_STREAM, 0); \
               bind(L, sockaddr_in(0, INADDR_LOOPBACK)) or die; listen(L, 1); \
               socket(S, AF_INET, SOCK_STREAM, 0); connect(S, getsockname(L)) or die; print 1'";
    assert_eq!(world().script(own).stdout(), "1", "its own loopback works");
    let devices = world().script("tail -n +3 /proc/net/dev | tr -s ' ' | cut -d: -f1 || true");
    assert!(!devices.stdout().contains("eth"));
}

#[test]
fn a_network_namespace_keeps_nothing_for_the_next_action() {
    let world = world();
    let identity = "readlink /proc/self/ns/net";
    let talk = "perl -MSocket -e 'socket(L, AF_INET, SOCK_DGRAM, 0); \
                bind(L, sockaddr_in(0, INADDR_LOOPBACK)); \
                socket(S, AF_INET, SOCK_DGRAM, 0); send(S, \"x\", 0, getsockname(L)) or die'";
    let slot = 900;
    let run = |script: &str, test: bool| {
        let action = world.script(script);
        let action = if test { action.test() } else { action };
        let outcome =
            action.run_in(slot).unwrap_or_else(|error| panic!("{}", world.explain(&error)));
        outcome.result.stdout_digest.map(|digest| world.text(&digest)).unwrap_or_default()
    };
    let first = run(identity, false);
    assert_eq!(run(identity, false), first, "nothing was sent, so it is used again");
    run(talk, false);
    let second = run(identity, false);
    assert_ne!(second, first, "something was sent, so it is not used again");
    assert_ne!(run(identity, true), second, "a test gets one that nobody used");
}

#[test]
fn only_standard_streams_are_open() {
    let stdout =
        world().script("exec perl -e 'opendir D, \"/proc/self/fd\"; print sort readdir D'");
    // The fourth is the folder that is being read.
    assert_eq!(stdout.stdout(), "...0123");
    let maps = world().script("ls -l /proc/self/fd | tr -s ' ' | tail -n +2").stdout();
    assert!(!maps.contains("socket:"), "{maps}");
}

#[test]
fn links_that_leave_are_refused() {
    let check = |script: &str, expect: &str| {
        let failure = world().script(script).tree("t").failure();
        assert!(failure.contains(expect), "{failure}");
    };
    check("mkdir t; ln -s /etc/passwd t/l", "the link `t/l` points to `/etc/passwd`");
    check("mkdir t; ln -s ../../../etc/passwd t/l", "which is outside of the output");
    check("mkdir -p t/d; ln -s .. t/d/s; ln -s d/s/.. t/l", "which goes up after a name");
    check("ln -s /etc t", "and a declared output must not be a link itself");
    let failure = world().script("ln -s /etc d").file("d/passwd").failure();
    assert!(failure.contains("declared outputs were not made"), "{failure}");
    let failure = world().script("rm -r d; ln -s /etc d").file("d/passwd").failure();
    assert!(failure.contains("a folder on the way to output `d/passwd` is a link"), "{failure}");
}

#[test]
fn a_folder_cannot_be_swapped_for_a_link_while_outputs_are_taken() {
    // A process that goes on swapping after the action ended would win some of these races.
    let world = world();
    for _ in 0..5 {
        let script = "mkdir d.real; echo mine > d.real/passwd; rm -r d; ln -s d.real d
             perl -e 'fork and exit; POSIX::setsid() if eval { require POSIX }; \
                while (1) { unlink \"d\"; symlink \"/etc\", \"d\"; unlink \"d\"; \
                symlink \"d.real\", \"d\" }' &
             perl -e 'select undef, undef, undef, 0.02'";
        let failure = world.script(script).file("d/passwd").failure();
        assert!(failure.contains("is a link") || failure.contains("were not made"), "{failure}");
    }
}

#[test]
fn odd_outputs_are_refused() {
    let check = |script: &str, expect: &str| {
        let failure = world().script(&format!("mkdir t; cd t; {script}")).tree("t").failure();
        assert!(failure.contains(expect), "{failure}");
    };
    check("mkfifo p", "`t/p` is a named pipe, which an output cannot be");
    check(
        "perl -MSocket -e 'socket(S, AF_UNIX, SOCK_STREAM, 0); \
         bind(S, pack_sockaddr_un(\"s\")) or die'",
        "`t/s` is a socket, which an output cannot be",
    );
    check("touch \"$(printf 'a\\nb')\"", "the name `a\\nb` in `t` has a control character");
    check("touch \"$(printf 'a\\377b')\"", "the name `a\\xffb` in `t` is not UTF-8");
    check(
        "perl -e 'for (1..600) { mkdir \"d\"; chdir \"d\" or die }'",
        "output `t` has folders nested too deeply, the limit is 512",
    );
}

#[test]
fn whiteouts_cannot_be_made_to_hide_outputs() {
    let failure = world().script("mknod out c 0 0; ls -l out").file("out").failure();
    assert!(failure.contains("exited with code") || failure.contains("not made"), "{failure}");
    // An input that was deleted is no output, nor a device in one.
    let outcome =
        world().script("rm t/a; touch t/b").input("t/a", "x").tree("t").run().expect("a tree");
    let root = outcome.result.output_directories.first().expect("one").root_directory_digest;
    let entries = world().store.tree_files(&root).expect("stored");
    let paths: Vec<&str> = entries.iter().map(|entry| entry.path.as_str()).collect();
    assert_eq!(paths, ["b"]);
}

#[test]
fn a_hard_link_to_an_input_is_a_copy() {
    let text = "an input that is linked to";
    let files = world().script("ln p/a out").input("p/a", text).file("out").files();
    assert_eq!(files.get("out").map(String::as_str), Some(text));
}

/// Has actions hide things beside the content of their output, and others look for them.
fn check_nothing_beside_content(text: &str) {
    let hidden = [
        ("attribute", r#"@a = ("out", "user.hidden", "evil", 4, 0); syscall(188, @a) and die $!"#),
        // Not every layer has flags.
        ("flag", r#"$f = pack "Q", 0x40 | unpack "Q", $f; ioctl F, 0x40086602, $f"#),
        ("hole", "truncate F, 1 << 20 or die $!"),
    ];
    let flags = r#"$f = "\0" x 8; ioctl F, 0x80086601, $f"#;
    let look = r#"@a = ("p/a", "-" x 100, 100); $n = syscall(194, @a); $s = substr($a[1], 0, $n);
        printf "attributes: %d [%s], flag: %d, hole: %d", $n, $s, 0x40 & unpack("Q", $f),
        (stat F)[12] * 512 < -s F"#;
    let world = world();
    for (name, hide) in hidden {
        let outcome = world
            .script(&format!(
                "echo {text}, {name} > out; perl -e 'open F, \"+<\", \"out\"; {flags}; {hide}'"
            ))
            .file("out")
            .run()
            .unwrap_or_else(|error| panic!("{}", world.explain(&error)));
        let file = outcome.result.output_files.first().expect("one");
        let (digest, executable) = (file.digest, file.is_executable);
        let look = world.script(&format!("perl -e 'open F, \"p/a\"; {flags}; {look}'"));
        let stdout = look.node("p/a", Node::File { digest, executable }).stdout();
        assert_eq!(stdout, "attributes: 0 [], flag: 0, hole: 0", "seen by the next action: {name}");
    }
}

#[test]
fn attributes_are_no_hidden_channel() {
    check_nothing_beside_content("attributes");
}

#[test]
fn many_files_in_one_folder_are_taken() {
    let began = Instant::now();
    let script = "mkdir t; perl -e 'for (1..100000) { open F, \">\", \"t/$_\" or die $! }'";
    let outcome = world().script(script).tree("t").run().expect("a tree");
    let root = outcome.result.output_directories.first().expect("one").root_directory_digest;
    assert_eq!(world().store.directory(&root).expect("stored").files.len(), 100_000);
    assert!(began.elapsed() < Duration::from_secs(300), "{:?}", began.elapsed());
}

#[test]
fn an_action_that_writes_too_much_for_memory_runs_on_disk() {
    let script = "head -c 1200000000 /dev/zero > x && rm x
        grep ' /build ' /proc/self/mountinfo | tr ',' '\n' | grep -c -e volatile > out";
    let files = world().script(script).file("out").timeout_ms(300_000).files();
    let volatile = files.get("out").map(String::as_str);
    assert_eq!(volatile, Some("1\n"), "only a layer on disk is volatile");
    // From now on actions like that one start on disk, where outputs are moved, not copied.
    check_nothing_beside_content("attributes on disk");
}

#[test]
fn a_fork_bomb_is_bounded_and_ends_with_its_time() {
    let mark = mark();
    let script = format!("b() {{ b | b & }}; b; sleep 1000; : {mark}");
    let error = world().script(&script).timeout_ms(1_500).run().expect_err("too slow");
    assert!(matches!(error, RunError::Timeout { .. } | RunError::Failed { .. }), "{error}");
    assert_eq!(processes_with(&mark), [0u32; 0]);
    assert_eq!(world().script("echo alive").stdout(), "alive\n");
}

#[test]
fn a_daemon_ends_with_its_action() {
    let mark = mark();
    let script = format!(
        "perl -e 'fork and exit; require POSIX; POSIX::setsid(); fork and exit; \
         exec \"sleep\", \"1000\", \"{mark}\" unless 0' 2>/dev/null; \
         (setsid sh -c 'trap \"\" TERM HUP; sleep 1000; : {mark}' &) 2>/dev/null; \
         (sh -c 'sleep 1000; : {mark}' &) ; echo started"
    );
    assert_eq!(world().script(&script).stdout(), "started\n");
    assert_eq!(processes_with(&mark), [0u32; 0]);
}

/// Not a test of its own: what [`nothing_outlives_a_client_that_is_killed`] starts and kills.
#[test]
#[ignore = "started by another test"]
fn a_client_that_runs_for_long() {
    let Some(mark) = std::env::var_os("MAESTRO_SANDBOX_TEST_MARK") else { return };
    let mark = mark.into_string().expect("made of letters");
    let _ = world().script(&format!("sleep 1000; : {mark}")).run();
}

#[test]
fn nothing_outlives_a_client_that_is_killed() {
    let mark = mark();
    let mut client = Command::new(std::env::current_exe().expect("a program"))
        .args(["--ignored", "--exact", "a_client_that_runs_for_long"])
        .env("MAESTRO_SANDBOX_TEST_MARK", &mark)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("a client");
    eventually("the action runs", || !processes_with(&mark).is_empty());
    client.kill().expect("our child");
    client.wait().expect("our child");
    eventually("all is dead", || processes_with(&mark).is_empty());
}

#[test]
fn nothing_outlives_a_server_that_is_killed_and_the_action_is_run_again() {
    let (mark, slot) = (mark(), 901);
    let world = world();
    assert_eq!(world.script("true").run_in(slot).map(|_| ()).map_err(|e| e.to_string()), Ok(()));
    let began = Instant::now();
    let error = std::thread::scope(|scope| {
        scope.spawn(|| {
            // Twice, since the action is run once more when its server died.
            for _ in 0..2 {
                eventually("the action runs", || !processes_with(&mark).is_empty());
                let victims = processes_with(&mark);
                for victim in &victims {
                    kill_server_of(*victim);
                }
                eventually("it is dead", || {
                    processes_with(&mark).iter().all(|pid| !victims.contains(pid))
                });
            }
        });
        world.script(&format!("sleep 1000; : {mark}")).run_in(slot).expect_err("killed")
    });
    assert!(error.to_string().contains("the spawn server died"), "{error}");
    assert!(began.elapsed() < Duration::from_secs(60));
    assert_eq!(processes_with(&mark), [0u32; 0]);
    assert!(world.script("true").run_in(slot).is_ok(), "another server is started");
}

/// Kills the server above a process of an action: the parent of its pid namespace's first process.
fn kill_server_of(mut pid: u32) {
    for _ in 0..16 {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let is_server = String::from_utf8_lossy(&line).contains("__spawn-server");
        let parent = parent_of(pid);
        // Its first process has the same command line; the server is the upper one.
        let above = parent.map(|pid| fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default());
        let above = above.unwrap_or_default();
        if is_server && !String::from_utf8_lossy(&above).contains("__spawn-server") {
            let _ = Command::new("/bin/kill").args(["-9", &pid.to_string()]).status();
            return;
        }
        let Some(parent) = parent else { return };
        pid = parent;
    }
}

fn parent_of(pid: u32) -> Option<u32> {
    let mut text = String::new();
    fs::File::open(format!("/proc/{pid}/status")).ok()?.read_to_string(&mut text).ok()?;
    text.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

#[test]
fn a_stranger_cannot_use_a_server() {
    // Started by hand, it has no client, and ends.
    let mut server = Command::new(support::server_program())
        .arg("__spawn-server")
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .expect("it starts");
    if let Some(mut input) = server.stdin.take() {
        let _ = input.write_all(b"not a frame at all");
    }
    assert!(!server.wait().expect("our child").success());
}
