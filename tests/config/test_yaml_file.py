"""A YAML file that cannot be read as settings is named, with the line and the fix, in one sentence."""

import pytest

from mutual3d.config import ConfigError, load_config


@pytest.fixture
def read(tmp_path):
    """Load a file of the given content, text or bytes."""

    def read(content, name="run.yaml"):
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return load_config(tmp_path / name)

    return read


@pytest.mark.parametrize(
    "content, message",
    [
        (b"OUTPUT_DIR: caf\xe9\n", "byte 15 is not UTF-8"),
        ("[" * 3000 + "]" * 3000, "nested too deeply"),
        ("A: {" * 3000 + "}" * 3000, "nested too deeply"),
        ("", "it is empty"),
        ("# nothing\n", "it is empty"),
        ("just words", "it holds str alone"),
        ("- 1\n- 2\n", "it holds list alone"),
        ("_BASE_: 5\n", "_BASE_ is 5, and must be the path"),
        ("_BASE_: ''\n", "_BASE_ is '', and must be the path"),
        ("? [1, 2]\n: 3\n", "line 1: a key must be a word"),
        ("TRAIN: &t\n  MORE: *t\n", r"line 2: \*t stands for a group"),
        ("A: &a {X: 1}\nB: {Y: *a}\n", r"line 2: \*a stands for a group"),
        ("A: &a [1, 2]\nB: &b [*a, *a]\nC: [*b, *b]\n", r"line 3: \*b stands for a group"),
        ("RNG_SEED: !!python/object/apply:os.system ['true']\n", "python/object/apply"),
        ("OUTPUT_DIR: 2024-99-99\n", "month must be in 1..12"),
    ],
)
def test_a_file_that_is_no_config(read, content, message):
    with pytest.raises(ValueError, match=f"run.yaml' is not a config, a YAML file of KEY: VALUE groups: (.|\n)*{message}") as told:
        read(content)
    assert "Recursion" not in str(told.value)


@pytest.mark.parametrize(
    "content, key, lines",
    [
        ("TRAIN:\n  BATCH_SIZE: 8\nTEST: {ENABLE: False}\nTRAIN:\n  ENABLE: False\n", "TRAIN", (1, 4)),
        ("SOLVER:\n  BASE_LR: 1.0\n  BASE_LR: 0.1\n", "BASE_LR", (2, 3)),
        ("RNG_SEED: 1\n'RNG_SEED': 2\n", "RNG_SEED", (1, 2)),
    ],
)
def test_a_group_or_key_that_stands_twice_is_refused_with_both_lines(read, content, key, lines):
    with pytest.raises(ValueError, match=f"run.yaml' .*{key} stands in lines {lines[0]} and {lines[1]}: join them"):
        read(content)


def test_aliases_of_values_are_read(read):
    cfg = read("DATA: {MEAN: &m [0.5, 0.5, 0.5], STD: *m, TRAIN_CROP_SIZE: &s 160, TEST_CROP_SIZE: *s}\n")
    assert (cfg.DATA.STD, cfg.DATA.TEST_CROP_SIZE) == ([0.5, 0.5, 0.5], 160)


def test_a_byte_order_mark_is_no_mistake(read):
    assert read(b"\xef\xbb\xbfRNG_SEED: 7\n").RNG_SEED == 7


def test_files_that_build_on_themselves(read, tmp_path):
    with pytest.raises(ValueError, match="run.yaml' is its own _BASE_, by way of '.*run.yaml'"):
        read("_BASE_: run.yaml\n")
    (tmp_path / "other.yaml").write_text("_BASE_: run.yaml\n")
    with pytest.raises(ValueError, match="run.yaml' is its own _BASE_, by way of '.*run.yaml', '.*other.yaml'"):
        read("_BASE_: other.yaml\n")


def test_a_missing_base_is_named_with_its_reader(read):
    with pytest.raises(FileNotFoundError, match="no config '.*nope.yaml', which '.*run.yaml' names as its _BASE_"):
        read("_BASE_: nope.yaml\n")


def test_several_bases_are_read_in_their_order(read, tmp_path):
    (tmp_path / "a.yaml").write_text("RNG_SEED: 1\nLOG_PERIOD: 5\n")
    (tmp_path / "b.yaml").write_text("RNG_SEED: 2\n")
    cfg = read("_BASE_: [a.yaml, b.yaml]\nTRAIN: {BATCH_SIZE: 4}\n")
    assert (cfg.RNG_SEED, cfg.LOG_PERIOD, cfg.TRAIN.BATCH_SIZE) == (2, 5, 4)


def test_all_mistakes_of_file_and_overrides_are_told_at_once(tmp_path):
    path = tmp_path / "run.yaml"
    path.write_text("TRAIN: {BATCHSIZE: 8, ENABLE: 1}\nSOLVER: {MOMENTUM: 5, BASE_LR: .nan}\nDEMO: {ENABLE: True}\n")
    with pytest.raises(ConfigError) as told:
        load_config(path, ["DATA.STD", "[0, 1, 1]", "TRAIN.ACCUMULATION_STEPS", "3", "LOG_PERIODS", "3"])
    keys = {key for problem in told.value.problems for key in problem.keys}
    assert keys == {
        "TRAIN.BATCHSIZE", "TRAIN.ENABLE", "SOLVER.MOMENTUM", "SOLVER.BASE_LR", "DEMO.ENABLE", "DATA.STD", "LOG_PERIODS",
        "TRAIN.BATCH_SIZE", "TRAIN.ACCUMULATION_STEPS",
    }  # fmt: skip
    assert str(told.value).startswith("8 mistakes in the config:\n  - ") and str(told.value).count("\n  - ") == 8
