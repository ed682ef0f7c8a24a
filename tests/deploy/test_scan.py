"""Archives: the rows of single predictions, whatever dies on the way, and whoever scans which share."""

import csv
import json
import multiprocessing
import os
import signal
import time

import pytest
import torch
from harm import crash, hang
from PIL import Image
from streams import make_stream_model
from tiny import write_set
from videos import moving_frames, write_phone_video, write_video

from mutual3d.cli import scan as command
from mutual3d.data.video.decode import open_video
from mutual3d.data.workers.pool import WorkerError, WorkerPool
from mutual3d.deploy import Decoding, Events, predict, scan
from mutual3d.deploy.predict import Reading
from mutual3d.deploy.scan import Scanner, ScanSettings, ShardTable, parts_of
from mutual3d.deploy.scan_files import ScanFiles
from mutual3d.deploy.scan_table import columns_of
from mutual3d.deploy.spending import Spending
from mutual3d.deploy.timeline import join_windows
from mutual3d.sampling import Cascade
from mutual3d.utils.run_lock import DirectoryInUseError, run_lock

QUIET = Decoding(progress=False)


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Eleven videos, three of them broken in different ways, in two folders, and a model beside them."""
    folder = tmp_path_factory.mktemp("archive")
    write_set(folder / "videos", num_videos=7, splits=())
    (folder / "videos/classes.txt").unlink()
    (folder / "videos/b.mp4").write_bytes(b"no video")
    (folder / "videos/c.mp4").write_bytes((folder / "videos/0.mp4").read_bytes()[:300])
    (folder / "videos/more").mkdir()
    write_phone_video(folder / "videos/more/phone.mp4")
    (folder / "videos/more/empty.mp4").touch()
    make_stream_model().save(folder / "adaptive.pyth")
    return folder


@pytest.fixture
def forked(monkeypatch):
    """Workers that are forked, which takes no time and inherits what a test puts in place."""

    def pool(job, num_workers, *, make=None, **options):
        return WorkerPool(job if make is None else make(), num_workers, **options)

    monkeypatch.setattr(scan, "WorkerPool", pool)


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(scan, "_USUAL_VIDEOS", 3)


def rows_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def as_tuples(rows):
    return [(row.path, row.start, row.end, row.labels, row.confidences) for row in rows]


def test_a_table_has_what_single_predictions_say_and_what_cannot_be_read(archive, tmp_path, capsys):
    """In processes of their own, as users run it; parquet and Python the same."""
    parquet = pytest.importorskip("pyarrow.parquet")
    out = tmp_path / "found.parquet"
    words = [str(archive / "adaptive.pyth"), str(archive / "videos"), "--out", str(out), "--workers", "1", "--top", "2"]
    assert command.main(words) == 1
    told = capsys.readouterr()
    assert "8 rows of 11 videos" in told.out and "3 of 11 videos cannot be read" in told.err
    table = parquet.read_table(out)
    assert table.column_names == columns_of(2) and str(table.schema.field("confidence").type) == "float"
    model = make_stream_model()
    expected = model.predict(archive / "videos", decoding=QUIET)
    assert table["path"].to_pylist() == [each.path for each in expected] and set(table["start"].to_pylist()) == {None}
    assert table["label"].to_pylist() == [each.top(1)[0][0] for each in expected]
    assert table["confidence_2"].to_pylist() == pytest.approx([each.top(2)[1][1] for each in expected], abs=1e-5)
    assert [(row["path"], row["cause"]) for row in rows_of(tmp_path / "found.unreadable.csv")] == [(bad.path, bad.cause) for bad in expected.bad]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["found.parquet", "found.scan.json", "found.unreadable.csv"]
    assert json.loads((tmp_path / "found.scan.json").read_text())["totals"]["num_bad"] == 3
    # A second time there is nothing to do.
    before = out.stat().st_mtime_ns
    assert command.main(words) == 1 and "is finished" in capsys.readouterr().out and out.stat().st_mtime_ns == before
    rows = model.scan(archive / "videos", top=2, workers=0, decoding=QUIET)
    assert [(row.path, row.label) for row in rows] == list(zip(table["path"].to_pylist(), table["label"].to_pylist()))
    assert [bad.path for bad in rows.bad] == [bad.path for bad in expected.bad] and rows.num_videos == 11


def test_windows_and_events_are_those_of_predictions(archive, forked):
    model = make_stream_model()
    phone = str(archive / "videos/more/phone.mp4")
    expected = model.predict(phone, window="0.5s", step=0.25, decoding=QUIET)
    rows = list(model.scan(phone, window="0.5s", step=0.25, top=1, batch=4, workers=1, decoding=QUIET))
    assert [(row.start, row.end, row.label) for row in rows] == [(each.start, each.end, each.top(1)[0][0]) for each in expected]
    assert len(rows) > 20
    events = list(model.scan(archive / "videos", window="0.5s", step=0.25, events=Events(0.0), workers=1, decoding=QUIET))
    joined = join_windows(expected, 0.0)
    told = [(row.start, row.end, row.label, row.confidence) for row in events if row.path == phone]
    assert told == [(s.start, s.end, s.label, pytest.approx(s.confidence, abs=1e-6)) for s in joined]
    assert all(row.start is not None for row in events) and len({row.path for row in events}) == 8
    with pytest.raises(ValueError, match="events are joined windows: give a window too"):
        model.scan(phone, events=Events())
    with pytest.raises(ValueError, match="step is 0.5, from window to window: give a window too"):
        model.scan(phone, step=0.5)


def test_lists_name_videos_with_and_without_labels(archive, tmp_path, forked):
    (tmp_path / "with space.mp4").write_bytes((archive / "videos/1.mp4").read_bytes())
    (tmp_path / "a.txt").write_text(f"with space.mp4\n\n{archive}/videos/2.mp4\n")
    (tmp_path / "b.csv").write_text(f'"with space.mp4" 1\n{archive}/videos/3.mp4 0\n{archive}/videos/4.mp4\n')
    rows = make_stream_model().scan([tmp_path / "a.txt", tmp_path / "b.csv"], workers=0, decoding=QUIET)
    names = [row.path.rpartition("/")[2] for row in rows]
    assert names == ["with space.mp4", "2.mp4", "with space.mp4", "3.mp4", "4.mp4"] and not rows.bad
    with pytest.raises(FileNotFoundError, match="there is no video list .*nowhere.txt"):
        make_stream_model().scan(tmp_path / "nowhere.txt", workers=0)


def test_a_video_that_kills_or_hangs_its_decoder_costs_itself_alone(archive, forked, monkeypatch):
    harm = {"1.mp4": crash, "5.mp4": hang}

    def open_or_die(path, backend="pyav"):
        harm.get(path.name, bool)()
        return open_video(path, backend)

    monkeypatch.setattr(predict, "open_video", open_or_die)
    paths = [str(archive / f"videos/{k}.mp4") for k in range(7)]
    rows = make_stream_model().scan(paths, workers=2, decoding=Decoding(timeout=1, progress=False))
    assert [row.path[-5] for row in rows] == list("02346")
    assert [bad.path[-5] for bad in rows.bad] == list("15")
    assert "decoder crashed" in rows.bad[0].cause and "did not answer within 1 s" in rows.bad[1].cause


def test_what_the_network_fails_at_is_no_videos_fault(archive, forked):
    model = make_stream_model()
    model.activate("0.75-16-4")
    scanner = Scanner(model, workers=1)
    with pytest.raises(WorkerError, match="calibrat"):
        scanner.scan_shard([str(archive / "videos/1.mp4")])
    scanner.close()


def test_workers_that_are_killed_from_outside_change_nothing(archive, forked, small_parts):
    paths = [str(archive / f"videos/{k % 7}.mp4") for k in range(30)]
    model = make_stream_model()
    expected = as_tuples(model.scan(paths, workers=0, decoding=QUIET))
    scanner = Scanner(model, workers=2)
    found = scanner.scan_in_order(parts_of(paths))
    tables = [next(found)]
    for worker in scanner._pool._workers:
        os.kill(worker.process.pid, signal.SIGKILL)
    tables += found
    scanner.close()
    assert as_tuples(row for table in tables for row in table.rows) == expected


def test_a_scan_killed_midway_goes_on_to_the_same_table(archive, tmp_path, forked, small_parts, capsys):
    (tmp_path / "list.txt").write_text(f"{archive}/videos/b.mp4\n" + "".join(f"{archive}/videos/{k % 7}.mp4\n" for k in range(120)))
    words = [str(archive / "adaptive.pyth"), str(tmp_path / "list.txt"), "--config", "0.5-16-2", "--runtime", "none", "--workers", "2", "--out"]
    assert command.main([*words, str(tmp_path / "whole.csv")]) == 1
    files = ScanFiles(tmp_path / "killed.csv", 5)
    process = multiprocessing.get_context("fork").Process(target=command.main, args=([*words, str(files.out)],))
    process.start()
    end = time.monotonic() + 60
    while not list(files.parts.glob("part-*.json")) and time.monotonic() < end:
        time.sleep(0.001)
    process.kill()
    process.join()
    done = list(files.parts.glob("part-*.json"))
    assert 0 < len(done) < 41 and not files.out.exists()
    for more, message in (
        (["--window", "1s"], "that was begun with another --window"),
        (["--top", "3", "--batch", "2"], "another --batch, another --top"),
    ):
        with pytest.raises(ValueError, match=message):
            command.main([*words, str(files.out), *more])
    (tmp_path / "list.txt").write_text("\n")
    capsys.readouterr()
    with pytest.raises(ValueError, match="is empty"):
        command.main([*words, str(files.out)])
    (tmp_path / "list.txt").write_text(f"{archive}/videos/b.mp4\n" + "".join(f"{archive}/videos/{k % 7}.mp4\n" for k in range(120)))
    before = {path.name: path.stat().st_mtime_ns for path in files.parts.glob("part-*")}
    with run_lock(files.parts), pytest.raises(DirectoryInUseError, match="is in use by .*or choose another --out;"):
        command.main([*words, str(files.out)])
    assert command.main([*words, str(files.out)]) == 1
    assert files.out.read_bytes() == (tmp_path / "whole.csv").read_bytes() and len(before) >= len(done)
    assert files.unreadable.read_bytes() == (tmp_path / "whole.unreadable.csv").read_bytes()
    with pytest.raises(ValueError, match="that was finished with another --config"):
        command.main([*words[:2], "--runtime", "none", "--out", str(files.out)])


def test_a_video_that_changed_since_is_scanned_again(archive, tmp_path, forked, small_parts, caplog, capsys):
    """Between shares, before they are joined, and after the end."""
    videos = tmp_path / "videos"
    videos.mkdir()
    for k in range(7):
        (videos / f"{k}.mp4").write_bytes((archive / f"videos/{k}.mp4").read_bytes())
    words = [str(archive / "adaptive.pyth"), str(videos), "--config", "0.5-16-2", "--runtime", "none", "--workers", "1", "--out"]
    out = tmp_path / "found.csv"
    assert command.main([*words, str(out), "--shard", "1/2"]) == 0
    parts = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "found.csv.parts").glob("part-*")}
    write_phone_video(videos / "1.mp4")
    assert command.main([*words, str(out), "--shard", "1/2"]) == 0
    assert "1 videos of" in caplog.text and "have changed since they were scanned" in caplog.text
    now = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "found.csv.parts").glob("part-*")}
    assert now.keys() == parts.keys() and [name for name in now if now[name] != parts[name]] == ["part-000000.json"]
    assert command.main([*words, str(out), "--shard", "2/2"]) == 0
    write_phone_video(videos / "4.mp4")
    with pytest.raises(ValueError, match="1 of the 3 parts of .* are missing"):
        command.main([*words, str(out), "--join"])
    assert command.main([*words, str(out)]) == 0
    assert command.main([*words, str(tmp_path / "fresh.csv")]) == 0
    assert out.read_bytes() == (tmp_path / "fresh.csv").read_bytes()
    assert command.main([*words, str(out)]) == 0 and "is finished" in capsys.readouterr().out
    (videos / "2.mp4").write_bytes((videos / "3.mp4").read_bytes())
    with pytest.raises(ValueError, match="videos of '.*found.csv' have changed since they were scanned, .*--anew"):
        command.main([*words, str(out)])
    assert command.main([*words, str(out), "--anew"]) == 0


def test_a_clock_that_tells_of_days_costs_its_video_alone(archive, tmp_path):
    """Six pictures that are to be shown for 16,000 seconds each would be 192,000 windows of half a second."""
    path = tmp_path / "days.webp"
    first, *more = map(Image.fromarray, moving_frames(6))
    first.save(path, save_all=True, append_images=more, duration=16_000_000)
    model = make_stream_model()
    rows = model.scan([archive / "videos/0.mp4", path, archive / "videos/1.mp4"], window="0.5s", workers=0, decoding=QUIET)
    assert {row.path[-5:] for row in rows} == {"0.mp4", "1.mp4"}
    assert [bad.path for bad in rows.bad] == [str(path)] and "are to last 96000 s by its own clock, which would be 192,000 windows of 0.5 s" in rows.bad[0].cause
    assert len(model.predict(path, window="8000s", decoding=QUIET)) == 12


def test_no_part_of_another_scan_gets_into_a_table(archive, tmp_path, forked, small_parts, monkeypatch):
    """What a late job of a joined scan left, and one that still runs when the scan is begun anew."""
    words = [str(archive / "adaptive.pyth"), "videos", "--runtime", "none", "--workers", "1", "--out", str(tmp_path / "found.csv"), "--config"]
    monkeypatch.chdir(archive)
    command.main([*words, "0.5-16-2"])
    files = ScanFiles(tmp_path / "found.csv", 5)
    whole = files.out.read_bytes()
    for path in (files.out, files.record):
        path.unlink()
    command.main([*words, "1-24-4", "--shard", "1/1"])
    (files.parts / "scan.json").unlink()
    command.main([*words, "0.5-16-2"])
    assert files.out.read_bytes() == whole
    request, chosen = {"model": "a"}, {"configuration": "1-24-4"}
    late, anew = ScanFiles(tmp_path / "late.csv", 5), ScanFiles(tmp_path / "late.csv", 5)
    late.begin(request, chosen)
    late.write_part(0, ShardTable(), [])
    anew.forget()
    anew.begin({"model": "b"}, chosen)
    with pytest.raises(OSError, match="is of another scan by now"):
        late.write_part(1, ShardTable(), [])
    assert not anew.done({0: [], 1: []})
    # The same words in another folder name other videos.
    (tmp_path / "videos").mkdir()
    for path in sorted((archive / "videos").rglob("*.mp4")):
        (tmp_path / "videos" / path.relative_to(archive / "videos")).parent.mkdir(exist_ok=True)
        (tmp_path / "videos" / path.relative_to(archive / "videos")).touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="that was finished with another list of videos"):
        command.main([*words, "0.5-16-2"])


def test_files_without_hard_links_keep_what_the_first_job_chose(tmp_path, monkeypatch):
    def link(source, target):
        raise PermissionError("no links here")

    monkeypatch.setattr(os, "link", link)
    request = {"model": "a"}
    assert ScanFiles(tmp_path / "a.csv", 5).begin(request, {"runtime": "torch"}) == {"runtime": "torch"}
    assert ScanFiles(tmp_path / "a.csv", 5).begin(request, {"runtime": None}) == {"runtime": "torch"}
    assert [path.name for path in (tmp_path / "a.csv.parts").iterdir()] == ["scan.json"]


def test_shares_make_the_table_of_one_scan(archive, tmp_path, forked, small_parts, capsys):
    words = [str(archive / "adaptive.pyth"), str(archive / "videos"), "--gflops", "0.0015", "--runtime", "torch", "--workers", "1", "--out"]
    command.main([*words, str(tmp_path / "whole.csv")])
    out = str(tmp_path / "shared.csv")
    for share in ("1/3", "3/3"):
        assert command.main([*words, out, "--shard", share]) == 0
    with pytest.raises(ValueError, match="1 of the 4 parts of .* are missing"):
        command.main([*words, out, "--join"])
    assert command.main([*words, out, "--shard", "2/3"]) == 0
    assert command.main([*words, out, "--join"]) == 1
    assert (tmp_path / "shared.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert command.main([*words, out, "--anew", "--top", "1"]) == 1
    assert list(rows_of(out)[0]) == columns_of(1)
    with pytest.raises(SystemExit):
        command.main([*words, out, "--shard", "4/3"])
    assert "from 1/16 to 16/16" in capsys.readouterr().err


def test_a_cascades_promise_is_kept_and_told_whatever_the_order_of_the_parts(archive, forked, small_parts):
    model = make_stream_model()
    small, large = model.network.space.smallest, model.network.space.largest
    costs = {row.configuration: row.gflops for row in model.table.rows}
    cascade = Cascade((small, large), (0.9,), (1.0,))
    words = model.table.costs["gflops"]
    model.spend(Spending(cascade, words, "", [costs[small], costs[large]], promised=costs[small] + 0.4 * costs[large]))
    parts = parts_of([str(archive / f"videos/{k % 7}.mp4") for k in range(30)])
    assert len(parts) == 10
    scanner = Scanner(model, ScanSettings(batch=2), workers=1)
    forwards = [(table.counts, as_tuples(table.rows)) for table in scanner.scan_in_order(parts)]
    backwards = [(table.counts, as_tuples(table.rows)) for table in scanner.scan_in_order(parts[::-1])]
    scanner.close()
    assert forwards == backwards[::-1] and all(counts[0] == 3 and counts[1] <= 1.2 for counts, _ in forwards)
    assert model.spending.counts == [0, 0]
    again = Spending.from_dict(json.loads(json.dumps(model.spending.to_dict())), {"gflops": words})
    assert again.to_dict() == model.spending.to_dict() and again.anew().to_dict() == again.to_dict()


def test_settings_that_cannot_be(tmp_path, archive, capsys):
    for options, message in (
        ("--step 1s", "--step is from window to window"),
        ("--events", "--events are joined windows"),
        ("--background nothing", "--background is of --events"),
        ("--shard 1/2 --ray local", "--shard is one of several jobs"),
        ("--config 0.5-16-2 --gflops 1", "not both"),
    ):
        with pytest.raises(SystemExit):
            command.main([str(archive / "adaptive.pyth"), str(archive / "videos"), "--out", str(tmp_path / "a.csv"), *options.split()])
        assert message in capsys.readouterr().err
    with pytest.raises(ValueError, match="ends in '.txt': give a name that ends in .parquet or .csv"):
        ScanFiles("found.txt", 1)
    (tmp_path / "mine.csv").write_text("a table of another kind\n")
    with pytest.raises(ValueError, match="is there already, and no scan's record beside it"):
        command.main([str(archive / "adaptive.pyth"), str(archive / "videos"), "--out", str(tmp_path / "mine.csv")])
    words = [str(archive / "adaptive.pyth"), str(archive / "videos"), "--out", str(tmp_path / "b.csv"), "--window", "1s", "--events"]
    with pytest.raises(ValueError, match="the background has 'nothign', which is no class of this network: choose among right, down"):
        command.main([*words, "--background", "down", "nothign"])
    with pytest.raises(ValueError, match="the background has 'nothign'"):
        make_stream_model().scan(archive / "videos", window="1s", events=Events(background=("nothign",)))
    assert not list(tmp_path.glob("b.*"))
    for name, value in (("batch", 0), ("top", True)):
        with pytest.raises(ValueError, match=f"{name} is {value!r}"):
            ScanSettings(**{name: value})
    with pytest.raises(ValueError, match="views is 0"):
        ScanSettings(Reading(0))


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_names_that_are_no_text_and_stills(tmp_path, forked, suffix):
    pytest.importorskip("pyarrow")
    name = os.fsdecode(b"caf\xe9, 1.mp4")
    write_video(tmp_path / "a.mp4", moving_frames(12)).rename(tmp_path / name)
    Image.new("RGB", (40, 30)).save(tmp_path / "still.png")
    (tmp_path / os.fsdecode(b"bad\xff.mp4")).write_bytes(b"x")
    Image.new("RGB", (40, 30)).save(tmp_path / "still\r\n2.png")
    (tmp_path / "dead\r.mp4").write_bytes(b"x")
    make_stream_model().save(tmp_path / "model.pyth")
    out = tmp_path / f"found.{suffix}"
    assert command.main([str(tmp_path / "model.pyth"), str(tmp_path), "--out", str(out), "--window", "0.2s", "--workers", "1"]) == 1
    if suffix == "csv":
        rows = rows_of(out)
        assert rows[-1]["start"] == "" and float(rows[0]["end"]) == 0.2
    else:
        import pyarrow.parquet

        rows = pyarrow.parquet.read_table(out).to_pylist()
        assert rows[-1]["start"] is None and rows[0]["end"] == pytest.approx(0.2)
    ends = ("caf\\xe9, 1.mp4", "still\r\n2.png", "still.png")
    assert all(row["path"].endswith(end) for row, end in zip([rows[0], *rows[-2:]], ends))
    bad = rows_of(tmp_path / "found.unreadable.csv")
    assert [row["path"].rpartition("/")[2] for row in bad] == ["bad\\xff.mp4", "dead\r.mp4"] and all(row["cause"] for row in bad)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_workers_share_a_gpu(archive):
    paths = [str(archive / f"videos/{k}.mp4") for k in range(7)]
    model = make_stream_model()
    expected = list(model.scan(paths, workers=0, decoding=QUIET))
    model.network.place(torch.device("cuda"))
    found = list(model.scan(paths, workers=2, decoding=QUIET))
    assert [row.path for row in found] == [row.path for row in expected]
    assert [row.confidence for row in found] == pytest.approx([row.confidence for row in expected], abs=0.02)
