import faulthandler
import functools
import os
import signal

import pytest
import torch
from backends import every_backend
from clips import video_dataset
from PIL import Image
from torchvision.models import detection
from videos import (
    moving_frames,
    number_of,
    numbered_frames,
    phone_index,
    write_joined_video,
    write_late_video,
    write_phone_video,
    write_size_change,
    write_video,
)

from mutual3d.cli import predict
from mutual3d.data.datasets.ava.dataset import keyframe_clip
from mutual3d.data.prepare.extraction import Layout, extract_frames
from mutual3d.data.video.decode import open_video
from mutual3d.data.video.frame_list_reader import FrameListReader
from mutual3d.data.video.reader import VideoError
from mutual3d.deploy import AdaptiveModel, Preprocessing, detect, draw, predict_boxes, predict_video
from mutual3d.deploy import predict as predict_module
from mutual3d.deploy.draw import draw_boxes
from mutual3d.deploy.predict import frames_around, read_clips
from mutual3d.models import create_model

SIZES = {"width_range": [1.0, 1.0], "spatial_sizes": [24]}
VIDEO = Preprocessing((0.45,) * 3, (0.225,) * 3, num_frames=4, sampling_rate=2, target_fps=30, crop=24, activation="sigmoid")


def box_model():
    torch.manual_seed(0)
    network = create_model(
        "x3d", space={**SIZES, "temporal_sizes": [4]}, num_classes=3, width_factor=1.0, depth_factor=0.5, dim_c5=32,
        detection={"resolution": 3, "aligned": True},
    )  # fmt: skip
    return AdaptiveModel(network, preprocessing=VIDEO)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    path = tmp_path_factory.mktemp("video") / "wide.mp4"
    write_video(path, moving_frames(30, 32, 48))
    return path


def test_boxes_are_scored_in_the_whole_frame_around_their_second(video):
    model, boxes = box_model(), torch.tensor([[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]])
    scores = predict_boxes(model, video, {0.2: boxes, 0.9: boxes[:1]})
    assert scores[0.2].shape == (2, 3) and scores[0.9].shape == (1, 3)
    assert not torch.allclose(scores[0.2][0], scores[0.2][1]) and not torch.allclose(scores[0.2][:1], scores[0.9])
    with pytest.raises(ValueError, match="wide.mp4' ends at second 1.00: it has no second 5"):
        predict_boxes(model, video, {5: boxes})
    with pytest.raises(ValueError, match="this model classifies boxes: give them"):
        model(torch.zeros(1, 3, 4, 24, 36))


def seen_around(path, seconds, backend="pyav"):
    """The numbers of the frames that a network of boxes is shown around each second."""
    with open_video(path, backend) as reader:
        indices = [frames_around(reader, second, VIDEO) for second in seconds]
        return [[number_of(reader.read([index])[0]) for index in clip] for clip in indices]


@every_backend
@pytest.mark.parametrize("write", [write_phone_video, write_late_video])
def test_prediction_sees_the_frames_that_training_sees(tmp_path, write, backend):
    """Training on extracted frames, and prediction from the video, whatever its rate and wherever it begins."""
    path = write(tmp_path / "v.mp4")
    layout = Layout(VIDEO.target_fps)
    counts, _ = extract_frames([path], tmp_path / "frames", layout, num_workers=1)
    frames = FrameListReader([layout.path("v", k) for k in range(counts["v"])], layout.fps, tmp_path / "frames")
    seconds = (0, 1, 2, 3, 3.5)
    clips = [keyframe_clip(round(30 * s), counts["v"], num_frames=4, stride=VIDEO.sampling_rate) for s in seconds]
    trained = [[number_of(image) for image in frames.read(clip)] for clip in clips]
    assert seen_around(path, seconds, backend) == trained


def test_boxes_are_scored_in_the_frames_of_their_second(tmp_path):
    assert seen_around(write_phone_video(tmp_path / "phone.mp4"), [1, 4]) == [[26, 28, 30, 32], [88, 89, 90, 91]]
    late = write_late_video(tmp_path / "late.mp4")
    assert [clip[2] for clip in seen_around(late, [0, 1, 2, 3.5])] == [0, 3, 13, 28]
    with pytest.raises(ValueError, match="late.mp4' ends at second 3.70: it has no second 3.7"):
        seen_around(late, [3.7])
    joined = write_joined_video(tmp_path / "joined.ts")
    assert [clip[2] for clip in seen_around(joined, [0.5, 1.2, 2])] == [5, 12, 20]


