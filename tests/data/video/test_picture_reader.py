"""Animations and stacks of pictures as videos, by whatever way they are named."""

import numpy as np
import pytest
from backends import every_backend
from clips import video_dataset
from PIL import Image

from mutual3d.data.video.decode import open_video
from mutual3d.data.video.reader import VideoError

SHADES = [0, 60, 120, 180, 240]
LENGTHS_MS = [100, 300, 100, 100, 200]


def save(path, count=5):
    pictures = [Image.fromarray(np.full((24, 32, 3), shade, np.uint8)) for shade in SHADES[:count]]
    options = {".webp": {"lossless": True}}.get(path.suffix, {})
    if path.suffix != ".tif":
        options["duration"] = LENGTHS_MS[:count]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], **options)
    return path


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
@every_backend
def test_pictures_are_frames_at_their_times(tmp_path, name, backend):
    times = np.arange(5) / 25 if name == "a.tif" else [0, 0.1, 0.4, 0.5, 0.6]
    with open_video(save(tmp_path / name), backend) as reader:
        np.testing.assert_allclose(reader.frame_times(), times, atol=1e-6)
        assert reader.read([4, 0, 2, 2])[:, 5, 5, 0].tolist() == [240, 0, 120, 120]
        assert reader.read([1])[0].shape == (24, 32, 3) and reader.index_at(times[3] + 0.01) == 3
        assert reader.fps == pytest.approx(25 if name == "a.tif" else 6.25)


def test_a_still_in_a_list_of_videos_is_one_frame(tmp_path):
    path = save(tmp_path / "a.png", count=1)
    with open_video(path) as reader:
        assert reader.num_frames == 1 and reader.time_of(0) == 0 and reader.index_at(9) == 0
    sample = video_dataset([(str(path), 1)], num_frames=4, sampling_rate=1, crop_size=24)[0, 0]
    assert sample.clips_VCTHW.shape == (1, 3, 4, 24, 24)


def test_a_picture_shown_for_no_time_and_one_that_is_only_for_old_programs(tmp_path):
    pictures = [Image.fromarray(np.full((24, 32, 3), shade, np.uint8)) for shade in SHADES]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:3], duration=0)
    pictures[0].save(tmp_path / "a.png", save_all=True, append_images=pictures[1:3], duration=50, default_image=True)
    with open_video(tmp_path / "a.gif") as reader:
        np.testing.assert_allclose(reader.frame_times(), [0, 0.1, 0.2])
    with open_video(tmp_path / "a.png") as reader:
        assert reader.num_frames == 2 and reader.read([0, 1])[:, 0, 0, 0].tolist() == [60, 120]


def test_what_cannot_be_read_says_why(tmp_path):
    pictures = [Image.new("RGB", size) for size in ((32, 24), (16, 12))]
    pictures[0].save(tmp_path / "a.tif", save_all=True, append_images=pictures[1:])
    with pytest.raises(VideoError, match="its images differ in size .32 x 24, 16 x 12."):
        open_video(tmp_path / "a.tif")
    content = save(tmp_path / "b.gif").read_bytes()
    (tmp_path / "b.gif").write_bytes(content[: len(content) // 2])
    with pytest.raises(VideoError, match="b.gif"), open_video(tmp_path / "b.gif") as reader:
        reader.read(range(reader.num_frames))
