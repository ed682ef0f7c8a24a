"""A service in a process of its own, for the benchmarks of `mutual3d serve`."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

from common import ROOT


class Serving:
    """A running service: its `address`, its process, and whether it still runs."""

    def __init__(self, process, address):
        self.process, self.address = process, address

    @property
    def is_alive(self):
        return self.process.poll() is None

    def processes(self):
        """The numbers of the service and of all that it has started."""
        found = [self.process.pid]
        for pid in found:
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    found += [int(word) for word in children.read_text().split() if int(word) not in found]
        return found

    def megabytes(self):
        """Of memory of all its processes together; pages that they share are counted once."""
        total = 0
        for pid in self.processes():
            with contextlib.suppress(OSError):  # it has ended meanwhile
                found = re.search(r"^Pss: +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text(), re.MULTILINE)
                total += int(found[1]) * 1024 if found else 0
        return total / 1e6


@contextlib.contextmanager
def serving(model, *words, folder=None):
    """`mutual3d serve MODEL` with these words, on a free port; SIGTERM at the end, and RuntimeError where its status is not 0.

    folder: where it keeps its temporary files.
    """
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"}
    if folder is not None:
        environment["TMPDIR"] = str(folder)
    program = [sys.executable, "-m", "mutual3d", "serve", str(model), "--port", "0", *map(str, words)]
    process = subprocess.Popen(program, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    told, address = [], None
    for line in process.stdout:
        told.append(line)
        found = re.match(r"(http://\S+) serves ", line)
        if found:
            address = found[1]
            break
    if address is None:
        raise RuntimeError("".join(told))
    # A pipe that nobody reads would stop it.
    threading.Thread(target=lambda: told.extend(process.stdout), daemon=True).start()
    try:
        yield Serving(process, address)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
    if process.returncode:
        raise RuntimeError(f"the service ended with status {process.returncode}:\n{''.join(told[-40:])}")
