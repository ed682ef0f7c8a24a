"""The kinds of faults: each yields (name, function that injects it and says how the run came out of it)."""

import contextlib
import ctypes
import os
import resource
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch

from mutual3d.cli.check_data import main as check_data

from . import patches
from .runs import NotSurvived, Outcome, Workshop, fresh_environment

Injection = tuple[str, Callable[[], str]]

# Tolerances for a set of twelve videos of which one is bad.
TOLERANT = {"DATA_LOADER.MAX_UNREADABLE_TRAIN": 0.4, "DATA_LOADER.MAX_UNREADABLE_TEST": 0.4}


# ---- Signals ---------------------------------------------------------------------------------------------------------

def signals(shop: Workshop) -> Iterator[Injection]:
    """Decoders that kill, stall or surprise their process; killed workers; a killed main process."""
    with_worker = {**TOLERANT, "DATA_LOADER.NUM_WORKERS": 1, "DATA_LOADER.TIMEOUT": 5}
    kills = {name: partial(patches.kill_self, number) for name, number in _SIGNALS.items()}
    errors = {type(error).__name__: patches.raising(error) for error in _ERRORS}
    for name, act in {**kills, "a hang": patches.hang, **errors}.items():
        yield f"a video whose decoding ends in {name}, in a worker", partial(_bad_video, shop, act, with_worker)
        yield f"check_data over a video whose decoding ends in {name}", partial(_check_data, shop, act)
    for name, act in errors.items():
        yield f"a video whose decoding ends in {name}, without workers", partial(_bad_video, shop, act, TOLERANT)
    for name in _SIGNALS:
        yield f"{name} of a worker, once", partial(_killed_worker, shop, name, with_worker)
    for place in range(6):
        name = ("SIGKILL", "SIGTERM", "SIGINT")[place % 3]
        yield f"{name} of the run at a random moment ({place})", partial(_killed_main, shop, name, shop.random.random())


_SIGNALS = {"SIGSEGV": signal.SIGSEGV, "SIGKILL": signal.SIGKILL, "SIGABRT": signal.SIGABRT, "SIGBUS": signal.SIGBUS}
_ERRORS = (MemoryError("no memory"), KeyError("key"), RuntimeError("decoder"), RecursionError("too deep"), OSError(5, "I/O"))


