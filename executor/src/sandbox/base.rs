//! What a spawn server sets up once: its namespaces, a private mount tree, prepared roots.
//!
//! The server's own root is a small tmpfs with nothing of the host but these:
//!
//! | path | what | flags |
//! |---|---|---|
//! | `/cache` | the cache folder: toolchains, input trees | read-only, owners mapped |
//! | `/lower` | the scratch folder once more: inputs of actions | read-only, owners mapped |
//! | `/scratch` | the scratch folder: the writable layers | writable |
//! | `/proc` | the host's: a normal user may mount a new one only where one is visible | |
//! | `/dev/*` | five devices | |
//! | `/layer` | where an action's first process attaches a writable layer in memory | |
//! | `/host/N` | folders of the host that actions may see which ask for it | read-only |
//! | `/host-skeleton` | the folders that those are mounted on | |
//! | `/skeleton`, `/links` | the folders and files of a root file system that are ours | |
//! | `/roots/N` | one per list of toolchains: overlay of skeleton, toolchains, links | read-only |
//!
//! So a mount namespace of an action copies a dozen mounts however many the host has, and nothing
//! that a mistake could leave behind in an action's root leads to the host.
//!
//! Two kinds of servers differ in one point. An unprivileged one makes its mounts in a user
//! namespace, where the building user is uid 1000. A privileged one (root) makes them with its
//! privilege, in no user namespace, and each action then becomes a dedicated user of its slot. In
//! both, files that belong on disk to whoever builds appear to belong to uid 1000 inside: in the
//! first by the user namespace, in the second because `/cache` and `/lower` are id-mapped mounts.
//! The owner 0 of the disk is mapped for reading, through a read-only mount; no process of a
//! sandbox is ever uid 0 of the host, and none can make a file that is.

use std::collections::VecDeque;
use std::ffi::CString;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
};
use rustix::thread::UnshareFlags;

use super::protocol::{Abilities, AtStep, Boot, StepFailure};
use super::{layer, sys, walls};

/// The first of the dedicated users; that of a slot is this plus the slot's number.
pub(super) const DEDICATED_USER_FIRST: u32 = 64_900;
/// How many dedicated users there are before slots share them.
const DEDICATED_USERS: u32 = 512;
/// The user and group that an action is, as it sees itself.
pub(super) const INNER_ID: u32 = 1000;
/// Most prepared roots that one server keeps.
const ROOTS_MAX: usize = 8;

/// A server that is ready to start actions.
pub(super) struct Base {
    user: Option<u32>,
    idmapped: bool,
    memory_layer: bool,
    roots: VecDeque<(RootKey, PathBuf)>,
    /// The folders of the host that actions may see, each with the place of its copy.
    host: Vec<(PathBuf, PathBuf)>,
    roots_made: u64,
    network: Network,
}

/// What two actions have in common that share a root.
struct RootKey {
    toolchains: Vec<String>,
    sees_host: bool,
}

/// The network namespace that actions get, and whether one has used it.
struct Network {
    counters: File,
    before: String,
    used: bool,
}

impl Base {
    /// Leaves the host behind. Afterwards this process sees nothing but its own tree.
    pub(super) fn set_up(boot: &Boot) -> Result<Self, StepFailure> {
        sys::assert_single_threaded().at("start with one thread")?;
        let user = dedicated_user(DEDICATED_USER_FIRST + boot.slot % DEDICATED_USERS)?;
        let namespaces = UnshareFlags::NEWNS
            | UnshareFlags::NEWNET
            | UnshareFlags::NEWUTS
            | UnshareFlags::NEWCGROUP;
        if user.is_some() {
            sys::unshare(namespaces).at("make namespaces as root")?;
        } else {
            let outer = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
            sys::unshare(namespaces | UnshareFlags::NEWUSER).at("make a user namespace")?;
            walls::map_user(INNER_ID, outer).at("map the user of a user namespace")?;
        }
        rustix::system::sethostname(b"maestro").at("set the host name")?;
        rustix::system::setdomainname(b"maestro").at("set the domain name")?;
        let _ = sys::new_session_keyring(); // Actions cannot reach keyrings anyway.
        let network = Network::set_up()?;
        let idmapped = Self::build_tree(boot, user)?;
        let memory_layer = layer::works(user);
        let host = host_folders(boot);
        let roots = VecDeque::new();
        Ok(Self { user, idmapped, memory_layer, roots, host, roots_made: 0, network })
    }

