"""The endpoints of a service, as an ASGI application."""

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from importlib import resources
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, HTTPException, Query, Request, Response, UploadFile, WebSocket
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse
from fastapi.routing import APIRoute
from starlette.requests import HTTPConnection

from mutual3d.data.video.reader import VideoError
from mutual3d.deploy.runtimes.interface import package_version
from mutual3d.deploy.scan import Events
from mutual3d.deploy.serve.answers import Answer, Health, LooksAnswer, Problem, Sample, Table, TimelineAnswer
from mutual3d.deploy.serve.batching import Overloaded, retry_after
from mutual3d.deploy.serve.front import Choice
from mutual3d.deploy.serve.limits import Guard
from mutual3d.deploy.serve.readers import TooLongError
from mutual3d.deploy.serve.service import Service, without_path
from mutual3d.deploy.serve.streaming import REFUSED, TRY_AGAIN, ClientStream, events_of_stream
from mutual3d.deploy.serve.timelines import TimelineRequest, answer_timeline
from mutual3d.deploy.timeline import THRESHOLD
from mutual3d.utils.text import printable

T = TypeVar("T")
_logger = logging.getLogger(__name__)
_PAGE = {"/": ("index.html", "text/html"), "/page.js": ("page.js", "text/javascript"), "/page.css": ("page.css", "text/css")}
# The page loads nothing from elsewhere, and nobody frames it.
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)
_REFUSALS: dict[int | str, dict[str, Any]] = {
    400: {"model": Problem, "description": "the form is damaged, or has more than one file"},
    408: {"model": Problem, "description": "the upload took too long"},
    413: {"model": Problem, "description": "the upload is too large, or the video too long"},
    422: {"model": Problem, "description": "it cannot be read, or a parameter or budget cannot be"},
    429: {"model": Problem, "description": "the service is busy, even at the cheapest configuration; Retry-After says for how long"},
    503: {"model": Problem, "description": "the service ends"},
}
Limit = Annotated[float | None, Query(gt=0, le=1e7, allow_inf_nan=False)]
LatencyBudget = Annotated[Limit, Query(description="milliseconds of the network on one clip")]
GflopsBudget = Annotated[Limit, Query(description="of one view")]
Deadline = Annotated[Limit, Query(description="milliseconds from the end of the upload to the answer; otherwise the service's")]
Top = Annotated[int, Query(ge=1, le=1000, description="classes to tell")]
Named = Annotated[str | None, Query(max_length=60, description="a configuration of /table, which is then held")]


class _Form(Request):
    """A request whose form has one file. Fields beside it are kept in memory, a megabyte each, and are of no use here."""

    def form(self, **limits: Any) -> Any:
        return super().form(max_files=1, max_fields=8)


