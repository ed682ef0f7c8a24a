"""What guards the endpoints: how many requests are inside, how large, how slow and how long a body may be, and whose pages may stream."""

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any

from fastapi import HTTPException
from starlette.responses import JSONResponse
from starlette.websockets import WebSocket

from mutual3d.deploy.serve.batching import retry_after
from mutual3d.deploy.serve.service import Service
from mutual3d.utils.files import readable_size
from mutual3d.utils.text import printable

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
# What a multipart body has beside its file.
_AROUND = 65_536
# Characters of an address that are told.
_LONGEST_ORIGIN = 100
# Nothing of another site is loaded, framed or sent to.
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
)


# What takes as long as many clips.
_LONG = frozenset({"/timeline", "/explain"})


def host_name(address: str) -> str:
    """The name, or the number, of an address such as Cameras.example:8000 or [::1]:8000, in small letters, without the port."""
    name = address.strip().lower()
    name = name[1:].partition("]")[0] if name.startswith("[") else name.rpartition(":")[0] if name.count(":") == 1 else name
    return name.rstrip(".")


def _is_loopback_or_number(name: str) -> bool:
    """Whether no page of a foreign name can have it: what a number leads to is nobody's to point elsewhere."""
    if name == "localhost" or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def goes_by(name: str, hosts: Iterable[str]) -> bool:
    """Whether a name, in small letters and without a port, is one of `hosts`: `*.videos.example` is every name that ends so, `*` is every name."""
    own = [host_name(host) for host in hosts]
    return name in own or any(host == "*" or host.startswith("*.") and name.endswith(host[1:]) for host in own)


def _header(scope: Message, name: bytes) -> str:
    found: str = dict(scope["headers"]).get(name, b"").decode("latin-1").lower()
    return found


class Guard:
    """An ASGI application around another one: counts requests, refuses what is too much, and bounds every body.

    A body that is larger than allowed ends in 413, also where its length was not told, and one that takes too long in 408. Refused with 403
    is whoever asks for a host that this is not: a page of that name, which its owner has pointed at this machine (DNS rebinding), would
    be the service's own to a browser, and read its answers. So is a WebSocket that another site's page opens, which a browser says in
    `Origin`. paths: those that are counted by name.
    """

    def __init__(self, app: Callable[..., Awaitable[None]], service: Service, paths: frozenset[str]) -> None:
        self._app, self._service, self._paths = app, service, paths

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answer one request, as ASGI has it: `scope` tells it, `receive` gives its body, `send` takes the answer."""
        if scope["type"] == "websocket" and (told := self._foreign_host(scope) or self._foreign_page(scope)) is not None:
            await WebSocket(scope, receive, send).send_denial_response(JSONResponse({"detail": told}, 403))
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"] if scope["path"] in self._paths else "other"

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._service.measures.requests.labels(path, str(message["status"])).inc()
                message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
            await send(message)

        if (told := self._foreign_host(scope)) is not None:
            await JSONResponse({"detail": told}, 403)(scope, receive, counted)
            return
        if scope["method"] != "POST":
            await self._app(scope, receive, counted)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, counted)
            return
        with self._service.admitted(is_long=scope["path"] in _LONG):
            await self._app(scope, self._bounded(receive), counted)

    def _foreign_host(self, scope: Message) -> str | None:
        """What to say to a client that asks for a host which this service is not; None to all others, and to one that names none."""
        name = host_name(_header(scope, b"host"))
        if not name or _is_loopback_or_number(name) or goes_by(name, self._service.settings.hosts):
            return None
        told = printable(name[:_LONGEST_ORIGIN])
        return f"the address names {told}, by which this service does not go: ask for it by a number or by localhost, or start it with --allow-host {told}"

    def _foreign_page(self, scope: Message) -> str | None:
        """What to say to a page that opens a connection and is neither the service's own nor of an allowed site. Programs are no pages."""
        origin, host = _header(scope, b"origin"), _header(scope, b"host")
        is_own = origin.partition("://")[2] == host and origin.startswith(("http://", "https://"))
        if not origin or is_own or origin in self._service.settings.origins:
            return None
        if origin == "null":  # which any page can be, so that nobody may allow it
            return (
                "the page is of no site (Origin: null; a file, or a frame without rights), and this service takes streams of its own pages and of "
                "named sites alone: open the page from a web server, and name that with --allow-origin"
            )
        site = printable(origin[:_LONGEST_ORIGIN])
        return f"the page is of {site}, and this service takes streams of its own pages alone: start it with --allow-origin {site}"

    def _refusal(self, scope: Message) -> JSONResponse | None:
        """Why a request is not let in."""
        service = self._service
        if service.is_closing:
            return JSONResponse({"detail": "the service ends"}, 503, {"Retry-After": "5"})
        if service.inside >= service.settings.queue:
            seconds = retry_after(service.seconds_ahead())
            return JSONResponse({"detail": f"{service.inside} requests are inside: try again in {seconds} s"}, 429, {"Retry-After": seconds})
        if scope["path"] in _LONG and service.inside_long >= service.settings.most_long:
            return JSONResponse(
                {"detail": f"{service.inside_long} timelines and explanations are inside, and no more are taken: try again in a second"}, 429, {"Retry-After": "1"}
            )
        told = dict(scope["headers"]).get(b"content-length", b"0")
        if told.isdigit() and int(told) > service.settings.max_bytes + _AROUND:
            return JSONResponse({"detail": self._too_large()}, 413)
        return None

    def _too_large(self) -> str:
        return f"the upload is larger than the {readable_size(self._service.settings.max_bytes)} that are taken"

    def _bounded(self, receive: Receive) -> Receive:
        settings, loop = self._service.settings, asyncio.get_running_loop()
        left, end, is_whole = settings.max_bytes + _AROUND, loop.time() + settings.upload_seconds, False

        async def bounded() -> Message:
            nonlocal left, is_whole
            if is_whole:
                return await receive()
            try:
                message = await asyncio.wait_for(receive(), end - loop.time())
            except asyncio.TimeoutError:
                raise HTTPException(408, f"the upload took longer than {settings.upload_seconds:g} s") from None
            left -= len(message.get("body", b""))
            is_whole = not message.get("more_body", False)
            if left < 0:
                raise HTTPException(413, self._too_large())
            return message

        return bounded
