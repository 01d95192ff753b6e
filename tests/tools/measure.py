"""Runs one command and accounts for its whole process tree. Linux, standard library only."""
import ctypes, os, subprocess, sys, threading, time
from dataclasses import dataclass
from pathlib import Path

# prctl(2): orphans of the tree become children of this process, so that their times are counted, too.
PR_SET_CHILD_SUBREAPER = 36
# Reading the kernel's page counts costs time of its own: often enough to see a peak, rarely enough to cost < 1 %.
SAMPLE_S = 0.5
# The high-water mark of one process is a cheap read, and never falls.
HIGH_WATER_S = 0.02


@dataclass
class Cost:
    wall_s: float
    cpu_s: float
    # Largest sum over all processes of the tree at one moment, bytes; pages shared by several count once (PSS).
    peak_bytes: int
    # Largest resident size of any single process that was waited for, bytes (exact, from the kernel).
    largest_process_bytes: int
    # High-water mark of the resident size of the command's own process, bytes.
    first_process_bytes: int
    stdout: str


def _children():
    """pid -> parent pid of every process."""
    parents = {}
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                # The name in brackets may hold anything: fields are counted after the last bracket.
                parents[int(entry.name)] = int(Path(entry.path, "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):
                pass
    return parents


def _tree(root):
    parents, found = _children(), {root}
    grown = True
    while grown:
        more = {pid for pid, parent in parents.items() if parent in found and pid not in found}
        found |= more
        grown = bool(more)
    return found


def _field(pid, file, name):
    """One size of a process, bytes; 0 when it has just ended."""
    try:
        for line in Path(f"/proc/{pid}/{file}").read_text().splitlines():
            if line.startswith(name):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return 0


def _pss(pid):
    return _field(pid, "smaps_rollup", "Pss:")


def run(command, quiet=True):
    """Runs `command` to its end and returns its Cost; a failure ends this program with the command's own words.

    Times are those of every process of the tree that ended while it ran, waited for by its parent or left to us.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl")
    started = time.monotonic()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                             stderr=subprocess.PIPE if quiet else None)
    peak, high_water, over = [0], [0], threading.Event()

    def sample():
        while not over.wait(SAMPLE_S):
            peak[0] = max(peak[0], sum(map(_pss, _tree(child.pid))))

    def watch():
        while not over.wait(HIGH_WATER_S):
            high_water[0] = max(high_water[0], _field(child.pid, "status", "VmHWM:"))

    words = {}
    readers = [threading.Thread(target=lambda n=name, p=pipe: words.update({n: p.read()}))
               for name, pipe in (("out", child.stdout), ("err", child.stderr)) if pipe]
    samplers = [threading.Thread(target=sample), threading.Thread(target=watch)]
    for thread in [*readers, *samplers]:
        thread.start()
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.monotonic() - started
    cpu, largest = usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024
    child.returncode = os.waitstatus_to_exitcode(status)
    over.set()
    for thread in [*readers, *samplers]:
        thread.join()
    while True:
        try:
            pid, _, orphan = os.wait4(-1, os.WNOHANG)
        except ChildProcessError:
            break
        if pid == 0:
            print(f"measure: {command[0]} left processes behind", file=sys.stderr)
            break
        cpu += orphan.ru_utime + orphan.ru_stime
    if child.returncode:
        sys.exit(f"{' '.join(command)}\nended with {child.returncode}\n{words.get('err', b'').decode(errors='replace')[-3000:]}")
    return Cost(wall, cpu, peak[0], largest, high_water[0], words["out"].decode(errors="replace"))