def test_a_video_that_kills_its_decoder_costs_itself_alone(video, tmp_path, monkeypatch, capfd):
    """Boxes of a csv or of a detector, and drawing; the command goes on to the next video."""
    bad, main, boxes = write_video(tmp_path / "bad.mp4", moving_frames(5)), os.getpid(), torch.tensor([[0.0, 0.0, 0.5, 1.0]])

    def open_or_die(path, backend="pyav"):
        if str(path) == str(bad):
            assert os.getpid() != main, "it is decoded in the main process"
            faulthandler.disable()  # whose traces would be all that one sees
            os.kill(os.getpid(), signal.SIGSEGV)
        return open_video(path, backend)

    for module in (detect, draw, predict_module):
        monkeypatch.setattr(module, "open_video", open_or_die)
    crash = "bad.mp4': its decoder crashed .*SIGSEGV"
    with pytest.raises(VideoError, match=crash):
        detect.detect_people(torch.nn.Linear(1, 1), bad)
    with pytest.raises(VideoError, match=crash):
        draw_boxes(bad, tmp_path / "out.mp4", {0.0: (boxes, ["a"])})
    assert [file.name for file in tmp_path.iterdir()] == ["bad.mp4"]
    box_model().save(tmp_path / "adaptive.pyth")
    (tmp_path / "boxes.csv").write_text("0.1,0,0,0.5,1\n")
    words = [str(tmp_path / "adaptive.pyth"), str(bad), str(video), "--boxes", str(tmp_path / "boxes.csv")]
    monkeypatch.setattr(predict, "describe_active", lambda model: "at the largest")
    assert predict.main(words) == 1
    told = capfd.readouterr()
    assert "cannot be read: its decoder crashed" in told.out and "1 boxes" in told.out and "1 of 2 videos cannot be read" in told.err


def test_a_picture_size_that_changes_in_the_stream(tmp_path):
    """The reader gives all frames one size: boxes are scored and drawn as in any other video."""
    path = write_size_change(tmp_path / "change.mkv")
    scores = predict_boxes(box_model(), path, {1.0: torch.tensor([[0.0, 0.0, 0.5, 1.0]])})
    assert scores[1.0].shape == (1, 3)
    boxes = torch.tensor([[0.1, 0.1, 0.5, 0.9]]), ["a"]
    assert draw_boxes(path, tmp_path / "out.mp4", {0.5: boxes, 1.5: boxes}) == 20
    with open_video(tmp_path / "out.mp4") as reader:
        assert reader.num_frames == 20 and len({frame.shape for frame in reader.read(range(20))}) == 1
    clips = read_clips(path, VIDEO).clips_VCTHW
    assert clips.shape == (1, 3, 4, 24, 24)


IMAGE = Preprocessing((0.45,) * 3, (0.225,) * 3, num_frames=1, sampling_rate=1, target_fps=30, crop=24, resize=28)


def test_an_image_networks_frames_are_cut_as_its_images(tmp_path):
    """The short side to the network's own resize, then the crop; not to the crop."""
    frame = moving_frames(1, 40, 60)[0]
    Image.fromarray(frame).save(tmp_path / "photo.png")
    write_video(tmp_path / "clip.mkv", [frame] * 3, codec="ffv1")
    still, shown = (read_clips(tmp_path / name, IMAGE).clips_VCTHW for name in ("photo.png", "clip.mkv"))
    assert still.shape == shown.shape == (1, 3, 1, 24, 24)
    # The conversion of colours to the video's is all that differs.
    assert (still.int() - shown.int()).abs().float().mean() < 3
    other = read_clips(tmp_path / "clip.mkv", VIDEO).clips_VCTHW[:, :, :1]
    assert (still.int() - other.int()).abs().float().mean() > 8


def test_what_was_looked_at_is_told(tmp_path):
    path = write_video(tmp_path / "long.mp4", numbered_frames(200), fps=10)
    clips = read_clips(path, VIDEO)
    assert clips.seconds == ((pytest.approx(9.9, abs=0.2), pytest.approx(10.1, abs=0.2)),) and clips.duration == pytest.approx(20)
    assert 0 < clips.share < 0.02 and not clips.is_padded
    assert clips.describe() == "looked at seconds {:.2f} to {:.2f} of 20.00".format(*clips.seconds[0])
    many = read_clips(path, VIDEO, num_views=8)
    assert len(many.seconds) == 8 and many.seconds[1][0] > 2 and many.describe().endswith(", ... of 20.00")
    short = read_clips(write_video(tmp_path / "short.mp4", numbered_frames(3)), VIDEO)
    assert short.is_padded and "it is shorter than a clip, which repeats its last frame" in short.describe()
    exact = read_clips(write_video(tmp_path / "exact.mp4", numbered_frames(8)), VIDEO)
    assert not exact.is_padded
    late = read_clips(write_late_video(tmp_path / "late.mp4", count=2), VIDEO)
    assert late.seconds[0] == (pytest.approx(0.7), pytest.approx(0.8))
    Image.fromarray(moving_frames(1)[0]).save(tmp_path / "photo.png")
    still = read_clips(tmp_path / "photo.png", VIDEO)
    assert still.clips_VCTHW.shape == (1, 3, 4, 24, 24) and still.describe() == "" and still.share == 1


