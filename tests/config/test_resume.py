"""A resumed run tells, or refuses, every setting that is not the checkpoint's: key by key, from the declarations."""

import pytest

from mutual3d.config import IS_REFUSED, IS_TOLD, KEYS, TAKES_EFFECT, changed_settings, get_cfg
from mutual3d.config.legal import AnyOf, Each, Empty, Flag, Integer, Number, Only, Text

# What must be refused, whatever the table says: the result would be neither run's.
NEVER_HALF_WAY = (
    "RNG_SEED", "DATA.SAMPLING_RATE", "DATA.NUM_FRAMES", "DATA.TARGET_FPS", "DATA.MEAN", "DATA.STD", "DATA.RANDOM_FLIP",
    "DATA.TRAIN_JITTER_SCALES", "DATA.TRAIN_CROP_SIZE", "TRAIN.BATCH_SIZE", "TRAIN.ACCUMULATION_STEPS", "TRAIN.DATASET",
    "MODEL.DROPOUT_RATE", "MODEL.MODEL_NAME", "MODEL.NUM_CLASSES", "MODEL.LOSS_FUNC", "X3D.WIDTH_FACTOR", "RESNET.DEPTH",
    "SLOWFAST.ALPHA", "MUTUAL.ENABLE", "MUTUAL.SUBNETS", "MUTUAL.OBJECTIVE", "MUTUAL.BATCHNORM", "MUTUAL.WIDTH_RANGE",
    "MUTUAL.SPATIAL_SIZES", "MUTUAL.TEMPORAL_SIZES", "MUTUAL.LARGEST", "MUTUAL.TEMPORAL_ADAPTERS", "SOLVER.ZERO_WD_1D_PARAM", "AVA.FPS",
)  # fmt: skip
IN_EFFECT = (
    "SOLVER.WEIGHT_DECAY", "SOLVER.NESTEROV", "SOLVER.MOMENTUM", "SOLVER.DAMPENING", "SOLVER.BASE_LR", "SOLVER.MAX_EPOCH",
    "SOLVER.LR_POLICY", "BN.WEIGHT_DECAY", "OUTPUT_DIR", "DATA_LOADER.NUM_WORKERS", "NUM_GPUS", "LOG_PERIOD",
    "TEST.BATCH_SIZE", "GRID.WIDTH_STEP",
)  # fmt: skip


def another(key):
    """A legal value that is not the default; None where there is none."""
    legal, default = key.legal, key.default
    candidates = {
        Flag: lambda: [not default],
        Only: lambda: legal.values,
        Integer: lambda: [legal.low, legal.high],
        Number: lambda: [legal.high / 2, legal.high / 3],
        Text: lambda: ["cuda", "another"],
        Each: lambda: [[*default[:-1], 1.5], [*default, *default[-1:]], default[1:], [*default, "x"], [9], [0.3] * 3, [9, 99]],
        AnyOf: lambda: [[0.5, 1.0]],
        Empty: list,
    }
    make = next(make for kind, make in candidates.items() if isinstance(legal, kind))
    values = [value for value in make() if value != default and legal.accepts(value)]
    if isinstance(default, list) and not values and isinstance(default[0], list):
        values = [[[2], *default[1:]]]
    return values[0] if values else None


@pytest.mark.parametrize("name", KEYS)
def test_every_key_that_changes_is_in_the_list_of_its_kind_with_both_values(name):
    key, value = KEYS[name], another(KEYS[name])
    if value is None:
        assert isinstance(key.legal, (Only, Empty, Each)), "it has another legal value: this test must find it"
        return
    before, after = get_cfg(), get_cfg()
    # Groups that are switched off are not read.
    for cfg in (before, after):
        for group in cfg.values():
            if isinstance(group, dict) and "ENABLE" in group:
                group.ENABLE = True
    *path, own = name.split(".")
    node = after
    for group in path:
        node = node[group]
    node[own] = (not key.default) if own == "ENABLE" else value
    if own == "ENABLE":
        (before[path[0]])[own] = key.default
    changes = changed_settings(before.dump(), after)
    kinds = dict(zip((TAKES_EFFECT, IS_TOLD, IS_REFUSED), changes))
    assert [told.split(" ")[0] for told in kinds.pop(key.resume)] == [name]
    assert not any(kinds.values())
    assert f"{key.default!r} -> " in str(changes[(TAKES_EFFECT, IS_TOLD, IS_REFUSED).index(key.resume)][0])


@pytest.mark.parametrize("name", NEVER_HALF_WAY)
def test_what_makes_another_run_is_refused(name):
    assert KEYS[name].resume is IS_REFUSED


@pytest.mark.parametrize("name", IN_EFFECT)
def test_what_may_change_takes_effect(name):
    assert KEYS[name].resume is TAKES_EFFECT


def test_the_same_settings_are_no_change():
    assert changed_settings(get_cfg().dump(), get_cfg()) == ([], [], [])


def test_a_key_that_a_checkpoint_lacks_had_its_default():
    cfg = get_cfg()
    assert changed_settings("RNG_SEED: 1\n", cfg) == ([], [], [])
    cfg.DATA.SAMPLING_RATE = 4
    assert changed_settings("RNG_SEED: 1\nGONE: {KEY: 3}\n", cfg).are_refused == ["DATA.SAMPLING_RATE 8 -> 4"]


def test_what_nobody_reads_may_change():
    cfg = get_cfg()
    cfg.MUTUAL.SUBNETS = ["random"]
    assert changed_settings(get_cfg().dump(), cfg) == ([], [], [])
    cfg.MUTUAL.ENABLE = True
    assert [text.split(" ")[0] for text in changed_settings(get_cfg().dump(), cfg).are_refused] == [
        "MUTUAL.ENABLE", "MUTUAL.SUBNETS",
    ]  # fmt: skip


@pytest.mark.parametrize("text", ["- 1", "a: [", "3", "[" * 5000])
def test_settings_that_cannot_be_read_are_said(text):
    with pytest.raises(ValueError, match="the settings in it cannot be read"):
        changed_settings(text, get_cfg())
