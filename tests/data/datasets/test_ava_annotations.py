"""AVA's published files: what they may hold, and what each mistake in them says."""

import dataclasses
import re
from pathlib import Path

import numpy as np
import pytest
from ava_set import ACTIONS, BOXES, FIRST_SECOND, FPS, LABEL_MAP, SECONDS, row, write, write_ava_set

from mutual3d.data.datasets.ava.annotations import (
    read_ava_frames,
    read_boxes,
    read_excluded,
    read_ground_truth,
    read_keyframes,
    read_label_map,
    read_reference,
    scan_boxes,
)  # fmt: skip

SHARED = Path(__file__).resolve().parents[3].parent / "shared" / "data" / "weizmann_ava"
BOX = "0.1,0.2,0.3,0.4"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_ava_set(tmp_path_factory.mktemp("ava"))


@pytest.fixture(scope="module")
def frames(folder):
    return read_ava_frames([folder / "list.csv"], folder / "frames", fps=FPS, first_second=FIRST_SECOND)


def test_keyframes_are_counted_from_the_first_second(frames):
    assert [frames.keyframe("wide", second) for second in (900, 901, 904)] == [0, FPS, 4 * FPS]
    assert len(frames.videos["tall"].paths) == SECONDS * FPS


@pytest.mark.parametrize("second", [899, 900 + SECONDS])
def test_a_second_without_frames_says_what_is_there(frames, second):
    with pytest.raises(ValueError, match=f"second {second} of video 'wide'.*900 to 904.8.*AVA.FIRST_SECOND"):
        frames.keyframe("wide", second)


def test_frame_lists_are_joined_and_their_mistakes_named(tmp_path, folder):
    with pytest.raises(FileNotFoundError, match="AVA.FRAME_DIR"):
        read_ava_frames([folder / "list.csv"], tmp_path / "gone")
    with pytest.raises(FileNotFoundError, match="none.csv"):
        read_ava_frames([folder / "none.csv"], folder / "frames")
    with pytest.raises(ValueError, match="'tall', which an earlier"):
        read_ava_frames([folder / "list.csv"] * 2, folder / "frames")
    with pytest.raises(ValueError, match="AVA.TRAIN_LISTS"):
        read_ava_frames([], folder / "frames")
    with pytest.raises(ValueError, match="AVA.FPS is 0"):
        read_ava_frames([folder / "list.csv"], folder / "frames", fps=0)


def test_actions_of_identical_boxes_are_joined(folder, frames):
    keyframes = read_keyframes(frames, ground_truth=[folder / "truth.csv"], num_classes=4)
    assert keyframes.names == [("wide", 901), ("wide", 902), ("tall", 903)] and len(keyframes) == keyframes.num_boxes == 3
    for i, key in enumerate(keyframes.names):
        keyframe = keyframes[i]
        assert (keyframe.video, keyframe.second) == key
        np.testing.assert_allclose(keyframe.boxes_N4, [BOXES[key]], rtol=1e-6)
        assert (keyframe.labels_NK.nonzero()[1] + 1).tolist() == ACTIONS[key] and keyframe.labels_NK.shape == (1, 4)


def test_detected_boxes_need_their_score(folder, frames):
    paths = dict(ground_truth=[folder / "truth.csv"], detected=[folder / "detected.csv"])
    assert len(read_keyframes(frames, detected=[folder / "detected.csv"], score_threshold=0.95)) == 3
    everything = read_keyframes(frames, **paths, score_threshold=0.5)
    assert len(everything) == 4 and not everything[2].labels_NK.any()
    # A detected box with the coordinates of an annotated one is that box.
    assert everything.num_boxes == 4
    with pytest.raises(ValueError, match=r"no box with a score of at least 0.96 \(AVA.DETEC.*detected.csv"):
        read_keyframes(frames, detected=[folder / "detected.csv"], score_threshold=0.96)


def test_ground_truth_named_among_the_detected_boxes_stays_ground_truth(folder, frames):
    """As in PySlowFast's files; the last column of ground truth is a person, here number 7."""
    both = read_keyframes(frames, ground_truth=[folder / "truth.csv"], detected=[folder / "truth.csv"], num_classes=4)
    alone = read_keyframes(frames, ground_truth=[folder / "truth.csv"], num_classes=4)
    assert both.fingerprint() == alone.fingerprint()


def test_fingerprints_tell_sets_apart(tmp_path, folder, frames):
    def keyframes(rows):
        return read_keyframes(frames, ground_truth=[write(tmp_path / "truth.csv", rows)], num_classes=4).fingerprint()

    rows = row(("wide", 901), 1, 0), row(("wide", 901), 2, 0), row(("wide", 902), 1, 0)
    assert len({keyframes([line]) for line in rows}) == 3
    assert frames.fingerprint() == read_ava_frames([folder / "list.csv"], folder / "frames", fps=FPS).fingerprint()
    assert frames.fingerprint() != read_ava_frames([folder / "list.csv"], folder / "frames", fps=FPS + 1).fingerprint()