class _FormRoute(APIRoute):
    """Reads the body as `_Form`."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_form(request: Request) -> Response:
            return await handle(_Form(request.scope, request.receive))

        return handle_form


async def service_of(connection: HTTPConnection) -> Service:
    """The service that an application was made of."""
    service: Service = connection.app.state.service
    return service


Served = Annotated[Service, Depends(service_of)]


async def choice_of(service: Served, latency_ms: LatencyBudget = None, gflops: GflopsBudget = None, configuration: Named = None) -> Choice:
    """As `ServedFront.choose`. Raises HTTPException, 422 with the sentence, where that raises."""
    try:
        return service.front.choose(latency_ms, gflops, configuration)
    except ValueError as error:
        raise HTTPException(422, str(error)) from error


Chosen = Annotated[Choice, Depends(choice_of)]

# ---- What takes an upload ----------------------------------------------------------------------------------------------

_uploads = APIRouter(route_class=_FormRoute, responses=_REFUSALS)


@_uploads.post("/predict")
async def predict(service: Served, choice: Chosen, file: UploadFile, deadline_ms: Deadline = None, top: Top = 5) -> Answer:
    """What the network sees in a video, an image or a clip.

    `file` is a video, an image, or a .npy file: a clip as the network takes it, or uint8 frames T, H, W, 3. Without a budget the
    most accurate configuration runs. A busy service runs a cheaper one than the budget allows, and says so (`lowered`), before it
    refuses; a configuration that is named is held.
    """
    return await explained(service.predict(file.file, choice, deadline_ms=deadline_ms, top=top))


@_uploads.post("/timeline")
async def timeline(
    service: Served,
    choice: Chosen,
    file: UploadFile,
    window: Annotated[str, Query(max_length=20, description="look at each stretch of this length: 2s, 500ms, or seconds")],
    step: Annotated[str | None, Query(max_length=20, description="from window to window; otherwise its length")] = None,
    threshold: Annotated[float, Query(ge=0, le=1, description="min probability in a segment")] = THRESHOLD,
    background: Annotated[list[str] | None, Query(max_length=100, description="a class that is no segment; it may be given several times")] = None,
    deadline_ms: Deadline = None,
) -> TimelineAnswer:
    """What the network sees when: windows that say the same are joined into segments with a start, an end, a class and a confidence.

    `file` is a video, or a .npy file of uint8 frames T, H, W, 3, whose clock is the network's own rate; images and clips have none. The
    deadline is of the whole answer: a long video wants a longer one than a clip. To keep it, windows run at cheaper configurations than
    the budget allows, as those of /predict do.
    """
    wanted = TimelineRequest(window, step, Events(threshold, tuple(background or ())))
    return await explained(answer_timeline(service, file.file, choice, wanted, deadline_ms=deadline_ms))


@_uploads.post("/explain")
async def explain(
    service: Served,
    choice: Chosen,
    file: UploadFile,
    class_name: Annotated[str | None, Query(max_length=300, description="a name or number; otherwise what is predicted")] = None,
    deadline_ms: Deadline = None,
) -> LooksAnswer:
    """Where the network looks in a video, an image or a clip: its frames with the heat of a class over them.

    At the configuration that the budget chooses, as for /predict. One is computed at a time: whose turn does not come within the deadline
    is refused.
    """
    return await explained(service.explain(file.file, choice, class_name, deadline_ms=deadline_ms))


# ---- Streams -----------------------------------------------------------------------------------------------------------

_streams = APIRouter()


@_streams.websocket("/stream")
async def stream(
    service: Served,
    socket: WebSocket,
    deadline_ms: Annotated[float, Query(gt=0, le=1e6, allow_inf_nan=False)] = 200.0,
    fps: Annotated[float, Query(gt=0, le=100, allow_inf_nan=False)] = 5.0,
    configuration: Named = None,
    top: Top = 5,
    events: bool = False,
    threshold: Annotated[float | None, Query(ge=0, le=1)] = None,
    background: Annotated[list[str] | None, Query(max_length=100)] = None,
) -> None:
    """Frames in, answers out: see the documentation."""
    await socket.accept()
    if service.is_closing or service.streams >= service.settings.max_streams:
        await socket.send_json({"detail": f"{service.streams} streams are open: try again later"})
        await socket.close(TRY_AGAIN)
        return
    try:
        choice = service.front.choose(configuration=configuration)
        wanted = events_of_stream(service, events, threshold, background)
    except ValueError as error:
        await socket.send_json({"detail": str(error)})
        await socket.close(REFUSED)
        return
    with service.streaming():
        await ClientStream(service, socket, choice, deadline_ms=deadline_ms, fps=fps, top=top, events=wanted).run()


# ---- What is told of the service ---------------------------------------------------------------------------------------

_facts = APIRouter()


@_facts.get("/table")
async def table(service: Served) -> Table:
    """The configurations that are kept ready: their accuracy, and what they take on this machine."""
    return service.table()


@_facts.get("/health")
async def health(service: Served, response: Response) -> Health:
    """Whether the service takes requests (503 where it does not), and what it takes."""
    found = service.health()
    response.status_code = 200 if found.status == "ready" else 503
    return found


@_facts.get("/metrics", response_class=Response)
async def metrics(service: Served) -> Response:
    """Counters and histograms of this process, in Prometheus' text format."""
    return Response(service.measures.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


@_facts.get("/samples")
async def samples(service: Served) -> list[Sample]:
    """The files that the page offers."""
    return service.list_samples()


@_facts.get("/samples/{number}", response_class=FileResponse, responses={404: {"model": Problem}})
async def sample(service: Served, number: int) -> FileResponse:
    """One of these files."""
    if not 0 <= number < len(service.samples):
        raise HTTPException(404, "there is no such sample")
    return FileResponse(service.samples[number])


# ---- The application ---------------------------------------------------------------------------------------------------


def create_app(service: Service) -> FastAPI:
    """The application of a loaded service, which starts and closes with it."""
    app = FastAPI(
        title="mutual3d", version=package_version("mutual3d"), lifespan=_lifespan, redoc_url=None,
        description="Video action recognition at any budget. A budget chooses the configuration; see /table.",
    )  # fmt: skip
    app.state.service = service
    paths = {*_PAGE}
    for router in (_uploads, _streams, _facts):
        app.include_router(router)
        paths |= {route.path for route in router.routes if isinstance(route, APIRoute) and not route.param_convertors}
    for path, (name, kind) in _PAGE.items():
        app.get(path, include_in_schema=False)(_page(name, kind))
    app.add_exception_handler(RequestValidationError, _tell_what_is_wrong)
    app.add_middleware(Guard, service=service, paths=frozenset(paths))
    return app


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    service: Service = app.state.service
    await asyncio.to_thread(service.start)
    yield
    await asyncio.to_thread(service.close)


async def _tell_what_is_wrong(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError), "for which it is registered"
    told = "; ".join(f"{'.'.join(map(str, each['loc'][1:])) or 'the body'}: {each['msg']}" for each in error.errors()[:5])
    return JSONResponse({"detail": told}, 422)


async def explained(answer: Awaitable[T]) -> T:
    """What is awaited. Raises HTTPException for whatever goes wrong: the client's mistakes with a sentence, no path of the server in any."""
    try:
        return await answer
    except TooLongError as error:
        raise HTTPException(413, without_path(error)) from error
    except VideoError as error:
        raise HTTPException(422, without_path(error)) from error
    except ValueError as error:  # of a class that there is not, or a network that cannot tell
        _logger.warning("refused: %s", error)
        raise HTTPException(422, printable(error)) from error
    except Overloaded as error:
        raise HTTPException(429, str(error), {"Retry-After": retry_after(error.seconds)}) from error
    except Exception as error:
        _logger.exception("a prediction failed")
        raise HTTPException(500, "the prediction failed: the log of the service says why") from error


def _page(name: str, kind: str) -> Callable[[], Awaitable[Response]]:
    content = (resources.files("mutual3d.deploy.serve") / "page" / name).read_bytes()

    async def page() -> Response:
        headers = {"Content-Security-Policy": _POLICY, "Cache-Control": "no-cache"}
        return Response(content, media_type=kind, headers=headers)

    return page
