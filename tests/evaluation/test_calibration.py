import copy

import pytest
import torch
from batches import batches_from, prepare
from tiny import SPACE, tiny_network

from mutual3d.evaluation import PartialResult, VideoPass, calibrate
from mutual3d.evaluation.calibration import Population, statistics_from_dict, statistics_to_dict
from mutual3d.layers import slimmable_norms
from mutual3d.sampling import Configuration, fit_clip
from mutual3d.utils.files import save_tensors


def network():
    torch.manual_seed(0)
    return tiny_network()


def run(model, configurations, **options):
    videos = VideoPass(partial=options.pop("partial", None))
    calibrate(model, options.pop("batches_from", batches_from), configurations, prepare=prepare, videos=videos, **options)
    return model.statistics


def test_the_first_norm_gets_the_statistics_of_the_whole_population():
    """Whatever batches it came in: the mean and variance of everything that the norm saw, computed at once."""
    model = network()
    statistics = run(model, SPACE.corners())
    for configuration in SPACE.corners():
        clips = torch.cat([fit_clip(prepare(b.clips_BVCTHW[:, 0]), configuration, SPACE) for b in batches_from(0)])
        model.activate(configuration)
        stem = model.s1.pathway0_stem
        seen = stem.conv(stem.conv_xy(clips)).transpose(0, 1).flatten(1).double()
        assert torch.allclose(statistics[configuration].mean["s1.pathway0_stem.bn"].double(), seen.mean(1), atol=1e-6)
        variance = statistics[configuration].variance["s1.pathway0_stem.bn"].double()
        assert torch.allclose(variance, seen.var(1, correction=0), rtol=1e-5)


def test_populations_join_like_their_union():
    x = torch.randn(1000, 5, dtype=torch.float64)
    population = Population()
    for part in x.split([1, 300, 699]):
        population.add("norm", len(part), part.mean(0), part.var(0, correction=0) * len(part))
    statistics = population.statistics()
    assert torch.allclose(statistics.mean["norm"].double(), x.mean(0), atol=1e-6)
    assert torch.allclose(statistics.variance["norm"].double(), x.var(0, correction=0), atol=1e-6)


def test_weights_buffers_mode_and_other_configurations_are_untouched():
    model = network().eval()
    model.activate(SPACE.smallest)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    other = Configuration(0.75, 16, 2)
    first = run(model, [other])[other]
    run(model, [SPACE.smallest, SPACE.largest])
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert not model.training and model.active == SPACE.smallest
    assert all(torch.equal(first.mean[name], model.statistics[other].mean[name]) for name in first.mean)


def test_the_order_of_configurations_does_not_matter():
    one, other = run(network(), SPACE.corners()), run(network(), SPACE.corners()[::-1])
    for c in SPACE.corners():
        assert all(torch.equal(one[c].mean[name], other[c].mean[name]) for name in one[c].mean)


def test_a_calibrated_configuration_runs_and_stays_through_a_file():
    model = network().eval()
    statistics = run(model, SPACE.corners())
    twin = network().eval()
    twin.set_statistics(statistics_from_dict(statistics_to_dict(statistics)))
    clip = torch.randn(1, 3, 2, 16, 16)
    assert torch.equal(model.activate(SPACE.smallest)([clip]), twin.activate(SPACE.smallest)([clip]))


def test_a_killed_calibration_goes_on_and_ends_the_same(tmp_path):
    uninterrupted = run(network(), SPACE.corners())

    def dying(skip):
        yield from batches_from(skip)[:2]
        raise KeyboardInterrupt

    partial = lambda: PartialResult(tmp_path / "part", "same", interval=0)  # noqa: E731
    with pytest.raises(KeyboardInterrupt):
        run(network(), SPACE.corners(), batches_from=dying, partial=partial())
    skipped = []

    def going_on(skip):
        skipped.append(skip)
        return batches_from(skip)

    resumed = run(network(), SPACE.corners(), batches_from=going_on, partial=partial())
    assert skipped == [2]
    for c in SPACE.corners():
        for name in resumed[c].mean:
            assert torch.equal(resumed[c].mean[name], uninterrupted[c].mean[name])
            assert torch.equal(resumed[c].variance[name], uninterrupted[c].variance[name])


def test_no_clip_at_all_is_an_error():
    with pytest.raises(ValueError, match="CALIBRATION.SPLIT"):
        run(network(), [SPACE.smallest], batches_from=lambda skip: [])


def moments(model, change):
    """What a partial calibration of one batch would hold, changed."""
    names = {name: norm.rule.full for name, norm in slimmable_norms(model).items()}
    state = {name: (4, torch.zeros(n), torch.ones(n)) for name, n in names.items()}
    change(state, next(iter(names)))
    return {"fingerprint": "same", "done": 1, "state": {"bad": {}, "moments": {str(c): state for c in SPACE.corners()}}}


CHANGES = {
    "an unknown norm": lambda state, name: state.update(other=state[name]),
    "NaN": lambda state, name: state[name][1].fill_(float("nan")),
    "negative squares": lambda state, name: state[name][2].fill_(-1),
    "too many channels": lambda state, name: state.update({name: (4, torch.zeros(999), torch.ones(999))}),
    "not a tuple": lambda state, name: state.update({name: 3}),
    "a count of nothing": lambda state, name: state.update({name: (0, *state[name][1:])}),
    "text": lambda state, name: state.update({name: (4, "a", "b")}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_partial_calibration_that_cannot_be_is_started_over(tmp_path, caplog, change):
    save_tensors(tmp_path / "part.rank0of1", moments(network(), change))
    skipped = []
    batches = lambda skip: skipped.append(skip) or batches_from(skip)  # noqa: E731
    run(network(), SPACE.corners(), batches_from=batches, partial=PartialResult(tmp_path / "part", "same"))
    assert skipped == [0] and "part.rank0of1' cannot be used (" in caplog.text


def test_statistics_of_a_file_must_be_those_of_the_network():
    model = network()
    state = statistics_to_dict(run(model, [SPACE.largest]))
    statistics_from_dict(state, model)
    name = next(iter(slimmable_norms(model)))
    for value in (float("nan"), float("inf"), -1.0):
        changed = copy.deepcopy(state)
        changed[str(SPACE.largest)]["variance"][name][0] = value
        with pytest.raises(ValueError, match=f"variance: norm '{name}' has values that are not finite and 0 or more"):
            statistics_from_dict(changed, model)
    del state[str(SPACE.largest)]["mean"][name]
    with pytest.raises(ValueError, match=f"mean: norm '{name}' is missing"):
        statistics_from_dict(state, model)
