"""What a decoder may do to the process that it runs in."""

import ctypes
import faulthandler
import os
import signal


def crash():
    faulthandler.disable()  # which pytest enables, to say at length what is meant to happen here
    ctypes.string_at(0)


def abort():
    faulthandler.disable()
    os.abort()


def kill():
    os.kill(os.getpid(), signal.SIGKILL)


def no_memory():
    raise MemoryError


def hang():
    signal.pause()


# Words of the cause that is told -> what does it, with a timeout of a second.
HARM = {
    "SIGSEGV": crash, "SIGKILL": kill, "SIGABRT": abort, "MemoryError": no_memory, "did not answer within 1 s": hang,
}  # fmt: skip
