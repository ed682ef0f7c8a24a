"""Games by the words of TRAIN.DATASET, and what a config needs for them (datasets/ATARI.md)."""

import functools
from typing import Any

import torch
from fvcore.common.config import CfgNode

from mutual3d.data.datasets.dataset import ClipDataset
from mutual3d.data.loader import Share
from mutual3d.data.sources.facts import ONE_VIEW, Mistakes, Source, Task, is_training, register_dataset
from mutual3d.models.policy import PolicyNetwork
from mutual3d.sampling import prepare_clip

from .episodes import EpisodeDataset
from .games import GAMES, Game
from .rollouts import Policy, RolloutLoader, RolloutSettings

PLAYING = Task(
    "mean_return", ("ppo",),
    {
        "DATA.MULTI_LABEL": False, "DETECTION.ENABLE": False, "MODEL.HEAD_ACT": "softmax", "AUG.ENABLE": False, "MIXUP.ENABLE": False,
        "DATA.REVERSE_INPUT_CHANNEL": False, "DATA.NUM_FRAMES": 1, **ONE_VIEW,
    },
    gives=PolicyNetwork.gives,
)  # fmt: skip


def _open(kind: type[Game], cfg: CfgNode, split: str, mode: str, num_views: int) -> EpisodeDataset:
    count = cfg.CONTROL.NUM_GAMES if is_training(mode) else cfg.CONTROL.EPISODES
    return EpisodeDataset(
        functools.partial(kind, cfg.CONTROL.GAME, cfg.CONTROL.MAX_STEPS), split, count, num_actions=cfg.MODEL.NUM_CLASSES,
        num_channels=cfg.DATA.INPUT_CHANNEL_NUM[0], side=cfg.DATA.TRAIN_CROP_SIZE,
    )  # fmt: skip


def _training_loader(cfg: CfgNode, dataset: ClipDataset, model: Any, batch_size: int, share: Share) -> RolloutLoader:
    assert isinstance(dataset, EpisodeDataset), "what `_open` gives"
    control = cfg.CONTROL
    settings = RolloutSettings(
        control.NUM_GAMES, control.STEPS, control.PASSES, control.ROLLOUTS, control.DISCOUNT, control.TRACE, control.CLIP_RANGE,
        cfg.SOLVER.MAX_EPOCH,
    )  # fmt: skip
    return RolloutLoader(dataset, _largest_policy(cfg, model), settings, batch_size, seed=cfg.RNG_SEED, share=share)


def _largest_policy(cfg: CfgNode, model: Any) -> Policy:
    """The largest configuration, as it is when it is asked. model: the adaptive network."""

    @torch.no_grad()
    def policy(clips_NCTHW: torch.Tensor) -> torch.Tensor:
        device = next(model.parameters()).device
        # Only in training it says what it expects, and it has no part that training makes random.
        model.train().activate(model.space.largest)
        prepared = prepare_clip(clips_NCTHW, device, cfg.DATA.MEAN, cfg.DATA.STD, memory_format=model.memory_format)
        outputs: torch.Tensor = model(model.fit_clip(prepared))
        return outputs.float().cpu()

    return policy


def _check_config(cfg: CfgNode) -> Mistakes:
    """A policy sees the whole picture as it is, and what it does depends on nothing else."""
    if cfg.DATA.TEST_CROP_SIZE != cfg.DATA.TRAIN_CROP_SIZE:
        yield (
            ("DATA.TEST_CROP_SIZE", "DATA.TRAIN_CROP_SIZE"),
            f"DATA.TEST_CROP_SIZE is {cfg.DATA.TEST_CROP_SIZE}: with TRAIN.DATASET {cfg.TRAIN.DATASET} it must be DATA.TRAIN_CROP_SIZE, which "
            f"is {cfg.DATA.TRAIN_CROP_SIZE}: a game is seen whole",
        )
    if cfg.MODEL.EMA:
        yield (
            ("MODEL.EMA", "TRAIN.DATASET"),
            f"MODEL.EMA is True: with TRAIN.DATASET {cfg.TRAIN.DATASET} it must be False, since the policy that plays is the one that learns",
        )


def _no_names(cfg: CfgNode) -> None:
    """Actions have numbers."""
    return None


for _word, _kind in GAMES.items():
    register_dataset(
        Source(
            functools.partial(_open, _kind), PLAYING, is_image=True, num_channels=None, class_names=_no_names, check_config=_check_config,
            training_loader=_training_loader,
        ),
        _word,
    )  # fmt: skip
