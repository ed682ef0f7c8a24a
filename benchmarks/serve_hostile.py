"""Two hundred uploads that are damaged, oversized, slow, cut off or hostile, at `mutual3d serve`: what each is answered, and what is left.

python benchmarks/serve_hostile.py demo/out/adaptive.pyth

After each one, a sound video must be answered as before. The service is given small limits (1 MB, 5 s of video, 2 s for an upload and for
decoding, 300 MB for each decoder). Counted by kind: uploads, statuses, those with a status that is not among the right ones, answers
that name a path of the server, failures of the sound video after it, the most memory of all processes of the service, and the files
that it left behind. Writes benchmarks/results/serve_hostile.csv; exit status 1 where something is wrong.
"""

import argparse
import collections
import io
import json
import socket
import struct
import sys
import tempfile
import time
import zlib
from pathlib import Path
from typing import NamedTuple

import httpx
import numpy as np
from common import machine, save_rows, write_moving_square
from fuzzing.mutations import write_mutation, write_videos
from PIL import Image
from serving import serving

LIMITS = ("--max-mb", "1", "--max-seconds", "5", "--upload-seconds", "2", "--decode-seconds", "2", "--decoder-mb", "300", "--runtime", "none")
BOUNDARY = "x123"
HEAD = {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}
GONE = "no answer"


class Attack(NamedTuple):
    """kind: for the csv. right: the statuses that may be answered. send: gives the response to an address, or GONE."""

    kind: str
    right: tuple
    send: object


def multipart(data, filename="a.mp4", field="file"):
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{filename}"\r\n\r\n'.encode("utf-8", "surrogateescape")
    return head + data + f"\r\n--{BOUNDARY}--\r\n".encode()


def upload(data, **query):
    """A request whose body is a whole upload."""
    return lambda address: httpx.post(f"{address}/predict", params=query, content=multipart(data), headers=HEAD, timeout=60)


def body(content, headers=HEAD):
    """A request with a body of its own."""
    return lambda address: httpx.post(f"{address}/predict", content=content, headers=headers, timeout=60)


def over_socket(parts, pause=0.0, reads=True):
    """Raw bytes, with pauses between."""

    def send(address):
        host, port = address.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=30) as connection:
            try:
                for part in parts:
                    connection.sendall(part)
                    time.sleep(pause)
            except OSError:
                pass  # it was closed from the other side, perhaps after an answer
            if not reads:
                return GONE
            try:
                answer = connection.recv(65536)
            except OSError:
                return GONE
        words = answer.split(b" ", 2)
        return httpx.Response(int(words[1]), content=answer.partition(b"\r\n\r\n")[2]) if len(words) > 2 else GONE

    return send


