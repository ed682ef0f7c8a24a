"""What predict.py prints, what it goes on after, and what it refuses."""

import os
import signal
import time

import pytest
import torch
from networks import calibrate_at_random
from PIL import Image
from tiny import SPACE, tiny_network
from videos import moving_frames, write_video

from mutual3d.cli import predict
from mutual3d.deploy import AdaptiveModel, Preprocessing
from mutual3d.deploy import predict as reading


@pytest.fixture
def words(tmp_path):
    """The command's words for a tiny model and a video."""
    network = calibrate_at_random(tiny_network(), SPACE.corners())
    preprocessing = Preprocessing((0.45,) * 3, (0.225,) * 3, num_frames=4, sampling_rate=2, target_fps=30, crop=24)
    AdaptiveModel(network, preprocessing=preprocessing, class_names=["right", "down"]).save(tmp_path / "adaptive.pyth")
    video = write_video(tmp_path / "clip.mp4", moving_frames(20))
    return ["--model", str(tmp_path / "adaptive.pyth"), "--video", str(video), "--config", "0.5-16-2"]


def probabilities(text):
    return {line.split()[-1]: float(line.split()[0]) for line in text.splitlines() if " %  " in line}


def test_the_cpu_is_the_default(words, capsys):
    predict.main(words)
    expected = probabilities(capsys.readouterr().out)
    predict.main([*words, "--device", "cpu"])
    assert probabilities(capsys.readouterr().out) == expected and set(expected) == {"right", "down"}


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_a_gpu_gives_the_cpus_probabilities(words, capsys):
    predict.main(words)
    expected = probabilities(capsys.readouterr().out)
    predict.main([*words, "--device", "cuda"])
    assert probabilities(capsys.readouterr().out) == pytest.approx(expected, abs=0.1)


def test_a_gpu_that_is_not_there_is_named_before_anything_is_read(words, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match="--device is cuda, and torch sees no GPU here: leave --device out"):
        predict.main(["--model", "nowhere.pyth", *words[2:], "--device", "cuda"])


@pytest.mark.parametrize(
    "options, message",
    [
        ("--device tpu", "--device"),
        ("--top 0", "--top"),
        ("--views 0", "--views"),
        ("--threshold nan", "'nan' is not a number in [0, 1]"),
        ("--threshold 2", "--threshold"),
        ("--gflops nan", "--gflops"),
        ("--gflops -1", "--gflops"),
        ("--latency-ms inf", "--latency-ms"),
        ("--timeout 0", "--timeout"),
        ("--backend cv2", "pyav"),
        ("--device-key cpu-fp32-b1-t2", "--device-key says whose latency --latency-ms means: give that too"),
        ("--gflops 1", "give --config or a budget, not both"),
        ("--boxes a.csv --detector b.pth", "give --boxes or --detector, not both"),
        ("--output {folder}", "is a directory: name an mp4 in it"),
        ("--output {video}", "which is read: it would be replaced"),
        ("--output {folder}/adaptive.pyth", "which is read: it would be replaced"),
    ],
)
def test_an_option_that_cannot_be_is_refused(words, tmp_path, capsys, options, message):
    options = options.format(folder=tmp_path, video=words[3]).split()
    with pytest.raises(SystemExit) as ended:
        predict.main([*words, *options])
    told = capsys.readouterr().err
    assert ended.value.code == 2 and message in told and "OUTPUT_DIR" not in told


@pytest.mark.parametrize("option", ["--model", "--video", "--boxes", "--detector", "--output"])
def test_an_empty_name_is_refused(words, capsys, option):
    with pytest.raises(SystemExit):
        predict.main([*words, option, ""])
    assert f"argument {option}: '' is no name of a file" in capsys.readouterr().err


def test_a_video_that_is_alone_and_cannot_be_read_is_told_once(words, tmp_path, capsys):
    words[3] = str(tmp_path / "gone.mp4")
    assert predict.main(words) == 1
    told = capsys.readouterr()
    assert (told.out + told.err).count("the file does not exist") == 1
    assert told.err == f"error: cannot read video '{tmp_path}/gone.mp4': the file does not exist\n"


