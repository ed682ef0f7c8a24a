"""Videos in image files, and the lists that name them."""

import numpy as np
import pytest
from PIL import Image

from mutual3d.data.video import frame_list_reader
from mutual3d.data.video.frame_list_reader import FrameListReader, is_frame_list, read_frame_list
from mutual3d.data.video.reader import VideoError

HEADER = "original_vido_id video_id frame_id path labels\n"


@pytest.fixture
def images(tmp_path):
    """Five PNGs, frame k filled with 10 k, and one grey one."""
    (tmp_path / "a b").mkdir()
    for k in range(5):
        Image.fromarray(np.full((6, 8, 3), 10 * k, np.uint8)).save(tmp_path / f"a b/{k}.png")
    Image.fromarray(np.full((6, 8), 50, np.uint8)).save(tmp_path / "a b/5.png")
    return tmp_path


def test_frames_asked_for_are_opened_and_no_others(images, monkeypatch):
    opened = []
    read = frame_list_reader.read_image
    monkeypatch.setattr(frame_list_reader, "read_image", lambda path: opened.append(path) or read(path))
    with FrameListReader([f"a b/{k}.png" for k in range(6)], fps=24, root=images) as reader:
        assert reader.num_frames == 6 and reader.fps == 24.0 and reader.path == str(images / "a b")
        frames_THWC = reader.read([5, 1, 1])
    assert frames_THWC.shape == (3, 6, 8, 3) and frames_THWC[:, 0, 0, 2].tolist() == [50, 10, 10]
    assert opened == [str(images / "a b/1.png"), str(images / "a b/5.png")]


def test_absolute_names_and_arrays_of_bytes(images):
    names = np.array([str(images / f"a b/{k}.png").encode() for k in range(3)])
    assert FrameListReader(names, 30, root="/elsewhere").read([2])[0, 0, 0, 0] == 20


@pytest.mark.parametrize("content, cause", [(None, "does not exist"), (b"", "empty"), (b"no image", "not an image")])
def test_a_broken_image_is_named(images, content, cause):
    path = images / "a b/2.png"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    reader = FrameListReader([f"a b/{k}.png" for k in range(4)], 30, images, lines=[2, 3, 7, 8])
    assert len(list(reader.frames([0, 3]))) == 2
    with pytest.raises(VideoError, match=f"{cause}.* .line 7 of its frame list.") as caught:
        list(reader.frames([1, 2, 3]))
    assert caught.value.path == str(path)
    if content in (None, b""):
        with pytest.raises(VideoError, match="line 7"):
            reader.check_files()


def test_a_jpeg_cut_short_is_damaged(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(tmp_path / "a.jpg")
    (tmp_path / "a.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:1500])
    with pytest.raises(VideoError, match="a.jpg': the image is damaged"):
        FrameListReader(["a.jpg"], 30, tmp_path).read([0])


def test_wrong_indices_and_no_frames(images):
    reader = FrameListReader(["a b/0.png"], 30, images)
    with pytest.raises(ValueError, match="0..1.* outside its frames 0..0"):
        reader.read([0, 1])
    with pytest.raises(VideoError, match="empty"):
        FrameListReader([], 30, images)


@pytest.mark.parametrize("first_column", ["original_vido_id", "original_video_id"])
def test_list(tmp_path, first_column):
    path = tmp_path / "list.csv"
    path.write_text(
        f"{first_column} video_id frame_id path labels\n"
        'B 0 1 B/1.jpg "3,4"\nA 1 1 "A/a 1.jpg" ""\nB 0 2 B/2.jpg ""\r\n\nB 0 3 B/3.jpg  "3,4"\n'
    )
    assert is_frame_list(path)
    videos, labels = read_frame_list(path)
    assert list(videos) == ["B", "A"] and labels == [("3,4", 2), ("", 3)]
    assert videos["B"].paths.tolist() == [b"B/1.jpg", b"B/2.jpg", b"B/3.jpg"]
    assert videos["A"].paths.tolist() == [b"A/a 1.jpg"]
    assert videos["B"].labels.tolist() == [0, 1, 0] and videos["B"].lines.tolist() == [2, 4, 6]


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "empty"),
        (HEADER, "is empty: write one row"),
        (HEADER + "A 0 0 a.jpg\n", "line 2: 'A 0 0 a.jpg' has 4 columns; needed are the 5"),
        (HEADER + 'A 0 0 a.jpg ""\nA 0 0 a b.jpg ""\n', "line 3: .* has 6 columns"),
        ("original_vido_id video_id frame_id labels\n", "line 1: .*path is missing"),
        ("video_id frame_id path labels\n", "line 1: .*write 'original_vido_id video_id"),
        ("original_vido_id video_id path frame_id labels\n", "line 1: .* is not the header"),
        (HEADER.replace(" ", ","), "line 1: .* is not the header of a frame list: .*separated by spaces"),
        (HEADER.replace(" ", "\t"), "line 1: .* is not the header of a frame list: .*separated by spaces"),
    ],
)
def test_bad_lists_name_file_line_and_row(tmp_path, text, words):
    path = tmp_path / "list.csv"
    path.write_text(text)
    with pytest.raises(ValueError, match=words) as caught:
        read_frame_list(path)
    assert str(path) in str(caught.value) and is_frame_list(path) == ("_id" in text)


def frame_rows(*numbers, video="A"):
    return "".join(f'{video} 0 {number} {video}/{k:04d}.jpg ""\n' for k, number in enumerate(numbers))


def read(tmp_path, text, **arguments):
    (tmp_path / "list.csv").write_text(HEADER + text)
    return read_frame_list(tmp_path / "list.csv", **arguments)[0]