    /// What this server can do.
    pub(super) fn abilities(&self) -> Abilities {
        let Self { user, idmapped, memory_layer, .. } = *self;
        Abilities { user, idmapped, memory_layer }
    }

    /// The dedicated user, for a privileged server.
    pub(super) fn user(&self) -> Option<u32> {
        self.user
    }

    /// Makes sure that the network namespace is fit for the next action.
    pub(super) fn prepare_network(&mut self, fresh: bool) -> Result<(), StepFailure> {
        // Sockets die with their processes. What survives (ports that wait, counters, routes that
        // were learnt) needs packets to come into being, and the loopback device counts those.
        let unused = !self.network.used || (!fresh && self.network.is_untouched());
        if !unused {
            sys::unshare(UnshareFlags::NEWNET).at("make a network namespace")?;
            self.network = Network::set_up()?;
        }
        self.network.used = true;
        Ok(())
    }

    /// The prepared root for a list of toolchains, each a folder below the cache folder; with the
    /// folders of the host or without.
    pub(super) fn root(
        &mut self,
        toolchains: &[String],
        sees_host: bool,
    ) -> Result<PathBuf, StepFailure> {
        let is_it = |key: &RootKey| key.toolchains == toolchains && key.sees_host == sees_host;
        if let Some((_, root)) = self.roots.iter().find(|(key, _)| is_it(key)) {
            return Ok(root.clone());
        }
        while self.roots.len() >= ROOTS_MAX {
            if let Some((_, old)) = self.roots.pop_front() {
                rustix::mount::unmount(&old, UnmountFlags::DETACH).at("unmount a root")?;
                fs::remove_dir(&old).at("remove a root")?;
            }
        }
        let root = PathBuf::from(format!("/roots/{}", self.roots_made));
        self.roots_made += 1;
        fs::create_dir(&root).at("make the folder of a root")?;
        let host = if sees_host { self.host.as_slice() } else { &[] };
        mount_root(&root, toolchains, host)?;
        let key = RootKey { toolchains: toolchains.to_vec(), sees_host };
        self.roots.push_back((key, root.clone()));
        Ok(root)
    }

    fn build_tree(boot: &Boot, user: Option<u32>) -> Result<bool, StepFailure> {
        let cache = PathBuf::from(std::ffi::OsStr::from_bytes(&boot.cache));
        let scratch = PathBuf::from(std::ffi::OsStr::from_bytes(&boot.scratch));
        rustix::mount::mount_change(
            "/",
            MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
        )
        .at("make mounts private")?;
        let idmap = user.and_then(|user| identity_map(user).ok());
        let (cache_tree, cache_mapped) = share(&cache, true, idmap.as_ref())?;
        let (lower_tree, lower_mapped) = share(&scratch, true, idmap.as_ref())?;
        let (scratch_tree, _) = share(&scratch, false, None)?;
        let mut host_trees = Vec::new();
        for (folder, copy) in host_folders(boot) {
            host_trees.push((folder.clone(), copy, share(&folder, true, None)?.0));
        }
        let proc_tree = clone_tree(Path::new("/proc"), true).at("take `/proc` along")?;
        let mut devices = Vec::new();
        for name in DEVICES {
            let path = Path::new("/dev").join(name);
            devices.push((name, clone_tree(&path, false).at("take devices along")?));
        }
        let flags = MountFlags::NOSUID | MountFlags::NODEV;
        let options = c"mode=0755,size=16m,nr_inodes=16k";
        rustix::mount::mount("maestro", &scratch, "tmpfs", flags, options)
            .at("mount the server's root")?;
        rustix::process::chdir(&scratch).at("enter the server's root")?;
        for (name, tree) in [
            ("cache", &cache_tree),
            ("lower", &lower_tree),
            ("scratch", &scratch_tree),
            ("proc", &proc_tree),
        ] {
            fs::create_dir(name).at("make a mount point")?;
            attach(tree, Path::new(name)).at("attach a folder")?;
        }
        fs::create_dir("dev").at("make a mount point")?;
        for (name, tree) in &devices {
            let path = Path::new("dev").join(name);
            File::create(&path).at("make a mount point")?;
            attach(tree, &path).at("attach a device")?;
        }
        for (folder, copy, tree) in &host_trees {
            let below =
                |path: &Path| PathBuf::from(".").join(path.strip_prefix("/").unwrap_or(path));
            let place = Path::new(HOST_SKELETON).join(below(folder));
            fs::create_dir_all(below(&place)).at("make a mount point")?;
            fs::create_dir_all(below(copy)).at("make a mount point")?;
            attach(tree, &below(copy)).at("attach a folder of the host")?;
        }
        fs::create_dir("roots").at("make a mount point")?;
        fs::create_dir("layer").at("make a mount point")?;
        skeleton(Path::new("skeleton"), user).at("write the skeleton")?;
        links(Path::new("links"), user).at("write the links")?;
        enter_root().at("leave the host's root")?;
        Ok(cache_mapped && lower_mapped)
    }
}

