"""Data sets as they are published, in little: the same files and folders, a few small videos in them."""

import json
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat
from videos import moving_frames, write_video

KINETICS_HEADER = "label,youtube_id,time_start,time_end,split"
CHARADES_HEADER = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length"
CLASSES = ("air drumming", "yoga")
JHMDB_CLASSES = (
    "brush_hair catch clap climb_stairs golf jump kick_ball pick pour pullup push run shoot_ball shoot_bow shoot_gun sit stand swing_baseball throw walk wave"
).split()


def write_kinetics(root):
    """annotations/*.csv, and videos/class/id_start_end.mp4; the last one of train is missing."""
    for split, ids in (("train", "abcd"), ("validate", "ef")):
        rows = [f"{CLASSES[i % 2]},{name},{i},{i + 10},{split}" for i, name in enumerate(ids)]
        _write(root / f"annotations/{split}.csv", [KINETICS_HEADER, *rows])
        for i, name in enumerate(ids[:3]):
            _video(root / f"videos/{CLASSES[i % 2]}/{name}_{i:06d}_{i + 10:06d}.mp4")


def write_ucf101(root):
    _write(root / "ucfTrainTestlist/classInd.txt", ["1 ApplyEyeMakeup", "2 YoYo"])
    names = ["ApplyEyeMakeup/v_ApplyEyeMakeup_g08_c01.avi", "YoYo/v_YoYo_g08_c01.avi"]
    _write(root / "ucfTrainTestlist/trainlist01.txt", [f"{name} {label}" for label, name in enumerate(names, 1)])
    _write(root / "ucfTrainTestlist/testlist01.txt", [name.replace("g08", "g01") for name in names])
    for name in names:
        _video(root / "UCF-101" / name)
        _video(root / "UCF-101" / name.replace("g08", "g01"))


def write_hmdb51(root):
    for class_name in ("brush_hair", "wave"):
        rows = [f"{class_name}_{use}.avi {use} " for use in (0, 1, 2)]
        _write(root / f"testTrainMulti_7030_splits/{class_name}_test_split1.txt", rows)
        for use in (0, 1, 2):
            _video(root / f"videos/{class_name}/{class_name}_{use}.avi")


def write_jhmdb(root):
    """splits/, ReCompress_Videos/class/*.avi and puppet_mask/class/video/puppet_mask.mat of 21 classes: four clips of a class and one to test.

    Each is of a film of its own, but those of film_0, which every class has. In frame t the person covers half of the columns, from 2 * t on.
    """
    mask_HWT = np.zeros((48, 64, 6), np.uint8)
    for frame in range(6):
        mask_HWT[12:36, 2 * frame : 2 * frame + 32, frame] = 1 + frame
    for label, class_name in enumerate(JHMDB_CLASSES):
        names = [
            f"film_{source}_{class_name}_f_nm_np1_fr_goo_{i}"
            for i, source in enumerate((0, 0, 3 * label + 1, 3 * label + 2, 3 * label + 3))
        ]
        rows = [f"{name}.avi {1 if i < 4 else 2} " for i, name in enumerate(names)]
        _write(root / f"splits/{class_name}_test_split1.txt", rows)
        for name in names:
            _video(root / f"ReCompress_Videos/{class_name}/{name}.avi")
            mask = root / f"puppet_mask/{class_name}/{name}/puppet_mask.mat"
            mask.parent.mkdir(parents=True)
            savemat(mask, {"part_mask": mask_HWT})


def write_weizmann(root):
    """action/person_action.avi of three people, one of which is for validation, the lists and classes.txt."""
    actions = "bend jack jump pjump run side skip walk wave1 wave2".split()
    _write(root / "classes.txt", actions)
    for split, people in (("train", ("daria", "denis")), ("val", ("ira",))):
        _write(root / f"{split}.csv", [f"{action}/{person}_{action}.avi {label}" for label, action in enumerate(actions[:2]) for person in people])
        for action in actions[:2]:
            for person in people:
                _video(root / action / f"{person}_{action}.avi")


