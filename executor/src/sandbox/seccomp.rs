//! The system call filter of sandboxed actions: a short list of calls that builds never need.
//!
//! It is defence in depth: without capabilities each of these calls is refused anyway, or
//! harmless; the filter keeps actions away from kernel code that has a history of bugs, and from
//! user namespaces, in which an action would have capabilities again.
//! Refused calls fail with `EPERM`. `clone3` fails with `ENOSYS`, since its flags lie in memory
//! that a filter cannot read; C libraries then use `clone`, whose flags it can. Calls of a foreign
//! architecture (32-bit code) fail with `ENOSYS` too, since their numbers mean something else.

use super::sys::FilterInstruction;

/// The architecture word of native system calls (`AUDIT_ARCH_*` of `linux/audit.h`).
#[cfg(target_arch = "x86_64")]
const NATIVE: u32 = 0xc000_003e;
/// The architecture word of native system calls (`AUDIT_ARCH_*` of `linux/audit.h`).
#[cfg(target_arch = "aarch64")]
const NATIVE: u32 = 0xc000_00b7;

/// Set in the numbers of x32 calls, which share the architecture word of x86-64.
const X32_BIT: u32 = 0x4000_0000;

const RETURN_ALLOW: u32 = 0x7fff_0000;
const RETURN_ERRNO: u32 = 0x0005_0000;

/// Offsets in `struct seccomp_data`.
const OFFSET_NUMBER: u32 = 0;
const OFFSET_ARCHITECTURE: u32 = 4;
/// The low half of the first argument; both supported architectures are little-endian.
const OFFSET_ARGUMENT_0: u32 = 16;

/// What is refused with `EPERM`.
const REFUSED: &[libc::c_long] = &[
    libc::SYS_acct,
    libc::SYS_add_key,
    libc::SYS_bpf,
    libc::SYS_chroot,
    libc::SYS_clock_adjtime,
    libc::SYS_clock_settime,
    libc::SYS_delete_module,
    libc::SYS_fanotify_init,
    libc::SYS_finit_module,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fsopen,
    libc::SYS_fspick,
    libc::SYS_init_module,
    libc::SYS_io_uring_enter,
    libc::SYS_io_uring_register,
    libc::SYS_io_uring_setup,
    libc::SYS_kexec_file_load,
    libc::SYS_kexec_load,
    libc::SYS_keyctl,
    libc::SYS_lookup_dcookie,
    libc::SYS_mount,
    libc::SYS_mount_setattr,
    libc::SYS_move_mount,
    libc::SYS_open_by_handle_at,
    libc::SYS_open_tree,
    libc::SYS_perf_event_open,
    libc::SYS_pivot_root,
    libc::SYS_quotactl,
    libc::SYS_reboot,
    libc::SYS_request_key,
    libc::SYS_setdomainname,
    libc::SYS_sethostname,
    libc::SYS_setns,
    libc::SYS_swapoff,
    libc::SYS_swapon,
    libc::SYS_syslog,
    libc::SYS_umount2,
    libc::SYS_unshare,
    libc::SYS_userfaultfd,
    libc::SYS_vhangup,
];

/// The filter, ready to be installed.
pub(super) fn filter() -> Vec<FilterInstruction> {
    let errno = |number: i32| ret(RETURN_ERRNO | number.unsigned_abs());
    let mut out = vec![
        load(OFFSET_ARCHITECTURE),
        jump_if_equal(NATIVE, 1, 0),
        errno(libc::ENOSYS),
        load(OFFSET_NUMBER),
        jump_if_at_least(X32_BIT, 0, 1),
        errno(libc::ENOSYS),
        jump_if_equal(number(libc::SYS_clone3), 0, 1),
        errno(libc::ENOSYS),
    ];
    for call in REFUSED {
        out.push(jump_if_equal(number(*call), 0, 1));
        out.push(errno(libc::EPERM));
    }
    out.extend([
        jump_if_equal(number(libc::SYS_clone), 0, 3),
        load(OFFSET_ARGUMENT_0),
        jump_if_any_bit(libc::CLONE_NEWUSER.unsigned_abs(), 0, 1),
        errno(libc::EPERM),
        ret(RETURN_ALLOW),
    ]);
    out
}

fn number(call: libc::c_long) -> u32 {
    u32::try_from(call).expect("the numbers of system calls are small and positive")
}

fn load(offset: u32) -> FilterInstruction {
    instruction(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset, 0, 0)
}

fn ret(value: u32) -> FilterInstruction {
    instruction(libc::BPF_RET | libc::BPF_K, value, 0, 0)
}

fn jump_if_equal(value: u32, then: u8, otherwise: u8) -> FilterInstruction {
    instruction(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, then, otherwise)
}

fn jump_if_at_least(value: u32, then: u8, otherwise: u8) -> FilterInstruction {
    instruction(libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K, value, then, otherwise)
}

fn jump_if_any_bit(value: u32, then: u8, otherwise: u8) -> FilterInstruction {
    instruction(libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K, value, then, otherwise)
}

fn instruction(code: u32, k: u32, jt: u8, jf: u8) -> FilterInstruction {
    let code = u16::try_from(code).expect("the codes of the classic filter have 16 bits");
    FilterInstruction { code, jt, jf, k }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A tiny interpreter of the instructions used here: what the kernel would answer.
    fn verdict(architecture: u32, number: u32, argument: u32) -> u32 {
        let program = filter();
        let (mut at, mut accumulator) = (0usize, 0u32);
        loop {
            let step = program.get(at).expect("every path ends with a return");
            at += 1;
            let code = u32::from(step.code);
            let holds = match code {
                c if c == libc::BPF_LD | libc::BPF_W | libc::BPF_ABS => {
                    accumulator = match step.k {
                        OFFSET_NUMBER => number,
                        OFFSET_ARCHITECTURE => architecture,
                        _ => argument,
                    };
                    continue;
                }
                c if c == libc::BPF_RET | libc::BPF_K => return step.k,
                c if c == libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K => accumulator == step.k,
                c if c == libc::BPF_JMP | libc::BPF_JGE | libc::BPF_K => accumulator >= step.k,
                _ => accumulator & step.k != 0,
            };
            at += usize::from(if holds { step.jt } else { step.jf });
        }
    }

    #[test]
    fn the_filter_decides_as_documented() {
        let check = |architecture: u32, call: libc::c_long, argument: i32, expect: u32| {
            let got = verdict(architecture, number(call), argument.unsigned_abs());
            assert_eq!(got, expect, "call {call} argument {argument:#x}");
        };
        let errno = |number: i32| RETURN_ERRNO | number.unsigned_abs();
        check(NATIVE, libc::SYS_read, 0, RETURN_ALLOW);
        check(NATIVE, libc::SYS_execve, 0, RETURN_ALLOW);
        check(NATIVE, libc::SYS_clone, libc::SIGCHLD, RETURN_ALLOW);
        check(NATIVE, libc::SYS_clone, libc::SIGCHLD | libc::CLONE_NEWUSER, errno(libc::EPERM));
        check(NATIVE, libc::SYS_clone3, 0, errno(libc::ENOSYS));
        check(NATIVE ^ 1, libc::SYS_read, 0, errno(libc::ENOSYS));
        check(NATIVE, libc::c_long::from(X32_BIT), 0, errno(libc::ENOSYS));
        for call in REFUSED {
            check(NATIVE, *call, 0, errno(libc::EPERM));
        }
    }
}
