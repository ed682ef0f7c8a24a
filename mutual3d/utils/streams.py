"""Standard output and error that cannot end a program: what is shown is never worth what is computed."""

import contextlib
import errno
import os
import sys
from collections.abc import Iterator
from typing import Any


class ForgivingStream:
    """A text stream that shows what it can and drops what it cannot, without an error.

    Letters that the stream's encoding lacks become escapes. A reader that is gone (`| head`), a full disk, a closed or a
    missing stream lose the text alone.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def __eq__(self, other: object) -> bool:
        # tqdm clears a bar before a line is printed to the bar's stream. Both of ours are one screen; tqdm's own treatment
        # of the standard streams, which a comparison with those would call for, forgives nothing.
        return isinstance(other, ForgivingStream)

    __hash__ = object.__hash__

    def write(self, text: str) -> int:
        """Show what can be shown of `text`; its length, as other streams return."""
        try:
            self._stream.write(text)
        except UnicodeEncodeError:
            with self._forgiving():
                self._stream.write(text.encode("ascii", "backslashreplace").decode())
        except (OSError, ValueError, AttributeError) as error:
            self._give_up(error)
        return len(text)

    def flush(self) -> None:
        """Show what is pending, where that can be done."""
        with self._forgiving():
            self._stream.flush()

    def isatty(self) -> bool:
        """Whether the stream is a terminal; False for one that is gone."""
        with self._forgiving():
            return self._stream.isatty()
        return False

    def fileno(self) -> int:
        """The descriptor of the stream. Raises OSError or ValueError where it has none."""
        return self._stream.fileno()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def close_quietly(self) -> None:
        """Write out what is pending; where that fails, drop it, so that the interpreter's end does not fail on it."""
        try:
            self._stream.flush()
        except (OSError, ValueError, AttributeError):
            self._silence()

    @contextlib.contextmanager
    def _forgiving(self) -> Iterator[None]:
        try:
            yield
        except (OSError, ValueError, AttributeError) as error:
            self._give_up(error)

    def _give_up(self, error: Exception) -> None:
        """A reader that is gone does not come back, and Python would try it again, with all that waits, at its end."""
        if isinstance(error, OSError) and error.errno in (errno.EPIPE, errno.EIO, errno.EBADF):
            self._silence()

    def _silence(self) -> None:
        with contextlib.suppress(OSError, ValueError, AttributeError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            self._stream.flush()


@contextlib.contextmanager
def forgiving_streams() -> Iterator[None]:
    """While open, nothing that is printed ends the program: standard output and error are ForgivingStreams."""
    before = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = streams = tuple(map(ForgivingStream, before))
    try:
        yield
    finally:
        for stream in streams:
            stream.close_quietly()
        sys.stdout, sys.stderr = before
