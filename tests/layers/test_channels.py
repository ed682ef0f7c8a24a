import pytest
import torch

from mutual3d.layers import (
    ExpandedChannels,
    FixedChannels,
    JoinedChannels,
    OwnChannels,
    OwnWidths,
    ScaledChannels,
    SqueezedChannels,
    make_divisible,
)

WIDTHS = [i / 200 for i in range(10, 201)]
BASES = [3, 8, 12, 20, 24, 48, 54, 64, 96, 100, 192, 256, 432, 2048]


def all_rules():
    scaled = [ScaledChannels(base, divisor) for base in BASES for divisor in (1, 4, 8, 16)]
    expanded = [ExpandedChannels(rule, ratio) for rule in scaled for ratio in (2.25, 0.25)]
    squeezed = [SqueezedChannels(rule, 1 / 16) for rule in expanded]
    joined = [JoinedChannels(rule, tail) for rule in scaled for tail in (1, 16)]
    fixed = [FixedChannels(3)]
    own = [OwnChannels(rule, 1) for rule in expanded]
    return {"own": own, "scaled": scaled, "expanded": expanded, "squeezed": squeezed, "joined": joined, "fixed": fixed}


@pytest.mark.parametrize("kind", all_rules())
def test_counts_rise_with_width_and_never_exceed_the_layer(kind):
    for rule in all_rules()[kind]:
        counts = [rule.at(width) for width in WIDTHS]
        assert counts == sorted(counts), rule
        assert counts[-1] == rule.full, rule


@pytest.mark.parametrize("divisor", [1, 4, 8, 16])
@pytest.mark.parametrize("base", BASES)
def test_full_width_is_the_base(base, divisor):
    rule = ScaledChannels(base, divisor)
    assert rule.at(1.0) == rule.full == base
    assert rule.at(0.01) >= 1


@pytest.mark.parametrize("base", [3, 12, 54])
def test_rounding_up_stops_at_the_layer(base):
    # make_divisible alone would give more channels than the layer has: 8, 16 and 56.
    assert make_divisible(base, 8) > base
    rule = ScaledChannels(base, 8)
    assert max(rule.at(width) for width in WIDTHS) == base


def test_scaled_counts_are_multiples_of_the_divisor_within_a_tenth():
    rule = ScaledChannels(192, 8)
    for width in WIDTHS[:-1]:
        count = rule.at(width)
        assert count % 8 == 0
        assert count >= 0.9 * 192 * width


@pytest.mark.parametrize("max_width", [0.5, 1.0, 1.5])
def test_full_is_the_greatest_width(max_width):
    rule = ScaledChannels(48, 8, max_width)
    assert rule.full == rule.at(max_width) == 48 * max_width
    assert rule.at(0.5) == 24


@pytest.mark.parametrize("base", BASES)
def test_counts_rise_past_the_base_where_widths_exceed_1(base):
    rule = ScaledChannels(base, 8, max_width=1.5)
    counts = [rule.at(i / 200) for i in range(10, 301)]
    assert counts == sorted(counts)
    assert rule.at(1.0) == base
    assert counts[-1] == rule.full


def test_expanded_count_derives_from_the_rounded_base():
    base = ScaledChannels(24)
    inner = ExpandedChannels(base, 2.25)
    assert [(base.at(w), inner.at(w)) for w in (0.5, 0.65, 0.9, 1.0)] == [(16, 36), (16, 36), (24, 54), (24, 54)]


def test_squeezed_count_follows_its_block():
    inner = ExpandedChannels(ScaledChannels(192), 2.25)
    hidden = SqueezedChannels(inner, 1 / 16)
    assert [hidden.at(w) for w in (0.5, 0.63, 1.0)] == [16, 16, 32]


@pytest.mark.parametrize("width", [0.25, 0.63, 1.0])
def test_joined_channels_are_the_first_and_always_the_last(width):
    rule = JoinedChannels(ScaledChannels(64), 16)
    count = rule.at(width)
    assert count == ScaledChannels(64).at(width) + 16
    expected = [*range(count - 16), *range(64, 80)]
    assert rule.select(torch.arange(80), count, 0).tolist() == expected
    table = torch.arange(80).expand(3, 80)
    assert rule.select(table, count, 1).tolist() == [expected] * 3


def test_joined_channels_at_full_width_are_all():
    rule = JoinedChannels(FixedChannels(5), 3)
    assert rule.select(torch.arange(8), rule.full, 0).tolist() == list(range(8))


def test_root_is_the_scaled_count_and_fixed_counts_have_none():
    base = ScaledChannels(24)
    assert SqueezedChannels(ExpandedChannels(base, 2.25), 1 / 16).root is base
    assert JoinedChannels(ExpandedChannels(base, 0.25), 4).root is base
    assert JoinedChannels(FixedChannels(3), 4).root is None
    assert FixedChannels(3).root is None


def test_x3d_m_has_16_networks_between_063_and_1():
    stages = [ScaledChannels(base) for base in (24, 48, 96, 192)]
    widths = [0.63 + 0.37 * i / 10000 for i in range(10001)]
    assert len({tuple(stage.at(width) for stage in stages) for width in widths}) == 16
    assert {stages[0].at(width) for width in widths} == {16, 24}


def test_own_widths_are_those_of_the_count_until_they_are_given_apart():
    stage, untie = ScaledChannels(64, 8), OwnWidths()
    inner = ExpandedChannels(stage, 0.25)
    first, second = untie(inner), untie(inner)
    assert first != second and first.root is first and SqueezedChannels(first, 0.5).root is first
    for width in WIDTHS:
        assert first.at(width) == second.at(width) == inner.at(width) and first.full == inner.full
    widths = {stage: 1.0, first: 0.5, second: 0.75}
    assert (stage.at(widths), inner.at(widths), first.at(widths), second.at(widths)) == (64, 16, 8, 12)
    assert SqueezedChannels(first, 0.5).at(widths) == 8 and JoinedChannels(first, 4).at(widths) == 12
    fixed = FixedChannels(3)
    assert untie(fixed) is fixed