def _victim(shop: Workshop) -> str:
    names = sorted(path.name for path in (shop.data / "train").iterdir())
    return names[len(names) // 2]


def _bad_video(shop: Workshop, act: Callable[[], None], settings: dict) -> str:
    """The video is a bad one, named and counted: as one that cannot be opened is."""
    victim, output = _victim(shop), shop.new("bad-video")
    whole = shop.whole(TOLERANT, patches.on_opening(victim, patches.as_unreadable))
    outcome = shop.run(output, settings, patches.on_opening(victim, act), seconds=120)
    said = shop.finished(outcome, output, whole)
    if victim not in outcome.text:
        raise NotSurvived("the video is not named")
    return said


def _check_data(shop: Workshop, act: Callable[[], None]) -> str:
    """check_data lists the video and ends; with a short patience, where it has an option for it."""
    victim = _victim(shop)
    words = ["--csv", str(shop.data / "train.csv"), "--num-workers", "1"]
    if act is patches.hang:
        words += ["--timeout", "5"]
    run = shop.start(shop.new("check"), main=check_data, words=words, fault=patches.on_opening(victim, act))
    outcome = run.wait(60)
    if outcome.status is None:
        raise NotSurvived("it hangs")
    if "Traceback (most recent call last)" in outcome.text or outcome.status != 1:
        raise NotSurvived(f"exit status {outcome.status}: {outcome.last_lines}")
    if victim not in outcome.text:
        raise NotSurvived("the video is not named")
    return "named"


def _killed_worker(shop: Workshop, name: str, settings: dict) -> str:
    """A worker that is killed once costs nothing, or one video that is named."""
    victim, output = _victim(shop), shop.new("killed-worker")
    act = patches.once(shop.new("marker"), partial(patches.kill_self, _SIGNALS[name]))
    outcome = shop.run(output, settings, patches.on_opening(victim, act), seconds=120)
    try:
        return shop.finished(outcome, output, shop.whole())
    except NotSurvived:
        if outcome.status == 0 and victim in outcome.text and "Traceback" not in outcome.text:
            return "finished, the video named"
        raise


def _killed_main(shop: Workshop, name: str, share: float) -> str:
    whole, output = shop.whole(), shop.new("killed-main")
    run = shop.start(output)
    deadline = time.monotonic() + share * 3.0
    while time.monotonic() < deadline and run.poll() is None:
        time.sleep(0.01)
    run.kill(getattr(signal, name))
    return shop.goes_on(output, whole)


# ---- Kills at every file replacement ---------------------------------------------------------------------------------

def replacements(shop: Workshop) -> Iterator[Injection]:
    """SIGKILL just before and just after each file is moved to its place; the same command then finishes."""
    outcome = shop.run(shop.new("count"), fault=patches.print_replacements)
    targets = [line.split("REPLACED ", 1)[1] for line in outcome.text.splitlines() if "REPLACED " in line]
    for number, target in enumerate(targets):
        for when in ("before", "after"):
            name = f"SIGKILL {when} the replacement of {Path(target).name} ({number})"
            yield name, partial(_killed_at_replacement, shop, number, when)


def _killed_at_replacement(shop: Workshop, number: int, when: str) -> str:
    whole, output = shop.whole(), shop.new("replacement")
    outcome = shop.run(output, fault=patches.kill_at_replacement(number, when))
    if outcome.status != -signal.SIGKILL:
        raise NotSurvived(f"it was not killed: exit status {outcome.status}")
    return shop.goes_on(output, whole)


# ---- Damaged files ---------------------------------------------------------------------------------------------------

def damage(shop: Workshop) -> Iterator[Injection]:
    """Every file that a run leaves, and every one that a killed run leaves, damaged in each way; then the same command."""
    whole = shop.whole()
    for path in sorted(path for path in whole.rglob("*") if path.is_file()):
        for how in _DAMAGES:
            name = path.relative_to(whole)
            yield f"{name}, {how}, of a finished run", partial(_damaged, shop, "", name, how)
    for state, (written, name) in _STATES.items():
        for how in _DAMAGES:
            yield f"{name}, {how}, of a run killed {state}", partial(_damaged, shop, written, Path(name), how)


# What a run that is killed there leaves and a finished one does not: the file that it has just written.
_STATES = {
    "after an epoch": ("checkpoint_epoch_00001", "checkpoints/checkpoint_epoch_00001.pyth"),
    "after an epoch, too": ("checkpoint_epoch_00001", "run.lock"),
    "in calibration": (".calibration", ".calibration.rank0of1"),
    "in the grid": (".grid", ".grid.rank0of1"),
    "in the test": (".test", ".test.rank0of1"),
}


def _damaged(shop: Workshop, written: str, name: Path, how: str) -> str:
    whole = shop.whole()
    output = shop.copy(shop.killed_when_written(written) if written else whole)
    if not (output / name).is_file():
        raise NotSurvived("there is no such file to damage")
    seed = shop.seed + sum(f"{written}{name}{how}".encode())
    _DAMAGES[how](output / name, torch.Generator().manual_seed(seed))
    if name.name == "run.lock" and how != "emptied":
        # One that says nothing is watched for a minute and a half before it is taken over: once is enough.
        os.utime(output / name, (time.time() - 600,) * 2)
    return shop.finished_or_refused(shop.run(output, seconds=180), output, whole, name.name)


def _flip(path: Path, generator: torch.Generator, count: int = 1) -> None:
    data = bytearray(path.read_bytes())
    for place in torch.randint(0, max(len(data), 1), (count,), generator=generator).tolist() if data else ():
        data[place] ^= 1 << int(torch.randint(0, 8, (), generator=generator))
    path.write_bytes(data)


def _truncate(path: Path, generator: torch.Generator) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * float(torch.rand((), generator=generator)))])