impl Network {
    fn set_up() -> Result<Self, StepFailure> {
        sys::loopback_up().at("bring the loopback device up")?;
        let counters = File::open("/proc/self/net/dev").at("read network counters")?;
        let before = read_counters(&counters).at("read network counters")?;
        Ok(Self { counters, before, used: false })
    }

    fn is_untouched(&self) -> bool {
        read_counters(&self.counters).is_ok_and(|now| now == self.before)
    }
}

fn read_counters(file: &File) -> io::Result<String> {
    let mut buffer = [0u8; 4096];
    let count = rustix::io::pread(file, &mut buffer, 0)?;
    Ok(String::from_utf8_lossy(buffer.get(..count).unwrap_or_default()).into_owned())
}

/// The user that actions become: `wanted` if this process is root and may become it, `None` if they
/// can be whoever builds, an error if that is the host's root and nobody else is within reach.
fn dedicated_user(wanted: u32) -> Result<Option<u32>, StepFailure> {
    if !rustix::process::geteuid().is_root() {
        return Ok(None);
    }
    let read = |name: &str| fs::read_to_string(format!("/proc/self/{name}"));
    let uids = read("uid_map").at("read the map of users")?;
    let gids = read("gid_map").at("read the map of groups")?;
    if outer_id(&uids, wanted).is_some() && outer_id(&gids, wanted).is_some() {
        return Ok(Some(wanted));
    }
    // Root of a user namespace that knows no one else, such as that of `unshare --map-root-user`:
    // a normal user in disguise, unless it is root outside, too.
    match outer_id(&uids, 0) {
        Some(outer) if outer != 0 => Ok(None),
        _ => Err(io::Error::from_raw_os_error(libc::EPERM)).at("become a user that is not root"),
    }
}

/// What `id` is outside of the user namespace with this map, if it is anything.
fn outer_id(map: &str, id: u32) -> Option<u64> {
    map.lines().find_map(|line| {
        let mut numbers = line.split_whitespace().map(str::parse::<u64>);
        let (Some(Ok(inner)), Some(Ok(outer)), Some(Ok(count))) =
            (numbers.next(), numbers.next(), numbers.next())
        else {
            return None;
        };
        let offset = u64::from(id).checked_sub(inner)?;
        (offset < count).then(|| outer.saturating_add(offset))
    })
}

/// Devices that actions have; the rest of `/dev` is links.
const DEVICES: [&str; 5] = ["null", "zero", "full", "random", "urandom"];

/// Makes the current folder, which is a mount point, the root of this mount namespace.
pub(super) fn enter_root() -> io::Result<()> {
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(())
}

