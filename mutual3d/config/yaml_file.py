"""Reading a YAML file of settings, and those that it builds on: every mistake is a sentence that names the file."""

import itertools
from collections.abc import Iterator
from pathlib import Path

import yaml

_BASE = "_BASE_"


def read_settings(path: str | Path) -> list[tuple[str, object]]:
    """(full key, value) of a YAML file, after those of the file or files that its `_BASE_` names, relative to its own folder.

    FileNotFoundError for a missing file; ValueError, which names the file, for anything else.
    """
    return _read(Path(path), readers=())


def _read(path: Path, readers: tuple[Path, ...]) -> list[tuple[str, object]]:
    if not path.is_file():
        asked = f", which '{readers[-1]}' names as its {_BASE}" if readers else ""
        raise FileNotFoundError(f"there is no config '{path}'{asked}: give --cfg the path of a YAML file")
    if path.resolve() in [reader.resolve() for reader in readers]:
        raise ValueError(f"'{path}' is its own {_BASE}, by way of {', '.join(f'{str(reader)!r}' for reader in readers)}")
    content = _parse(path)
    bases = content.pop(_BASE, [])
    bases = bases if isinstance(bases, list) else [bases]
    if not all(isinstance(base, str) and base for base in bases):
        raise _no_config(path, f"{_BASE} is {', '.join(map(repr, bases))}, and must be the path of another YAML file, or a list")
    before = [_read(path.parent / Path(base).expanduser(), (*readers, path)) for base in bases]
    return [*itertools.chain.from_iterable(before), *flatten(content)]


def _parse(path: Path) -> dict:
    try:
        content = yaml.load(path.read_bytes().decode("utf-8-sig"), _Loader)
    except UnicodeDecodeError as error:
        raise _no_config(path, f"byte {error.start} is not UTF-8; save it as UTF-8") from error
    except yaml.YAMLError as error:
        raise _no_config(path, str(error)) from error
    except RecursionError:
        raise _no_config(path, "it is nested too deeply") from None
    except (ValueError, OverflowError) as error:
        raise _no_config(path, str(error)) from error
    if not isinstance(content, dict):
        raise _no_config(path, "it is empty" if content is None else f"it holds {type(content).__name__} alone")
    return content


def _no_config(path: Path, why: str) -> ValueError:
    return ValueError(f"'{path}' is not a config, a YAML file of KEY: VALUE groups: {why}")


class _Loader(yaml.SafeLoader):
    """Plain values alone, each key of a group once, and nothing that refers to a group elsewhere in the file."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        event = self.peek_event()
        node = super().compose_node(parent, index)
        # A group that holds itself has no end, and a few lines of groups of groups have billions of values.
        if isinstance(event, yaml.AliasEvent) and node is not None and not _is_plain(node):
            assert event.start_mark is not None, "a file that is parsed has lines"
            raise yaml.YAMLError(f"line {event.start_mark.line + 1}: *{event.anchor} stands for a group; write it out")
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict:
        lines = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.YAMLError(f"line {key.start_mark.line + 1}: a key must be a word")
            if key.value in lines:
                raise yaml.YAMLError(
                    f"{key.value} stands in lines {lines[key.value]} and {key.start_mark.line + 1}: join them, or the first "
                    "would be dropped"
                )
            lines[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep)


def _is_plain(node: yaml.Node) -> bool:
    """Whether a node is a value, or a list of values."""
    parts = node.value if isinstance(node, yaml.SequenceNode) else [node]
    return all(isinstance(part, yaml.ScalarNode) for part in parts)


def flatten(node: dict, prefix: str = "") -> Iterator[tuple[str, object]]:
    """(full key, value) for every leaf of a nested dict `node`, whose own name is `prefix`."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
