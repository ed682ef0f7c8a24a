"""Which process wrote a file, and whether it still lives: names that outlive the process."""

import os
import re
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class ProcessName:
    """A process that no other one, before or after it, on this or another machine, shares its name with.

    place: host, boot and process namespace, within which `pid` is unique at a time. started: the time at which the kernel
    says that it was started, in the kernel's own ticks; 0 where the kernel does not tell.
    """

    host: str
    place: str
    pid: int
    started: int

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"

    def is_alive(self) -> bool | None:
        """Whether it runs; None when that cannot be seen from here, because it belongs to another machine or container."""
        if self.place != _place():
            return None
        started = _started(self.pid)
        # A system may hide other users' processes in /proc; their numbers answer all the same.
        return _answers(self.pid) if started is None else started == self.started


def this_process() -> ProcessName:
    """The name of the process that calls."""
    return ProcessName(socket.gethostname(), _place(), os.getpid(), _started(os.getpid()) or 0)


def _place() -> str:
    """A short text that two processes share when they see each other by their number."""
    parts = [socket.gethostname()]
    try:
        parts.append(Path("/proc/sys/kernel/random/boot_id").read_text().strip()[:8])
        parts.append(str(os.stat("/proc/self/ns/pid").st_ino))
    except OSError:
        pass  # not Linux: one machine, one namespace
    return re.sub(r"[^A-Za-z0-9-]", "_", "-".join(parts))


def _started(pid: int) -> int | None:
    """Ticks since the machine's start at which a process began; None when there is none to be seen, -1 for a corpse."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(errors="replace")
    except OSError:
        return None
    state, *fields = text.rpartition(")")[2].split()  # the name before may hold anything
    return -1 if state in "ZX" else int(fields[18])


def _answers(pid: int) -> bool | None:
    """Where the kernel has no /proc: whether the number is in use. Windows has no question that does no harm."""
    if os.name == "nt":
        return None
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True  # another user's
    return True