/// A user namespace that maps the owner 0 of a disk to `user`; no process ever runs in it.
fn identity_map(user: u32) -> io::Result<OwnedFd> {
    let (reader, _writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
    let child = sys::fork(sys::CloneFlags::USER, || {
        // The child holds the namespace open until it is killed, or its parent dies.
        let signal = Some(rustix::process::Signal::KILL);
        if rustix::process::set_parent_process_death_signal(signal).is_ok() {
            let _ = rustix::io::read(&reader, &mut [0u8; 1]);
        }
        0
    })?;
    let folder = PathBuf::from(format!("/proc/{}", child.as_raw_nonzero()));
    let made = fs::write(folder.join("uid_map"), format!("0 {user} 1"))
        .and_then(|()| fs::write(folder.join("gid_map"), format!("0 {user} 1")))
        .and_then(|()| File::open(folder.join("ns/user")));
    rustix::process::kill_process(child, rustix::process::Signal::KILL)?;
    sys::wait(Some(child), true)?;
    made.map(OwnedFd::from)
}

/// A detached copy of the mount at `path`, restricted; whether its owners are mapped.
fn share(
    path: &Path,
    read_only: bool,
    idmap: Option<&OwnedFd>,
) -> Result<(OwnedFd, bool), StepFailure> {
    let step = format!("take `{}` along", path.display());
    if let Some(idmap) = idmap {
        let tree = clone_tree(path, false).at(&step)?;
        // File systems without id-mapped mounts refuse here: inputs then belong to nobody.
        if sys::restrict_mount(tree.as_fd(), read_only, Some(idmap.as_fd())).is_ok() {
            return Ok((tree, true));
        }
    }
    // Unprivileged, a folder with mounts of others below it can only be copied with them.
    let tree = clone_tree(path, false).or_else(|_| clone_tree(path, true)).at(&step)?;
    sys::restrict_mount(tree.as_fd(), read_only, None).at(&step)?;
    Ok((tree, false))
}

fn clone_tree(path: &Path, recursive: bool) -> io::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    Ok(rustix::mount::open_tree(CWD, path, flags)?)
}

/// Attaches a detached mount.
pub(super) fn attach(tree: impl AsFd, path: &Path) -> io::Result<()> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(tree, "", CWD, path, flags)?)
}

/// The folders of the host that actions may see, each with the place of its copy.
fn host_folders(boot: &Boot) -> Vec<(PathBuf, PathBuf)> {
    let folders = boot.host.iter().map(|path| PathBuf::from(std::ffi::OsStr::from_bytes(path)));
    let copy = |(number, folder)| (folder, PathBuf::from(format!("/host/{number}")));
    folders.enumerate().map(copy).collect()
}

fn mount_root(
    root: &Path,
    toolchains: &[String],
    host: &[(PathBuf, PathBuf)],
) -> Result<(), StepFailure> {
    let mut lower = String::from("/skeleton");
    if !host.is_empty() {
        lower.push(':');
        lower.push_str(HOST_SKELETON);
    }
    for toolchain in toolchains {
        lower.push_str(":/cache/");
        lower.push_str(toolchain);
    }
    let options = CString::new(format!("lowerdir={lower}:/links,userxattr"))
        .map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))
        .at("name the toolchains")?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::RDONLY;
    rustix::mount::mount("maestro", root, "overlay", flags, options.as_c_str())
        .at("mount the toolchains")?;
    for (folder, copy) in host {
        let place = root.join(folder.strip_prefix("/").unwrap_or(folder));
        rustix::mount::mount_bind(copy, &place).at("mount a folder of the host")?;
    }
    for name in DEVICES {
        let (from, to) = (Path::new("/dev").join(name), root.join("dev").join(name));
        rustix::mount::mount_bind(&from, &to).at("mount a device")?;
    }
    Ok(())
}

/// Where the folders stand that those of the host are mounted on.
const HOST_SKELETON: &str = "/host-skeleton";

