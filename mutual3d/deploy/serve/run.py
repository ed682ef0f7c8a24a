"""Running a service: one process or several behind one address, until it is told to end."""

import contextlib
import logging
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import uvicorn

from mutual3d.deploy.serve.app import create_app
from mutual3d.deploy.serve.service import Service
from mutual3d.deploy.serve.settings import ServeSettings
from mutual3d.deploy.serve.streaming import MAX_MESSAGE
from mutual3d.utils.logging import logger
from mutual3d.utils.stopping import handled_signals

_WAITING_CONNECTIONS = 128
_SECONDS_BETWEEN_LOOKS = 0.5
# What a process may take to end beside what is in hand, before it is killed.
_PATIENCE = 15.0


class ServiceError(RuntimeError):
    """A process of a service cannot start."""


class _Server(uvicorn.Server):
    """Tells when it is ready."""

    def __init__(self, config: uvicorn.Config, tell: Callable[[], None]) -> None:
        super().__init__(config)
        self._tell = tell

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._tell()


def run_service(settings: ServeSettings, host: str, port: int, processes: int) -> None:
    """Serve until SIGTERM or Ctrl-C; what is in hand then is answered first.

    host, port: of the address; port 0 takes a free one, which is printed. processes: each has the model, its decoders, its queue,
    its streams and its metrics for itself. Raises OSError where the address cannot be had, ServiceError where a process cannot
    start, and as `Service.load` does.
    """
    with contextlib.closing(listen(host, port)) as listening:
        service = Service.load(settings)
        where = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}"
        first, last = service.front.front[0], service.front.front[-1]
        several = f", in {processes} processes" if processes > 1 else ""
        ready = (
            f"{where} serves {settings.model} in {service.model.runtime or 'eager'}{several}: {len(service.front.front)} configurations from "
            f"{first.configuration} in {first.quiet_ms:.3g} ms to {last.configuration} in {last.quiet_ms:.3g} ms; Ctrl-C ends it"
        )

        def tell() -> None:
            print(ready, flush=True)

        if processes == 1:
            _serve(service, listening, tell)
            return
        times = {str(timed.configuration): timed.quiet_ms for timed in map(service.front.timed, service.front.rows)}
        del service
        _serve_by_many(settings, times, listening, processes, tell)


def _serve(service: Service, listening: socket.socket, tell: Callable[[], None]) -> None:
    config = uvicorn.Config(
        create_app(service), lifespan="on", log_level=logging.WARNING, access_log=False, server_header=False, ws_max_size=MAX_MESSAGE,
        timeout_graceful_shutdown=int(service.settings.shutdown_seconds),
    )  # fmt: skip
    # uvicorn, when it has ended for a signal, sends it to itself again, for whoever had handlers before.
    with handled_signals(lambda *_: None):
        _Server(config, tell).run(sockets=[listening])


def _serve_by_many(
    settings: ServeSettings, milliseconds: Mapping[str, float], listening: socket.socket, count: int, tell: Callable[[], None]
) -> None:
    """Start processes that take connections from one socket, start those that die again, and end all at a signal."""
    context = multiprocessing.get_context("spawn")
    ended = threading.Event()

    def start() -> tuple[Any, Any]:
        ready = context.Event()
        process = context.Process(target=_serve_as_one_of_many, args=(settings, milliseconds, listening, ready))
        process.start()
        return process, ready

    with handled_signals(lambda *_: ended.set()):
        running = [start() for _ in range(count)]
        is_told = False
        try:
            while not ended.wait(_SECONDS_BETWEEN_LOOKS):
                for place, (process, ready) in enumerate(running):
                    if process.is_alive():
                        continue
                    if not ready.is_set():
                        raise ServiceError(f"a process of the service ended with status {process.exitcode} before it was ready: its messages say why")
                    logger.warning("a process of the service ended with status %s: another one is started", process.exitcode)
                    running[place] = start()
                if not is_told and all(ready.is_set() for _, ready in running):
                    is_told = True
                    tell()
        finally:
            for process, _ in running:
                process.terminate()
            end = time.monotonic() + settings.shutdown_seconds + _PATIENCE
            for process, _ in running:
                process.join(max(end - time.monotonic(), 0.0))
                process.kill()


def _serve_as_one_of_many(settings: ServeSettings, milliseconds: Mapping[str, float], listening: socket.socket, ready: Any) -> None:
    """What each of several processes runs. milliseconds: of the configurations on this machine, measured once for all."""
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    _serve(Service.load(settings, milliseconds), listening, ready.set)


def _end_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(2)
    os.kill(os.getpid(), signal.SIGTERM)


def listen(host: str, port: int) -> socket.socket:
    """A socket that connections are taken from. Raises OSError that names the address and the fix."""
    # Said to be TCP, since asyncio then sends small messages at once (TCP_NODELAY): without the word the second part of each answer
    # waits until the client has confirmed the first, 40 ms.
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_WAITING_CONNECTIONS)
    except OSError as error:
        listening.close()
        raise OSError(f"cannot listen on {host}, port {port} ({error.strerror or error}): choose another --port, or --host") from error
    return listening
