"""The benchmarks of streams, in little: their rows, not their figures."""

import deadline
import pytest
import stream_memory
from streams import make_stream_model
from videos import moving_frames, write_video


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stream_benchmarks")
    make_stream_model().save(folder / "adaptive.pyth")
    write_video(folder / "a.mp4", moving_frames(20))
    return folder


def test_three_policies_answer_one_stream(folder):
    words = [folder / "adaptive.pyth", "--video", folder / "a.mp4", "--seconds", "0.8", "--fps", "20", "--deadline-ms", "500"]
    rows, found = deadline.compare(deadline.parse([str(word) for word in words]))
    assert [row["policy"] for row in rows] == ["controller", "largest", "smallest"]
    for row in rows:
        assert row["windows"] == len(found[row["policy"]]) + row["dropped"] == 12 and 0 <= float(row["met_percent"]) <= 100
    assert rows[1]["mean_accuracy"] == f"{make_stream_model().table.rows[-1].accuracy['top1_acc']:.2f}"
    # The video is decoded over and over on one clock.
    ends = [answer.end for answer in found["smallest"]]
    assert ends == sorted(ends) and ends[-1] > 20 / 30


def test_a_long_video_is_answered_to_its_end(folder):
    row = stream_memory.run(stream_memory.parse([str(folder / "adaptive.pyth"), "--minutes", "1", "--size", "48x64", "--fps", "2"]))
    assert float(row["last_second"]) > 59 and row["answers"] == 120 and float(row["growth_mb"]) < 50
