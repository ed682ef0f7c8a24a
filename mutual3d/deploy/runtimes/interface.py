"""What a runtime is asked for, what it is given, and the registry of all of them."""

import importlib
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import ClassVar, TypeVar

import torch
import torch.nn as nn

from mutual3d.utils.words import unknown_word

# What a score may differ by from PyTorch's where the numbers in between are rounded to levels, of 8 bits or fewer: it moves by some hundredths.
TOLERANCE_OF_LEVELS = 0.2


@dataclass(frozen=True)
class TensorSpec:
    """An input or the output of a network. shape: None where any number may stand (the batch, the number of boxes)."""

    name: str
    dtype: torch.dtype
    shape: tuple[int | None, ...]


@dataclass(frozen=True)
class ExtractedNetwork:
    """One configuration as a plain module, for a runtime to compile.

    module: in evaluation mode, called with the inputs in a row; gives one tensor. What is inside it is its maker's affair: a
    runtime takes inputs of any type and number, and does not know whether pixels or normalised clips go in. It is the
    runtime's to change.
    examples: {input: tensor}, of a batch above 1, with which the module can be called, on its device. Every size but the
    first is fixed.
    output: the output's name.
    metadata: {name: JSON text} that a file of the network carries.
    clips: of the user's, each as the first input takes them, for a runtime that `needs_clips`.
    """

    module: nn.Module
    examples: Mapping[str, torch.Tensor]
    output: str = "scores"
    metadata: Mapping[str, str] = field(default_factory=dict)
    clips: tuple[torch.Tensor, ...] = ()

    @property
    def inputs(self) -> tuple[TensorSpec, ...]:
        return tuple(TensorSpec(name, x.dtype, (None, *x.shape[1:])) for name, x in self.examples.items())


@dataclass(frozen=True)
class CompiledNetwork:
    """A network that a runtime has made ready: called with the tensors of `inputs`, in their order, it gives `output`.

    run: the runtime's function of these tensors. It may be called from any number of threads at once, and takes tensors
    on any device and in any memory format; what it returns is its caller's own.
    """

    inputs: tuple[TensorSpec, ...]
    output: TensorSpec
    run: Callable[[Sequence[torch.Tensor]], torch.Tensor]

    def __call__(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.run(inputs)


class Runtime:
    """Something that runs extracted configurations. It holds nothing of them: one object serves all models.

    A subclass gives `name`, `title`, and `compile`, or `save` and `load`, of which `compile` is made.

    name: the word that chooses it, which is also part of the key of latencies that are measured in it.
    title: what people call it.
    packages: what must be importable; extra: the extra of this project that installs them, "" where none does.
    format: the word by which `mutual3d export` writes its files, "" where it has none; suffixes: of these files, the first
    being the one that is opened.
    fixes_sizes: a compiled network takes clips of the examples' own sides and frames alone.
    precision: what it computes in, which is part of the key of latencies: fp32 is PyTorch's own here.
    tolerance: the largest difference of a score from PyTorch's with which a network is used.
    is_automatic: `auto` may choose it: it compiles in seconds, and its scores are PyTorch's to 1e-4.
    needs_clips: it compiles by clips of the user's.
    example: Python for the program that is written beside a file, whose `path` it has, with the last of `packages` imported:
    what loads the file and sets `facts` to its metadata; and what sets `scores` to the first row of what INPUTS (a list of
    arrays) give.
    """

    name: ClassVar[str] = ""
    title: ClassVar[str] = ""
    packages: ClassVar[tuple[str, ...]] = ()
    extra: ClassVar[str] = ""
    format: ClassVar[str] = ""
    suffixes: ClassVar[tuple[str, ...]] = ()
    fixes_sizes: ClassVar[bool] = True
    precision: ClassVar[str] = "fp32"
    tolerance: ClassVar[float] = 1e-4
    is_automatic: ClassVar[bool] = True
    needs_clips: ClassVar[bool] = False
    example: ClassVar[tuple[str, str] | tuple[()]] = ()

    def compile(self, network: ExtractedNetwork) -> CompiledNetwork:
        """The network made ready for this machine, on as many threads as PyTorch uses now."""
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / f"network{self.suffixes[0]}"
            self.save(network, path)
            return self.load(path)

    def save(self, network: ExtractedNetwork, path: Path) -> None:
        """Compile to `path`, which ends in the first of `suffixes`, and to files beside it that end in the others."""
        raise NotImplementedError(f"the runtime {self.name} keeps no files")

    def load(self, path: Path) -> CompiledNetwork:
        """What `save` wrote, made ready for this machine, on as many threads as PyTorch uses now."""
        raise NotImplementedError(f"the runtime {self.name} keeps no files")

    def placement(self, weights: torch.Tensor) -> tuple[torch.device, torch.dtype]:
        """Where this runtime wants the module of a model with these `weights`, and the floats that it computes in."""
        return torch.device("cpu"), torch.float32

    @property
    def is_installed(self) -> bool:
        """Whether the packages are there; none is imported."""
        return all(map(_is_there, self.packages))

    def version(self) -> str:
        """What of the installed packages decides the compiled network, for a fingerprint: `onnx 1.17.0, ..., torch 2.9.0`."""
        return ", ".join(f"{package} {package_version(package)}" for package in (*self.packages, "torch"))

    def require(self) -> None:
        """Import the packages. Raises ImportError, which names the package and the extra, where one is missing."""
        for package in self.packages:
            self.package(package)

    def package(self, name: str) -> ModuleType:
        """One of the packages, imported; see `require`."""
        try:
            return importlib.import_module(name)
        except ImportError as error:
            fix = f": pip install -e .[{self.extra}]" if self.extra else ", which has to be installed"
            raise ImportError(f"the runtime {self.name} needs the package '{name}' ({error}){fix}") from error


def _is_there(package: str) -> bool:
    try:
        return find_spec(package) is not None
    except ValueError:  # a module that was put into sys.modules by hand
        return False


def package_version(package: str) -> str:
    """Of an installed package, in words where it is not known."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "of unknown version"


RUNTIMES: dict[str, Runtime] = {}
_Class = TypeVar("_Class", bound=type[Runtime])


def register_runtime(runtime: _Class) -> _Class:
    """Class decorator: `mutual3d.load(path, runtime=NAME)` knows the runtime from now on, by its `name`.

    Raises ValueError for a name that is taken, or that cannot be part of a latency's key, and for a class that lacks what it
    has to give.
    """
    if not runtime.name.isidentifier():
        raise ValueError(f"{runtime.__name__} has the name {runtime.name!r}: give letters, digits and underscores")
    if runtime.name in RUNTIMES:
        raise ValueError(f"there is a runtime '{runtime.name}' already: {type(RUNTIMES[runtime.name]).__name__}")
    if runtime.compile is Runtime.compile and not (runtime.suffixes and runtime.load is not Runtime.load):
        raise ValueError(f"{runtime.__name__} cannot compile: give it `compile`, or `suffixes`, `save` and `load`")
    RUNTIMES[runtime.name] = runtime()
    return runtime


def find_runtime(name: str) -> Runtime:
    """The runtime of that name, its packages imported.

    Raises ValueError, which lists the legal names, for another word; ImportError where it is not installed.
    """
    problem = unknown_word("runtime", name, RUNTIMES)
    if problem:
        raise ValueError(problem)
    RUNTIMES[name].require()
    return RUNTIMES[name]