def _replace_by_directory(path: Path, generator: torch.Generator) -> None:
    path.unlink()
    path.mkdir()
    (path / "file").write_text("kept\n")


_DAMAGES: dict[str, Callable[[Path, torch.Generator], None]] = {
    "truncated": _truncate,
    "a bit flipped (1)": _flip,
    "a bit flipped (2)": _flip,
    "a bit flipped (3)": _flip,
    "bits flipped": partial(_flip, count=20),
    "emptied": lambda path, generator: path.write_bytes(b""),
    "replaced by text": lambda path, generator: path.write_text("no such thing\n" * 50),
    "replaced by a directory": _replace_by_directory,
    "replaced by another torch file": lambda path, generator: torch.save({"other": torch.zeros(3)}, path),
    "replaced by a list in a torch file": lambda path, generator: torch.save([1, 2, 3], path),
}


# ---- Disk ------------------------------------------------------------------------------------------------------------

def disk(shop: Workshop) -> Iterator[Injection]:
    """A disk that is full after ever more kilobytes (a small tmpfs; without root, a limit on the size of files)."""
    size = max(path.stat().st_size for path in shop.whole().rglob("*") if path.is_file())
    total = sum(path.stat().st_size for path in shop.whole().rglob("*") if path.is_file())
    for share in (0.05, 0.2, 0.4, 0.6, 0.8, 0.95, 1.1):
        if can_mount():
            yield f"a disk of {share:.0%} of what a run writes", partial(_small_disk, shop, int(share * total))
        yield f"files may have {share:.0%} of the largest's size", partial(_small_files, shop, int(share * size))
    for name in ("stdout", "stdout.log") if can_mount() else ("stdout",):
        yield f"{name} on a full disk", partial(_full_log, shop, name)


@contextlib.contextmanager
def mounted_tmpfs(path: Path, size: int) -> Iterator[None]:
    """A file system in memory of `size` bytes at `path`."""
    path.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={max(size, 4096)}", "tmpfs", str(path)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", str(path)], check=True)


def can_mount() -> bool:
    """Whether this user may mount a file system in memory."""
    if os.geteuid() != 0 or shutil.which("mount") is None:
        return False
    place = Path(f"/tmp/.mutual3d-mount-{os.getpid()}")
    try:
        with mounted_tmpfs(place, 4096):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _small_disk(shop: Workshop, size: int) -> str:
    whole, output = shop.whole(), shop.new("disk")
    with mounted_tmpfs(output, size):
        outcome = shop.run(output)
        if outcome.status == 0:
            return shop.finished(outcome, output, whole)
        shop.refused(outcome, "No space left", "free", "full")
        if not any(str(output) in line for line in outcome.text.splitlines() if "rror" in line):
            raise NotSurvived(f"the message names no file: {outcome.last_lines}")
        subprocess.run(["mount", "-o", "remount,size=64m", str(output)], check=True)
        return f"refused, then {shop.goes_on(output, whole)}"


def _small_files(shop: Workshop, size: int) -> str:
    def fault() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))

    whole, output = shop.whole(), shop.new("files")
    outcome = shop.run(output, fault=fault)
    if outcome.status == 0:
        return shop.finished(outcome, output, whole)
    shop.refused(outcome, str(output))
    return f"refused, then {shop.goes_on(output, whole)}"


def _full_log(shop: Workshop, name: str) -> str:
    whole, output = shop.whole(), shop.new("full-log")
    if name == "stdout.log":
        output.mkdir()
        small = shop.new("small")
        with mounted_tmpfs(small, 4096):
            (output / name).symlink_to(small / name)
            return shop.finished(shop.run(output), output, whole)
    with open("/dev/full", "w") as full:
        return shop.finished(shop.fresh(output, stdout=full, stderr=full), output, whole)


# ---- Shared memory ---------------------------------------------------------------------------------------------------

def shared_memory(shop: Workshop) -> Iterator[Injection]:
    """A /dev/shm that holds no clip, and one that holds few: Docker's default is 64 MB."""
    if not can_mount():
        return
    for size in (4096, 65536, 262144):
        for workers in (1, 2):
            yield f"/dev/shm of {size // 1024} KiB, {workers} workers", partial(_small_shm, shop, size, workers)


