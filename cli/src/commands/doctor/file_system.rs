//! What kind of file system a folder lies on, as far as builds have to care.
//!
//! Builds tell by time stamps and inodes whether a file changed. A local file system gives both
//! reliably; others have the clock of a server, coarse times, or inodes that are numbered anew.

use std::path::Path;

/// A kind of file system that says less than builds would like to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weak {
    /// Its name.
    pub name: &'static str,
    /// What it lacks.
    pub lack: &'static str,
}

const SERVER: &str = "time stamps come from the clock of a server";
const COARSE: &str = "time stamps are coarse, and there is no change time";
const OWN: &str = "time stamps and inodes are what a program makes of them";

/// The kinds by the number that `statfs` gives.
const KINDS: [(i64, Weak); 10] = [
    (0x6969, Weak { name: "nfs", lack: SERVER }),
    (0x517b, Weak { name: "smb", lack: SERVER }),
    (0xff53_4d42, Weak { name: "cifs", lack: SERVER }),
    (0xfe53_4d42, Weak { name: "smb2", lack: SERVER }),
    (0x5346_414f, Weak { name: "afs", lack: SERVER }),
    (0x00c3_6400, Weak { name: "ceph", lack: SERVER }),
    (0x0102_1997, Weak { name: "9p", lack: SERVER }),
    (0x6573_5546, Weak { name: "fuse", lack: OWN }),
    (0x4d44, Weak { name: "vfat", lack: COARSE }),
    (0x2011_bab0, Weak { name: "exfat", lack: COARSE }),
];

/// The kind of the file system that holds a folder, if it is a weak one.
pub fn weak(folder: &Path) -> Option<Weak> {
    of_number(rustix::fs::statfs(folder).ok()?.f_type as i64)
}

fn of_number(number: i64) -> Option<Weak> {
    // Where the field has 32 bits with a sign, the upper ones are not the number's.
    let number = number & 0xffff_ffff;
    KINDS.iter().find(|(known, _)| *known == number).map(|(_, kind)| *kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_known_by_their_number() {
        let check = |number: i64, expect: Option<&str>| {
            assert_eq!(of_number(number).map(|kind| kind.name), expect, "{number:#x}");
        };
        check(0x6969, Some("nfs"));
        check(i64::from(0xff53_4d42_u32 as i32), Some("cifs"));
        check(0xef53, None);
        check(0x0102_1994, None);
    }
}
