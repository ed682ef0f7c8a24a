"""What tests of streams share: a small model with a table, live frames made of nothing, and a server."""

import contextlib
import http.server
import threading

import numpy as np
import torch
from networks import calibrate_at_random
from tiny import SPACE, tiny_network

from mutual3d.data.video.forward import TimedFrame
from mutual3d.deploy import AdaptiveModel, Preprocessing
from mutual3d.deploy.live import FrameSource
from mutual3d.table.query_table import QueryTable, Row


def table_of(configurations):
    rows = [Row(c, (), 0.001 * (1 + i), 1000, {"top1_acc": 50.0 + i}) for i, c in enumerate(sorted(configurations))]
    return QueryTable(rows, {"metric": "top1_acc", "split": "val", "num_views": 1, "crop": 24})


def make_stream_model(table=True):
    """4 frames at stride 2 of 30 a second, 24 pixels; a table of the smallest and the largest configuration."""
    torch.manual_seed(0)
    network = calibrate_at_random(tiny_network(), SPACE.corners())
    preprocessing = Preprocessing((0.45,) * 3, (0.225,) * 3, num_frames=4, sampling_rate=2, target_fps=30, crop=24)
    corners = [SPACE.smallest, SPACE.largest]
    return AdaptiveModel(
        network, preprocessing=preprocessing, class_names=["right", "down"], table=table_of(corners) if table else None
    )


class Frames(FrameSource):
    """Live frames made of nothing, `fps` a second of their own clock, as fast as they are taken."""

    name, is_live = "made", True

    def __init__(self, count, fps=30.0, image=None):
        self.count, self.fps, self.is_closed = count, fps, threading.Event()
        self.image = np.zeros((24, 24, 3), np.uint8) if image is None else image

    def frames(self):
        for number in range(self.count):
            if self.is_closed.is_set():
                return
            yield TimedFrame(number / self.fps, self.image + np.uint8(number % 200), 0.0)

    def close(self):
        self.is_closed.set()


@contextlib.contextmanager
def serving(pages):
    """The address of a server on this machine. pages: {path: function of a request's handler}."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            with contextlib.suppress(OSError):  # whoever asked has gone
                pages[self.path](self)

        def log_message(self, *words):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
