"""Batches: order, ranks, resuming, workers, bad videos."""

import contextlib

import pytest
import torch
from clips import clip_loader, video_dataset
from harm import HARM, crash, no_memory
from videos import moving_frames, write_video

from mutual3d.data.datasets.dataset import BadVideo, ClipDataset, Sample
from mutual3d.utils.fingerprint import fingerprint


class Numbers(ClipDataset):
    """Samples without videos, which remember what was asked for; `bad` positions are unreadable."""

    def __init__(self, length, bad=()):
        self.length = length
        self.bad = bad
        self.asked = []

    def __len__(self):
        return self.length

    def __getitem__(self, key):
        epoch, index = key
        self.asked.append(index)
        if index in self.bad:
            return BadVideo(index, f"{index}.mp4", "broken")
        return Sample(torch.full((1, 3, 2, 4, 4), index, dtype=torch.uint8), index % 5, index)

    def fingerprint(self):
        return fingerprint(self.length, self.bad)


class OfManySizes(Numbers):
    """Samples of index + 1 x 4 pixels, labelled with a dict."""

    fill = 9

    def __getitem__(self, key):
        _, index = key
        return Sample(torch.full((1, 3, 1, index + 1, 4), index, dtype=torch.uint8), {"number": torch.tensor([index])}, index)


def test_a_batch_of_many_sizes_is_filled_up_to_the_largest():
    (batch,) = clip_loader(OfManySizes(3), 3, shuffle=False).batches()
    assert tuple(batch.clips_BVCTHW.shape) == (3, 1, 3, 1, 3, 4)
    for index, clip in enumerate(batch.clips_BVCTHW[:, 0, :, 0]):
        assert (clip[:, : index + 1] == index).all() and (clip[:, index + 1 :] == 9).all()
    assert [(int(one["number"]), one["canvas"].tolist()) for one in batch.labels.samples] == [(index, [3, 4]) for index in range(3)]


