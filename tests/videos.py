"""Videos for tests, made with PyAV."""

from fractions import Fraction

import av
import numpy as np


def moving_frames(num_frames, height=48, width=64, seed=0):
    """uint8 frames T, H, W, 3: a bright square moving over a textured ground; no two frames are alike."""
    generator = np.random.default_rng(seed)
    frames = np.repeat(generator.integers(40, 120, (1, height // 8, width // 8, 3), np.uint8), num_frames, axis=0)
    frames = frames.repeat(8, axis=1).repeat(8, axis=2)
    for t in range(num_frames):
        top, left = (3 * t) % (height - 12), (5 * t) % (width - 12)
        frames[t, top : top + 12, left : left + 12] = 255 - (7 * t) % 100
    return frames


def red_and_blue_frames(seconds=(0.8, 0.6, 0.7), fps=30, height=48, width=64):
    """uint8 frames T, H, W, 3: red first, then blue, and so on, for so many seconds each."""
    colours = [((255, 0, 0), (0, 0, 255))[place % 2] for place, length in enumerate(seconds) for _ in range(round(length * fps))]
    return np.broadcast_to(np.array(colours, np.uint8)[:, None, None], (len(colours), height, width, 3))


def numbered_frames(num_frames, height=48, width=64, start=0):
    """uint8 frames T, H, W, 3 of which each shows its own number, from `start`: see `number_of`."""
    bits_TB = np.arange(start, start + num_frames)[:, None] >> np.arange(8) & 1
    columns_TW = np.repeat(bits_TB, width // 8, axis=1).astype(np.uint8)
    return np.broadcast_to(40 + 175 * columns_TW[:, None, :, None], (num_frames, height, width, 3)).astype(np.uint8)


def number_of(frame_HWC):
    """The number that a frame of `numbered_frames` shows, scaled to any size or with something drawn on its lower part."""
    width = frame_HWC.shape[1]
    bits = [np.asarray(frame_HWC)[2, round((bit + 0.5) * width / 8)].mean() > 127 for bit in range(8)]
    return sum(1 << bit for bit, is_set in enumerate(bits) if is_set)


def write_phone_video(path, **options):
    """Two seconds at 30 frames a second and four at 15, as phones record when it gets dark; frames show their number."""
    times = [10 * k for k in range(60)] + [600 + 20 * k for k in range(60)]
    return write_video(path, numbered_frames(120), times=times, **options)


def phone_index(second):
    """The frame that a phone video shows nearest to a second, which is a multiple of 0.2."""
    return round(30 * second) if second < 2 else min(round(60 + 15 * (second - 2)), 119)


def write_late_video(path, count=30, **options):
    """A silent sound track from the file's zero, and numbered frames, 10 a second, from 0.7 s on."""
    times = [70 + 10 * k for k in range(count)]
    return write_video(path, numbered_frames(count), fps=10, times=times, audio=True, **options)


def write_joined_video(path):
    """Two MPEG-TS recordings of 12 and 10 numbered frames, 10 a second, one written after the other; times start anew."""
    parts = [path.with_name(f"{path.stem}_{part}.ts") for part in "ab"]
    write_video(parts[0], numbered_frames(12), fps=10, b_frames=2)
    write_video(parts[1], numbered_frames(10, start=12), fps=10)
    path.write_bytes(b"".join(part.read_bytes() for part in parts))
    return path


def write_size_change(path):
    """Ten frames of 64 x 48 and ten of 48 x 64 in one H.264 stream, as a phone call that is turned gives; 10 a second."""
    parts = [write_video(path.with_name(f"{path.stem}_{part}.h264"), frames, fps=10) for part, frames in (
        ("a", numbered_frames(10)), ("b", numbered_frames(10, 64, 48, start=10)))]  # fmt: skip
    joined = path.with_name(f"{path.stem}.h264")
    joined.write_bytes(b"".join(part.read_bytes() for part in parts))
    with av.open(str(joined), format="h264", options={"framerate": "10"}) as reader, av.open(str(path), "w") as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        for number, packet in enumerate(packet for packet in reader.demux(stream) if packet.size):
            packet.pts = packet.dts = round(number / 10 / stream.time_base)
            packet.stream = copy
            writer.mux(packet)
    return path


def write_video(
    path, frames_THWC, fps=30, gop=12, b_frames=0, codec="libx264", options=None, times=None, rotation=0, audio=False
):
    """Encode uint8 RGB frames to `path`, the container by its ending; returns `path`.

    `times`: presentation times in units of 1 / (10 fps), for a variable frame rate. `rotation`: degrees in the display
    matrix (mp4). `audio`: a silent sound track beside the video.
    """
    frames_THWC = np.asarray(frames_THWC, dtype=np.uint8)
    times = range(0, 10 * len(frames_THWC), 10) if times is None else times
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options or {})
        stream.height, stream.width = frames_THWC.shape[1:3]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        # A codec of a fixed rate takes a time base of one frame and no times between.
        unit = 10 if codec not in ("mpeg4", "mpeg2video") else 1
        stream.codec_context.time_base = Fraction(1, unit * fps)
        stream.codec_context.gop_size = gop
        stream.codec_context.max_b_frames = b_frames
        if rotation:
            stream.set_display_rotation(rotation)
        sound = container.add_stream("aac", rate=16000, layout="mono") if audio else None
        for image, time in zip(frames_THWC, times):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(image), format="rgb24")
            frame.pts, frame.time_base = time * unit // 10, stream.codec_context.time_base
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
        if sound is not None:
            _write_silence(container, sound, len(frames_THWC) / fps)
    return path


def write_audio(path, seconds=1.0):
    """A file with sound and no picture; returns `path`."""
    with av.open(str(path), "w") as container:
        _write_silence(container, container.add_stream("aac", rate=16000, layout="mono"), seconds)
    return path


def _write_silence(container, stream, seconds):
    for start in range(0, int(seconds * 16000), 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 16000, start
        container.mux(stream.encode(frame))
    container.mux(stream.encode(None))


def decode_all(path):
    """Every frame of a video by decoding it from its start: uint8 T, H, W, 3, not turned upright."""
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def cut_video(source, target, start, stop=float("inf")):
    """Copy the packets of `source` whose times are in [start, stop) seconds to `target`, without encoding.

    The first packets may be shown before the cut: an mp4 hides them with an edit list. Returns `target`.
    """
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        reader.seek(int(start / stream.time_base), stream=stream)
        offset = round(start / stream.time_base)
        for packet in reader.demux(stream):
            if packet.size and packet.dts * stream.time_base < stop:
                packet.pts, packet.dts, packet.stream = packet.pts - offset, packet.dts - offset, copy
                writer.mux(packet)
    return target