def _small_shm(shop: Workshop, size: int, workers: int) -> str:
    def fault() -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        clone_newns, private = 0x20000, 0x40000 | 0x4000
        if libc.unshare(clone_newns) or libc.mount(b"none", b"/", None, private, None):
            raise OSError(ctypes.get_errno(), "no mount namespace of its own")
        if libc.mount(b"tmpfs", b"/dev/shm", b"tmpfs", 0, f"size={size}".encode()):
            raise OSError(ctypes.get_errno(), "cannot mount")

    whole, output = shop.whole(), shop.new("shm")
    # Clips that are larger than the smallest of these.
    settings = {"DATA_LOADER.NUM_WORKERS": workers, "DATA_LOADER.TIMEOUT": 5}
    outcome = shop.run(output, settings, fault, seconds=120)
    said = shop.finished_or_refused(outcome, output, whole, "shm", "shared memory")
    return said if said == "finished" else f"{said}, then {shop.goes_on(output, whole, settings)}"


# ---- Locale ----------------------------------------------------------------------------------------------------------

def locale(shop: Workshop) -> Iterator[Injection]:
    """Terminals and file systems that know ASCII alone, with a set whose videos have other names and one bad video."""
    plain_c = {"LC_ALL": "C", "LANG": "C"}
    for name, env in {
        "LC_ALL=C": plain_c,
        "LC_ALL=C, no UTF-8 mode": {**plain_c, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
        "PYTHONIOENCODING=ascii": {"PYTHONIOENCODING": "ascii"},
    }.items():
        yield f"{name}, a video vidé.mp4", partial(_accents, shop, env, "vidé")
    yield "PYTHONIOENCODING=latin-1, a video 影片.mp4", partial(_accents, shop, {"PYTHONIOENCODING": "latin-1"}, "影片")


def _accents(shop: Workshop, env: dict[str, str], name: str) -> str:
    data = shop.copy(shop.data)
    for split in ("train", "val", "test"):
        csv = data / f"{split}.csv"
        rows = csv.read_text().splitlines()
        first = data / rows[0].split()[0]
        renamed = first.with_name(f"{name}.mp4")
        first.rename(renamed)
        rows[0] = f"{split}/{renamed.name} {rows[0].split()[1]}"
        csv.write_text("\n".join(rows) + "\n", encoding="utf-8")
    (data / "train" / f"{name}.mp4").write_bytes(b"no video")
    output, settings = shop.new("locale"), {**TOLERANT, "DATA.PATH_TO_DATA_DIR": data}
    whole = shop.whole(settings)
    outcome = shop.fresh(output, settings, env=env)
    try:
        return shop.finished(outcome, output, whole)
    except NotSurvived:
        # A file system that is said to know ASCII alone cannot be asked for such a name.
        without = shop.whole(settings, patches.on_opening(f"{name}.mp4", patches.as_unreadable))
        return f"{shop.finished(outcome, output, without)}, the video named"


# ---- Pipes -----------------------------------------------------------------------------------------------------------

def pipes(shop: Workshop) -> Iterator[Injection]:
    """Standard output and error that end before the run does."""
    yield "| head -1", partial(_into, shop, "{} 2>/dev/null | head -1 > /dev/null; exit ${{PIPESTATUS[0]}}")
    yield "2>&1 | head -1", partial(_into, shop, "{} 2>&1 | head -1 > /dev/null; exit ${{PIPESTATUS[0]}}")
    yield "standard output closed", partial(_into, shop, "{} >&- 2>/dev/null")
    yield "standard output and error closed", partial(_into, shop, "{} >&- 2>&-")
    yield "all three closed", partial(_into, shop, "{} <&- >&- 2>&-")


def _into(shop: Workshop, form: str) -> str:
    whole, output = shop.whole(), shop.new("pipe")
    quoted = " ".join(f"'{word}'" for word in [sys.executable, "-m", "mutual3d", "run", *shop.words(output)])
    done = subprocess.run(["bash", "-c", form.format(quoted)], capture_output=True, timeout=180, env=fresh_environment())
    return shop.finished(Outcome(done.returncode, done.stderr.decode(errors="replace")), output, whole)


# ---- Two runs in one directory ---------------------------------------------------------------------------------------

def two_runs(shop: Workshop) -> Iterator[Injection]:
    """One run is refused, the other ends as if it were alone; what a killed one leaves is taken over."""
    yield "a second run while one trains", partial(_second_run, shop, "train")
    yield "a second run while one measures", partial(_second_run, shop, "grid")
    for place in range(3):
        yield f"two runs in the same instant ({place})", partial(_same_instant, shop)
    yield "the lock of a killed run", partial(_stale_lock, shop)


def _second_run(shop: Workshop, stage: str) -> str:
    whole, output = shop.whole(), shop.new("two")
    name = {"train": "checkpoint_epoch_00001", "grid": ".grid"}[stage]
    marker = shop.new("go-on")
    first = shop.start(output, fault=_pause_when_written(name, marker))
    if not first.wait_for("PAUSED"):
        raise NotSurvived(f"the first run did not start: {first.wait().last_lines}")
    second = shop.run(output)
    marker.touch()
    one = first.wait()
    shop.finished(one, output, whole)
    return f"{shop.refused(second, str(first.pid))}, the other finished"


def _pause_when_written(name: str, marker: Path) -> patches.Fault:
    """Stop just after a file is moved to its place, until `marker` is there."""

    def fault() -> None:
        real = os.replace

        def replace(source, target, **options):
            real(source, target, **options)
            if Path(target).name.startswith(name) and not marker.exists():
                print("\nPAUSED", flush=True)
                while not marker.exists():
                    time.sleep(0.01)

        os.replace = replace

    return fault


def _same_instant(shop: Workshop) -> str:
    whole, output = shop.whole(), shop.new("instant")
    outcomes = [run.wait() for run in [shop.start(output), shop.start(output)]]
    winners = [outcome for outcome in outcomes if outcome.status == 0]
    if len(winners) != 1:
        raise NotSurvived(f"exit statuses {[outcome.status for outcome in outcomes]}")
    shop.finished(winners[0], output, whole)
    loser = next(outcome for outcome in outcomes if outcome is not winners[0])
    return f"{shop.refused(loser, str(output))}, the other finished"


def _stale_lock(shop: Workshop) -> str:
    whole, output = shop.whole(), shop.new("stale")
    run = shop.start(output, fault=patches.kill_when_written("checkpoint_epoch_00001"))
    run.wait()
    outcome = shop.run(output)
    said = shop.finished(outcome, output, whole)
    if str(run.pid) not in outcome.text:
        raise NotSurvived("it does not say whose lock it takes over")
    return said


# ---- Replaced data ---------------------------------------------------------------------------------------------------

def replaced_data(shop: Workshop) -> Iterator[Injection]:
    """Videos or labels are replaced between a kill and the same command: as a fresh run on the new ones, or refused."""
    whens = {
        "after an epoch": "checkpoint_epoch_00001", "in calibration": ".calibration", "in the grid": ".grid",
        "after the table": "query_table.json", "after the end": "test_results",
    }  # fmt: skip
    for when, name in whens.items():
        for split in ("train", "val", "test"):
            yield f"other videos in {split}, {when}", partial(_replaced, shop, name, split, "videos")
            yield f"other labels in {split}, {when}", partial(_replaced, shop, name, split, "labels")
    yield "the same videos touched, after an epoch", partial(_replaced, shop, "checkpoint_epoch_00001", "train", "nothing")


def _replaced(shop: Workshop, name: str, split: str, what: str) -> str:
    data = shop.copy(shop.data)
    settings = {"DATA.PATH_TO_DATA_DIR": data}
    output = shop.new("replaced")
    killed = shop.run(output, settings, patches.kill_when_written(name))
    if killed.status != -signal.SIGKILL:
        raise NotSurvived(f"it was not killed: {killed.last_lines}")
    if what == "videos":
        other = shop.other_data(split)
        shutil.rmtree(data / split)
        shutil.move(other / split, data / split)
    elif what == "labels":
        csv = data / f"{split}.csv"
        rows = [row.split() for row in csv.read_text().splitlines()]
        csv.write_text("".join(f"{path} {(int(label) + 1) % 8}\n" for path, label in rows))
    whole = shop.new("anew")
    fresh = shop.run(whole, settings)
    if fresh.status != 0:
        raise NotSurvived(f"the fresh run fails: {fresh.last_lines}")
    outcome = shop.run(output, settings)
    if outcome.status == 0:
        return shop.finished(outcome, output, whole)
    if split != "train" or what == "nothing":
        raise NotSurvived(f"exit status {outcome.status}: {outcome.last_lines}")
    return shop.refused(outcome, split, "videos", "data", "list")


# ---- Changed settings ------------------------------------------------------------------------------------------------

def settings(shop: Workshop) -> Iterator[Injection]:
    """A setting is changed between a kill and the next command: refused by its name, or told and in effect; never unsaid."""
    for key, value in {
        "SOLVER.WEIGHT_DECAY": 0.01, "SOLVER.NESTEROV": False, "SOLVER.MOMENTUM": 0.5, "SOLVER.DAMPENING": 0.1,
        "SOLVER.BASE_LR": 0.01, "SOLVER.LR_POLICY": "linear", "SOLVER.MAX_EPOCH": 3, "SOLVER.CLIP_GRAD_L2NORM": 0.1,
        "SOLVER.WARMUP_EPOCHS": 2.0, "DATA.SAMPLING_RATE": 4, "DATA.MEAN": [0.1, 0.1, 0.1], "DATA.STD": [0.5, 0.5, 0.5],
        "DATA.TRAIN_JITTER_SCALES": [26, 40], "DATA.RANDOM_FLIP": False, "DATA.TARGET_FPS": 15, "RNG_SEED": 4,
        "TRAIN.BATCH_SIZE": 6, "TRAIN.ACCUMULATION_STEPS": 2, "MODEL.DROPOUT_RATE": 0.5, "BN.MOMENTUM": 0.5,
        "BN.WEIGHT_DECAY": 0.1, "BN.EPSILON": 1e-3, "MUTUAL.SUBNETS": ["smallest"], "MUTUAL.WIDTH_RANGE": [0.6, 1.0],
        "MODEL.LOSS_FUNC": "bce_logit", "X3D.DIM_C5": 40,
    }.items():  # fmt: skip
        yield f"{key} {value}, after an epoch", partial(_changed, shop, key, value)
    for key, value in {"SOLVER.BASE_LR": 0.01, "DATA.SAMPLING_RATE": 4, "RNG_SEED": 4, "MODEL.DROPOUT_RATE": 0.5}.items():
        yield f"{key} {value}, after the training", partial(_changed_later, shop, key, value)
    # What changes nothing that a run computes.
    for key, value in {"LOG_PERIOD": 3, "DATA_LOADER.NUM_WORKERS": 1, "PARTIAL_SAVE_SECONDS": 5}.items():
        yield f"{key} {value}, which changes nothing, after an epoch", partial(_harmless, shop, key, value)


def _changed(shop: Workshop, key: str, value: object) -> str:
    changed, output = {key: value}, shop.copy(shop.killed_when_written("checkpoint_epoch_00001"))
    outcome = shop.run(output, changed)
    if outcome.status != 0:
        shop.refused(outcome, key)
        return f"refused, then {shop.goes_on(output, shop.whole())}"
    if key not in outcome.text:
        raise NotSurvived("it goes on and does not say so")
    try:
        shop.finished(outcome, output, shop.whole())
    except NotSurvived as error:
        if not str(error).startswith("exit status 0, and different"):
            raise
        return "told, and in effect"
    raise NotSurvived("it says that it is changed, and the results are as without the change")


def _changed_later(shop: Workshop, key: str, value: object) -> str:
    """The network is trained otherwise than the settings now say: that must be told."""
    outcome = shop.run(shop.copy(shop.killed_when_written(".grid")), {key: value})
    if outcome.status != 0:
        return shop.refused(outcome, key)
    if key not in outcome.text:
        raise NotSurvived("it goes on from a network that was trained otherwise, and does not say so")
    return "told"


def _harmless(shop: Workshop, key: str, value: object) -> str:
    output = shop.copy(shop.killed_when_written("checkpoint_epoch_00001"))
    return shop.goes_on(output, shop.whole(), {key: value})


# ---- Ranks -----------------------------------------------------------------------------------------------------------

def ranks(shop: Workshop) -> Iterator[Injection]:
    """A rank is killed under torchrun, two gloo processes: the others do not wait for it, and the run can go on."""
    yield "SIGKILL of rank 1 of 2, then the same command", partial(_killed_rank, shop, 0)
    yield "SIGKILL of rank 1 of 2, --max-restarts 1", partial(_killed_rank, shop, 1)
    yield "SIGKILL of rank 0 of 2, --max-restarts 1", partial(_killed_rank, shop, 1, rank=0)


_KILLED_RANK = """
    import os, signal, sys
    import torch
    from mutual3d.cli import entry_point

    marker, rank = sys.argv[1:3]
    if os.environ["RANK"] == rank and marker != "none":
        step, real, calls = torch.optim.SGD.step, torch.optim.SGD.step, []

        def dying(self, *arguments, **options):
            calls.append(1)
            if len(calls) == 5 and not os.path.exists(marker):
                open(marker, "w").close()
                os.kill(os.getpid(), signal.SIGKILL)
            return real(self, *arguments, **options)

        torch.optim.SGD.step = dying
    sys.argv[1:3] = []
    entry_point("run")
"""


def _torchrun(shop: Workshop, output: Path, marker: str, rank: int, restarts: int, seconds: float) -> Outcome:
    script = shop.directory / "killed_rank.py"
    script.write_text(textwrap.dedent(_KILLED_RANK))
    words = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone"]
    words += ["--max-restarts", str(restarts), str(script), marker, str(rank)]
    words += shop.words(output, {"SOLVER.MAX_EPOCH": 3})
    log = shop.new("log")
    # Into a file: a rank that outlives its torchrun would keep a pipe open.
    with open(log, "wb") as file:
        process = subprocess.Popen(words, env=fresh_environment(), stdout=file, stderr=subprocess.STDOUT)
    try:
        status = process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        # torchrun ends its ranks when it is told to end.
        status = None
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(timeout=60)
        process.kill()
        process.wait()
    return Outcome(status, log.read_text(errors="replace"))


_whole_of_two: list[Path] = []


def _killed_rank(shop: Workshop, restarts: int, rank: int = 1) -> str:
    if not _whole_of_two:
        whole = shop.new("two-ranks")
        outcome = _torchrun(shop, whole, "none", rank, 0, 180)
        if outcome.status != 0:
            raise NotSurvived(f"two undisturbed processes end with {outcome.status}: {outcome.last_lines}")
        _whole_of_two.append(whole)
    output, marker = shop.new("ranks"), str(shop.new("marker"))
    outcome = _torchrun(shop, output, marker, rank, restarts, 240)
    if outcome.status is None:
        raise NotSurvived("it waits for the killed rank")
    if not Path(marker).exists():
        raise NotSurvived("no rank was killed")
    if not restarts:
        if outcome.status == 0:
            raise NotSurvived("exit status 0 although a rank was killed")
        outcome = _torchrun(shop, output, marker, rank, 0, 180)
    # torchrun prints its own account of a killed process.
    return shop.finished(outcome._replace(text=outcome.text.replace("Traceback", "(traceback)")), output, _whole_of_two[0])


KINDS: dict[str, Callable[[Workshop], Iterator[Injection]]] = {
    "signals": signals, "replacements": replacements, "damage": damage, "disk": disk, "shm": shared_memory, "locale": locale,
    "pipes": pipes, "two runs": two_runs, "replaced data": replaced_data, "settings": settings, "ranks": ranks,
}  # fmt: skip