@pytest.mark.parametrize(
    "line, detected, words",
    [
        (f"wide,901,{BOX}", False, "6 columns: write 'video,second,x1,y1,x2,y2,action,person'"),
        (f"wide,901,{BOX},1", True, "7 columns: write 'video,second,x1,y1,x2,y2,action,score'"),
        (f"wide,901,{BOX},1,0.9,0", True, "9 columns"),
        ("wide,901,0.1,0.2,1.3,0.4,1,0", False, r"leaves \[0, 1\]: divide x by the frame's width"),
        ("wide,901,-0.1,0.2,0.3,0.4,1,0", False, r"leaves \[0, 1\]"),
        ("wide,901,nan,0.2,0.3,0.4,1,0", False, "are not four numbers"),
        ("wide,901,0.3,0.2,0.3,0.4,1,0", False, "x1 must be below x2"),
        ("wide,901,0.1,0.5,0.3,0.4,1,0", False, "y1 below y2"),
        ("wide,901,0.1,0.2,0.3,,1,0", False, "'0.1,0.2,0.3,' are not four numbers"),
        ("wide,soon,0.1,0.2,0.3,0.4,1,0", False, "second is 'soon': give a whole number"),
        (f"wide,901,{BOX},5,0", False, "action 5 is unknown: legal are 1 to 4"),
        (f"wide,901,{BOX},0,0", False, "action 0 is unknown"),
        (f"wide,901,{BOX},walk,0", False, "action is 'walk'"),
        (f"wide,901,{BOX},1,17", True, "score 17 leaves.*AVA.TRAIN_GT_BOX_LISTS"),
        (f"wide,901,{BOX},1,", True, "score is ''"),
        (f"long,901,{BOX},1,0", False, "video 'long' is in no frame list"),
        (f"wide,899,{BOX},1,0", False, "second 899 of video 'wide' has no frame"),
    ],
)
def test_a_wrong_row_is_named_with_its_file_line_and_fix(tmp_path, frames, line, detected, words):
    path = write(tmp_path / "boxes.csv", [f"wide,901,{BOX},1,0.9", "", line])
    with pytest.raises(ValueError, match=words) as caught:
        list(read_boxes(path, detected=detected, num_classes=4, frames=frames))
    assert str(caught.value).startswith(f"'{path}', line 3, '{line}': ")


@pytest.mark.parametrize(
    "line, detected, words",
    [
        (f"wide,{10**9},{BOX},1,0", False, "second 1000000000 is in no film: legal are 0 to 1000000"),
        (f"wide,-1,{BOX},1,0", False, "second -1 is in no film"),
        (f"wide,{'9' * 5000},{BOX},1,0", False, "second is '9999.*give a whole number"),
        (f"wide,٩٠١,{BOX},1,0", False, "second is '٩٠١'"),
        (f"wide,9_01,{BOX},1,0", False, "second is '9_01'"),
        (f",901,{BOX},1,0", False, "the video has no name"),
        ("wide,901,0.1,0.2,inf,0.4,1,0", False, "are not four numbers"),
        (f"wide,901,{BOX},1,nan", True, "score is 'nan': give a number"),
        (f"wide,901,{BOX},1,inf", True, "score is 'inf': give a number"),
        (f'"wide,901,{BOX},1,0', False, "a quote is opened and not closed"),
        (f"wide,901,{BOX},{'1' * 130_000},0", False, "action is '1111"),
    ],
)
def test_a_row_of_nonsense_is_named_and_hides_no_other(tmp_path, line, detected, words):
    rows = [f"wide,901,{BOX},1,0.9"] * 2
    problems = list(scan_boxes(write(tmp_path / "boxes.csv", [rows[0], line, rows[1]]), detected=detected, num_classes=4))
    assert [row is None for _, row, _ in problems] == [False, True, False]
    (place, _, cause) = problems[1]
    assert re.search(words, cause) and f"'{tmp_path}/boxes.csv', line 2, " in place and len(place + cause) < 1000


def test_boxes_in_another_encoding_are_named(tmp_path):
    (tmp_path / "boxes.csv").write_bytes(f"wide,901,{BOX},1,0\nvid\xe9,901,{BOX},1,0\n".encode("latin-1"))
    with pytest.raises(ValueError, match="boxes.csv', line 2: .*not UTF-8"):
        list(scan_boxes(tmp_path / "boxes.csv", detected=False))


def test_a_frame_list_of_reversed_or_late_rows_is_refused(tmp_path, folder):
    lines = (folder / "list.csv").read_text().splitlines()
    for rows, words in ((lines[:0:-1], "video 'tall' begins with frame_id 29(.|\\n)*2 late at a video's beginning, 58 out of order"), (lines[4:], "begins with frame_id 3")):
        with pytest.raises(ValueError, match=f"list.csv', line .: (.|\n)*{words}"):
            read_ava_frames([write(tmp_path / "list.csv", [lines[0], *rows])], folder / "frames", fps=FPS)