def test_a_videos_frames_ascend_by_one_from_their_first(tmp_path):
    assert len(read(tmp_path, frame_rows(0, 1, 2))["A"].paths) == len(read(tmp_path, frame_rows(66, 67, 68))["A"].paths) == 3
    rows = zip(frame_rows(0, 1, 2).splitlines(), frame_rows(1, 2, 3, video="B").splitlines())
    mixed = read(tmp_path, "".join(f"{a}\n{b}\n" for a, b in rows), first_ids=(0, 1))
    assert mixed["A"].lines.tolist() == [2, 4, 6] and mixed["B"].lines.tolist() == [3, 5, 7]


@pytest.mark.parametrize(
    "numbers, words",
    [
        ([3, 2, 1, 0], "line 3: frame_id 2 of video 'A' follows 3 .line 2.*3 out of order; further places at lines 4, 5. Sort"),
        ([0, 2, 1, 3], "line 3: frame_id 2 of video 'A' follows 0.*2 missing, 1 out of order; further places at lines 4, 5"),
        ([0, 1, 1, 2, 2], "line 4: the frame_id of video 'A' is that of its row before.*2 listed twice.*at lines 6"),
        ([0, 1, 5, 6, 9], "line 4: frame_id 5 of video 'A' follows 1 .line 3.*5 missing; further places at lines 6"),
        ([0, 1, 2, 0, 1, 2], "line 5: frame_id 0 of video 'A' follows 2.*1 out of order"),
        ([0, "x"], "line 3: frame_id 'x' of video 'A' is not 0, 1, 2"),
        ([0, "1_0"], "line 3: frame_id '1_0'"),
        ([-1, 0], "line 2: frame_id '-1'"),
    ],
)
def test_rows_that_are_reversed_doubled_missing_or_shuffled_are_refused(tmp_path, numbers, words):
    with pytest.raises(ValueError, match=words) as caught:
        read(tmp_path, frame_rows(*numbers))
    assert str(tmp_path / "list.csv") in str(caught.value)


def test_where_positions_are_times_a_list_begins_at_its_beginning(tmp_path):
    with pytest.raises(ValueError, match="line 2: video 'A' begins with frame_id 5, where it must begin with 0 or 1.*1 late"):
        read(tmp_path, frame_rows(5, 6), first_ids=(0, 1))


def test_one_number_in_the_whole_column_leaves_the_order_to_the_names(tmp_path):
    """As in some published lists."""
    assert len(read(tmp_path, frame_rows(0, 0, 0))["A"].paths) == 3
    for names in ("3 2 1", "1 2 4", "1 1 2", "a b c"):
        with pytest.raises(ValueError, match="line 3: the frame_id of video 'A' is that of its row before"):
            read(tmp_path, "".join(f'A 0 0 A/{name}.jpg ""\n' for name in names.split()))


def test_images_that_are_numbered_against_the_rows_are_refused(tmp_path):
    """Counted over names that were sorted as text."""
    names = sorted(f"A/{k}.jpg" for k in range(12))
    with pytest.raises(ValueError, match="line 6: the image 'A/2.jpg' follows 'A/11.jpg'.*1 out of order"):
        read(tmp_path, "".join(f'A 0 {k} {name} ""\n' for k, name in enumerate(names)))
    assert len(read(tmp_path, "".join(f'A 0 {k} A/{k}.jpg ""\n' for k in range(12)))["A"].paths) == 12
    assert len(read(tmp_path, "".join(f'A 0 {k} A/{k % 3}{k}x.jpg ""\n' for k in range(12)))["A"].paths) == 12


def test_an_image_listed_twice_is_told(tmp_path, caplog):
    read(tmp_path, 'A 0 0 a1.jpg ""\nA 0 1 a1.jpg ""\nA 0 2 a1.jpg ""\n')
    assert "line 3: the image is that of the frame before, and so in 2 rows" in caplog.text


def test_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert read(tmp_path, 'A 0 0 ~/a.jpg ""\nA 0 1 ~b.jpg ""\n')["A"].paths.tolist() == [b"/home/me/a.jpg", b"~b.jpg"]


def test_an_open_quote_swallows_no_rows(tmp_path):
    rows = frame_rows(*range(6)).replace('0001.jpg ""', '0001.jpg "')
    with pytest.raises(ValueError, match="line 3: .*a quote is opened and not closed in the same line"):
        read(tmp_path, rows)


def test_a_path_no_file_can_have(tmp_path):
    with pytest.raises(ValueError, match="line 2: the path .* is longer than 4096 characters"):
        read(tmp_path, f'A 0 0 {"a" * 5000} ""\n')
    with pytest.raises(ValueError, match="line 2: the line is longer"):
        read(tmp_path, f'A 0 0 {"a" * 140_000} ""\n')


def test_missing_list(tmp_path):
    with pytest.raises(FileNotFoundError, match="none.csv"):
        read_frame_list(tmp_path / "none.csv")


def test_frames_stand_at_a_constant_rate():
    reader = FrameListReader([f"{k}.png" for k in range(48)], fps=24)
    assert reader.time_of(36) == 1.5 and reader.duration == 2.0
    assert [reader.index_at(second) for second in (-1, 0, 1, 1.02, 1.0209, 9, float("inf"))] == [0, 0, 24, 24, 25, 47, 47]
    assert reader.frame_times()[47] == 47 / 24 and reader.evenly([0, 47]) == [0, 47]
    with pytest.raises(ValueError, match="outside its frames 0..47"):
        reader.time_of(48)
