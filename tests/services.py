"""What tests of the service share: a small model, and a service that answers on a port of this machine, in this process."""

import contextlib
import socket
import threading
import time

import httpx
import uvicorn
from streams import make_stream_model

from mutual3d.deploy.serve.app import create_app
from mutual3d.deploy.serve.service import Service
from mutual3d.deploy.serve.settings import ServeSettings
from mutual3d.deploy.serve.streaming import MAX_MESSAGE
from mutual3d.deploy.timing import latency_key


def write_bundle(folder):
    """The adaptive.pyth of a small model with a table of two configurations, whose milliseconds on this machine are in it."""
    path, model = folder / "adaptive.pyth", make_stream_model()
    small, large = (row.configuration for row in model.table.rows)
    model.table = model.table.with_costs({"latency_ms": {str(latency_key(model, None)): {small: 2.0, large: 6.0}}}, {})
    model.save(path)
    return path


@contextlib.contextmanager
def running(settings):
    """(the service, its address): real connections, in threads of this process."""
    service = Service.load(settings)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(create_app(service), lifespan="on", log_level="error", ws_max_size=MAX_MESSAGE))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started and thread.is_alive():
                time.sleep(0.02)
            yield service, f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def send(address, data, name="upload", **query):
    """The response of /predict to bytes."""
    return httpx.post(f"{address}/predict", params=query, files={"file": (name, data)}, timeout=60)


def get(address, path="/"):
    """The response of a page."""
    return httpx.get(address + path, timeout=60)


def settings_of(path, **changes):
    return ServeSettings(str(path), **{"decoders": 1, "deadline_ms": 30_000.0, **changes})
