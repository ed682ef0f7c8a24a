"""The programs that are written beside exported files: they run them with PyAV, NumPy and the runtime alone."""

from pathlib import Path

from mutual3d.deploy.runtimes import Runtime
from mutual3d.utils.files import atomic_write

# What becomes of a frame, before the network shrinks it.
_VIEW = '''def resize(x, size, axis):  # bilinear, without antialiasing
    at = np.clip((np.arange(size) + 0.5) * x.shape[axis] / size - 0.5, 0, x.shape[axis] - 1)
    share = (at % 1).reshape([-1 if i == axis else 1 for i in range(3)])
    return x.take(at.astype(int), axis) * (1 - share) + x.take(np.ceil(at).astype(int), axis) * share
def view(frame):  # height, width, 3: upright, as phones turn videos; the short side resized, the centre cut out
    x = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
    height, width = {sides}
    top, left = (-(-(a - b) // 2) for a, b in zip((height, width), facts["frame"]))
    return resize(resize(x, height, 0), width, 1)[top:, left:][: facts["frame"][0], : facts["frame"][1]].round().astype(np.uint8)'''
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
{view}
seen = {{i: view(x) for i, x in enumerate(av.open(sys.argv[1]).decode(video=0)) if i in chosen}}
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
        file=file, program=path.name, package=runtime.packages[-1], load=load, view=_VIEW.format(sides=sides), run=run.replace("INPUTS", _INPUTS[takes])
    )
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return path


_FRONT_PROGRAM = '''"""Answers a video within a deadline by the networks beside this file, without the project that made them.

python {program} VIDEO MILLISECONDS (pip install av numpy onnxruntime)

Of the networks, which are ascending in cost and accuracy, the last one runs that the deadline leaves time for, by what they took so far.
"""
import collections, json, pathlib, sys, time
import av, numpy as np, onnxruntime
folder, deadline = pathlib.Path(__file__).parent, float(sys.argv[2])
facts = json.loads((folder / "front.json").read_text())
names = [row["configuration"] for row in facts["front"]]
networks = [onnxruntime.InferenceSession(str(folder / row["file"])) for row in facts["front"]]
count, span = facts["num_frames"], facts["num_frames"] * facts["sampling_rate"] / facts["target_fps"]  # frames and seconds of a clip
{view}
def run(number, clip):
    start = time.perf_counter()
    scores = networks[number].run(None, {{networks[number].get_inputs()[0].name: clip}})[0][0]
    return scores, 1000 * (time.perf_counter() - start)
blank = np.zeros((1, 3, count, *facts["frame"]), np.uint8){image}
times = [min(run(number, blank)[1] for _ in range(3)) for number in range(len(networks))]
video, window, met = av.open(sys.argv[1]), collections.deque(), []
rate = float(video.streams.video[0].average_rate or facts["target_fps"])
now = -1 / rate  # a frame without a time of its own is shown after the one before
due = min(span, 0.9 * (video.duration or 0) / av.time_base)  # the first answer; then one each fifth of a second
for frame in video.decode(video=0):
    now = now + 1 / rate if frame.time is None else frame.time
    window.append((now, view(frame)))
    while window[-1][0] - window[0][0] > span:
        window.popleft()
    if now >= due:
        due, start = now + 0.2, time.perf_counter()
        seconds, wanted = np.array([second for second, _ in window]), np.linspace(max(now - span, 0), now, count)
        clip = np.stack([window[abs(seconds - second).argmin()][1] for second in wanted]).transpose(3, 0, 1, 2)[None]
        left = deadline - 1000 * (time.perf_counter() - start)
        number = max((n for n in range(len(networks)) if 1.2 * times[n] < left), default=int(np.argmin(times)))
        scores, took = run(number, np.ascontiguousarray(clip){image})
        times[number] += 0.2 * (took - times[number])
        total, best = 1000 * (time.perf_counter() - start), int(scores.argmax())
        met.append(total <= deadline)
        print(f"{{now:.2f}} s  {{names[number]}}  {{total:.1f}} ms  {{(facts['classes'] or range(len(scores)))[best]}} {{100 * scores[best]:.0f}} %")
print(f"{{sum(met)}} of {{len(met)}} answers within {{deadline:g}} ms")
'''


def write_front_example(path: Path, takes: str) -> None:
    """Write the program that holds a deadline with the files of a front, in ONNX Runtime, to `path`. takes: clips or images."""
    image = "[:, :, 0]" if takes == "images" else ""
    text = _FRONT_PROGRAM.format(program=path.name, view=_VIEW.format(sides=_SIDES), image=image)
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
