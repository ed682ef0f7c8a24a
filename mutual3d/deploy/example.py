"""The program that is written beside an exported file: it runs the file with PyAV, NumPy and the runtime alone."""

from pathlib import Path

from mutual3d.deploy.runtimes import Runtime
from mutual3d.utils.files import atomic_write

_PROGRAM = '''"""What {file} sees in a video, without the project that made it: python {program} VIDEO (pip install av numpy {package})"""
import json, pathlib, sys
import av, numpy as np, {package}
path = str(pathlib.Path(__file__).with_name({file!r}))
{load}
count = sum(1 for _ in av.open(sys.argv[1]).decode(video=0))
rate = float(av.open(sys.argv[1]).streams.video[0].average_rate or facts["target_fps"])
span = facts["num_frames"] * facts["sampling_rate"] * rate / facts["target_fps"]  # the clip, in the middle, in this video's frames
places = max(count - span, 0) / 2 + np.linspace(0, max(span - 1, 0), facts["num_frames"]) + 1e-6
chosen = np.minimum(places.astype(int), count - 1)  # a video that is shorter repeats its last frame
def resize(x, size, axis):  # bilinear, without antialiasing
    at = np.clip((np.arange(size) + 0.5) * x.shape[axis] / size - 0.5, 0, x.shape[axis] - 1)
    share = (at % 1).reshape([-1 if i == axis else 1 for i in range(3)])
    return x.take(at.astype(int), axis) * (1 - share) + x.take(np.ceil(at).astype(int), axis) * share
def view(x):  # height, width, 3: the short side resized, the centre cut out
    height, width = {sides}
    top, left = (-(-(a - b) // 2) for a, b in zip((height, width), facts["frame"]))
    return resize(resize(x, height, 0), width, 1)[top:, left:][: facts["frame"][0], : facts["frame"][1]].round().astype(np.uint8)
seen = {{i: view(x.to_ndarray(format="rgb24")) for i, x in enumerate(av.open(sys.argv[1]).decode(video=0)) if i in chosen}}
clip = np.ascontiguousarray(np.stack([seen[i] for i in chosen]).transpose(3, 0, 1, 2)[None])  # uint8 1, 3, frames, height, width
{run}
print(*(f"{{100 * scores[i]:.2f}} % {{(facts['classes'] or range(len(scores)))[i]}}" for i in np.argsort(-scores)[:5]), sep="\\n")
'''
# The sides that frames are resized to: the short one in proportion, or those of the whole frames that boxes are on.
_SIDES = '(max(facts["short_side"], side * facts["short_side"] // min(x.shape[:2])) for side in x.shape[:2])'
_WHOLE_SIDES = 'facts["frame"]'
# What the network is called with; a box is the whole frame.
_INPUTS = {"clips": "[clip]", "images": "[np.ascontiguousarray(clip[:, :, 0])]", "boxes": "[clip, np.float32([[0, 0, 0, 1, 1]])]"}


def write_example(path: Path, runtime: Runtime, file: str, takes: str) -> Path | None:
    """Write the program that runs `file` with a runtime to `path`; None where the runtime tells no lines for it.

    takes: clips, images, or boxes beside clips.
    """
    if not runtime.example:
        return None
    load, run = runtime.example
    sides = _WHOLE_SIDES if takes == "boxes" else _SIDES
    text = _PROGRAM.format(
        file=file, program=path.name, package=runtime.packages[-1], load=load, sides=sides, run=run.replace("INPUTS", _INPUTS[takes])
    )
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path
