"""Videos a second from file to clips: ours with each backend and cached, beside loaders on decord, PyTorchVideo, torchcodec and SPDL.

python benchmarks/loading.py
python benchmarks/loading.py --accesses training --gops 60 --repeats 30

Makes H.264 videos itself (10 s of 340 x 256 pixels at 30 frames a second, a keyframe every 12, 60 and 250 frames as mp4, and every 60
as mkv), and reads of each
what training reads (16 frames at stride 5 from a random place, a random crop of 224) and what the multi-view test reads (ten such
clips over the video, crop 256). The file is opened for each, as in training; one thread; in turns, so that noise meets all alike, and
from the same random places. "ours" resizes, crops and checks for damage; a peer resizes the short side and crops. The floors are what any
exact decoder has to do: opening the file, and decoding every frame from the keyframe before the first wanted one to the last, without
conversion ("decoding"); the same without the frames that no other refers to ("decoding, no B"), which ours does. CPU milliseconds,
medians; what is not installed is left out. Writes benchmarks/results/loading.csv.
"""

import argparse
import importlib.util
import statistics
import tempfile
import time
from pathlib import Path

import av
import numpy as np
import torch
from common import machine, save_rows

from mutual3d.data.clips.frames import ClipSampling, Views, random_clip, view_clip
from mutual3d.data.clips.transforms import TrainingCrop
from mutual3d.data.datasets.kinetics import VideoDataset, sample_generator
from mutual3d.data.prepare.caching import prepare_cache
from mutual3d.data.video.decode import BACKENDS, VideoOpening, what_is_missing
from mutual3d.data.video.frame_cache import FrameCache

HEIGHT, WIDTH, FPS, SECONDS = 256, 340, 30, 10
NUM_FRAMES, STRIDE = 16, 5
SPAN = NUM_FRAMES * STRIDE
SAMPLING = ClipSampling(NUM_FRAMES, STRIDE, FPS)
SIZES = {"training": (256, 224), "ten views": (256, 256)}  # short side, crop
VIEWS = 10


def write_panning(path, gop_size):
    """A camera that pans over a texture with a moving, inverted square and sensor noise; x264's defaults, three B-frames."""
    generator = np.random.default_rng(0)
    layers = [torch.tensor(generator.random((1, 3, rows, columns)), dtype=torch.float32) for rows, columns in ((60, 90), (350, 500))]
    coarse, fine = (torch.nn.functional.interpolate(layer, size=(700, 1000), mode="bilinear")[0] for layer in layers)
    ground = ((0.7 * coarse + 0.3 * fine) * 255).byte().permute(1, 2, 0).numpy()
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt, stream.gop_size = WIDTH, HEIGHT, "yuv420p", gop_size
        for number in range(SECONDS * FPS):
            top, left = int(200 + 150 * np.sin(number / 40)), int(300 + 250 * np.cos(number / 55))
            image = ground[top : top + HEIGHT, left : left + WIDTH].astype(np.int16)
            top, left = 3 * number % (HEIGHT - 60), 5 * number % (WIDTH - 60)
            image[top : top + 60, left : left + 60] = 255 - image[top : top + 60, left : left + 60]
            image = (image + generator.integers(-4, 5, (HEIGHT, WIDTH, 1))).clip(0, 255).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(image, format="rgb24")
            frame.pts = number
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


# ---- Ours ------------------------------------------------------------------------------------------------------------


def ours(path, access, backend="pyav", cache=None):
    """epoch -> clips, of the frames that `wanted_frames` says."""
    sampling, opening = SAMPLING, VideoOpening(backend)
    crop = SIZES[access][1]
    if access == "training":
        dataset = VideoDataset([(str(path), 0)], sampling, crop, training=True, crop=TrainingCrop((256, 320)), opening=opening, cache=cache)
    else:
        dataset = VideoDataset([(str(path), 0)], sampling, crop, views=Views(VIEWS), opening=opening, cache=cache)
    return lambda epoch: dataset[epoch, 0].clips_VCTHW


# ---- Peers: each takes the frames that are wanted, ascending, and gives them T, H, W, C or T, C, H, W ---------------


def wanted_frames(access, epoch):
    """The frames of each clip: those that ours reads, so that all decode the same."""
    if access == "training":
        return [random_clip(SECONDS * FPS, FPS, SAMPLING, sample_generator(0, epoch, 0))]
    return [view_clip(SECONDS * FPS, FPS, SAMPLING, view, Views(VIEWS)) for view in range(VIEWS)]


