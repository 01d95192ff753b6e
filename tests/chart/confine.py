"""Runs the image's program as Kubernetes would run it in a restricted pod, without Kubernetes.

    unshare --mount --pid --fork confine.py ROOT SETTINGS DENIED ARGUMENT...

ROOT read only; SETTINGS a folder at /etc/narrows; /proc, /sys and a few devices; memory at the scratch folder and at /srv/work.
User and group 65532, no further groups, no capability in any set, no privilege to gain. DENIED are the system calls that a
runtime's filter answers with EPERM, joined by commas.
"""

import ctypes
import os
import pathlib
import platform
import struct
import subprocess
import sys

USER = 65532
# linux/prctl.h
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 24, 38, 22, 2
# linux/seccomp.h, linux/bpf_common.h: load a word, jump when equal, return.
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
LOAD, JUMP_EQUAL, RETURN = 0x20, 0x15, 0x06
EPERM = 1
# sys/mount.h
MNT_DETACH = 2
# The numbers of asm/unistd.h; those of Landlock are the same everywhere.
LANDLOCK = {"landlock_create_ruleset": 444, "landlock_add_rule": 445, "landlock_restrict_self": 446}
NUMBERS = {
    "x86_64": {"unshare": 272, "chroot": 161, "pivot_root": 155, **LANDLOCK},
    "aarch64": {"unshare": 97, "chroot": 51, "pivot_root": 41, **LANDLOCK},
}[platform.machine()]
LAST_CAPABILITY = int(pathlib.Path("/proc/sys/kernel/cap_last_cap").read_text())

libc = ctypes.CDLL(None, use_errno=True)


def must(result, what):
    if result != 0:
        raise OSError(ctypes.get_errno(), what)


def prctl(option, *arguments):
    padded = [ctypes.c_ulong(argument) for argument in (*arguments, 0, 0, 0, 0)[:4]]
    must(libc.prctl(option, *padded), f"prctl {option}")


def mount(*arguments):
    subprocess.run(["mount", *arguments], check=True)


def furnish(root, settings):
    """What a runtime mounts into a container, then no more writing to the rest."""
    mount("--bind", root, root)
    (root / "srv/work").mkdir(parents=True, exist_ok=True)
    for name in ["null", "zero", "urandom"]:
        (root / "dev" / name).touch()
        mount("--bind", f"/dev/{name}", root / "dev" / name)
    mount("--rbind", "/sys", root / "sys")
    mount("-t", "proc", "proc", root / "proc")
    mount("-o", "remount,bind,ro", root)
    for folder in ["var/lib/narrows/scratch", "srv/work"]:
        mount("-t", "tmpfs", "-o", f"mode=0700,uid={USER},gid={USER},size=8g", "tmpfs", root / folder)
    mount("--bind", settings, root / "etc/narrows")
    mount("-o", "remount,bind,ro", root / "etc/narrows")


def move_in(root):
    """As runtimes do it: in a mere chroot, nobody may make a user namespace (user_namespaces(7))."""
    os.chdir(root)
    must(libc.syscall(NUMBERS["pivot_root"], b".", b"."), "pivot_root")
    must(libc.umount2(b".", MNT_DETACH), "umount2")
    os.chdir("/")


def give_up_everything():
    for capability in range(LAST_CAPABILITY + 1):
        prctl(PR_CAPBSET_DROP, capability)
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)
    prctl(PR_SET_NO_NEW_PRIVS, 1)


def deny(names):
    """A filter as short as can be: load the number, compare, answer."""
    instruction = struct.Struct("=HBBI")
    program = instruction.pack(LOAD, 0, 0, 0)
    for name in names:
        program += instruction.pack(JUMP_EQUAL, 0, 1, NUMBERS[name]) + instruction.pack(RETURN, 0, 0, ERRNO | EPERM)
    program += instruction.pack(RETURN, 0, 0, ALLOW)
    code = ctypes.create_string_buffer(program, len(program))

    class Program(ctypes.Structure):
        _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_void_p)]

    filtered = Program(len(program) // instruction.size, ctypes.addressof(code))
    prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.addressof(filtered))


if __name__ == "__main__":
    root, settings, denied, *arguments = sys.argv[1:]
    furnish(pathlib.Path(root), settings)
    move_in(root)
    give_up_everything()
    deny([name for name in denied.split(",") if name])
    scratch = "/var/lib/narrows/scratch"
    os.execve("/usr/bin/narrows", ["narrows", *arguments], {"TMPDIR": scratch, "SSL_CERT_FILE": "/etc/ssl/certs/ca-certificates.crt"})
