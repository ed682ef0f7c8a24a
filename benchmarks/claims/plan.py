"""Plans: what is trained for a claim, as a YAML file that `read_plan` checks."""

import functools
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from mutual3d.config.named import find_config
from mutual3d.config.yaml_file import read_settings
from mutual3d.sampling import Configuration

PLANS = Path(__file__).parent / "plans"
# What a run's folder is called inside a method's changes, where it starts from another method's run.
FROM = "{%s}"
# What the folder of the data is called there, for keys beside DATA.PATH_TO_DATA_DIR.
DATA = "{data}"
# And the number of the repetition, for folders of folds.
SEED = "{seed}"


@dataclass(frozen=True)
class Method:
    """One way to train.

    Args:
        name: as the plan's tables call it.
        config: name of the YAML that it changes.
        changes: KEY VALUE pairs; `{other}` in a value is the folder of the run of the method `other` with the same seed, `{data}` that of the data, `{seed}` the seed.
        configurations: of its table's rows, those that count; all of the plan's where it says none.
        each: whether every one of them is trained by itself, instead of one network for all.
        epochs: its own lengths, where they are not the plan's.
        hidden: whether it only prepares for others, and is in no table.
        data: its own set, where it is not the plan's.
    """

    name: str
    config: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    configurations: tuple[Configuration, ...] = ()
    each: bool = False
    epochs: tuple[int, ...] = ()
    hidden: bool = False
    data: str | None = None


@dataclass(frozen=True)
class Plan:
    """A claim's runs.

    Args:
        name: of its file.
        title, question, paper: of its page: what is asked, and what the papers' table says, in sentences.
        data: name of the set, whose folder the command is given; None for sets that need no folder.
        metric: the number that counts, of those in a run's table.
        split: what it is measured on, in words.
        shared: KEY VALUE pairs of every run on the plan's set.
        epochs: lengths of training, ascending.
        seeds: RNG_SEED of each repetition.
        repeats: what a repetition is, in a word.
        methods: by name, in the order of the tables' columns.
        reference: the method that the others are compared with, seed by seed.
    """

    name: str
    title: str
    question: str
    paper: str
    metric: str
    split: str
    epochs: tuple[int, ...]
    seeds: tuple[int, ...]
    methods: Mapping[str, Method]
    reference: str | None = None
    repeats: str = "seed"
    data: str | None = None
    shared: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Run:
    """One training and what it measures.

    `key` is what tells runs apart: two plans that ask for the same training share it, and a config that is edited makes another one. Folders
    of data and of other runs are no part of it: what a run starts from is, by its own key.
    """

    plan: str
    method: Method
    data: str | None
    epochs: int
    seed: int
    configurations: tuple[Configuration, ...]
    changes: Mapping[str, Any]
    starts_from: Mapping[str, "Run"] = field(default_factory=dict)

    @property
    def key(self) -> str:
        told = {
            "settings": _settings(self.method.config), "data": self.data, "epochs": self.epochs, "seed": self.seed,
            "changes": {name: str(value) for name, value in sorted(self.changes.items())},
            "starts_from": {name: run.key for name, run in sorted(self.starts_from.items())},
        }  # fmt: skip
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:16]

    def describe(self) -> str:
        """Method, configuration where it is one, epochs and seed, in words."""
        one = f" {self.configurations[0]}" if self.method.each else ""
        return f"{self.method.name}{one}, {self.epochs} epochs, seed {self.seed}"

    def command(self, folders: Path, data: Path | None) -> list[str]:
        """Words after `mutual3d`. folders: where every run has a folder, named after its key."""
        places = {FROM % name: str(folders / run.key) for name, run in self.starts_from.items()} | {SEED: str(self.seed)}
        values: dict[str, Any] = {"SOLVER.MAX_EPOCH": self.epochs, "RNG_SEED": self.seed, "OUTPUT_DIR": folders / self.key}
        if data is not None:
            places[DATA] = str(data)
            values["DATA.PATH_TO_DATA_DIR"] = data
        values |= self.changes
        words = ["run", "--cfg", self.method.config]
        for name, value in values.items():
            text = str(value)
            for place, folder in places.items():
                text = text.replace(place, folder)
            words += [name, text]
        return words