def test_empty_and_missing_files_of_boxes(tmp_path, frames):
    empty = write(tmp_path / "empty.csv", [])
    for arguments in (dict(detected=[empty]), dict(ground_truth=[empty])):
        with pytest.raises(ValueError, match="empty.csv' is empty"):
            read_keyframes(frames, **arguments)
    with pytest.raises(ValueError, match="AVA.GROUNDTRUTH_FILE"):
        read_ground_truth(empty)
    with pytest.raises(FileNotFoundError, match="gone.csv.*AVA.ANNOTATION_DIR"):
        read_keyframes(frames, detected=[tmp_path / "gone.csv"])


def test_ground_truth_has_a_row_for_each_action_and_knows_empty_keyframes(tmp_path):
    rows = [row(("wide", 901), 1, 0), row(("wide", 901), 3, 0), row(("tall", 903), "", ""), "wide,0903", "wide,0904,,,,,,"]
    truth = read_ground_truth(write(tmp_path / "truth.csv", rows))
    assert {key: len(boxes) for key, (boxes, _) in truth.items()} == {
        ("wide", 901): 2, ("tall", 903): 0, ("wide", 903): 0, ("wide", 904): 0
    }  # fmt: skip
    boxes_N4, actions_N = truth["wide", 901]
    assert boxes_N4.tolist() == [list(BOXES["wide", 901])] * 2 and actions_N.tolist() == [1, 3]


def test_excluded_timestamps(tmp_path):
    assert read_excluded(write(tmp_path / "some.csv", ["a,0902", "", "b,c,1000"])) == {("a", 902), ("b,c", 1000)}
    assert read_excluded(write(tmp_path / "none.csv", [])) == set()
    for line in ("a", "a,", ",902", "a,late", "a,²", "a,٩", f"a,{10**9}", f"a,{'9' * 5000}", "a,-3"):
        with pytest.raises(ValueError, match="line 2.*'video,second'"):
            read_excluded(write(tmp_path / "wrong.csv", ["a,902", line]))
    with pytest.raises(FileNotFoundError, match="AVA.EXCLUSION_FILE"):
        read_excluded(tmp_path / "gone.csv")


def test_timestamps_that_exclude_nothing_are_told(tmp_path, folder, caplog):
    paths = folder / "truth.csv", write(tmp_path / "excluded.csv", ["Wide,902"]), folder / "labels.pbtxt"
    read_reference(*paths, num_classes=4)
    assert "excludes nothing" in caplog.text


def test_both_published_forms_of_the_label_map(tmp_path):
    all_actions = 'label {\n  name: "talk to (e.g., self)"\n  label_id: 79\n  label_type: PERSON\n}\n'
    all_actions += "label { name: 'sit' label_id: 11 }"
    assert read_label_map(write(tmp_path / "a.pbtxt", [LABEL_MAP])) == [(1, "stand (still)"), (3, "sit")]
    assert read_label_map(write(tmp_path / "b.pbtxt", [all_actions])) == [(11, "sit"), (79, "talk to (e.g., self)")]


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "has no class"),
        ('item { name: "sit" }', "has not both"),
        ('item { name: "sit" id: 9 }', "id 9 of 'sit' is not in 1 to 4"),
        (LABEL_MAP + 'item { name: "lie" id: 3 }', "id 3 of 'lie' stands twice"),
        (LABEL_MAP + 'item { name: "lie" id: ' + "9" * 5000 + " }", "has not both"),
    ],
)
def test_wrong_label_maps(tmp_path, text, words):
    with pytest.raises(ValueError, match=words):
        read_label_map(write(tmp_path / "labels.pbtxt", [text]), num_classes=4)
    with pytest.raises(FileNotFoundError, match="AVA.LABEL_MAP_FILE"):
        read_label_map(tmp_path / "gone.pbtxt")


def test_a_reference_is_known_by_its_fingerprint(folder):
    reference = read_reference(folder / "truth.csv", folder / "excluded.csv", folder / "labels.pbtxt", num_classes=4)
    assert reference.excluded == {("wide", 902)} and reference.classes[0] == (1, "stand (still)")
    for other in (dict(excluded=frozenset()), dict(classes=[(1, "sit")]), dict(ground_truth={})):
        assert dataclasses.replace(reference, **other).fingerprint() != reference.fingerprint()


@pytest.mark.skipif(not SHARED.is_dir(), reason="the evaluation data is not here")
@pytest.mark.parametrize("split, boxes", [("train", 110), ("val", 41)])
def test_a_set_of_real_videos_is_read_whole(tmp_path, split, boxes):
    frames = read_ava_frames([SHARED / "frame_lists" / f"{split}.csv"], tmp_path)
    truth = SHARED / "annotations" / f"ava_{split}_v2.2.csv"
    detected = {"train": "train_boxes_and_labels_include_negative_v2.2", "val": "val_boxes_and_labels"}[split]
    found = SHARED / "annotations" / "person_box_67091280_iou90" / f"ava_detection_{detected}.csv"
    assert read_keyframes(frames, ground_truth=[truth], num_classes=10).num_boxes == boxes
    assert read_keyframes(frames, detected=[found], score_threshold=0.9, num_classes=10).num_boxes == boxes
    assert sum(len(actions) for _, actions in read_ground_truth(truth, num_classes=10, frames=frames).values()) == boxes
