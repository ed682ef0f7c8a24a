"""Norms of one's own for each width (S-Net) or each size (RS-Net), and widths that differ from layer to layer (US-Net)."""

import pytest
import torch
from networks import NETWORKS, WIDTHS, calibrate_at_random
from tiny import NETWORK

from mutual3d.evaluation import grid_configurations
from mutual3d.layers import BNStatistics, slimmable_norms
from mutual3d.models import create_model
from mutual3d.models.interop import load_checkpoint, read_checkpoint
from mutual3d.sampling import Configuration

SPACE = {"width_range": [0.5, 1.0], "spatial_sizes": [16, 24], "temporal_sizes": [2, 4], "listed_widths": [0.5, 1.0]}


def network(batchnorm, **space):
    torch.manual_seed(0)
    own = "largest" if batchnorm == "calibrated" else "private"
    model = create_model("x3d", space={**SPACE, **space}, num_classes=3, batchnorm=batchnorm, own_statistics=own, **NETWORK)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    for norm in slimmable_norms(model).values():
        torch.nn.init.uniform_(norm.running_var, 0.5, 1.5)
    return model


def clip():
    return torch.randn(2, 3, 4, 24, 24, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("batchnorm, homes", [
    ("private_width", ["1-24-4", "0.5-24-4"]), ("private_size", ["1-24-4", "1-16-4", "1-24-2", "1-16-2"]),
])  # fmt: skip
def test_each_home_runs_in_evaluation_with_its_own_norms_and_extracts_to_the_same(batchnorm, homes):
    model, outputs = network(batchnorm).double().eval(), []
    for home in homes:
        fitted = model.activate(home).fit_clip(clip().double())
        outputs.append(model(fitted))
        assert torch.allclose(outputs[-1], model.extract(home)(fitted), atol=1e-9)
        assert torch.allclose(outputs[-1], model.extract(home, fold_bn=True)(fitted), atol=1e-9)
    assert not any(torch.allclose(outputs[0], other) for other in outputs[1:])


@pytest.mark.parametrize("batchnorm, home, others", [("private_width", "0.5-24-4", 1), ("private_size", "1-16-2", 3)])
def test_training_one_touches_its_own_norms_alone(batchnorm, home, others):
    model = network(batchnorm).train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    model.activate(home)(model.fit_clip(clip())).sum().backward()
    index = model._private_index(Configuration.parse(home))[0]
    for name, norm in slimmable_norms(model).items():
        own = name.endswith(f".norms.{index}")
        assert (norm.weight.grad is not None) == own
        assert torch.equal(before[f"{name}.running_mean"], norm.running_mean) != own
    assert len(model.s1.pathway0_stem.bn.norms) == others + 1


def test_other_configurations_have_to_be_calibrated_and_unlisted_widths_are_refused():
    model = network("private_size").eval()
    with pytest.raises(RuntimeError, match="0.75-16-2 was never calibrated"):
        model.activate("0.75-16-2")(model.fit_clip(clip()))
    calibrate_at_random(model, [Configuration(0.75, 16, 2)])
    assert torch.isfinite(model.activate("0.75-16-2")(model.fit_clip(clip()))).all()
    with pytest.raises(ValueError, match="width 0.75 has no norms of its own; there are norms for 1, 0.5"):
        network("private_width").activate("0.75-24-4")


def test_statistics_of_the_norms_that_run_are_whole():
    """Calibration sees the norms that a configuration runs, and no others."""
    model, c = network("private_size").eval(), Configuration(0.75, 16, 2)
    index = model._private_index(c)[0]
    calibrate_at_random(model, [c])
    own = {part: {n: t for n, t in values.items() if n.endswith(f".norms.{index}")}
           for part, values in model.statistics[c].to_dict().items()}  # fmt: skip
    twin = network("private_size").eval()
    twin.set_statistics({c: BNStatistics.from_dict(own)})
    assert torch.equal(twin(twin.fit_clip(clip(), c), configuration=c), model(model.fit_clip(clip(), c), configuration=c))
    own["mean"].pop(f"s1.pathway0_stem.bn.norms.{index}")
    with pytest.raises(ValueError, match=f"0.75-16-2, mean: norm 's1.pathway0_stem.bn.norms.{index}' is missing"):
        twin.check_statistics({c: BNStatistics.from_dict(own)})


def test_norms_that_are_not_always_trained_in_full_have_to_be_calibrated():
    """Sampled widths with norms of each size: running statistics are kept for the largest configuration alone."""
    model = network("private_size").eval()
    model.own_statistics = "largest"
    assert model.can_evaluate("1-24-4") and not model.can_evaluate("1-16-4")
    with pytest.raises(RuntimeError, match="1-16-4 was never calibrated"):
        model.extract("1-16-4")
    model.own_statistics = "none"
    assert not model.can_evaluate("1-24-4")


def test_widths_of_one_signature_are_two_networks_where_they_have_norms_of_their_own():
    model = network("private_width", listed_widths=[0.5, 0.52, 1.0])
    assert model.signature(0.5) == model.signature(0.52) and model.network_key(0.5) != model.network_key(0.52)
    grid = grid_configurations(model.space, 0.1, model.network_key)
    assert {c.width for c in grid} == {0.5, 0.52, 1.0}


def test_a_private_width_costs_what_its_own_norms_hold_and_no_more():
    wide, narrow = network("private_width"), network("calibrated")
    halves = sum(2 * norm.rule.at(0.5) for norm in slimmable_norms(narrow).values())
    assert sum(p.numel() for p in wide.parameters()) - sum(p.numel() for p in narrow.parameters()) == halves


def test_an_unseen_size_lies_linearly_between_its_neighbours():
    model = network("private_size", spatial_sizes=[16, 24, 32])
    norms = model.s1.pathway0_stem.bn.norms
    index_16, index_24 = (model._private_index(Configuration(1.0, size, 4))[0] for size in (16, 24))
    model.add_size(22)
    index_22, is_home = model._private_index(Configuration(1.0, 22, 4))
    assert is_home and len(norms) == 8
    for name in ("weight", "bias", "running_mean", "running_var"):
        low, high = getattr(norms[index_16], name), getattr(norms[index_24], name)
        assert torch.allclose(getattr(norms[index_22], name), 0.25 * low + 0.75 * high, atol=1e-6)
    assert torch.isfinite(model.eval().activate("1-22-4")(model.fit_clip(torch.randn(1, 3, 4, 32, 32)))).all()
    with pytest.raises(ValueError, match="size 22 has norms of its own"):
        model.add_size(22)


def test_sizes_outside_the_trained_ones_run_with_the_norms_of_the_nearest():
    model = network("private_size", spatial_sizes=[16, 24])
    fitted = {text: model.fit_clip(clip(), text) for text in ("1-16-4", "1-24-4")}
    before = {text: model.eval().activate(text)(inputs) for text, inputs in fitted.items()}
    for size in (40, 32, 8):
        model.add_size(size)
    norms = model.s1.pathway0_stem.bn.norms
    for size, nearest in ((8, 16), (32, 24), (40, 24)):
        for temporal in (2, 4):
            own, its = (norms[model._private_index(Configuration(1.0, s, temporal))[0]] for s in (size, nearest))
            assert own is not its and all(torch.equal(value, its.state_dict()[name]) for name, value in own.state_dict().items())
    # A view is now cut for 40 pixels: the trained sizes see it shrunk to what they had.
    view = torch.nn.functional.interpolate(clip(), (4, 40, 40), mode="nearest")
    assert str(model.space.largest) == "1-40-4" and model.fit_clip(view, "1-24-4")[0].shape[-1] == 24
    for text, outputs in before.items():
        assert torch.equal(model.activate(text)(fitted[text]), outputs)
    assert torch.isfinite(model.activate("1-40-4")(model.fit_clip(view))).all() and model.can_evaluate("1-8-2")
    twin = create_model(**model.arguments)
    twin.load_state_dict(model.state_dict())
    assert torch.equal(twin.eval().activate("1-40-4")(twin.fit_clip(view)), model(model.fit_clip(view)))


def test_shared_norms_have_one_set_of_running_statistics_for_all_sizes():
    torch.manual_seed(0)
    space = {**SPACE, "width_range": [1.0, 1.0], "listed_widths": []}
    model = create_model("x3d", space=space, num_classes=3, batchnorm="shared", own_statistics="all", **NETWORK).train()
    norm, means = model.s1.pathway0_stem.bn, []
    for text in ("1-24-4", "1-16-2"):
        model.activate(text)(model.fit_clip(clip()))
        means.append(norm.running_mean.clone())
        assert model.can_evaluate(text) and model.has_own_statistics(text)
    assert not torch.equal(*means) and int(norm.num_batches_tracked) == 2
    model.eval()
    fitted = model.activate("1-16-4").fit_clip(clip())
    assert torch.allclose(model(fitted), model.extract("1-16-4")(fitted), atol=1e-5)
    for wrong, words in (
        (dict(space={**space, "width_range": [0.5, 1.0]}), "MUTUAL.WIDTH_RANGE is .*one width twice"), (dict(own_statistics="largest"), "shared and all go together"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=words):
            create_model("x3d", **{**dict(space=space, num_classes=3, batchnorm="shared", own_statistics="all"), **wrong}, **NETWORK)


def test_means_of_norms_of_their_own_are_told_with_the_statistics_that_count():
    model = network("private_size")
    told, norms = model.private_norm_means(), slimmable_norms(model)
    assert list(told) == ["1-24-4", "1-24-2", "1-16-4", "1-16-2"]
    own = [norm for name, norm in norms.items() if name.endswith(".norms.3")]
    for name, values in (("scale", [n.weight for n in own]), ("shift", [n.bias for n in own]), ("mean", [n.running_mean for n in own]),
                         ("variance", [n.running_var for n in own])):  # fmt: skip
        assert told["1-16-2"][name] == pytest.approx([float(value.detach().mean()) for value in values])
    calibrate_at_random(model, [Configuration(1.0, 16, 2)])
    after = model.private_norm_means()
    assert after["1-16-2"]["mean"] != told["1-16-2"]["mean"] and after["1-16-2"]["scale"] == told["1-16-2"]["scale"]
    assert {**after, "1-16-2": 0} == {**told, "1-16-2": 0}
    assert list(network("private_width").private_norm_means()) == ["1-24-4", "0.5-24-4"] and network("calibrated").private_norm_means() == {}


def test_whose_running_statistics_are_its_own():
    sizes, widths, calibrated = (network(batchnorm) for batchnorm in ("private_size", "private_width", "calibrated"))
    assert sizes.has_own_statistics("1-16-2") and not sizes.has_own_statistics("0.75-16-2")
    assert widths.has_own_statistics("0.5-24-4") and not widths.has_own_statistics("0.5-16-4")
    assert not calibrated.has_own_statistics("1-24-4")
    sizes.own_statistics = "largest"
    assert not sizes.has_own_statistics("1-24-4")


def test_private_widths_need_a_list_that_ends_at_the_greatest():
    with pytest.raises(ValueError, match="private norms by width need MUTUAL.WIDTHS that end at"):
        network("private_width", listed_widths=[0.5, 0.75])
    with pytest.raises(ValueError, match="MUTUAL.BATCHNORM is 'switched': choose among calibrated"):
        network("switched")


@pytest.mark.parametrize("name", ["x3d_small", "slow_small", "slowfast_small"])
def test_a_plain_checkpoint_gives_each_width_the_first_channels_of_its_norms(name, tmp_path):
    case = NETWORKS[name]
    with torch.no_grad():
        plain = case.build()
    torch.save({"model_state": plain.state_dict()}, tmp_path / "plain.pyth")
    torch.manual_seed(1)
    model = create_model(**case.arguments, space={**plain.arguments["space"], "listed_widths": WIDTHS}, batchnorm="private_width", own_statistics="private")
    _, report = read_checkpoint(model, tmp_path / "plain.pyth")
    assert all("the first channels" in change for change in report.reshaped.values()) and not report.skipped and not report.missing
    assert report.reshaped.keys() >= {"s1.pathway0_stem.bn.norms.1.weight"} and not any(".norms.0." in key for key in report.reshaped)
    load_checkpoint(model, tmp_path / "plain.pyth")
    for name, norm in slimmable_norms(plain).items():
        for width, own in zip(reversed(WIDTHS), model.get_submodule(name).norms, strict=True):
            assert all(torch.equal(value, own.state_dict()[key]) for key, value in norm.plain(width).state_dict().items())
    model.eval()
    largest = model.space.largest
    assert torch.equal(model(case.inputs(largest)), plain.activate(largest)(case.inputs(largest)))
    torch.save({"model_state": case.build(width_range=[0.5, 0.5]).state_dict()}, tmp_path / "narrow.pyth")
    with pytest.raises(ValueError, match="another network|another architecture"):
        load_checkpoint(model, tmp_path / "narrow.pyth")


def test_a_network_may_have_another_width_in_every_group_of_layers():
    model = network("calibrated")
    groups = model.space.width_groups
    widths = tuple(0.5 if i % 2 else 1.0 for i in range(groups))
    configuration = Configuration(widths, 24, 4)
    assert groups > 2 and Configuration.parse(str(configuration)) == configuration
    full, half = model.signature(1.0), model.signature(0.5)
    assert model.signature(widths) == tuple(half[i] if i % 2 else full[i] for i in range(groups))
    calibrated = {n: norm.rule.at(model._layer_widths(widths)) for n, norm in slimmable_norms(model).items()}
    model.train().activate(configuration)(model.fit_clip(clip())).sum().backward()
    statistics = {n: torch.rand(count) + 0.5 for n, count in calibrated.items()}
    model.set_statistics({configuration: BNStatistics(statistics, statistics)})
    fitted = model.eval().activate(configuration).fit_clip(clip())
    assert torch.allclose(model(fitted), model.extract(configuration)(fitted), atol=1e-5)
    with pytest.raises(ValueError, match=f"it has 2 widths; this network takes 1 or {groups}"):
        model.activate("1,0.5-24-4")
