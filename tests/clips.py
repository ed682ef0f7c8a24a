"""Data sets and loaders of tests, all their settings by name."""

from mutual3d.data.clips.frames import ClipSampling, Views
from mutual3d.data.clips.transforms import TrainingCrop
from mutual3d.data.datasets.ava.dataset import AvaDataset
from mutual3d.data.datasets.kinetics import VideoDataset
from mutual3d.data.loader import ClipLoader, Reading, Share
from mutual3d.data.video.decode import VideoOpening


def taken(settings, kind, names):
    """A dataclass of those of `settings` that it has, which are taken out."""
    return kind(**{name: settings.pop(name) for name in names.split() if name in settings})


def sampling_of(settings):
    return taken(settings, ClipSampling, "num_frames sampling_rate target_fps")


def crop_of(settings):
    return taken(settings, TrainingCrop, "jitter_scales inverse_uniform flip")


def video_dataset(videos, kind=VideoDataset, **settings):
    """training, seed, crop_size, and the fields of ClipSampling, TrainingCrop, Views and VideoOpening."""
    sampling, crop = sampling_of(settings), crop_of(settings)
    views = taken(settings, Views, "num_views num_crops offset_sampling")
    opening = taken(settings, VideoOpening, "backend tolerate_short")
    return kind(videos, sampling, crop=crop, views=views, opening=opening, **settings)


def ava_dataset(frames, keyframes, **settings):
    """training, seed, crop_size, reference, and the fields of ClipSampling and TrainingCrop."""
    sampling, crop = sampling_of(settings), crop_of(settings)
    return AvaDataset(frames, keyframes, sampling, crop=crop, **settings)


def clip_loader(dataset, batch_size, **settings):
    """shuffle, seed, indices, lost, and the fields of Share and Reading."""
    share, reading = taken(settings, Share, "rank world_size"), taken(settings, Reading, "num_workers timeout pin_memory device")
    return ClipLoader(dataset, batch_size, share=share, reading=reading, **settings)