def cut(clip_TCHW, access):
    """Resize the short side, crop; as uint8."""
    short_side, crop = SIZES[access]
    if access == "training":
        short_side = 288
    if short_side != min(clip_TCHW.shape[-2:]):
        height, width = clip_TCHW.shape[-2:]
        size = (short_side, width * short_side // height)
        clip_TCHW = torch.nn.functional.interpolate(clip_TCHW, size=size, mode="bilinear", align_corners=False)
    top, left = ((side - crop) // 2 for side in clip_TCHW.shape[-2:])
    return clip_TCHW[..., top : top + crop, left : left + crop].contiguous()


def torchcodec_loader(path, access, seek_mode):
    """As its documentation shows: a decoder, the frames of all clips by index in one call."""
    from torchcodec.decoders import VideoDecoder

    def load(epoch):
        clips = wanted_frames(access, epoch)
        decoder = VideoDecoder(str(path), seek_mode=seek_mode, num_ffmpeg_threads=1)
        frames = decoder.get_frames_at([index for clip in clips for index in clip]).data
        return [cut(clip, access) for clip in frames.split(NUM_FRAMES)]

    return load


def decord_loader(path, access):
    """A reader, and a batch of frames for each clip."""
    import decord

    def load(epoch):
        reader = decord.VideoReader(str(path), num_threads=1)
        return [cut(torch.from_numpy(reader.get_batch(clip).asnumpy()).permute(0, 3, 1, 2), access) for clip in wanted_frames(access, epoch)]

    return load


def pytorchvideo_loader(path, access):
    """EncodedVideo.get_clip by seconds for each clip, then every fifth frame."""
    from pytorchvideo.data.encoded_video import EncodedVideo

    def load(epoch):
        video = EncodedVideo.from_path(str(path), decode_audio=False, decoder="pyav")
        clips = []
        for clip in wanted_frames(access, epoch):
            start = clip[0] / FPS
            frames = video.get_clip(start, start + SPAN / FPS)["video"][:, ::STRIDE][:, :NUM_FRAMES]
            clips.append(cut(frames.permute(1, 0, 2, 3).to(torch.uint8), access))
        return clips

    return load


def spdl_loader(path, access):
    """The packets of the file, of which those that the wanted frames need are decoded, in one conversion."""
    import spdl.io

    def load(epoch):
        clips = wanted_frames(access, epoch)
        union = sorted({index for clip in clips for index in clip})
        frames = spdl.io.sample_decode_video(spdl.io.demux_video(str(path)), union)
        frames_TCHW = spdl.io.to_torch(spdl.io.convert_frames(frames)).permute(0, 3, 1, 2)
        place = {index: number for number, index in enumerate(union)}
        return [cut(frames_TCHW[[place[index] for index in clip]], access) for clip in clips]

    return load


# ---- Floors ----------------------------------------------------------------------------------------------------------


def decoding_alone(path, access, skips):
    """Opens the file, seeks, and decodes what the wanted frames need, keyframe by keyframe; nothing is converted."""
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        times, keyframes = sorted(packet.pts for packet in packets), [packet.pts for packet in packets if packet.is_keyframe]

    def load(epoch):
        wanted = sorted({times[index] for clip in wanted_frames(access, epoch) for index in clip})
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.codec_context.thread_count, stream.codec_context.thread_type = 1, "NONE"
            entry = max(time for time in keyframes if time <= wanted[0])
            container.seek(entry, stream=stream)
            remaining = set(wanted)
            for packet in container.demux(stream):
                if skips and packet.size:
                    stream.codec_context.skip_frame = "DEFAULT" if packet.pts in remaining else "NONREF"
                for frame in stream.codec_context.decode(packet if packet.size else None):
                    remaining.discard(frame.pts)
                if not remaining:
                    break

    return load


def find_loaders(path, access, cache):
    """{name: epoch -> clips} of what is installed."""
    loaders = {f"ours, {backend}": ours(path, access, backend) for backend in BACKENDS if not what_is_missing(backend)}
    loaders["ours, cached"] = ours(path, access, cache=cache)
    if not what_is_missing("torchcodec"):
        loaders["torchcodec, approximate"] = torchcodec_loader(path, access, "approximate")
        loaders["torchcodec, exact"] = torchcodec_loader(path, access, "exact")
    if not what_is_missing("decord"):
        loaders["decord"] = decord_loader(path, access)
    if importlib.util.find_spec("pytorchvideo"):
        loaders["PyTorchVideo"] = pytorchvideo_loader(path, access)
    if importlib.util.find_spec("spdl"):
        loaders["SPDL"] = spdl_loader(path, access)
    loaders["decoding"] = decoding_alone(path, access, skips=False)
    loaders["decoding, no B"] = decoding_alone(path, access, skips=True)
    return loaders


def time_in_turns(loaders, repeats):
    """{name: median CPU seconds}; the first call of each, which learns what there is to learn of the file, does not count."""
    seconds = {name: [] for name in loaders}
    for epoch in range(repeats + 1):
        for name, load in loaders.items():
            start = time.process_time()
            load(epoch)
            if epoch:
                seconds[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in seconds.items()}


PEERS = ("torchcodec, approximate", "torchcodec, exact", "decord", "PyTorchVideo", "SPDL")


def rows_of(access, gop, container, seconds):
    """A row for each loader: what it takes, and how many times as fast it is as the best peer."""
    peers = [seconds[name] for name in PEERS if name in seconds]
    return [
        {
            "access": access, "gop": gop, "container": container, "loader": name, "cpu_ms": f"{1e3 * value:.1f}", "videos_a_second": f"{1 / value:.1f}",
            "times_best_peer": f"{min(peers) / value:.2f}" if peers else "", "machine": machine(),
        }
        for name, value in seconds.items()
    ]  # fmt: skip


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15, help="clips of each loader; default 15")
    parser.add_argument("--gops", type=int, nargs="+", default=[12, 60, 250], help="frames from keyframe to keyframe")
    parser.add_argument("--accesses", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--without", nargs="+", default=[], choices=PEERS, help="peers to leave out, such as those that take long")
    options = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        files = [(gop, "mp4") for gop in options.gops] + [(gop, "mkv") for gop in options.gops if gop == 60]
        paths = {file: Path(folder) / f"gop{file[0]}.{file[1]}" for file in files}
        for (gop, _), path in paths.items():
            write_panning(path, gop)
        prepare_cache(paths.values(), Path(folder) / "cache")
        cache = FrameCache(Path(folder) / "cache")
        for access in options.accesses:
            for (gop, container), path in paths.items():
                loaders = {name: load for name, load in find_loaders(path, access, cache).items() if name not in options.without}
                rows += rows_of(access, gop, container, time_in_turns(loaders, options.repeats))
    save_rows("loading", rows)


if __name__ == "__main__":
    main()
