"""Videos that cannot be read: listed, counted, and an error when there are more than the run tolerates."""

from collections.abc import Iterable, Mapping
from typing import Any

from mutual3d.utils import distributed
from mutual3d.utils.logging import logger


class UnreadableVideosError(RuntimeError):
    """More videos could not be read than the run tolerates."""


class UnreadableVideos:
    """Counts the bad videos of a pass over `num_videos` (all processes'); `key` is the config key of `tolerated`.

    known: {path: cause} of what was found before.
    """

    def __init__(
        self,
        tolerated: float = 0.0,
        num_videos: int | None = None,
        key: str = "DATA_LOADER.MAX_UNREADABLE_TEST",
        known: dict[str, str] | None = None,
    ) -> None:
        # NaN would tolerate everything: no number is above it.
        if not 0 <= tolerated <= 1:
            raise ValueError(f"{key} is {tolerated}: the share of videos that may be unreadable is a number from 0 to 1")
        self.tolerated, self.num_videos, self.key = tolerated, num_videos, key
        self.causes = dict(known or {})

    def add(self, bad: Iterable[Any]) -> None:
        """Take the bad videos of a batch; raises as soon as this process alone has seen too many."""
        for video in bad:
            if video.path not in self.causes:
                logger.warning("skipped: cannot read '%s': %s", video.path, video.cause)
            self.causes[video.path] = str(video.cause)
        self._check(self.causes)

    def check_everywhere(self) -> None:
        """Join what all processes saw; every one of them raises when there are too many."""
        causes = {path: cause for part in distributed.gather(self.causes) for path, cause in part.items()}
        self._check(causes)
        if causes:
            logger.warning("%s\nthey are left out", self._describe(causes))

    def _check(self, causes: Mapping[str, str]) -> None:
        if causes and len(causes) > self.tolerated * (self.num_videos or 0):
            raise UnreadableVideosError(
                f"{self._describe(causes)}\nmend or remove them (`mutual3d check-data --csv ...` lists all), or "
                f"tolerate a share with {self.key} (now {self.tolerated:g})"
            )

    def _describe(self, causes: Mapping[str, str]) -> str:
        listed = "\n".join(f"  {path}: {cause}" for path, cause in list(causes.items())[:10])
        return f"{len(causes)} of {self.num_videos or 'the'} videos cannot be read:\n{listed}"
