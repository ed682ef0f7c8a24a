"""Label smoothing, mixup and CutMix: what they give, and that every sub-network of a step learns from the same of it."""

import pytest
import torch
import torch.nn.functional as F
from tiny import SPACE, overrides

from mutual3d.pipeline import load_config
from mutual3d.training import Mixing
from mutual3d.training.build import build_transforms

from test_step import batch, make_step, network  # isort: skip
from test_trainer import make_trainer  # isort: skip


def flat_clips(count=4):
    """Clip i is 40 * i everywhere."""
    return (40 * torch.arange(count, dtype=torch.uint8)).view(-1, 1, 1, 1, 1).expand(-1, 3, 2, 8, 8).contiguous()


def test_smoothing_alone_leaves_the_clips():
    mixing = Mixing(5, probability=0.0, smoothing=0.1)
    clips, soft = mixing(flat_clips(), torch.tensor([0, 1, 4, 4]))
    assert torch.equal(clips, flat_clips())
    assert torch.allclose(soft[2], torch.tensor([0.02, 0.02, 0.02, 0.02, 0.92])) and torch.allclose(soft.sum(1), torch.ones(4))
    logits = torch.randn(4, 5)
    smoothed = F.cross_entropy(logits, torch.tensor([0, 1, 4, 4]), label_smoothing=0.1)
    assert torch.allclose(F.cross_entropy(logits, soft), smoothed)


@pytest.mark.parametrize("alphas", [(0.8, 0.0), (0.0, 1.0)])
def test_clips_and_labels_are_mixed_by_the_same_shares(alphas):
    torch.manual_seed(3)
    for _ in range(10):
        clips, soft = Mixing(4, *alphas, smoothing=0.0)(flat_clips(), torch.arange(4))
        assert clips.dtype == torch.uint8 and torch.allclose(soft.sum(1), torch.ones(4))
        # The mean of a mixed clip is the labels' mean of the clips' values; mixup rounds.
        assert torch.allclose(clips.float().mean((1, 2, 3, 4)), soft @ torch.tensor([0.0, 40, 80, 120]), atol=0.51)
        assert (soft > 0).sum(1).max() <= 2
        if alphas[0]:
            assert (clips.flatten(1) == clips.flatten(1)[:, :1]).all()
        else:
            assert set(clips.unique().tolist()) <= {0, 40, 80, 120}
            assert torch.equal(clips[:, :, 0], clips[:, :, 1])


def test_several_labels_are_mixed_too_and_smoothed_towards_one_half():
    labels = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 1.0]])
    _, soft = Mixing(3, probability=0.0, smoothing=0.2)(flat_clips(2), labels)
    assert torch.allclose(soft, torch.tensor([[0.9, 0.9, 0.1], [0.1, 0.1, 0.9]]))
    torch.manual_seed(0)
    _, soft = Mixing(3, cutmix_alpha=0.0, smoothing=0.0)(flat_clips(2), labels)
    assert torch.allclose(soft.sum(0), labels.sum(0)) and 0 < soft[0, 2] < 1


def test_the_switch_chooses_between_the_two():
    torch.manual_seed(0)
    kinds = []
    for _ in range(200):
        clips, _ = Mixing(4, switch_probability=0.25)(flat_clips(), torch.arange(4))
        kinds.append(bool((clips.flatten(1) == clips.flatten(1)[:, :1]).all()))
    # A CutMix box of no pixel or of all looks like mixup: a few.
    assert 0.6 < sum(kinds) / len(kinds) < 0.95


def test_values_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="MIXUP.ALPHA and MIXUP.CUTMIX_ALPHA are 0: give one of them, or MIXUP.PROB 0"):
        Mixing(2, 0.0, 0.0)
    with pytest.raises(ValueError, match="from 0 to 1"):
        Mixing(2, probability=1.5)
    with pytest.raises(ValueError, match="MIXUP.PROB 0 to smooth labels alone"):
        load_config(None, overrides("data", "out", **{"MIXUP.ENABLE": True, "MIXUP.ALPHA": 0.0, "MIXUP.CUTMIX_ALPHA": 0.0}))


def test_every_subnetwork_learns_from_the_same_mixed_clip_and_soft_labels():
    """With labels as objective each loss is the soft cross-entropy of the one mixed batch at that configuration."""
    torch.manual_seed(1)
    clips, soft = Mixing(2)(*batch(4))
    model = network()
    step = make_step(model, objective="labels", subnets=["smallest"])
    result = step(clips, soft, 0)
    model.zero_grad()
    for configuration, loss in zip((SPACE.largest, SPACE.smallest), result.losses):
        logits = model.activate(configuration)(model.fit_clip(step.prepare(clips)))
        assert loss == pytest.approx((-soft * logits.log_softmax(1)).sum(1).mean().item(), rel=1e-5)


def test_the_loop_mixes_by_the_step_alone_and_gives_its_transforms_the_steps_clips():
    seen = []

    def recorded(clips, labels):
        seen.append((clips, labels))
        return clips, labels

    for _ in range(2):
        make_trainer(transforms=[Mixing(2), recorded]).train(start_epoch=1)
    (a, soft_a), (b, soft_b), (c, soft_c), (d, soft_d) = seen
    assert torch.equal(a, c) and torch.equal(soft_a, soft_c) and torch.equal(b, d) and torch.equal(soft_b, soft_d)
    assert not torch.equal(soft_a, soft_b)
    assert soft_a.shape == (4, 2) and a.shape == batch(4)[0].shape


def test_pyslowfasts_keys_make_it():
    assert build_transforms(load_config(None, overrides("data", "out"))) == []
    words = {
        "MIXUP.ENABLE": True, "MIXUP.ALPHA": 0.2, "MIXUP.CUTMIX_ALPHA": 0.3, "MIXUP.PROB": 0.4, "MIXUP.SWITCH_PROB": 0.6,
        "MIXUP.LABEL_SMOOTH_VALUE": 0.7, "MODEL.LOSS_FUNC": "soft_cross_entropy",
    }  # fmt: skip
    assert build_transforms(load_config(None, overrides("data", "out", **words))) == [Mixing(2, 0.2, 0.3, 0.4, 0.6, 0.7)]
