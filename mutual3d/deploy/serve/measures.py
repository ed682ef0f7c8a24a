"""What a service counts and times, for Prometheus, in a registry of its own."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from mutual3d.deploy.serve.batching import Answered, Request

_SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


class Measures:
    """Counters and histograms of one process. Threads may share it."""

    def __init__(self) -> None:
        own = self._registry = CollectorRegistry()
        self.requests = Counter("mutual3d_requests", "Requests by path and status", ["path", "status"], registry=own)
        self.seconds = Histogram(
            "mutual3d_seconds", "Seconds of a prediction by part", ["part"], buckets=_SECONDS, registry=own
        )  # fmt: skip
        self.batch = Histogram("mutual3d_batch", "Clips that were computed together", buckets=(1, 2, 4, 8, 16, 32), registry=own)
        self.met = Counter("mutual3d_deadlines", "Answers by whether they met their deadline", ["met"], registry=own)
        self.lowered = Counter("mutual3d_lowered", "Answers below the configuration that the budget chose", registry=own)
        self.ran = Counter("mutual3d_answers", "Answers by configuration", ["configuration"], registry=own)
        self.lost = Gauge("mutual3d_decoders_lost", "Decoders that died or hung, and were replaced", registry=own)
        self.inside = Gauge("mutual3d_inside", "Requests that are read, wait or are computed", registry=own)
        self.streams = Gauge("mutual3d_streams", "WebSocket streams", registry=own)

    def watch(self, requests: list[Request], answers: list[Answered]) -> None:
        """Take in a batch that was computed."""
        self.batch.observe(len(requests))
        self.seconds.labels("network").observe(answers[0].network_ms / 1000)
        for request, answer in zip(requests, answers):
            self.seconds.labels("wait").observe(answer.wait_ms / 1000)
            self.met.labels("yes" if answer.is_met else "no").inc()
            self.ran.labels(str(answer.timed.configuration)).inc()
            if answer.timed != request.ladder[-1]:
                self.lowered.inc()

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._registry)
