"""Trained networks that others can use: a folder, or a repository of the Hugging Face hub, with the bundle and a card of it.

The hub's library is an extra, `pip install -e .[hub]`; folders need nothing.
"""

import filecmp
import os
import re
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import yaml

from mutual3d.deploy.gives import argument_of
from mutual3d.deploy.runtimes.interface import package_version
from mutual3d.table.query_table import AnyRow, QueryTable
from mutual3d.utils.files import atomic_write, ensure_directory
from mutual3d.utils.text import printable

if TYPE_CHECKING:  # which loads what is here
    from mutual3d.deploy.adaptive_model import AdaptiveModel

BUNDLE, CARD, WEIGHTS, TABLE = "adaptive.pyth", "README.md", "model.safetensors", "query_table.csv"
# By which a card is known.
_LIBRARY = "mutual3d"
# Of a table's provenance: numbers that stand for files, which tell a reader nothing.
_LEFT_OUT = ("fingerprint",)
# Rows of a card's table.
_MOST_ROWS = 24
_REPOSITORY = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[A-Za-z0-9][\w.-]{0,95}")
_LICENCE = re.compile(r"[a-z0-9][a-z0-9.+-]{0,63}")


def is_repository(name: str | os.PathLike) -> bool:
    """Whether a name is a repository's, `org/name`, and no path that is there, or that names a bundle."""
    text = os.fspath(name)
    return bool(_REPOSITORY.fullmatch(text)) and not text.endswith((".pyth", ".pt", ".pth")) and not os.path.exists(text)


def hub(what: str) -> ModuleType:
    """The module huggingface_hub. what: is to be done with it, for the ImportError that names the extra."""
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(f"{what} needs the package huggingface_hub ({error}): pip install -e .[hub]") from error
    return huggingface_hub


# ---- The card --------------------------------------------------------------------------------------------------------