@pytest.mark.parametrize("name", ["a.gif", "a.png", "a.webp", "a.tif"])
def test_an_animation_is_a_video_as_it_is_in_a_list(tmp_path, name):
    pictures = [Image.fromarray(frame) for frame in numbered_frames(12, 48, 64)]
    pictures[0].save(tmp_path / name, save_all=True, append_images=pictures[1:], **({"lossless": True} if "webp" in name else {}))
    sample = video_dataset([(str(tmp_path / name), 0)], num_frames=4, sampling_rate=2, crop_size=24)[0, 0]
    clips = read_clips(tmp_path / name, VIDEO)
    assert torch.equal(clips.clips_VCTHW, sample.clips_VCTHW) and len(clips.seconds) == 1
    assert not torch.equal(clips.clips_VCTHW[:, :, 0], clips.clips_VCTHW[:, :, 3])


def test_people_are_looked_for_at_the_times_of_the_video(tmp_path, monkeypatch):
    asked = []

    def detector(images):
        asked.append(number_of((images[0] * 255).permute(1, 2, 0).numpy()))
        box = torch.tensor([[0.0, 0.0, 32.0, 48.0]])
        return [{"boxes": box, "labels": torch.tensor([1]), "scores": torch.tensor([0.9])}]

    detector.parameters = lambda: iter([torch.zeros(1)])
    found = detect.detect_people(detector, write_phone_video(tmp_path / "phone.mp4"), every=1.2)
    assert asked == [18, 54, 75, 93, 111] == [phone_index(second) for second in (0.6, 1.8, 3, 4.2, 5.4)]
    assert list(found) == pytest.approx([0.6, 1.8, 3, 4.2, 5.4], abs=1e-3)
    late = detect.detect_people(detector, write_late_video(tmp_path / "late.mp4"), every=2.0)
    assert list(late) == pytest.approx([1, 3])
    short = detect.detect_people(detector, write_video(tmp_path / "short.mp4", numbered_frames(3)), every=60)
    assert len(short) == 1
    for every in (0, -1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="give a positive number"):
            detect.detect_people(detector, tmp_path / "late.mp4", every=every)


def test_an_image_is_scored_as_the_grid_saw_it(tmp_path):
    path = tmp_path / "photo.png"
    Image.fromarray(moving_frames(1, 40, 60)[0]).save(path)
    torch.manual_seed(0)
    network = create_model("wide_resnet", space=SIZES, num_classes=3, depth=10, widen_factor=1)
    model = AdaptiveModel(network, preprocessing=IMAGE)
    scores = predict_video(model, path).scores
    image = Image.open(path).convert("RGB").resize((42, 28), Image.BILINEAR).crop((9, 2, 33, 26))
    expected = model(torch.tensor(list(image.tobytes()), dtype=torch.uint8).view(24, 24, 3).permute(2, 0, 1)[None])
    assert torch.allclose(scores, expected[0], atol=1e-3)


def test_people_are_found_by_torchvisions_detector_and_its_file_is_checked(video, tmp_path, monkeypatch):
    small = functools.partial(detection.fasterrcnn_resnet50_fpn, min_size=64, max_size=96, box_score_thresh=0.0)
    monkeypatch.setattr(detect, "fasterrcnn_resnet50_fpn", small)
    torch.manual_seed(0)
    path = tmp_path / "detector.pth"
    state = small(weights=None, weights_backbone=None).state_dict()
    state["roi_heads.box_predictor.cls_score.bias"][1] = 9.0  # sees people everywhere
    torch.save(state, path)
    found = detect.detect_people(detect.load_detector(path), video, every=0.5, threshold=0.0)
    assert found and all(0 <= second < 1 for second in found)
    for boxes, scores in found.values():
        assert boxes.shape == (len(scores), 4) and (boxes >= 0).all() and (boxes <= 1).all()
    torch.save({"weight": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="does not hold the weights of torchvision's fasterrcnn_resnet50_fpn"):
        detect.load_detector(path)
    with pytest.raises(FileNotFoundError, match="nothing.pth"):
        detect.load_detector(tmp_path / "nothing.pth")