def head_of(length):
    return f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: {HEAD['Content-Type']}\r\nContent-Length: {length}\r\n\r\n".encode()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def png_bomb(side):
    """A PNG that announces side x side pixels in a few kilobytes."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = zlib.compress(bytes(min(side * (side + 1), 200_000_000)), 9) if side <= 14_000 else zlib.compress(bytes(1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


def gif_of_many(count):
    file = io.BytesIO()
    images = [Image.new("L", (64, 64), 255 * (i % 2)) for i in range(count)]
    images[0].save(file, "GIF", save_all=True, append_images=images[1:], duration=100)
    return file.getvalue()


def make_attacks(folder, seed):
    """All of them, in an order that the seed decides. folder: where videos are made."""
    generator = np.random.default_rng(seed)
    videos = write_videos(folder / "sound")
    sound = videos[0].read_bytes()
    attacks = []
    (folder / "damaged").mkdir()
    for number in range(90):
        mutation = write_mutation(videos, number, seed, folder / "damaged")
        attacks.append(Attack("damaged video", (200, 413, 422), upload(mutation.path.read_bytes())))
    for number in range(20):
        attacks.append(Attack("noise", (422,), upload(generator.integers(0, 256, 1 + 997 * number, np.uint8).tobytes())))
    hostile = [
        b"#EXTM3U\n#EXTINF:1\nfile:///etc/passwd\n", b"#EXTM3U\n#EXTINF:1\nhttp://127.0.0.1:1/a.ts\n", b"ffconcat version 1.0\nfile '/etc/passwd'\n",
        b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\nm=video 5004 RTP/AVP 96\r\n", b"<?xml version='1.0'?><MPD><BaseURL>file:///etc/</BaseURL></MPD>",
        b"<?xml version='1.0'?><!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><svg>&a;</svg>", b"%!PS\n(/etc/passwd) (r) file\n",
        b"/etc/passwd", b"http://127.0.0.1:1/", b"\0" * 1000, b"PK\x03\x04" + bytes(100), b"\x7fELF" + bytes(100), b"#!/bin/sh\nid\n",
        npy(np.array([{"a": 1}], dtype=object)), npy(np.zeros(3, "U9")), npy(np.zeros(4, np.uint8)).replace(b"(4,)", b"(9999999999999,)"),
        npy(np.zeros((3, 8, 48, 48), np.uint8))[:500], b"\x93NUMPY\x01\x00\xff\xff{'descr': __import__('os').abort()}", b"\x93NUMPY" + bytes(50),
        npy(np.full((3, 8, 48, 48), np.nan, np.float32)), png_bomb(14_000), png_bomb(60_000), png_bomb(2**31 - 1), b"\xff\xd8\xff\xe0" + bytes(2000),
        b"GIF89a" + bytes(200), b"RIFF\xff\xff\xff\xffWEBP" + bytes(200), b"II*\0\xff\xff\xff\x7f" + bytes(100), b"BM" + bytes(100),
        b"P6 99999 99999 255\n", b"\0\0\0\x0cjP  " + bytes(100), b"\0\0\0\x1cftypavif" + bytes(100), b"\0\0\0\x18ftypmp42" + bytes(100),
    ]  # fmt: skip
    attacks += [Attack("hostile content", (422,), upload(data)) for data in hostile]
    long = folder / "long.mp4"
    write_moving_square(long, 20, 48, 64, gop_size=300)
    attacks += [Attack("too long", (413, 422), upload(data)) for data in (long.read_bytes()[:1_000_000], gif_of_many(200))]
    attacks += [Attack("too large", (413,), upload(bytes(size))) for size in (1_200_000, 5_000_000, 30_000_000)]
    begun = multipart(b"")[: -len(BOUNDARY) - 8]
    endless = [b"%x\r\n%s\r\n" % (len(begun), begun), *[b"%x\r\n%s\r\n" % (50_000, bytes(50_000))] * 60]
    chunked = b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: %s\r\nTransfer-Encoding: chunked\r\n\r\n" % HEAD["Content-Type"].encode()
    attacks += [Attack("too large", (413,), over_socket([chunked, *endless])) for _ in range(2)]
    attacks += [Attack("too large", (413,), over_socket([head_of(size)])) for size in (10**9, 10**15)]
    start = multipart(sound)
    attacks += [Attack("slow", (408,), over_socket([head_of(len(start)), start[:count]], pause=0.1)) for count in (0, 10, 200, 1000)]
    attacks += [Attack("slow", (408,), over_socket([head_of(len(start)), *(start[i : i + 1] for i in range(30))], pause=0.1)) for _ in range(2)]
    for count in (0, 1, 50, 200, 500, 1000, 2000, 3000):
        attacks.append(Attack("cut off", (GONE,), over_socket([head_of(len(start)), start[:count]], reads=False)))
    wrong = {
        "no boundary": (sound, {"Content-Type": "multipart/form-data"}), "json": (json.dumps({"file": "/etc/passwd"}).encode(), {"Content-Type": "application/json"}),
        "form": (b"file=/etc/passwd", {"Content-Type": "application/x-www-form-urlencoded"}), "nothing": (b"", {}),
        "never ends": (start[:-20], HEAD), "other field": (multipart(sound, field="video"), HEAD), "only text": (
            f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"\r\n\r\n/etc/passwd\r\n--{BOUNDARY}--\r\n'.encode(), HEAD),
        "many parts": (b"".join(multipart(b"", field=f"f{i}")[: -len(BOUNDARY) - 6] for i in range(3000)) + f"--{BOUNDARY}--\r\n".encode(), HEAD),
        "long header": (multipart(sound, filename="a" * 60_000), HEAD),
    }  # fmt: skip
    attacks += [Attack("broken form", (400, 413, 422), body(*each)) for each in wrong.values()]
    # The name is not used, whatever it is.
    names = ["../../../../etc/passwd", "/etc/passwd", "C:\\x.mp4", "http://127.0.0.1:1/a.mp4", "a\0.mp4", "é" * 100, "a.npy", "%00", "$(id).mp4"]
    attacks += [Attack("hostile name", (200, 400), body(multipart(sound, filename=name))) for name in names]
    queries = [{"latency_ms": "nan"}, {"latency_ms": -1}, {"gflops": "1e999"}, {"configuration": "../../etc"}, {"configuration": "0.1-9-9"}, {"top": 10**9},
               {"deadline_ms": 0}, {"latency_ms": 1e-9}, {"latency_ms": "5'; --"}, {"configuration": "x" * 5000}]  # fmt: skip
    attacks += [Attack("wrong parameter", (422,), upload(sound, **query)) for query in queries]
    junk = [b"\x16\x03\x01\x02\x00\x01\x00", b"GET / HTTP/9.9\r\n\r\n", b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: -5\r\n\r\n", b"\0" * 5000,
            b"GET /samples/..%2f..%2fetc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n", b"POST /predict HTTP/1.1\r\n" + b"X: y\r\n" * 20_000 + b"\r\n",
            b"GET //etc/passwd HTTP/1.1\r\nHost: localhost\r\n\r\n"]  # fmt: skip
    attacks += [Attack("no request", (200, 400, 404, 422, 431, GONE), over_socket([data])) for data in junk]
    order = generator.permutation(len(attacks))
    return [attacks[i] for i in order], sound


def run(options):
    """(rows, how much was wrong)."""
    kinds = collections.defaultdict(lambda: {"uploads": 0, "wrong": 0, "paths": 0, "harmed": 0, "statuses": collections.Counter(), "slowest": 0.0})
    with tempfile.TemporaryDirectory() as made, tempfile.TemporaryDirectory() as kept:
        attacks, sound = make_attacks(Path(made), options.seed)
        with serving(options.model, *LIMITS, folder=kept) as service:
            expected = upload(sound)(service.address).json()["top"]
            before = peak = service.megabytes()
            for attack in attacks[: options.count]:
                found = kinds[attack.kind]
                start = time.perf_counter()
                try:
                    response = attack.send(service.address)
                except httpx.TransportError:
                    response = GONE
                found["slowest"] = max(found["slowest"], time.perf_counter() - start)
                status = response if response == GONE else response.status_code
                found["uploads"] += 1
                found["statuses"][status] += 1
                found["wrong"] += status not in attack.right
                if status not in attack.right:
                    print(f"{attack.kind}: {status} {'' if response == GONE else response.text[:200]}", flush=True)
                if response != GONE:
                    found["paths"] += any(word in response.text for word in (kept, "mutual3d-serve", "site-packages"))
                peak = max(peak, service.megabytes())
                again = upload(sound)(service.address)
                found["harmed"] += not (service.is_alive and again.status_code == 200 and again.json()["top"] == expected)
            after = service.megabytes()
            lost = httpx.get(f"{service.address}/metrics").text.partition("\nmutual3d_decoders_lost ")[2].split("\n")[0]
            while httpx.get(f"{service.address}/health").json()["inside"]:
                time.sleep(0.05)
            left = [path for path in Path(kept).rglob("*") if path.is_file()]
        # Folders that libraries make for themselves are none.
        left += [path for path in Path(kept).rglob("*") if path.is_file() or path.name.startswith("mutual3d")]
        for path in left:
            print(f"left behind: {path.name}", flush=True)
    rows = [
        {
            "kind": kind, "uploads": found["uploads"], "statuses": " ".join(f"{status}:{count}" for status, count in sorted(found["statuses"].items(), key=str)),
            "wrong_status": found["wrong"], "names_a_path": found["paths"], "sound_video_harmed": found["harmed"], "slowest_s": f"{found['slowest']:.2f}",
        }
        for kind, found in sorted(kinds.items())
    ]  # fmt: skip
    wrong = len(left) + sum(row["wrong_status"] + row["names_a_path"] + row["sound_video_harmed"] for row in rows)
    total = {
        "kind": "all", "uploads": sum(row["uploads"] for row in rows), "statuses": f"decoders replaced {lost}; files left {len(left)}; MB {before:.0f} before, {peak:.0f} peak, {after:.0f} after",
        **{name: sum(row[name] for row in rows) for name in ("wrong_status", "names_a_path", "sound_video_harmed")},
        "slowest_s": max(row["slowest_s"] for row in rows),
    }  # fmt: skip
    return [{**row, "machine": machine()} for row in (*rows, total)], wrong


def parse(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?", default="demo/out/adaptive.pyth", help="an adaptive.pyth (default demo/out/adaptive.pyth)")
    parser.add_argument("--count", type=int, default=1000, help="of them (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="default 0")
    return parser.parse_args(arguments)


def main():
    rows, wrong = run(parse())
    save_rows("serve_hostile", rows)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
