"""A trained network behind HTTP: predictions at a budget, streams within a deadline, and a page to look at both.

    mutual3d serve out/adaptive.pyth
    mutual3d serve out/adaptive.pyth --samples my_videos --port 8080 --deadline-ms 500
    mutual3d serve out/adaptive.pyth --host 0.0.0.0 --processes 4 --max-mb 20 --max-seconds 60

The page is at http://127.0.0.1:8000, and its interface, with types, at /docs. A request names a budget (latency_ms or gflops) or a
configuration; every configuration of the Pareto front is made ready, and timed, before the service begins. A busy service runs
cheaper ones than the budgets allow, and says so, before it refuses with status 429.

--host 0.0.0.0 opens it to other machines: there is no password, so put a proxy that asks for one before it. Clients ask for it by a number,
or by a name that --allow-host gives. Uploads are bounded in size,
length and time, and decoded in processes of their own.

SIGTERM and Ctrl-C end it when what is in hand has been answered. Exit status: 0 when it was ended, 1 when something is wrong, 2 when
the arguments are.
"""

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

import torch

from mutual3d.utils.command_line import command_parser, count_argument, path_argument, positive_argument

_MB = 1_000_000


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a command line; SystemExit, after a line that says why, for one that cannot be."""
    parser = command_parser("serve", __doc__)
    parser.add_argument("model", metavar="MODEL", type=path_argument, help="the adaptive.pyth of a run")
    parser.add_argument("--host", default="127.0.0.1", help="the address to listen on (default %(default)s: this machine alone)")
    parser.add_argument("--port", type=_port, default=8000, help="default %(default)s; 0 takes a free one")
    parser.add_argument("--processes", type=count_argument, default=1, help="each with the model for itself (default %(default)s)")
    parser.add_argument("--threads", type=count_argument, help="of a process for the network (default: the cores, shared among the processes)")
    parser.add_argument("--samples", type=path_argument, metavar="FOLDER", help="videos and images that the page offers")
    parser.add_argument("--runtime", default="auto",
                        help="what computes: torch, openvino, ..., none (PyTorch on the model's own weights); default: auto, the fastest one here")  # fmt: skip
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu", help="where the network runs (default cpu)")
    parser.add_argument("--deadline-ms", type=positive_argument, default=2000.0, metavar="MS",
                        help="from the end of an upload to its answer, where a client names none (default %(default)g)")  # fmt: skip
    parser.add_argument("--queue", type=count_argument, default=64, help="requests that are inside at a time (default %(default)s)")
    parser.add_argument("--max-batch", type=count_argument, default=8, help="clips that are computed together (default %(default)s)")
    parser.add_argument("--max-mb", type=positive_argument, default=100.0, help="megabytes of an upload (default %(default)g)")
    parser.add_argument("--max-seconds", type=positive_argument, default=600.0, help="that a video may last (default %(default)g)")
    parser.add_argument("--upload-seconds", type=positive_argument, default=60.0, help="that an upload may take (default %(default)g)")
    parser.add_argument("--decode-seconds", type=positive_argument, default=20.0,
                        help="without progress, after which a file is given up (default %(default)g)")  # fmt: skip
    parser.add_argument("--decoders", type=count_argument, default=2, help="processes that decode (default %(default)s)")
    parser.add_argument("--decoder-mb", type=positive_argument, default=1000.0, help="memory of each beside its start (default %(default)g)")
    parser.add_argument("--streams", type=count_argument, default=8, help="WebSocket streams at a time (default %(default)s)")
    parser.add_argument("--allow-origin", type=_origin, nargs="+", default=[], metavar="ORIGIN",
                        help="other sites whose pages may open streams, as browsers name them: https://cameras.example")  # fmt: skip
    parser.add_argument("--allow-host", type=_host, nargs="+", default=[], metavar="NAME",
                        help="names that the service goes by beside --host, localhost and numbers: gpu-box, '*.videos.example', '*' for all")  # fmt: skip
    return parser.parse_args(arguments)


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text) < 65536):
        raise argparse.ArgumentTypeError(f"{text!r} is no port: give a whole number from 0 to 65535")
    return int(text)


def _origin(text: str) -> str:
    """What a browser calls a site: scheme, host and, unless it is the usual one, port."""
    if not re.fullmatch(r"https?://[^\s/?#@]+", text, re.IGNORECASE):
        raise argparse.ArgumentTypeError(f"{text!r} is no origin: give scheme and host, without a path, such as https://cameras.example or http://10.0.0.7:8080")
    return text.lower()


def _host(text: str) -> str:
    """A name as it stands in an address, without the port; `*.` before it for the names below it, `*` for all names."""
    if not re.fullmatch(r"\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*", text, re.IGNORECASE):
        raise argparse.ArgumentTypeError(
            f"{text!r} is no name of a host: give it without scheme, port and path, such as gpu-box or videos.example; '*.videos.example' for the "
            "names that end so, or '*' for all"
        )
    return text.lower()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these words, by default those of the command line; returns its exit status."""
    options = parse(arguments)
    if not Path(options.model).is_file():
        raise FileNotFoundError(f"there is no model '{options.model}': give the adaptive.pyth that `mutual3d run` writes at its end")
    if options.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device is cuda, and torch sees no GPU here: leave --device out to run on the CPU")
    try:
        from mutual3d.deploy.serve.run import run_service
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"mutual3d serve needs {error.name}: pip install -e .[serve]") from None
    from mutual3d.deploy.serve.settings import ServeSettings

    shared = max(1, torch.get_num_threads() // options.processes) if options.processes > 1 else None
    settings = ServeSettings(
        model=options.model, runtime=None if options.runtime == "none" else options.runtime, device=options.device,
        threads=options.threads or shared, samples=options.samples, deadline_ms=options.deadline_ms, queue=options.queue,
        max_batch=options.max_batch, max_bytes=int(options.max_mb * _MB), max_seconds=options.max_seconds,
        upload_seconds=options.upload_seconds, decode_seconds=options.decode_seconds, decoders=options.decoders,
        decoder_bytes=int(options.decoder_mb * _MB), max_streams=options.streams, origins=tuple(options.allow_origin),
        hosts=(options.host, *options.allow_host),
    )  # fmt: skip
    run_service(settings, options.host, options.port, options.processes)
    return 0