/// The part of every root that wins over toolchains: mount points, devices, our `/etc`.
fn skeleton(at: &Path, user: Option<u32>) -> io::Result<()> {
    let folders = ["", "build", "tmp", "proc", "dev", "etc"];
    for folder in folders {
        own(&make_folder(&at.join(folder))?, user)?;
    }
    for name in DEVICES {
        own(&write(at.join("dev").join(name), b"")?, user)?;
    }
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        // One writable tmpfs serves both, which saves a mount.
        ("shm", "/tmp"),
    ] {
        link(target, &at.join("dev").join(name), user)?;
    }
    for (name, text) in ETC {
        own(&write(at.join("etc").join(name), text.as_bytes())?, user)?;
    }
    own(&write(at.join("etc/localtime"), UTC_ZONE)?, user)?;
    Ok(())
}

/// The part of every root that toolchains win over: the links of a merged `/usr`.
fn links(at: &Path, user: Option<u32>) -> io::Result<()> {
    own(&make_folder(at)?, user)?;
    for (name, target) in
        [("bin", "usr/bin"), ("sbin", "usr/sbin"), ("lib", "usr/lib"), ("lib64", "usr/lib64")]
    {
        link(target, &at.join(name), user)?;
    }
    Ok(())
}

const ETC: [(&str, &str); 6] = [
    (
        "passwd",
        "maestro:x:1000:1000:Maestro:/nonexistent:/bin/sh\n\
         nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n",
    ),
    ("group", "maestro:x:1000:\nnogroup:x:65534:\n"),
    ("hosts", "127.0.0.1 localhost maestro\n::1 localhost\n"),
    ("hostname", "maestro\n"),
    ("nsswitch.conf", "passwd: files\ngroup: files\nhosts: files\nservices: files\n"),
    ("resolv.conf", ""),
];

/// A time zone file (RFC 8536, version 2) with one type, UTC, and no transition.
const UTC_ZONE: &[u8] = b"TZif2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\
\0\x01\0\0\0\x04\0\0\0\0\0\0UTC\0TZif2\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\
\0\0\0\0\0\x01\0\0\0\x04\0\0\0\0\0\0UTC\0\nUTC0\n";

fn make_folder(path: &Path) -> io::Result<PathBuf> {
    fs::create_dir(path)?;
    fs::set_permissions(path, Permissions::from_mode(0o755))?;
    Ok(path.to_owned())
}

fn write(path: PathBuf, bytes: &[u8]) -> io::Result<PathBuf> {
    fs::write(&path, bytes)?;
    fs::set_permissions(&path, Permissions::from_mode(0o444))?;
    Ok(path)
}

fn link(target: &str, path: &Path, user: Option<u32>) -> io::Result<()> {
    symlink(target, path)?;
    if user.is_some() { lchown(path, user, user) } else { Ok(()) }
}

fn own(path: &Path, user: Option<u32>) -> io::Result<()> {
    if user.is_some() { chown(path, user, user) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maps_are_read() {
        let check = |map: &str, id: u32, expect: Option<u64>| {
            assert_eq!(outer_id(map, id), expect, "{id} in {map:?}");
        };
        check("         0          0 4294967295\n", 64_900, Some(64_900));
        check("0 1000 1\n", 0, Some(1000));
        check("0 1000 1\n", 64_900, None);
        check("0 1000 1\n1 100000 65536\n", 64_900, Some(164_899));
        check("", 0, None);
        check("nonsense", 0, None);
    }

    #[test]
    fn the_time_zone_file_is_well_formed() {
        // Two blocks of a 44-byte header, one 6-byte type and 4 bytes of names; then the footer.
        assert_eq!(UTC_ZONE.len(), 2 * (44 + 6 + 4) + "\nUTC0\n".len());
        for start in [0, 54] {
            let block = UTC_ZONE.get(start..start + 44).expect("a header");
            assert_eq!(block.get(..5), Some(&b"TZif2"[..]));
            assert_eq!(block.get(32..), Some(&[0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 4][..]));
        }
    }
}
