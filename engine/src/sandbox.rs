//! What a mail server never does, forbidden to it by the kernel. *Once per process, for all its threads, before any mail.*
//!
//! A seccomp filter answers EPERM to system calls that only an intruder would make: starting programs, looking into other
//! processes, mounting, loading, becoming somebody else, making code out of data. It does not see what goes through io_uring
//! (files and sockets, no programs); the unit file limits what of these can be reached.

use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen as Len, SeccompCmpOp as Op, SeccompCondition as Condition,
    SeccompFilter, SeccompRule as Rule, apply_filter_all_threads,
};
use std::collections::BTreeMap;

/// Address families that are needed: control socket and systemd, mail and DNS, the addresses of the host.
const FAMILIES: [i32; 4] = [libc::AF_UNIX, libc::AF_INET, libc::AF_INET6, libc::AF_NETLINK];

/// Forbidden with any arguments.
const NEVER: &[i64] = &[
    // Other programs.
    libc::SYS_execve,
    libc::SYS_execveat,
    // Other processes.
    libc::SYS_ptrace,
    libc::SYS_process_vm_readv,
    libc::SYS_process_vm_writev,
    libc::SYS_process_madvise,
    libc::SYS_pidfd_getfd,
    libc::SYS_kcmp,
    // Another view of the file system.
    libc::SYS_mount,
    libc::SYS_umount2,
    libc::SYS_move_mount,
    libc::SYS_open_tree,
    libc::SYS_fsopen,
    libc::SYS_fsconfig,
    libc::SYS_fsmount,
    libc::SYS_fspick,
    libc::SYS_mount_setattr,
    libc::SYS_pivot_root,
    libc::SYS_chroot,
    libc::SYS_setns,
    libc::SYS_unshare,
    libc::SYS_open_by_handle_at,
    libc::SYS_mknodat,
    // Another user.
    libc::SYS_setuid,
    libc::SYS_setgid,
    libc::SYS_setreuid,
    libc::SYS_setregid,
    libc::SYS_setresuid,
    libc::SYS_setresgid,
    libc::SYS_setfsuid,
    libc::SYS_setfsgid,
    libc::SYS_setgroups,
    libc::SYS_capset,
    // The kernel and the host.
    libc::SYS_bpf,
    libc::SYS_perf_event_open,
    libc::SYS_init_module,
    libc::SYS_finit_module,
    libc::SYS_delete_module,
    libc::SYS_kexec_load,
    libc::SYS_reboot,
    libc::SYS_swapon,
    libc::SYS_swapoff,
    libc::SYS_acct,
    libc::SYS_quotactl,
    libc::SYS_settimeofday,
    libc::SYS_clock_settime,
    libc::SYS_clock_adjtime,
    libc::SYS_adjtimex,
    libc::SYS_sethostname,
    libc::SYS_setdomainname,
    libc::SYS_syslog,
    libc::SYS_vhangup,
    libc::SYS_personality,
    libc::SYS_userfaultfd,
    libc::SYS_keyctl,
    libc::SYS_add_key,
    libc::SYS_request_key,
];

/// System calls that only some processors have.
#[cfg(target_arch = "x86_64")]
const NEVER_HERE: &[i64] =
    &[libc::SYS_fork, libc::SYS_vfork, libc::SYS_mknod, libc::SYS_iopl, libc::SYS_ioperm, libc::SYS_modify_ldt];
#[cfg(not(target_arch = "x86_64"))]
const NEVER_HERE: &[i64] = &[];

/// From now on, in all threads there are and will be.
///
/// # Errors
/// One line: the kernel or this processor knows no such filter. Then nothing is forbidden.
pub fn enter() -> Result<(), String> {
    let text = |error: &dyn std::fmt::Display| format!("no seccomp filter: {error}");
    // The C library falls back to clone, whose flags can be seen, when there is no clone3.
    let absent = BTreeMap::from([(libc::SYS_clone3, Vec::new())]);
    let forbidden = forbidden().map_err(|error| text(&error))?;
    for (rules, errno) in [(absent, libc::ENOSYS), (forbidden, libc::EPERM)] {
        let arch = std::env::consts::ARCH.try_into().map_err(|error| text(&error))?;
        let filter = SeccompFilter::new(rules, SeccompAction::Allow, SeccompAction::Errno(errno.cast_unsigned()), arch);
        let program: BpfProgram = filter.and_then(TryInto::try_into).map_err(|error| text(&error))?;
        apply_filter_all_threads(&program).map_err(|error| text(&error))?;
    }
    Ok(())
}

/// System calls with what must hold of their arguments to be forbidden; nothing: always.
fn forbidden() -> Result<BTreeMap<i64, Vec<Rule>>, seccompiler::BackendError> {
    let when = |argument, op, value: i32| Condition::new(argument, Len::Dword, op, u64::from(value.cast_unsigned()));
    let has = |argument, bit: i32| when(argument, Op::MaskedEq(u64::from(bit.cast_unsigned())), bit);
    let mut rules: BTreeMap<i64, Vec<Rule>> = NEVER.iter().chain(NEVER_HERE).map(|call| (*call, Vec::new())).collect();
    for call in [libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_pkey_mprotect] {
        rules.insert(call, vec![Rule::new(vec![has(2, libc::PROT_EXEC)?])?]);
    }
    // A thread, yes; a process, no.
    let no_thread = when(0, Op::MaskedEq(u64::from(libc::CLONE_THREAD.cast_unsigned())), 0)?;
    rules.insert(libc::SYS_clone, vec![Rule::new(vec![no_thread])?]);
    let others = FAMILIES.iter().map(|family| when(0, Op::Ne, *family)).collect::<Result<Vec<_>, _>>()?;
    rules.insert(libc::SYS_socket, vec![Rule::new(others)?]);
    Ok(rules)
}
