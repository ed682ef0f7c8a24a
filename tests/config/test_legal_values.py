"""Every key, given values of a wrong type, sign, unit and size, not finite and huge, through YAML and as an override: all
refused, each time with the key, the value and what is legal."""

import random

import pytest
import yaml

from mutual3d.config import KEYS, ConfigError, get_cfg, load_config
from mutual3d.config.check import find_problems
from mutual3d.config.legal import AnyOf, Each, Empty, Flag, Integer, Legal, Number, Only, Registered, Text

NAN, INF = float("nan"), float("inf")
SEED = 20261125


def wrong_numbers(legal, generator):
    """Of a wrong type, sign, unit and size for a number; nothing here asks the table but for its ends."""
    low, high = legal.low, legal.high
    beyond = [high + 1, high * generator.uniform(1.01, 1e6) + 1, 1e30, 10**30, 10**400, INF, -INF, NAN, "nan", ".inf"]
    under = [low - 1, -high - 1, -generator.uniform(1, 1e9) - abs(low), -(10**30)]
    types = ["many", "", True, False, [low], {"a": 1}, None, "1_0x"]
    shares = [50, 100, 1.5] if high == 1 else []
    ends = [low] if getattr(legal, "above", False) else []
    ends += [high] if getattr(legal, "below", False) else []
    halves = [low + 0.5, "1.5"] if isinstance(legal, Integer) else []
    # PySlowFast's None stands for 0.0 where that is the default.
    return beyond + under + types + shares + ends + halves


def wrong_values(legal: Legal, generator) -> list:
    if isinstance(legal, (Integer, Number)):
        return wrong_numbers(legal, generator)
    if isinstance(legal, Flag):
        return [0, 1, 0.5, NAN, "yes please", None, [True], 10**30]
    if isinstance(legal, Only):
        swapped = [value.upper() if isinstance(value, str) and not value.isupper() else value for value in legal.values]
        return [f"no_{generator.random()}", NAN, INF, None, [legal.values[0]], {"a": 1}, 10**30, -1, *swapped[:0]]
    if isinstance(legal, Text):
        words = ["", "no such device", "cuda:", "cuda:99999999999999999999"] if legal.pattern else []
        empty = [] if legal.empty else [""]
        return [[1], {"a": 1}, None, True, "a\0b", "x" * 5000, *words, *empty]
    if isinstance(legal, Empty):
        return [[[1]], 1, None, "words here", NAN]
    if isinstance(legal, AnyOf):
        return [value for value in wrong_values(legal.kinds[-1], generator) if value != []]
    assert isinstance(legal, Each)
    return wrong_lists(legal, generator)


def wrong_lists(legal, generator):
    count = max(legal.shortest, 1)
    parts = [part for part in wrong_values(legal.element, generator) if not (isinstance(part, str) and "\0" in part)]
    filled = [[part] * count for part in parts]
    sizes = [[legal.element.low] * (legal.longest + 1)] if isinstance(legal.element, (Integer, Number)) else []
    sizes += [[]] if legal.shortest else []
    return [*filled, *sizes, 1, NAN, None, True, {"a": 1}, "words here", [[[]]] if not legal.shortest else [[[[]]]]]


def cases():
    for name, key in KEYS.items():
        for value in wrong_values(key.legal, random.Random(f"{SEED} {name}")):
            # None is PySlowFast's 0.0; a registered word's neighbours refuse what is only another word.
            if value is None and key.default == 0.0 and isinstance(key.default, float):
                continue
            yield name, value


ALL = list(cases())


def test_there_is_something_wrong_for_every_key():
    assert {name for name, _ in ALL} == set(KEYS) and len(ALL) > 2000


def refusal(name, value, make):
    """The message about `name`, where `make(name, value)` gives a config that is merged and checked."""
    with pytest.raises(ConfigError) as told:
        cfg = get_cfg()
        make(cfg, name, value)
        problems = find_problems(cfg)
        if problems:
            raise ConfigError(problems)
    own = [problem for problem in told.value.problems if name in problem.keys]
    assert own, f"{name} {value!r}: {told.value}"
    return own[0].text


def as_python(cfg, name, value):
    *path, own = name.split(".")
    for group in path:
        cfg = cfg[group]
    cfg[own] = value


def merged(cfg, name, value):
    cfg.merge_from_other_cfg({name: value})


@pytest.mark.parametrize("name", KEYS)
def test_wrong_values_are_refused_each_with_key_value_and_what_is_legal(name):
    for value in (value for own, value in ALL if own == name):
        as_text = f"{name}={str(value)[:80]!r}"
        if not isinstance(value, dict):
            said = refusal(name, value, as_python)
            assert said.startswith(name) and ("must be" in said or "supports" in said), as_text
        said = refusal(name, value, merged) if value != {"a": 1} else ""
        assert not said or said.startswith(name) and ("must be" in said or "supports" in said or "cannot be" in said), as_text
        assert len(said) < 1200, as_text


@pytest.mark.parametrize("name", KEYS)
def test_yaml_gives_the_same_refusals(name, tmp_path):
    path = tmp_path / "run.yaml"
    values = [value for own, value in ALL if own == name and not (isinstance(value, int) and abs(value) > 10**300)]
    for value in random.Random(SEED).sample(values, min(6, len(values))):
        nested = value
        for part in reversed(name.split(".")):
            nested = {part: nested}
        path.write_text(yaml.safe_dump(nested, allow_unicode=True))
        with pytest.raises(ConfigError) as told:
            load_config(path)
        assert any(problem.keys[0].startswith(name) for problem in told.value.problems), (name, value)


