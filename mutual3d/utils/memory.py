"""How much memory this process has."""

import os
from pathlib import Path


def resident_bytes() -> int | None:
    """Bytes of this process that are in memory now; None where the system does not tell."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, ValueError, IndexError):  # not Linux
        return None
    return pages * os.sysconf("SC_PAGE_SIZE")
