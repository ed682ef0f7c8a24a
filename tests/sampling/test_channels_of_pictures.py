"""Pictures of other channels than RGB's three, from normalising to what is counted and timed."""

import pytest
import torch

from mutual3d.cost.flops import count_costs
from mutual3d.cost.latency import measure_latencies
from mutual3d.models import create_model
from mutual3d.pipeline import load_config
from mutual3d.sampling import Preprocessing, SearchSpace, normalize_clip

CUT = dict(num_frames=1, sampling_rate=1, target_fps=30, crop=12)
MEANS, STDS = (0.1, 0.2, 0.3, 0.4, 0.5), (0.5, 0.4, 0.3, 0.2, 0.1)


def test_each_channel_has_its_own_mean_and_deviation():
    clip = torch.randint(0, 256, (2, 5, 1, 3, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    found = normalize_clip(clip, MEANS, STDS)
    for i in range(5):
        torch.testing.assert_close(found[:, i], (clip[:, i] / 255 - MEANS[i]) / STDS[i])


@pytest.mark.parametrize("mean, std", [(MEANS, STDS[:4]), ((), ()), ((0.4,) * 65, (0.2,) * 65), (MEANS, (0.2, 0.2, 0.2, 0.2, 0))])
def test_a_mean_and_a_deviation_for_each(mean, std):
    with pytest.raises(ValueError, match="one a channel"):
        Preprocessing(mean, std, **CUT)
    assert Preprocessing(MEANS, STDS, **CUT).mean == MEANS


def test_what_a_network_takes_is_what_is_counted_and_timed():
    torch.manual_seed(0)
    space = SearchSpace((0.5, 1.0), (12,), (1,))
    network = create_model("policy", space=space, num_classes=2, in_channels=5, channels=[16], kernel_sizes=[3], strides=[1], hidden_features=16)
    (cost,) = count_costs(network, [space.largest], 12).values()
    assert round(1e9 * cost.gflops) == 100 * 5 * 9 * 16 + 1600 * 16 + 16 * 2
    (times,) = measure_latencies(network.eval(), [space.largest], 12, torch.device("cpu"), repeats=1, mean=MEANS, std=STDS).values()
    assert times[space.largest] > 0


@pytest.mark.parametrize("key, value", [("DATA.MEAN", "[0.5, 0.5]"), ("DATA.STD", "[0.5, 0.5, 0.5, 0.5]"), ("DATA.INPUT_CHANNEL_NUM", "[3, 4]"), ("DATA.INPUT_CHANNEL_NUM", "[1]")])
def test_a_config_says_one_number_of_channels(key, value):
    with pytest.raises(ValueError, match="a list of one number for each channel, and DATA.INPUT_CHANNEL_NUM"):
        load_config("Kinetics/X3D_M", [key, value])


def test_videos_have_three():
    words = ["DATA.INPUT_CHANNEL_NUM", "[4]", "DATA.MEAN", "[0.5, 0.5, 0.5, 0.5]", "DATA.STD", "[0.5, 0.5, 0.5, 0.5]"]
    with pytest.raises(ValueError, match="clips of TRAIN.DATASET kinetics have 3 channels"):
        load_config("Kinetics/X3D_M", words)