def model_card(model: "AdaptiveModel", title: str, licence: str | None = None, about: str = "") -> str:
    """The README.md of a shared model: Markdown behind the facts that the hub reads (YAML).

    title: of the page, and of a repository. licence: the hub's word for it, such as `apache-2.0`; None says that none was named. about:
    a text of one's own, put first. Raises ValueError for a licence that is no such word.
    """
    if licence is not None and not _LICENCE.fullmatch(licence):
        raise ValueError(f"the licence is {licence!r:.80}: give the hub's word for it, such as apache-2.0, mit or cc-by-nc-4.0")
    network, takes_images = model.network, model.network.takes == "images"
    # The hub's words for what a network of another task does are more than those that it gives: none is better than a wrong one.
    kind = {"pipeline_tag": "image-classification" if takes_images else "video-classification"} if network.gives == "classes" else {}
    facts: dict[str, Any] = {
        **({"license": licence} if licence else {}), "library_name": _LIBRARY, **kind, "tags": ["mutual3d", "adaptive", "pytorch"],
    }  # fmt: skip
    space, cut = network.space, model.preprocessing
    name = network.arguments.get("name", type(network).__name__)
    shown = "an image" if takes_images else f"{cut.num_frames} frames, one in {cut.sampling_rate} at {cut.target_fps:g} a second,"
    parts = [
        f"---\n{yaml.safe_dump(facts, sort_keys=False)}---",
        f"# {_line(title)}",
        about.strip(),
        f"One network ({_line(name)}) that was trained once and runs at any budget: at every configuration, width x pixels{'' if takes_images else ' x frames'}, "
        f"from {space.smallest} to {space.largest}. The weights are shared; what each configuration is worth and costs is in the table.",
        f"It sees {shown} of {cut.crop} x {cut.crop} pixels, and gives {_classes(model)}.",
        _use(title, model),
        "" if model.table is None else _results(model.table),
        f"## Licence\n\n{licence or 'No licence was named: ask who made it before you use it.'}",
        f"Written by mutual3d {package_version('mutual3d')}.",
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def _classes(model: "AdaptiveModel") -> str:
    names = model.class_names
    gives = model.network.gives
    if names is None:
        return "scores of classes without names" if gives == "classes" else _line(gives)
    listed = ", ".join(map(_line, names[:12]))
    if gives != "classes":
        return f"{_line(gives)}, of {len(names)} classes: {listed}{', ...' if len(names) > 12 else ''}"
    return f"{'a probability for each' if model.preprocessing.activation == 'sigmoid' else 'probabilities'} of {len(names)} classes: {listed}{', ...' if len(names) > 12 else ''}"


def _use(title: str, model: "AdaptiveModel") -> str:
    network = model.network
    answer = 'print(model.predict("clip.mp4").top(5))'
    if network.gives != "classes":
        answer = f"outputs = model({argument_of(model)})  # {printable(network.gives)}"
    name = title if _REPOSITORY.fullmatch(title) else BUNDLE
    return (
        "## Use\n\n```python\nimport mutual3d\n\n"
        f'model = mutual3d.load("{name}")\n'
        "row = model.set_budget(gflops=...)  # or latency_ms=..., held by what is measured on your machine\n"
        f"{answer}\n```"
    )


def _results(table: QueryTable) -> str:
    """The Pareto fronts as a Markdown table, and where its numbers come from."""
    rows: list[AnyRow] = [*table.pareto_front()]
    if len(rows) > _MOST_ROWS:
        rows = [rows[round(place * (len(rows) - 1) / (_MOST_ROWS - 1))] for place in range(_MOST_ROWS)]
    keys = table.devices
    headings = ["configuration", "GFLOPs", "parameters", *(_line(table.words_of_metric(name).axis) for name in table.metrics), *(f"ms, {key}" for key in keys)]
    lines = [headings, ["---"] + ["---:"] * (len(headings) - 1)]
    for row in rows:
        accuracy = [f"{row.accuracy[name]:.1f}" if name in row.accuracy else "" for name in table.metrics]
        latency = [f"{row.latency_ms[key]:.3g}" if key in row.latency_ms else "" for key in keys]
        lines.append([str(row.configuration), f"{row.gflops:.4g}", f"{row.parameters:,}", *accuracy, *latency])
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    told = {name: value for name, value in table.provenance.items() if name not in _LEFT_OUT and not isinstance(value, Mapping)}
    listed = "\n".join(f"- {_line(name)}: {_line(value)}" for name, value in told.items())
    return f"## What each configuration is worth and costs\n\nThe best within each budget in GFLOPs.\n\n{text}\n\n## Where the numbers come from\n\n{listed}"


def _line(value: object) -> str:
    """A value in one line of Markdown, in which nothing of it means anything."""
    return re.sub(r"([\\`*_\[\]<>|#])", r"\\\1", printable(value))


# ---- Folders and repositories ----------------------------------------------------------------------------------------


def write_shared(model: "AdaptiveModel", bundle: str | Path, folder: str | Path, card: str) -> list[Path]:
    """Put a bundle into a folder as it is, its card, its table as csv, and the weights as safetensors where that is installed.

    What was shared there before is replaced. Returns the files. Raises OSError where the folder cannot be written, ValueError where its
    README.md is no card, or has another network's bundle without one, as the folder of a run does.
    """
    folder = ensure_directory(folder)
    written = [folder / BUNDLE, folder / CARD]
    is_replaced = written[1].exists()
    if is_replaced and not _is_card(written[1].read_text(encoding="utf-8", errors="replace")):
        raise ValueError(f"'{written[1]}' is there already and is no card of a shared network: name another folder, or move it away")
    if not is_replaced and written[0].exists() and not filecmp.cmp(bundle, written[0], shallow=False):
        raise ValueError(f"'{written[0]}' is there already, of another network that nobody shared there: name another folder, or move it away")
    if not (written[0].exists() and os.path.samefile(bundle, written[0])):
        with atomic_write(written[0], Path(bundle).stat().st_size) as temporary:
            shutil.copyfile(bundle, temporary)
    with atomic_write(written[1]) as temporary:
        temporary.write_text(card, encoding="utf-8", errors="backslashreplace")
    if model.table is not None:
        written.append(folder / TABLE)
        model.table.save_csv(written[-1])
    try:
        from safetensors.torch import save
    except ImportError:
        pass  # whoever asked is told: `written` lacks it
    else:
        written.append(folder / WEIGHTS)
        state = {name: tensor.detach().contiguous().clone() for name, tensor in model.network.state_dict().items()}
        with atomic_write(written[-1]) as temporary:
            temporary.write_bytes(save(state, metadata={"format": "pt", "library": "mutual3d"}))
    # Another network's table or weights beside this one would be taken for its own.
    for path in {folder / TABLE, folder / WEIGHTS} - {*written} if is_replaced else ():
        path.unlink(missing_ok=True)
    return written


def _is_card(text: str) -> bool:
    """Whether a README.md is one that `model_card` wrote, whatever was changed in it since."""
    facts = text.split("---\n", 2)[1:2] if text.startswith("---\n") else []
    return f"library_name: {_LIBRARY}" in "".join(facts).splitlines()


def push_folder(folder: str | Path, repository: str, *, private: bool = False) -> str:
    """Send a folder that `write_shared` wrote to the hub, as one commit; makes the repository where there is none. Returns its address.

    A table or weights of an earlier network, which this one has not, are removed there.

    private: whether a repository that is made is seen by nobody else. Who it is sent as is the hub's affair (`hf auth login`). Raises
    ImportError without the extra, and OSError, with the hub's words, for what it refuses.
    """
    module = hub("pushing to the hub")
    try:
        api = module.HfApi()
        api.create_repo(repository, private=private, exist_ok=True)
        files = [BUNDLE, CARD, WEIGHTS, TABLE]
        api.upload_folder(
            repo_id=repository, folder_path=str(folder), commit_message="A network of mutual3d", allow_patterns=files, delete_patterns=files
        )  # fmt: skip
        return f"{api.endpoint}/{repository}"
    except Exception as error:  # of the hub's library, and of what it sends by
        raise _told(f"'{repository}' cannot be sent to", error) from error


def fetch(repository: str, revision: str | None = None) -> Path:
    """The bundle of a repository, in the hub's own cache on this machine, downloaded where it is not there yet.

    revision: a branch, tag or commit; None takes the newest. Raises ImportError without the extra, and OSError, with the hub's words,
    where there is none or it cannot be reached.
    """
    module = hub(f"there is no file '{repository}', and loading it from the hub")
    try:
        return Path(module.hf_hub_download(repository, BUNDLE, revision=revision))
    except Exception as error:  # of the hub's library, and of what it receives by
        raise _told(f"there is no file '{repository}', and as a repository it cannot be taken from", error) from error


def _told(what: str, error: Exception) -> OSError:
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    return OSError(f"{what} the hub: {type(error).__name__}: {first_line}")


def find_bundle(source: str | os.PathLike) -> Path:
    """The bundle that a folder holds, a file that is one, or that of a repository, `org/name`.

    Raises FileNotFoundError for a folder without one, and as `fetch` does.
    """
    if is_repository(source):
        return fetch(os.fspath(source))
    path = Path(source).expanduser()
    if path.is_dir():
        path = path / BUNDLE
        if not path.is_file():
            raise FileNotFoundError(f"there is no {BUNDLE} in the folder '{path.parent}': give the path of a .pyth file, or the folder that `mutual3d push` wrote")
    return path


def draft_folder() -> "tempfile.TemporaryDirectory[str]":
    """A folder for what is sent to the hub, which is gone afterwards."""
    return tempfile.TemporaryDirectory(prefix="mutual3d_push_")
