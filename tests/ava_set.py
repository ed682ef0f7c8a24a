"""A set in AVA's form for tests: bright boxes on dark frames, in two videos whose frames differ in size."""

import numpy as np

from mutual3d.data.prepare.extraction import write_frame_rows, write_image

FPS, FIRST_SECOND, SECONDS = 6, 900, 5
SIZES = {"wide": (48, 80), "tall": (80, 48)}
BOXES = {("wide", 901): (0.1, 0.25, 0.3, 0.75), ("wide", 902): (0.6, 0.5, 0.9, 0.75), ("tall", 903): (0.25, 0.1, 0.5, 0.4)}
ACTIONS = {("wide", 901): [1, 3], ("wide", 902): [2], ("tall", 903): [3]}
LABEL_MAP = 'item {\n  name: "stand (still)"\n  id: 1\n}\nitem {\n  name: "sit"\n  id: 3\n}\n'


def write_ava_set(directory):
    """frames/, list.csv, truth.csv, detected.csv, excluded.csv, labels.pbtxt; a frame shows its second's box in white."""
    for video, (height, width) in SIZES.items():
        (directory / "frames" / video).mkdir(parents=True)
        for frame in range(SECONDS * FPS):
            image = np.full((height, width, 3), 2 * frame, np.uint8)
            box = BOXES.get((video, FIRST_SECOND + round(frame / FPS)), (0, 0, 0, 0))
            x1, y1, x2, y2 = np.multiply(box, (width, height) * 2)
            image[round(y1) : round(y2), round(x1) : round(x2)] = 255
            write_image(directory / "frames" / path_of(video, frame), image)
    rows = ((video, 0, frame, path_of(video, frame), "") for video in SIZES for frame in range(SECONDS * FPS))
    write_frame_rows(directory / "list.csv", rows)
    truth = [row(key, action, "7") for key in BOXES for action in ACTIONS[key]]
    detected = [row(key, "", "0.95") for key in BOXES] + [row(("wide", 903), "-1", "0.5", (0.7, 0.1, 0.9, 0.3))]
    write(directory / "truth.csv", truth)
    write(directory / "detected.csv", detected)
    write(directory / "excluded.csv", ["wide,0902"])
    (directory / "labels.pbtxt").write_text(LABEL_MAP)
    return directory


def path_of(video, frame):
    return f"{video}/{video}_{frame + 1:06d}.jpg"


def row(key, action, last, box=None):
    return ",".join(map(str, (key[0], f"{key[1]:04d}", *(box or BOXES[key]), action, last)))


def write(path, rows):
    path.write_text("".join(f"{line}\n" for line in rows))
    return path