def indices(loader, **arguments):
    return [batch.indices.tolist() for batch in loader.batches(**arguments)]


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_ranks_together_see_the_batches_of_one_process(world_size):
    alone = indices(clip_loader(Numbers(50), 8, shuffle=True, seed=1), epoch=3)
    share = dict(batch_size=8 // world_size, shuffle=True, seed=1, world_size=world_size)
    ranks = [indices(clip_loader(Numbers(50), rank=rank, **share), epoch=3) for rank in range(world_size)]
    assert [sum(slices, []) for slices in zip(*ranks)] == alone
    assert len(alone) == 6 and len(set(sum(alone, []))) == 48


def test_epochs_and_seeds_shuffle_differently():
    loader = clip_loader(Numbers(40), 8, shuffle=True, seed=1)
    assert indices(loader, epoch=0) == indices(loader, epoch=0)
    assert indices(loader, epoch=0) != indices(loader, epoch=1)
    assert indices(loader, epoch=0) != indices(clip_loader(Numbers(40), 8, shuffle=True, seed=2), epoch=0)


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("length, batch_size", [(17, 4), (3, 4), (12, 4), (1, 1)])
def test_evaluation_serves_each_video_once(world_size, length, batch_size):
    loaders = [
        clip_loader(Numbers(length), batch_size, shuffle=False, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    served = [indices(loader) for loader in loaders]
    assert [len(batches) for batches in served] == [len(loader) for loader in loaders]
    assert sorted(sum(sum(served, []), [])) == list(range(length))
    assert all(loader.num_samples == length for loader in loaders)
    if length == 17 and world_size == 2:
        assert served[1] == [[4, 5, 6, 7], [12, 13, 14, 15]]


@pytest.mark.parametrize("shuffle", [True, False])
def test_start_skips_without_decoding(shuffle):
    dataset = Numbers(40)
    loader = clip_loader(dataset, 8, shuffle=shuffle)
    whole = indices(loader, epoch=2)
    dataset.asked.clear()
    assert indices(loader, epoch=2, start=3) == whole[3:]
    assert dataset.asked == sum(whole[3:], [])
    assert indices(loader, start=5) == []
    with pytest.raises(ValueError, match="an epoch has 5 batches"):
        indices(loader, start=6)


def test_too_short_a_list():
    with pytest.raises(ValueError, match="7 videos.* 8 .*4 on each of 2"):
        clip_loader(Numbers(7), 4, shuffle=True, rank=0, world_size=2)


def test_bad_videos_are_listed_and_not_replaced():
    first, second, third = clip_loader(Numbers(6, bad=(1, 2, 3)), 2, shuffle=False).batches()
    assert first.indices.tolist() == [0] and first.bad == [BadVideo(1, "1.mp4", "broken")]
    assert first.clips_BVCTHW.shape == (1, 1, 3, 2, 4, 4)
    assert len(second.clips_BVCTHW) == len(second.labels) == len(second.indices) == 0 and len(second.bad) == 2
    assert third.labels.dtype == third.indices.dtype == torch.int64 and third.labels.tolist() == [4, 0]


def test_a_subset_keeps_positions_in_the_list():
    loader = clip_loader(Numbers(20), 2, shuffle=False, indices=[3, 9, 15])
    assert indices(loader) == [[3, 9], [15]] and loader.num_samples == 3


def test_workers_change_nothing(tmp_path):
    frames = moving_frames(30)
    videos = [(str(write_video(tmp_path / f"{i}.mp4", frames[i:])), i) for i in range(5)] + [("gone.mp4", 5)]
    clip = dict(num_frames=4, sampling_rate=3, crop_size=32, jitter_scales=(32, 40), training=True, num_views=2)
    dataset = video_dataset(videos, **clip)
    alone = clip_loader(dataset, 2, shuffle=True)
    with_workers = clip_loader(dataset, 2, shuffle=True, num_workers=2, pin_memory=True)
    next(with_workers.batches(epoch=0))
    for epoch in (0, 1):
        pairs = list(zip(alone.batches(epoch, start=1), with_workers.batches(epoch, start=1), strict=True))
        assert len(pairs) == 2
        for ours, theirs in pairs:
            assert torch.equal(ours.clips_BVCTHW, theirs.clips_BVCTHW) and ours.bad == theirs.bad
            assert torch.equal(ours.labels, theirs.labels) and torch.equal(ours.indices, theirs.indices)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_batches_are_pinned_where_there_is_a_gpu_to_copy_to(num_workers, monkeypatch):
    """Every tensor of a batch, in its order of memory; without a GPU it is seen by its copies."""
    pinned = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: pinned.append(tensor.shape) or tensor.clone())
    loader = clip_loader(Numbers(6, bad=(1,)), 3, shuffle=False, num_workers=num_workers, pin_memory=True)
    plain = clip_loader(Numbers(6, bad=(1,)), 3, shuffle=False)
    for ours, theirs in zip(loader, plain, strict=True):
        assert torch.equal(ours.clips_BVCTHW, theirs.clips_BVCTHW) and ours.bad == theirs.bad and ours.boxes is None
        assert ours.clips_BVCTHW[:, 0].is_contiguous(memory_format=torch.channels_last_3d)
    assert len(pinned) == 2 * 3


def test_clips_are_channels_last_in_memory():
    batch = next(clip_loader(Numbers(4), 4, shuffle=False).batches())
    assert batch.clips_BVCTHW[:, 0].is_contiguous(memory_format=torch.channels_last_3d)


def test_workers_use_one_thread():
    class Threads(Numbers):
        def __getitem__(self, key):
            return Sample(torch.full((1, 3, 1, 1, 1), torch.get_num_threads(), dtype=torch.uint8), 0, key[1])

    for batch in clip_loader(Threads(2), 1, shuffle=False, num_workers=1).batches():
        assert batch.clips_BVCTHW.unique().tolist() == [1]


class Harmful(Numbers):
    """At some positions, something happens that is no exception."""

    def __init__(self, length, harm):
        super().__init__(length)
        self.harm = harm

    def __getitem__(self, key):
        if key[1] in self.harm:
            self.harm[key[1]]()
        return super().__getitem__(key)

    def name_of(self, index):
        return f"{index}.mp4"


@pytest.mark.parametrize("num_workers", [1, 2])
@pytest.mark.parametrize("shuffle", [True, False])
def test_videos_that_crash_or_hang_are_bad_videos_and_nothing_else_changes(shuffle, num_workers):
    """All failures in one epoch: the first, two in a row, the last."""
    harm = dict(zip((0, 6, 7, 12, 19), HARM.values()))
    words = dict(zip(harm, HARM))
    loader = clip_loader(Harmful(20, harm), 4, shuffle=shuffle, seed=2, num_workers=num_workers, timeout=1)
    undisturbed = clip_loader(Numbers(20), 4, shuffle=shuffle, seed=2)
    for epoch, start in ((0, 0), (1, 2)):
        for ours, whole in zip(loader.batches(epoch, start), undisturbed.batches(epoch, start), strict=True):
            served = torch.tensor([index not in harm for index in whole.indices.tolist()])
            assert torch.equal(ours.clips_BVCTHW, whole.clips_BVCTHW[served])
            assert torch.equal(ours.labels, whole.labels[served]) and torch.equal(ours.indices, whole.indices[served])
            assert [bad.index for bad in ours.bad] == whole.indices[~served].tolist()
            for bad in ours.bad:
                assert bad.path == f"{bad.index}.mp4" and words[bad.index] in bad.cause


def test_without_workers_exceptions_are_bad_videos_too():
    (batch,) = clip_loader(Harmful(3, {1: no_memory}), 3, shuffle=False)
    assert batch.indices.tolist() == [0, 2] and "MemoryError" in batch.bad[0].cause


def test_batches_with_boxes_survive_a_crash():
    class Boxes(Harmful):
        def __getitem__(self, key):
            boxes = torch.full((2, 4), float(key[1]))
            return super().__getitem__(key)._replace(label=torch.ones(2, 3), boxes=boxes, origins=boxes)

    (batch,) = clip_loader(Boxes(3, {1: crash}), 3, shuffle=False, num_workers=1)
    assert batch.boxes[:, 0].tolist() == [0, 0, 1, 1] and batch.boxes[:, 1].tolist() == [0, 0, 2, 2]
    assert batch.labels.shape == (4, 3) and len(batch.bad) == 1


def test_videos_that_are_shorter_than_a_clip_are_counted_and_told_once(tmp_path, caplog):
    lengths = (12, 5, 8, 7)
    videos = [(str(write_video(tmp_path / f"{length}.mp4", moving_frames(length))), 0) for length in lengths]
    clip = dict(num_frames=4, sampling_rate=2, crop_size=32, jitter_scales=(32, 32))
    for training in (True, False):
        loader = clip_loader(video_dataset(videos, **clip, training=training), 2, shuffle=training, num_workers=1)
        caplog.clear()
        for epoch in range(2):
            assert sum(batch.num_padded for batch in loader.batches(epoch)) == 2
        (told,) = [record.getMessage() for record in caplog.records]
        assert told.startswith("2 of 4 videos are shorter than a clip") and told.endswith("repeats their last frame")
    caplog.clear()
    list(clip_loader(video_dataset(videos[:1], **clip), 2, shuffle=False))
    assert not caplog.records


class FakeStream:
    """A CUDA stream that notes what happens to it."""

    def __init__(self, name, events):
        self.name, self.events = name, events

    def wait_stream(self, other):
        self.events.append(f"{self.name} waits for {other.name}")


def test_batches_are_copied_on_a_stream_beside_the_one_that_computes(monkeypatch):
    """Without a GPU: the order of what is asked of CUDA, and that nothing waits for it."""
    events, running = [], ["main"]

    @contextlib.contextmanager
    def stream(side):
        running.append(side.name)
        yield
        running.pop()

    def copy(tensor, device, non_blocking):
        events.append(f"copy {tuple(tensor.shape)} on {running[-1]}{'' if non_blocking else ', waiting'}")
        return tensor.clone()

    monkeypatch.setattr(torch.cuda, "Stream", lambda device: FakeStream("side", events))
    monkeypatch.setattr(torch.cuda, "stream", stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: FakeStream("main", events))
    monkeypatch.setattr(torch.Tensor, "to", copy)
    monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, used: events.append(f"{tuple(tensor.shape)} used by {used.name}"))
    plain = list(clip_loader(Numbers(4), 2, shuffle=False).batches())
    beside = clip_loader(Numbers(4), 2, shuffle=False, device=torch.device("cuda", 0)).batches()
    shape = (2, 1, 3, 2, 4, 4)
    for batch in plain:
        copied = next(beside)
        assert torch.equal(copied.clips_BVCTHW, batch.clips_BVCTHW) and torch.equal(copied.labels, batch.labels)
        assert torch.equal(copied.indices, batch.indices) and copied.bad == batch.bad and copied.boxes is None
        assert events == [
            f"copy {shape} on side", "copy (2,) on side", "main waits for side", f"{shape} used by main", "(2,) used by main",
        ]  # fmt: skip
        events.clear()
    assert not list(beside)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_batches_on_a_gpu_are_those_of_the_cpu():
    device = torch.device("cuda", 0)
    plain, beside = (clip_loader(Numbers(40), 4, shuffle=True, pin_memory=True, device=where) for where in (None, device))
    for ours, theirs in zip(beside.batches(), plain.batches(), strict=True):
        assert ours.clips_BVCTHW.device == device and torch.equal(ours.clips_BVCTHW.cpu(), theirs.clips_BVCTHW)
        assert torch.equal(ours.labels.cpu(), theirs.labels) and torch.equal(ours.indices, theirs.indices)