def write_charades(root):
    """Charades/*.csv, Charades_v1_480/id.mp4: a second at 30 fps each, actions in its first and second half."""
    classes = [f"c{label:03d} Doing thing {label}" for label in range(157)]
    _write(root / "Charades/Charades_v1_classes.txt", classes)
    for split, ids in (("train", ("AAAAA", "BBBBB")), ("test", ("CCCCC", "DDDDD"))):
        rows = [_charades_row(name, "c092 0.00 0.40;c003 0.60 1.00" if i == 0 else "") for i, name in enumerate(ids)]
        _write(root / f"Charades/Charades_v1_{split}.csv", [CHARADES_HEADER, *rows])
        for name in ids:
            _video(root / f"Charades_v1_480/{name}.mp4", 30)


def write_coco(root):
    """annotations/instances_{train,val}2017.json of 80 categories with COCO's gaps, and {train,val}2017/*.jpg: two images of a square each."""
    ids = [number for number in range(1, 91) if number not in (12, 26, 29, 30, 45, 66, 68, 69, 71, 83)]
    for split in ("train2017", "val2017"):
        images = [{"id": 9 + i, "file_name": f"{9 + i:012d}.jpg", "height": 48 + 16 * i, "width": 64} for i in range(2)]
        annotations = [
            {"id": i + 1, "image_id": 9 + i, "category_id": ids[40 * i], "bbox": [8, 8, 32, 24], "area": 768, "iscrowd": 0,
             "segmentation": [[8, 8, 40, 8, 40, 32, 8, 32]]} for i in range(2)
        ]  # fmt: skip
        for image in images:
            pixels = np.full((image["height"], image["width"], 3), 90, np.uint8)
            pixels[8:32, 8:40] = 220
            path = root / split / image["file_name"]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
        content = {"images": images, "annotations": annotations, "categories": [{"id": number, "name": f"thing {number}"} for number in ids]}
        _write(root / f"annotations/instances_{split}.json", [json.dumps(content)])


def write_ssv2(root):
    """The json files, of 174 classes, and 20bn-something-something-v2/id.webm."""
    labels = {f"Doing something in way {label}": str(label) for label in range(174)}
    _write(root / "something-something-v2-labels.json", [json.dumps(labels)])
    for split, ids in (("train", ("1", "2")), ("validation", ("3", "4"))):
        entries = [{"id": name, "template": f"Doing [something] in way {name}"} for name in ids]
        _write(root / f"something-something-v2-{split}.json", [json.dumps(entries)])
        for name in ids:
            _video(root / f"20bn-something-something-v2/{name}.webm")


def write_div2k(root):
    """DIV2K_{train,valid}_HR/0001.png and DIV2K_{train,valid}_LR_bicubic/X2/0001x2.png: three and three scenes, the last of another size."""
    for part, names in (("train", ("0001", "0002", "0003")), ("valid", ("0801", "0802", "0803"))):
        for i, name in enumerate(names):
            width, height = (96, 64) if i < 2 else (64, 80)
            scene = np.random.default_rng(int(name)).integers(0, 256, (height // 8, width // 8, 3), np.uint8)
            large = Image.fromarray(scene).resize((width, height), Image.Resampling.BICUBIC)
            _image(root / f"DIV2K_{part}_HR/{name}.png", large)
            _image(root / f"DIV2K_{part}_LR_bicubic/X2/{name}x2.png", large.resize((width // 2, height // 2), Image.Resampling.BICUBIC))
    return root


def write_nyudv2(root):
    """RGB/0.jpg, Label/0.png, ... with train.txt and test.txt: two rooms of 40 classes and what nobody labelled, and one."""
    for split, names in (("train", ("0", "1")), ("test", ("2",))):
        for name in names:
            blocks = np.random.default_rng(int(name)).integers(0, 41, (12, 16), np.uint8)
            labels = Image.fromarray(blocks).resize((64, 48), Image.Resampling.NEAREST)
            _image(root / f"Label/{name}.png", labels)
            _image(root / f"RGB/{name}.jpg", Image.fromarray(np.repeat(6 * np.asarray(labels)[..., None], 3, 2)))
        _write(root / f"{split}.txt", [f"RGB/{name}.jpg Label/{name}.png" for name in names])
    return root


def _image(path, image):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def _charades_row(name, actions):
    return f'{name},HR43,Kitchen,6,7,Yes,"A person, who cooks.",food/stove,"A person cooks, and eats.",{actions},30.5'


def _write(path, lines):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def _video(path, num_frames=6):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    codec = {".avi": "mpeg4", ".webm": "libvpx"}.get(path.suffix, "libx264")
    write_video(path, moving_frames(num_frames, seed=len(str(path))), codec=codec)
