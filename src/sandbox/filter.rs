//! The system calls a jailed child may make; everything else kills it.
//!
//! Four filters are laid over each other, and the kernel takes the strictest answer of all of them (seccomp(2)): three
//! name the calls that are answered and not made, because libraries ask harmlessly and go on without; the last is
//! the allow-list, whose default is to kill the whole process. What is on the list was taken from traces of libavcodec,
//! x264, x265, SVT-AV1, dav1d and libvpx.
//!
//! A filter sees numbers, not what pointers point at. So it cannot tell file names apart: that is the business of the
//! step before it (Landlock, or the scratch folder as the root).

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
};
use std::collections::BTreeMap;

type Rules = BTreeMap<i64, Vec<SeccompRule>>;
type Built<T> = Result<T, BackendError>;

/// Why there is no filter.
#[derive(Debug, thiserror::Error)]
pub enum FilterError {
    #[error("the filter does not compile: {0}")]
    Compile(#[from] BackendError),
    #[error("the kernel does not take the filter: {0}")]
    Install(#[from] seccompiler::Error),
}

/// Flags of `clone` of which a thread has exactly `CLONE_THREAD`: a process, a traced or a namespaced one has others.
const CLONE_LOOKED_AT: u64 = (libc::CLONE_THREAD
    | libc::CLONE_PTRACE
    | libc::CLONE_VFORK
    | libc::CLONE_NEWNS
    | libc::CLONE_NEWCGROUP
    | libc::CLONE_NEWUTS
    | libc::CLONE_NEWIPC
    | libc::CLONE_NEWUSER
    | libc::CLONE_NEWPID
    | libc::CLONE_NEWNET) as u64;

/// Allowed whatever the arguments.
const PLAIN: &[i64] = &[
    // Open files, the parent's socket and the inputs.
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_pread64,
    libc::SYS_preadv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_pwrite64,
    libc::SYS_pwritev,
    libc::SYS_lseek,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_ftruncate,
    libc::SYS_fsync,
    libc::SYS_fdatasync,
    libc::SYS_ppoll,
    // File names, which the step before has bounded to the scratch folder.
    libc::SYS_openat,
    libc::SYS_newfstatat,
    libc::SYS_statx,
    libc::SYS_statfs,
    libc::SYS_fstatfs,
    libc::SYS_faccessat,
    libc::SYS_faccessat2,
    libc::SYS_readlinkat,
    libc::SYS_getdents64,
    libc::SYS_getcwd,
    libc::SYS_mkdirat,
    libc::SYS_unlinkat,
    libc::SYS_renameat,
    libc::SYS_renameat2,
    // Memory. Executable mappings are answered with EPERM.
    libc::SYS_brk,
    libc::SYS_mmap,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_mprotect,
    libc::SYS_madvise,
    libc::SYS_msync,
    // Threads and waiting.
    libc::SYS_futex,
    libc::SYS_set_robust_list,
    libc::SYS_get_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_rseq,
    libc::SYS_membarrier,
    libc::SYS_exit,
    libc::SYS_exit_group,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_sched_get_priority_max,
    libc::SYS_sched_get_priority_min,
    libc::SYS_getpriority,
    libc::SYS_getcpu,
    // x265 3.5 makes no thread pool, and turns wpp off, where libnuma says that it cannot see.
    libc::SYS_get_mempolicy,
    libc::SYS_nanosleep,
    libc::SYS_clock_nanosleep,
    // Signals to itself.
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_sigaltstack,
    // Facts.
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_gettimeofday,
    libc::SYS_times,
    libc::SYS_getrusage,
    libc::SYS_getrlimit,
    libc::SYS_getrandom,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getppid,
    libc::SYS_getuid,
    libc::SYS_geteuid,
    libc::SYS_getgid,
    libc::SYS_getegid,
];

/// The older names of the same calls, which only this architecture still has.
#[cfg(target_arch = "x86_64")]
const PLAIN_HERE: &[i64] = &[
    libc::SYS_open,
    libc::SYS_stat,
    libc::SYS_lstat,
    libc::SYS_access,
    libc::SYS_readlink,
    libc::SYS_mkdir,
    libc::SYS_rmdir,
    libc::SYS_unlink,
    libc::SYS_rename,
    libc::SYS_poll,
    libc::SYS_time,
];
#[cfg(not(target_arch = "x86_64"))]
const PLAIN_HERE: &[i64] = &[];

/// Answered with ENOSYS: the caller has an older way.
const NOT_THERE: &[i64] = &[
    // Its flags are behind a pointer; glibc falls back to `clone`, whose flags can be seen.
    libc::SYS_clone3,
    // The standard library falls back to read and write.
    libc::SYS_copy_file_range,
    libc::SYS_sendfile,
];

/// Answered with EPERM: the caller does without.
const REFUSED: &[i64] = &[libc::SYS_sched_setparam, libc::SYS_sched_setattr, libc::SYS_mlock];

/// Allowed beside those to a child with a device. By traces of NVIDIA's driver 580, which gives up where one of these fails: its
/// threads wake each other, and it binds and listens at a local name for processes that would share its memory. Nobody can be
/// reached by such a socket: `connect`, `accept` and what sends and receives stay forbidden.
const OF_DRIVERS: &[i64] =
    &[libc::SYS_eventfd2, libc::SYS_pipe2, libc::SYS_dup, libc::SYS_pselect6, libc::SYS_socket, libc::SYS_bind, libc::SYS_listen];

/// The same of a child with a device: drivers ask for these, and do without: NVIDIA's looks for a server that shares the card
/// (MPS) and tidies the names of its devices. They are not allowed by the list; here they must only not kill.
const REFUSED_TO_DRIVERS: &[i64] = &[
    libc::SYS_connect,
    libc::SYS_accept4,
    libc::SYS_setsockopt,
    libc::SYS_symlinkat,
    libc::SYS_mknodat,
    libc::SYS_fchmod,
    libc::SYS_fchmodat,
    libc::SYS_memfd_create,
    libc::SYS_process_vm_readv,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_symlink,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_mknod,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_chmod,
];

/// Answered with success, and not done: wishes about where and how urgently threads run, which are the operator's to say.
/// SVT-AV1 and x265 make them for each of their many threads; refused, they would fill the child's stderr with complaints,
/// and the last words of a failure would be lost among them.
const IGNORED: &[i64] = &[libc::SYS_sched_setscheduler, libc::SYS_sched_setaffinity, libc::SYS_set_mempolicy, libc::SYS_mbind];

/// All conditions hold for these arguments. Only the low half is looked at: they are integers of 32 bits, whose upper
/// half means nothing to the kernel and may hold anything.
fn when(conditions: &[(u8, SeccompCmpOp, u64)]) -> Built<SeccompRule> {
    let int = SeccompCmpArgLen::Dword;
    let conditions =
        conditions.iter().map(|(argument, op, value)| SeccompCondition::new(*argument, int.clone(), op.clone(), *value));
    SeccompRule::new(conditions.collect::<Built<Vec<_>>>()?)
}

/// `prlimit64` of the caller itself with no new limit, which is a pointer: both halves count.
fn own_limit_is_read() -> Built<SeccompRule> {
    let is_zero = |argument, length| SeccompCondition::new(argument, length, SeccompCmpOp::Eq, 0);
    SeccompRule::new(vec![is_zero(0, SeccompCmpArgLen::Dword)?, is_zero(2, SeccompCmpArgLen::Qword)?])
}

/// Calls that are looked at before they are allowed. Where a condition only says that another filter answers with an
/// error, it is not repeated here.
fn looked_at(with_device: bool) -> Built<Rules> {
    use SeccompCmpOp::{Eq, MaskedEq};
    let own_process = u64::from(std::process::id());
    let mut fcntl = vec![libc::F_GETFD, libc::F_SETFD, libc::F_GETFL, libc::F_DUPFD_CLOEXEC];
    if with_device {
        // Drivers' descriptors do not block. Never F_SETOWN or F_SETSIG: those send signals.
        fcntl.push(libc::F_SETFL);
    }
    // x265 lowers the priority of its own threads; NVIDIA's driver names this process.
    let own_priority = [0, own_process].map(|who| when(&[(0, Eq, libc::PRIO_PROCESS as u64), (1, Eq, who)]));
    let own_priority = own_priority.into_iter().collect::<Built<Vec<_>>>()?;
    Ok(BTreeMap::from([
        // Threads, never processes.
        (libc::SYS_clone, vec![when(&[(0, MaskedEq(CLONE_LOOKED_AT), libc::CLONE_THREAD as u64)])?]),
        // `abort` and `raise`.
        (libc::SYS_tgkill, vec![when(&[(0, Eq, own_process)])?]),
        // Read a limit of one's own; set none.
        (libc::SYS_prlimit64, vec![own_limit_is_read()?]),
        (libc::SYS_setpriority, own_priority),
        (libc::SYS_fcntl, fcntl.iter().map(|command| when(&[(1, Eq, *command as u64)])).collect::<Built<_>>()?),
    ]))
}

/// Allowed calls, and those that another filter answers with an error: here they must only not kill.
fn allow_list(with_device: bool) -> Built<Rules> {
    let mut rules = looked_at(with_device)?;
    let answered = [libc::SYS_prctl, libc::SYS_ioctl];
    for call in PLAIN.iter().chain(PLAIN_HERE).chain(NOT_THERE).chain(REFUSED).chain(IGNORED).chain(&answered) {
        rules.insert(*call, vec![]);
    }
    if with_device {
        rules.extend(whatever_the_arguments(OF_DRIVERS));
        rules.extend(whatever_the_arguments(REFUSED_TO_DRIVERS));
    }
    Ok(rules)
}

fn answered_with_eperm(with_device: bool) -> Built<Rules> {
    use SeccompCmpOp::{MaskedEq, Ne};
    let executable = || when(&[(2, MaskedEq(libc::PROT_EXEC as u64), libc::PROT_EXEC as u64)]);
    // Access mode 3 opens for neither reading nor writing, and so passes checks that look at those.
    let no_mode = |argument| when(&[(argument, MaskedEq(libc::O_ACCMODE as u64), libc::O_ACCMODE as u64)]);
    let mut rules = BTreeMap::from([
        (libc::SYS_mmap, vec![executable()?]),
        (libc::SYS_mprotect, vec![executable()?]),
        (libc::SYS_openat, vec![no_mode(2)?]),
        // Threads name themselves, and laying the next filter says no_new_privs once more, which nothing can take back.
        // All else of prctl could loosen the jail.
        (libc::SYS_prctl, vec![when(&[(0, Ne, libc::PR_SET_NAME as u64), (0, Ne, libc::PR_SET_NO_NEW_PRIVS as u64)])?]),
        // `isatty` and its like: no terminal, no device.
        (libc::SYS_ioctl, vec![]),
    ]);
    #[cfg(target_arch = "x86_64")]
    rules.insert(libc::SYS_open, vec![no_mode(1)?]);
    rules.extend(whatever_the_arguments(REFUSED));
    if with_device {
        // A driver is loaded when the encoder is opened, and talks to its device by nothing else.
        for call in [libc::SYS_mmap, libc::SYS_mprotect, libc::SYS_ioctl] {
            rules.remove(&call);
        }
        rules.insert(libc::SYS_socket, vec![when(&[(0, Ne, libc::AF_UNIX as u64)])?]);
        rules.extend(whatever_the_arguments(REFUSED_TO_DRIVERS));
    }
    Ok(rules)
}

fn whatever_the_arguments(calls: &[i64]) -> Rules {
    calls.iter().map(|call| (*call, vec![])).collect()
}

fn compile(rules: Rules, otherwise: SeccompAction, matched: SeccompAction) -> Built<BpfProgram> {
    SeccompFilter::new(rules, otherwise, matched, std::env::consts::ARCH.try_into()?)?.try_into()
}

/// Lays the filters over this process, with what a driver needs where it is to encode on a device. Whatever they do not name kills it (SIGSYS) from here on.
///
/// # Errors
/// The processor has no filter here (x86_64 and aarch64 do), or the kernel takes none.
pub(super) fn install(with_device: bool) -> Result<(), FilterError> {
    let errno = |code: i32| SeccompAction::Errno(code.unsigned_abs());
    let programs = [
        compile(whatever_the_arguments(NOT_THERE), SeccompAction::Allow, errno(libc::ENOSYS))?,
        compile(whatever_the_arguments(IGNORED), SeccompAction::Allow, errno(0))?,
        compile(answered_with_eperm(with_device)?, SeccompAction::Allow, errno(libc::EPERM))?,
        // Last: after it, no more filters can be installed.
        compile(allow_list(with_device)?, SeccompAction::KillProcess, SeccompAction::Allow)?,
    ];
    for program in &programs {
        seccompiler::apply_filter_all_threads(program)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_call_that_leaves_the_jail_is_on_the_allow_list() {
        let rules = allow_list(false).unwrap();
        let banned = [
            libc::SYS_socket,
            libc::SYS_connect,
            libc::SYS_sendto,
            libc::SYS_sendmsg,
            libc::SYS_execve,
            libc::SYS_execveat,
            libc::SYS_ptrace,
            libc::SYS_kill,
            libc::SYS_tkill,
            libc::SYS_process_vm_readv,
            libc::SYS_process_vm_writev,
            libc::SYS_bpf,
            libc::SYS_io_uring_setup,
            libc::SYS_mount,
            libc::SYS_unshare,
            libc::SYS_setns,
            libc::SYS_chroot,
            libc::SYS_setrlimit,
            libc::SYS_seccomp,
            libc::SYS_pidfd_open,
            libc::SYS_pidfd_getfd,
            libc::SYS_openat2,
            libc::SYS_open_by_handle_at,
        ];
        for call in banned {
            assert!(!rules.contains_key(&call), "system call {call}");
        }
        let (answered, with_device) = (answered_with_eperm(true).unwrap(), allow_list(true).unwrap());
        for call in banned.iter().filter(|call| **call != libc::SYS_socket && with_device.contains_key(call)) {
            assert!(answered[call].is_empty(), "a driver is answered, and system call {call} is not made");
        }
        assert!(!answered[&libc::SYS_socket].is_empty(), "a driver's socket is looked at");
        assert!(answered_with_eperm(false).unwrap()[&libc::SYS_ioctl].is_empty(), "without a device there is no ioctl");
        assert!(!answered.contains_key(&libc::SYS_ioctl));
        assert!(!rules[&libc::SYS_clone].is_empty(), "clone is looked at");
        assert!(!rules[&libc::SYS_tgkill].is_empty(), "tgkill is looked at");
    }

    #[test]
    fn every_filter_compiles_within_what_the_kernel_takes() {
        // BPF_MAXINSNS of linux/bpf_common.h.
        for with_device in [false, true] {
            let kill = compile(allow_list(with_device).unwrap(), SeccompAction::KillProcess, SeccompAction::Allow).unwrap();
            assert!(kill.len() <= 4096, "{} instructions", kill.len());
            compile(answered_with_eperm(with_device).unwrap(), SeccompAction::Allow, SeccompAction::Errno(1)).unwrap();
        }
        compile(whatever_the_arguments(NOT_THERE), SeccompAction::Allow, SeccompAction::Errno(38)).unwrap();
    }
}