@functools.cache
def _settings(config: str) -> dict[str, str]:
    """{key: value as text} of a config and what it builds on, but for where it writes."""
    return {name: str(value) for name, value in read_settings(find_config(config)) if name != "OUTPUT_DIR"}


def alone(configuration: Configuration, largest: Configuration) -> dict[str, Any]:
    """Changes that train one configuration by itself, in as many steps and on the same clips, which are cut at the largest size and
    shrunk, as they are for the sub-networks of one network. Its norms are calibrated as theirs are."""
    return {
        "MUTUAL.WIDTH_RANGE": [configuration.width, configuration.width],
        "MUTUAL.SPATIAL_SIZES": sorted({configuration.spatial, largest.spatial}),
        "MUTUAL.TEMPORAL_SIZES": sorted({configuration.temporal, largest.temporal}),
        "MUTUAL.SUBNETS": ["smallest"], "MUTUAL.LARGEST": False, "MUTUAL.OBJECTIVE": "labels", "MUTUAL.SUBNETS_START_EPOCH": 0.0,
    }  # fmt: skip


def runs_of(plan: Plan, seeds: tuple[int, ...] | None = None) -> Iterator[Run]:
    """All runs, in the order in which they are of most use: a whole seed after another, short trainings first."""
    for seed in seeds or plan.seeds:
        for epochs in sorted({length for method in plan.methods.values() for length in method.epochs or plan.epochs}):
            for method in plan.methods.values():
                if epochs in (method.epochs or plan.epochs):
                    yield from _runs_of_method(plan, method, epochs, seed)


def _runs_of_method(plan: Plan, method: Method, epochs: int, seed: int) -> Iterator[Run]:
    for configurations in [(each,) for each in method.configurations] if method.each else [method.configurations]:
        largest = max(method.configurations, key=lambda configuration: (configuration.spatial, configuration.temporal, configuration.width))
        own = alone(configurations[0], largest) if method.each else {}
        changes = {**(plan.shared if method.data is None else {}), **own, **method.changes}
        starts_from = {}
        for other in plan.methods.values():
            if any((FROM % other.name) in str(value) for value in changes.values()):
                length = other.epochs[-1] if other.epochs else epochs
                (starts_from[other.name],) = _runs_of_method(plan, other, length, seed)
        yield Run(plan.name, method, method.data or plan.data, epochs, seed, configurations, changes, starts_from)


def read_plan(path: Path) -> Plan:
    """The plan of a YAML file; ValueError, which names the file, for what cannot be one.

    `like: NAME` takes all but what is told and compared, title, question, paper and methods, from the plan of that name beside it.
    """
    try:
        return _plan_of(path.stem, _given(path))
    except (ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: not a plan: {error}") from error


def _given(path: Path) -> dict[str, Any]:
    given = yaml.safe_load(path.read_text(encoding="utf-8"))
    other = given.pop("like", None)
    if other is None:
        return given
    if not (path.parent / f"{other}.yaml").is_file():
        raise ValueError(f"like {other!r}: there is no such plan beside it")
    shared = {name: value for name, value in _given(path.parent / f"{other}.yaml").items() if name not in ("title", "question", "paper", "methods")}
    return {**shared, **given}


def _plan_of(name: str, given: dict[str, Any]) -> Plan:
    methods, config, everywhere = given.pop("methods"), given.pop("config"), _configurations(given.pop("configurations"))
    made = {}
    for method, values in methods.items():
        values = dict(values or {})
        own = _configurations(values.pop("configurations", [])) or everywhere
        made[method] = Method(
            name=method, config=values.pop("config", config), configurations=own, epochs=tuple(values.pop("epochs", ())), **values
        )
    reference = given.get("reference")
    if reference is not None and reference not in made:
        raise ValueError(f"reference {reference!r} is none of the methods {', '.join(made)}")
    return Plan(name=name, methods=made, epochs=tuple(given.pop("epochs")), seeds=tuple(given.pop("seeds")), **given)


def _configurations(texts: list[str]) -> tuple[Configuration, ...]:
    return tuple(Configuration.parse(text) for text in texts)