@pytest.mark.parametrize("name", KEYS)
def test_the_ends_of_a_range_are_legal(name):
    legal = KEYS[name].legal
    ends = []
    if isinstance(legal, Number):
        ends = [*([] if legal.above else [legal.low]), *([] if legal.below else [legal.high]), (legal.low + legal.high) / 2]
    elif isinstance(legal, Integer):
        ends = [legal.low, legal.high]
    elif isinstance(legal, Only):
        ends = legal.values
    assert all(legal.accepts(end) for end in ends)
    assert isinstance(legal, (Registered, Text, Each, AnyOf, Empty, Flag)) or ends


@pytest.mark.parametrize(
    "key, value",
    [
        ("DATA_LOADER.MAX_UNREADABLE_TRAIN", "50"),
        ("DATA_LOADER.MAX_UNREADABLE_TRAIN", "-1"),
        ("DATA_LOADER.MAX_UNREADABLE_TRAIN", "nan"),
        ("DATA_LOADER.MAX_UNREADABLE_TEST", "inf"),
        ("SOLVER.CLIP_GRAD_L2NORM", "-1"),
        ("SOLVER.CLIP_GRAD_VAL", "-1"),
        ("SOLVER.MOMENTUM", "5"),
        ("SOLVER.WEIGHT_DECAY", "-1"),
        ("SOLVER.WARMUP_EPOCHS", "-3"),
        ("SOLVER.BASE_LR", "-1"),
        ("SOLVER.BASE_LR", "nan"),
        ("DATA.STD", "[-1, 1, 1]"),
        ("DATA.STD", "[0.2, 0.2]"),
        ("DATA.STD", "[0, 0, 0]"),
        ("DATA.STD", "[58.4, 57.1, 57.4]"),
        ("DATA.MEAN", "[0.45]"),
        ("DATA.MEAN", "[a, b, c]"),
        ("DATA.MEAN", "[123.7, 116.3, 103.5]"),
        ("DATA.TEST_CROP_SIZE", "7"),
        ("DATA.TRAIN_JITTER_SCALES", "[a, b]"),
        ("MUTUAL.SPATIAL_SIZES", "[a, 48]"),
        ("MUTUAL.SPATIAL_SIZES", "[[32], 48]"),
        ("MUTUAL.WIDTH_RANGE", "[a, b]"),
        ("MUTUAL.WIDTH_RANGE", "[0.5, .inf]"),
        ("MODEL.FC_INIT_STD", "-1"),
        ("MODEL.DROPOUT_RATE", "nan"),
        ("GRID.LATENCY_DEVICES", "['cuda:99999999999999999999']"),
        ("GRID.WIDTH_STEP", "1e-9"),
        ("GRID.WIDTH_STEP", "inf"),
        ("GRID.WIDTH_STEP", ".nan"),
        ("X3D.DEPTH_FACTOR", "-1"),
        ("X3D.WIDTH_FACTOR", "0"),
        ("X3D.DIM_C5", "0"),
        ("X3D.DIM_C5", "-4"),
        ("PARTIAL_SAVE_SECONDS", ".nan"),
        ("PARTIAL_SAVE_SECONDS", "-5"),
        ("RNG_SEED", "99999999999999999999"),
        ("OUTPUT_DIR", ""),
        ("DATA_LOADER.NUM_WORKERS", "-1"),
        ("DATA.PATH_LABEL_SEPARATOR", ""),
        ("NUM_GPUS", "-1"),
    ],
)
def test_values_that_have_trained_or_crashed(key, value):
    with pytest.raises(ConfigError) as told:
        load_config(None, [key, value])
    text = str(told.value)
    assert text.startswith(f"{key} is ") and "must be" in text and "\n" not in text and "Traceback" not in text


def test_a_share_says_that_it_is_no_percentage():
    with pytest.raises(ConfigError, match=r"MAX_UNREADABLE_TRAIN is 50.0: it must be 0 or more and at most 1, a share \(0.5 is 50 %\)"):
        load_config(None, ["DATA_LOADER.MAX_UNREADABLE_TRAIN", "50"])


@pytest.mark.parametrize("words", [("SOLVER.MOMENTUM", "0"), ("SOLVER.DAMPENING", "0.1")])
def test_nesterov_needs_a_momentum_and_no_dampening(words):
    with pytest.raises(ConfigError, match="SOLVER.NESTEROV is True with SOLVER.MOMENTUM .*or set it False"):
        load_config(None, words)
    load_config(None, [*words, "SOLVER.NESTEROV", "False"])


def test_warm_up_ends_before_the_training():
    with pytest.raises(ConfigError, match="SOLVER.WARMUP_EPOCHS is 400: it must be at most SOLVER.MAX_EPOCH, which is 300"):
        load_config(None, ["SOLVER.WARMUP_EPOCHS", "400"])


@pytest.mark.parametrize("crop", ["64", "2000"])
def test_a_test_view_is_about_as_large_as_a_training_clip(crop):
    with pytest.raises(ConfigError, match=f"DATA.TEST_CROP_SIZE is {crop}: it must be between a half of DATA.TRAIN_CROP_SIZE"):
        load_config(None, ["DATA.TEST_CROP_SIZE", crop])