def test_one_unreadable_video_among_many_is_listed_and_the_rest_goes_on(words, tmp_path, capsys):
    folder = tmp_path / "many"
    (folder / "inner").mkdir(parents=True)
    for name in ("1.mp4", "inner/4.mkv"):
        write_video(folder / name, moving_frames(12))
    (folder / "2.mp4").write_text("no video")
    (folder / "\x1b[2J3.mp4").write_bytes((folder / "1.mp4").read_bytes()[:400])
    Image.fromarray(moving_frames(1)[0]).save(folder / "5.png")
    (folder / "notes.txt").write_text("no video, and not looked at")
    words[3:4] = [str(folder), str(tmp_path / "gone.mp4"), words[3]]
    assert predict.main(words) == 1
    told = capsys.readouterr()
    assert told.out.count("right") == 4 and told.out.count("cannot be read: ") == 3
    assert "\x1b" not in told.out + told.err
    lines = told.err.splitlines()
    lines = lines[lines.index("3 of 7 videos cannot be read:") + 1 :]
    assert [line.split(": ")[0] for line in lines] == [
        f"  {folder}/\\x1b[2J3.mp4", f"  {folder}/2.mp4", f"  {tmp_path}/gone.mp4"
    ]  # fmt: skip
    assert "it is not a video" in lines[1] and lines[2].endswith("the file does not exist")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="there are no videos and no images in the folder '.*empty'"):
        predict.main([*words[:2], "--video", str(tmp_path / "empty")])


def test_a_video_that_kills_hangs_or_breaks_its_decoder_is_named_and_the_rest_goes_on(words, tmp_path, capsys, monkeypatch):
    harm = {"kills": lambda: os.kill(os.getpid(), signal.SIGKILL), "hangs": lambda: time.sleep(60), "breaks": lambda: 1 / 0}
    read = reading.read_clips

    def read_clips(path, *arguments, **options):
        harm.get(path.stem, lambda: None)()
        return read(path, *arguments, **options)

    monkeypatch.setattr(reading, "read_clips", read_clips)
    words[3:4] = [str(write_video(tmp_path / f"{name}.mp4", moving_frames(12))) for name in ("a", *harm, "z")]
    assert predict.main([*words, "--timeout", "3"]) == 1
    told = capsys.readouterr()
    assert told.out.count("right") == 2
    causes = {line.split(": ")[0].split("/")[-1]: line for line in told.err.splitlines() if line.startswith("  ")}
    assert set(causes) == {"kills.mp4", "hangs.mp4", "breaks.mp4"}
    assert "its decoder crashed (the process died of SIGKILL" in causes["kills.mp4"] and "DATA_LOADER" not in causes["kills.mp4"]
    assert "did not answer within 3 s (--timeout)" in causes["hangs.mp4"] and "ZeroDivisionError" in causes["breaks.mp4"]


def test_it_says_what_it_looked_at(words, tmp_path, capsys):
    long, short = write_video(tmp_path / "long.mp4", moving_frames(90), fps=10), write_video(tmp_path / "short.mp4", moving_frames(3))
    Image.fromarray(moving_frames(1)[0]).save(tmp_path / "photo.png")
    words[3:4] = [str(long), str(short), str(tmp_path / "photo.png")]
    assert predict.main(words) == 0
    of_long, of_short, of_photo = capsys.readouterr().out.split("configuration 0.5-16-2")[1:]
    assert "looked at seconds 4.30 to 4.50 of 9.00; --views looks at more of it" in of_long and "(1 view(s))" in of_long
    assert "of 0.10; it is shorter than a clip, which repeats its last frame" in of_short and "--views" not in of_short
    assert "looked at" not in of_photo and "(1 view(s))" in of_photo
    assert predict.main([*words[:2], "--video", str(long), "--views", "9"]) == 0
    told = capsys.readouterr().out
    assert "looked at seconds 0.00 to 0.10, 0.90 to 1.10, 1.90 to 2.10, 2.90 to 3.00, ... of 9.00" in told and "(9 view(s))" in told
