"""What a service is started with: the model, and the limits of what it takes from its clients."""

from dataclasses import dataclass


@dataclass(frozen=True)
class ServeSettings:
    """How a model is served. Plain values, so that every process of a service can be told them.

    Args:
        model: the adaptive.pyth.
        runtime: as of `mutual3d.load`; None is PyTorch on the model's own weights.
        device: cpu or cuda.
        threads: of PyTorch and of what is compiled; None takes PyTorch's own.
        samples: a folder of videos and images that the page offers.
        deadline_ms: milliseconds from the end of an upload to its answer, for clients that name none.
        queue: requests that are read, wait or are computed at a time; further ones are refused.
        max_batch: clips that the network computes together.
        gather_ms: milliseconds that a clip may be kept waiting for others that are being decoded.
        max_bytes: of an upload.
        max_seconds: of a video.
        upload_seconds: that receiving an upload may take.
        decode_seconds: without progress, after which a file is given up.
        decoders: processes that decode uploads.
        decoder_bytes: of memory that each of these may take beside what it starts with.
        max_streams: WebSocket streams at a time.
        origins: pages of other sites whose streams are taken, such as https://cameras.example; those of the service's own always are.
        hosts: names that the service goes by in its clients' addresses; `*.videos.example` stands for all that end
            so, `*` for all; localhost and numbers (192.168.1.5) always are taken.
        shutdown_seconds: that are left for what is in hand when the service is told to end.
    """

    model: str
    runtime: str | None = None
    device: str = "cpu"
    threads: int | None = None
    samples: str | None = None
    deadline_ms: float = 2000.0
    queue: int = 64
    max_batch: int = 8
    gather_ms: float = 2.0
    max_bytes: int = 100_000_000
    max_seconds: float = 600.0
    upload_seconds: float = 60.0
    decode_seconds: float = 20.0
    decoders: int = 2
    decoder_bytes: int = 1_000_000_000
    max_streams: int = 8
    origins: tuple[str, ...] = ()
    hosts: tuple[str, ...] = ()
    shutdown_seconds: float = 30.0

    @property
    def most_long(self) -> int:
        """Timelines and explanations that are inside at a time: they take long, and leave the rest of the queue to single clips."""
        return max(1, self.queue // 4)
