"""Lists of every kind with seeded damage: each is read, or refused in words that name the file; nothing else comes of it."""

import random

import pytest

from mutual3d.data.datasets.ava.annotations import (
    read_ava_frames,
    read_excluded,
    read_ground_truth,
    read_keyframes,
    read_label_map,
    scan_boxes,
)  # fmt: skip
from mutual3d.data.datasets.charades import read_charades
from mutual3d.data.datasets.kinetics import read_video_list
from mutual3d.data.datasets.labels import read_class_names
from mutual3d.data.prepare.official_lists import read_hmdb51, read_kinetics, read_ucf101
from mutual3d.data.video.frame_list_reader import read_frame_list
from mutual3d.deploy.draw import read_boxes_csv

FRAMES = "original_vido_id video_id frame_id path labels\n" + "".join(
    f'{name} {number} {frame} "{name}/im g_{frame:04d}.jpg" "{labels}"\n'
    for number, name in enumerate("AB") for frame, labels in enumerate(("1", "1,2", "", "0"))
)  # fmt: skip
BOXES = "".join(f"A,{second:04d},0.1,0.25,0.3,0.75,{second % 3 + 1},{second % 2}\n" for second in range(4))


def read_keyframes_of(path):
    frames = path.parent / "frames.txt"
    frames.write_text(FRAMES)
    return read_keyframes(read_ava_frames([frames], path.parent, fps=1, first_second=0), ground_truth=[path], num_classes=4)


# Of each kind of list: a valid text, the name of its file, and what reads it.
KINDS = {
    "videos": ('a/b c.mp4 0\n"d e.mp4" 1\nf.mp4 2\n', "list.csv", lambda path: read_video_list(path, num_classes=4)),
    "named videos": ("a.mp4,run\nb.mp4,walk slowly\n", "list.csv", lambda path: read_video_list(path, "", ",", 4)),
    "labelled videos": ('a b.mp4 0,3\nc.mp4 ""\nd.mp4 1\n', "list.csv", lambda path: read_charades(path, num_classes=4)),
    "timed videos": (
        'id,subject,script,actions\nA,X,"One, ""two"".",c003 0.00 12.60;c001 0.4 1\nB,,s,\n', "list.csv",
        lambda path: read_charades(path, num_classes=4),
    ),
    "frames": (FRAMES, "list.csv", read_frame_list),
    "labelled frames": (FRAMES, "list.csv", lambda path: read_charades(path, num_classes=4)),
    "frames of AVA": (FRAMES, "list.csv", lambda path: read_ava_frames([path], path.parent)),
    "boxes": (BOXES, "boxes.csv", lambda path: read_ground_truth(path, num_classes=4)),
    "scanned boxes": (BOXES, "boxes.csv", lambda path: list(scan_boxes(path, detected=True, num_classes=4))),
    "keyframes": (BOXES, "boxes.csv", read_keyframes_of),
    "boxes of one video": ("second,x1,y1,x2,y2,score\n0.5,0.1,0.2,0.3,0.4,1\n1,.1,.2,.3,.4,0.7\n", "boxes.csv", read_boxes_csv),
    "excluded timestamps": ("A,0902\nB-x_,1000\n", "excluded.csv", read_excluded),
    "label map": ('item {\n  name: "sit (down)"\n  id: 1\n}\nlabel { name: "b" label_id: 3 }\n', "map.pbtxt", read_label_map),
    "class names": ("run\nwalk slowly\n\nsit\n", "names.txt", read_class_names),
    "numbered class names": ("id,name\n0,run\n1,walk slowly\n2,sit\n", "names.csv", read_class_names),
    "class names in json": ('{"run": 0, "walk slowly": 1, "\\u00e9": 2}', "names.json", read_class_names),
    "kinetics": ("label,youtube_id,time_start,time_end\nrun,a,0,10\nwalk,b-,1.5,11\n", "train.csv", read_kinetics),
    "ucf101": ("run/v_run_g01.avi 1\nwalk/v_walk_g01.avi 2\n", "trainlist01.txt", lambda path: read_ucf101(path.parent, 1)),
    "hmdb51": ("a.avi 1\nb.avi 2 \nc.avi 0\n", "run_test_split1.txt", lambda path: read_hmdb51(path.parent, 1)),
}  # fmt: skip
BITS = (
    b'"', b"\n", b"\r", b"\r\n", b"\0", b",", b" ", b"\t", b";", b"\xff", b"\xc3", "\u2028\x85\x0b\x0c".encode(), "\ufeff".encode(),
    b"nan", b"inf", b"-1", b"1e999", b"9" * 400, b"9" * 5000, b"1_0", "٣²".encode(), b"~", b"{", b"[", b"}", b"c001 ", b"../" * 9,
)  # fmt: skip


def damage(data, random):
    """Bytes of a list with one to four pieces of damage."""
    for _ in range(random.randint(1, 4)):
        start, end = sorted(random.randint(0, len(data)) for _ in range(2))
        lines = data.splitlines(keepends=True)
        other = random.randint(0, len(data))
        data = random.choice([
            lambda: data[:start] + data[end:],
            lambda: data[:start],
            lambda: data[:start] + random.choice(BITS) + data[start:],
            lambda: data[:start] + random.choice(BITS) + data[end:],
            lambda: data[:end] + data[start:end] + data[end:],
            lambda: data[:other] + data[start:end] + data[other:],
            lambda: data[:start] + bytes([random.randrange(256)]) + data[start + 1 :],
            lambda: b"".join(random.sample(lines, len(lines))),
            lambda: b"".join(lines[::-1]),
            lambda: data.replace(*random.choice([(b",", b" "), (b" ", b","), (b" ", b"\t"), (b'"', b""), (b"\n", b"\r"), (b"\n", b"")])),
            lambda: data + data,
            lambda: data[:start] + data[start:end][:40] * 5000 + data[end:],
        ])()[:400_000]  # fmt: skip
    encoding = random.choice([None] * 6 + ["utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp037"])
    return data.decode("latin-1").encode(encoding) if encoding else data


@pytest.mark.parametrize("kind", KINDS)
def test_damage_is_read_or_named(tmp_path, kind):
    text, name, read = KINDS[kind]
    path = tmp_path / name
    (tmp_path / "classes.txt").write_text("run\nwalk slowly\nsit\nlie\n")
    (tmp_path / "classInd.txt").write_text("1 run\n2 walk\n")
    (tmp_path / "testlist01.txt").write_text("run/v_run_g02.avi\n")
    path.write_text(text)
    assert read(path) is not None
    generator, refused = random.Random(kind), 0
    for _ in range(60):
        path.write_bytes(damage(text.encode(), generator))
        try:
            read(path)
        except (ValueError, OSError) as error:
            refused += 1
            assert name in str(error) and type(error) in (ValueError, FileNotFoundError, IsADirectoryError), repr(error)
            assert len(str(error)) < 2500
    assert refused > 20 or kind in ("scanned boxes", "class names", "excluded timestamps", "label map")
