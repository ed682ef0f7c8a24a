"""Learned quantisers: their levels, the algorithm that learns them, their gradient, and what of a network they touch."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from mutual3d.layers.quantizer import (
    QUANTIZED_BITS,
    ActivationQuantizer,
    PrivateQuantizers,
    check_bits,
    fit_weight_basis,
    least_squares,
    level_moments,
    nearest_level,
    qem_step,
    quantize,
    sorted_levels,
    squared_error,
    uniform_basis,
)

SIGNED = {
    "normal": lambda x: x,
    "laplace": lambda x: x.sign() * x.abs() ** 2,
    "two heaps": lambda x: 0.3 * x + 2 * (torch.arange(x.shape[-1]) % 2) - 1,
    "few distinct": lambda x: (2 * x).round() / 2,
    "all one": lambda x: torch.full_like(x, 0.7),
    "zeros": lambda x: torch.zeros_like(x),
}
POSITIVE = {"relu": F.relu, "swish": F.silu, "one side": torch.exp, "zeros": lambda x: torch.zeros_like(x)}
CASES = [*((name, make, -1.0) for name, make in SIGNED.items()), *((name, make, 0.0) for name, make in POSITIVE.items())]
PARAMETERS = pytest.mark.parametrize("make, lowest", [case[1:] for case in CASES], ids=[f"{case[0]} {case[2]:g}" for case in CASES])
BITS = pytest.mark.parametrize("bits", QUANTIZED_BITS)


def normal(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def uniform_error(values, top, bits, lowest):
    """The same of equally spaced levels of which the highest is `top`; computed by rounding, not by levels."""
    step = 2 * top / (2**bits - 1) if lowest else top / (2**bits - 1)
    shift = step / 2 if lowest else 0.0
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if lowest else (0, 2**bits - 1)
    rounded = ((values - shift) / step).round().clamp(low, high) * step + shift
    return (values - rounded).square().sum(-1)


def test_two_bits_have_the_four_sums_of_two_numbers_with_their_signs():
    levels, codes = sorted_levels(torch.tensor([0.3, 1.0]))
    assert levels.tolist() == pytest.approx([-1.3, -0.7, 0.7, 1.3])
    assert codes.tolist() == [[-1, -1], [1, -1], [-1, 1], [1, 1]]
    levels, codes = sorted_levels(torch.tensor([0.3, 1.0]), 0.0)
    assert levels.tolist() == pytest.approx([0, 0.3, 1.0, 1.3]) and codes.tolist() == [[0, 0], [1, 0], [0, 1], [1, 1]]


@BITS
@pytest.mark.parametrize("lowest", [-1.0, 0.0])
def test_levels_are_all_sums_of_codes_and_ascend_whatever_the_basis_is(bits, lowest):
    bases = normal(5, bits)
    levels, codes = sorted_levels(bases, lowest)
    assert levels.shape == (5, 2**bits) and bool((levels.diff(dim=-1) >= 0).all())
    torch.testing.assert_close((codes * bases[:, None]).sum(-1), levels)
    for basis, own in zip(bases, levels):
        sums = [sum(code * v for code, v in zip(choice, basis.tolist())) for choice in itertools.product((lowest, 1.0), repeat=bits)]
        assert own.tolist() == pytest.approx(sorted(sums))


@BITS
@pytest.mark.parametrize("channels", [None, 3])
def test_every_value_takes_the_nearest_level(bits, channels):
    values = normal(3, 4, 5, 6)
    levels, _ = sorted_levels(normal(bits, seed=1) if channels is None else normal(channels, bits, seed=1))
    nearest = nearest_level(values.contiguous(memory_format=torch.channels_last), levels)
    assert nearest.is_contiguous(memory_format=torch.channels_last)
    own = levels.expand(3, -1)[:, None, None, None]
    distances = (values[..., None] - own).abs()
    torch.testing.assert_close((values - nearest).abs(), distances.amin(-1))
    assert (nearest[..., None] - own).abs().amin(-1).max() < 1e-12


@BITS
@PARAMETERS
def test_no_step_of_qem_raises_the_error(bits, make, lowest):
    values = make(normal(6, 200))
    basis = uniform_basis(torch.linspace(0.1, 6, 6, dtype=torch.float64), bits)
    errors = [squared_error(values, basis, lowest)]
    for _ in range(25):
        basis = qem_step(values, basis, lowest)
        errors.append(squared_error(values, basis, lowest))
    rises = torch.stack(errors).diff(dim=0)
    assert bool((rises <= 1e-9 * values.square().sum(-1) + 1e-12).all()), rises.max()
    assert bool(basis.isfinite().all())
    if values.any():
        assert bool((errors[-1] < errors[0]).any())


@BITS
@PARAMETERS
def test_learned_levels_err_no_more_than_the_best_equally_spaced_ones(bits, make, lowest):
    """QEM from the best of many equally spaced quantisers, which are one of its own."""
    values = make(normal(4, 300, seed=2))
    tops = torch.linspace(0.02, 1, 60, dtype=torch.float64)[:, None] * values.abs().amax(-1).clamp_min(1e-3)
    uniform = torch.stack([uniform_error(values, top[:, None], bits, lowest) for top in tops])
    best, where = uniform.min(0)
    basis = uniform_basis(tops.gather(0, where[None])[0], bits)
    torch.testing.assert_close(squared_error(values, basis, lowest), best, rtol=1e-9, atol=1e-9)
    for _ in range(50):
        basis = qem_step(values, basis, lowest)
    learned = squared_error(values, basis, lowest)
    assert bool((learned <= best + 1e-9).all())
    if make in (SIGNED["normal"], SIGNED["laplace"]):
        assert bool((learned < 0.995 * best).any())


@BITS
def test_first_levels_of_weights_err_less_than_equally_spaced_ones_over_their_range(bits):
    weight = 0.05 * normal(16, 8, 3, 3)
    basis, values = fit_weight_basis(weight, bits), weight.flatten(1)
    assert bool((squared_error(values, basis) < uniform_error(values, values.abs().amax(1, keepdim=True), bits, -1.0)).all())


@BITS
@pytest.mark.parametrize("lowest", [-1.0, 0.0])
def test_a_step_is_the_least_squares_solution_given_the_codes(bits, lowest):
    values, start = normal(500), uniform_basis(torch.tensor(2.0, dtype=torch.float64), bits)
    levels, codes = sorted_levels(start, lowest)
    code_of_each = codes[(values[:, None] - levels).abs().argmin(-1)]
    solution = torch.linalg.lstsq(code_of_each, values[:, None]).solution[:, 0]
    torch.testing.assert_close(qem_step(values, start, lowest), solution, rtol=1e-4, atol=1e-5)
    counts, sums = level_moments(values, levels)
    index = (values[:, None] - levels).abs().argmin(-1)
    assert counts.tolist() == [int((index == i).sum()) for i in range(2**bits)]
    torch.testing.assert_close(sums, torch.zeros(2**bits, dtype=torch.float64).index_add(0, index, values))


def test_what_codes_leave_open_stays_as_it_is():
    """All values in one level: one equation for two numbers."""
    basis = torch.tensor([0.4, 1.0], dtype=torch.float64)
    _, codes = sorted_levels(basis)
    counts, sums = torch.tensor([0.0, 0, 0, 10]).double(), torch.tensor([0.0, 0, 0, 16]).double()
    found = least_squares(basis, codes, counts, sums)
    assert found.sum().item() == pytest.approx(1.6, abs=1e-4) and (found[1] - found[0]).item() == pytest.approx(0.6, abs=1e-4)
    torch.testing.assert_close(least_squares(basis, codes, 0 * counts, 0 * sums), basis)


# ---- The gradient ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("clips", [False, True])
def test_gradients_pass_straight_through_and_with_clips_not_beyond_the_highest_level(clips):
    values = torch.tensor([-5.0, -1.25, -0.2, 0.0, 0.9, 1.25, 1.26], requires_grad=True)
    levels, _ = sorted_levels(torch.tensor([0.25, 1.0]))
    weights = torch.arange(1.0, 8.0)
    (quantize(values, levels, clips) * weights).sum().backward()
    inside = torch.tensor([0.0, 1, 1, 1, 1, 1, 0]) if clips else torch.ones(7)
    assert torch.equal(values.grad, weights * inside)


def test_gradients_have_the_values_that_quantised_ones_have_without():
    values = normal(3, 4).requires_grad_()
    levels, _ = sorted_levels(normal(3, 2))
    with torch.no_grad():
        expected = quantize(values, levels, clips=False)
    assert torch.equal(quantize(values, levels, clips=False), expected)


# ---- Activations -------------------------------------------------------------------------------------------------------


def trained(quantizer, make, steps=60, shape=(4, 3, 5, 5)):
    quantizer.train()
    for seed in range(steps):
        quantizer(make(normal(*shape, seed=seed)).float())
    return quantizer


@BITS
@pytest.mark.parametrize("make, is_signed", [(F.relu, False), (F.silu, False), (F.hardswish, False), (lambda x: x, True), (lambda x: 9 * x - 1, True)])
def test_codes_are_of_both_signs_where_the_values_are(bits, make, is_signed):
    quantizer = trained(ActivationQuantizer(bits), make)
    levels = quantizer.levels()[0]
    if is_signed:
        torch.testing.assert_close(levels, -levels.flip(0))
        assert levels[0] < 0
    else:
        assert levels.abs().min() == 0
    values = make(normal(1000, seed=99)).float()
    share = (values - quantizer.eval()(values)).square().mean() / (values - values.mean()).square().mean()
    assert share < {2: 0.25, 3: 0.18, 4: 0.15}[bits]


def test_a_step_moves_the_basis_a_tenth_of_the_way_to_that_of_its_values():
    quantizer, values = ActivationQuantizer(2).double().train(), F.relu(normal(2, 3, 4, 4))
    before = quantizer.basis.clone()
    quantized = quantizer(values)
    assert torch.equal(quantized, nearest_level(values, sorted_levels(before, 0.0)[0])), "quantised with the basis from before"
    torch.testing.assert_close(quantizer.basis, 0.9 * before + 0.1 * qem_step(values, before, 0.0))


def test_evaluation_and_calibration_change_nothing():
    quantizer, values = ActivationQuantizer(2), normal(2, 3, 4, 4).float()
    before = {key: value.clone() for key, value in quantizer.state_dict().items()}
    quantizer.eval()(values)
    with torch.no_grad():
        quantizer.train()(values)
    assert all(torch.equal(value, before[key]) for key, value in quantizer.state_dict().items())
    quantizer(values)
    assert not torch.equal(quantizer.basis, before["basis"]) and not torch.equal(quantizer.negative_share, before["negative_share"])


def test_large_batches_are_learned_from_by_some_of_their_clips():
    values = F.relu(normal(8, 2, 300, 300)).float()
    quantizer, alone = ActivationQuantizer(2).train(), ActivationQuantizer(2).train()
    quantizer(values)
    alone(values[::5])
    assert torch.equal(quantizer.basis, alone.basis)


def test_a_private_quantiser_does_not_touch_the_others():
    quantizers = PrivateQuantizers(2, 3).train()
    before = [quantizer.basis.clone() for quantizer in quantizers.sizes]
    quantizers.__dict__.update(quantizers.settings(1))
    values = F.relu(normal(2, 3, 4, 4)).float()
    assert torch.equal(quantizers(values), nearest_level(values, sorted_levels(before[1], 0.0)[0]))
    assert [torch.equal(quantizer.basis, old) for quantizer, old in zip(quantizers.sizes, before)] == [True, False, True]
    assert not list(quantizers.parameters()), "bases have no gradient"


@pytest.mark.parametrize("bits", [1, 5, 8, 0, -2, "2", 2.0, True, None])
def test_other_bits_are_refused_with_the_legal_ones(bits):
    with pytest.raises(ValueError, match="WEIGHT_BITS is .*: numbers are quantised to 2, 3, 4 bits; 32 leaves them as they are"):
        check_bits("WEIGHT_BITS", bits)


def test_on_the_meta_device_a_basis_has_its_shape_alone():
    assert fit_weight_basis(torch.empty(5, 3, 3, device="meta"), 3).shape == fit_weight_basis(torch.randn(5, 3, 3), 3).shape == (5, 3)
