"""How much memory this process has."""

import contextlib
import os
from pathlib import Path


def resident_bytes() -> int | None:
    """Bytes of this process that are in memory now; None where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):  # not Linux
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")


def limit_memory(num_bytes: int) -> None:
    """Let this process take `num_bytes` more than it has now: what asks for more gets none. Without effect where there are no such limits.

    Data counts, not address space: every thread reserves some that it never touches, and decoders start threads.
    """
    with contextlib.suppress(ImportError, OSError, ValueError):  # Windows; no /proc; a lower limit that is there already
        import resource

        size = int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_DATA, (size + num_bytes, size + num_bytes))
