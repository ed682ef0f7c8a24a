"""Bundles that people share: the card, folders, and the hub by its own client against a server of this test's."""

import base64
import hashlib
import json
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import torch
import yaml
from networks import calibrate_at_random
from tiny import SPACE, same, tiny_network

import mutual3d
from mutual3d.cli import pull, push
from mutual3d.deploy import AdaptiveModel, Preprocessing
from mutual3d.deploy.share import is_repository, model_card
from mutual3d.table.query_table import QueryTable, Row


@pytest.fixture(scope="module")
def model():
    rows = [
        Row("0.5-16-2", (8,), 0.5, 100, {"top1_acc": 50.0}, {"cpu": 10.0}),
        Row("1.0-24-4", (8,), 1.0, 200, {"top1_acc": 60.0}, {"cpu": 30.0}),
    ]
    table = QueryTable(rows, {"metric": "top1_acc", "split": "val", "num_views": 1, "crop": 24, "dataset": "my_*videos*", "fingerprint": "f00"})
    torch.manual_seed(0)
    network = calibrate_at_random(tiny_network(), SPACE.corners())
    preprocessing = Preprocessing((0.45,) * 3, (0.225,) * 3, num_frames=4, sampling_rate=2, target_fps=30, crop=24)
    return AdaptiveModel(network, preprocessing=preprocessing, table=table, class_names=["right", "[down](evil)"])


@pytest.fixture(scope="module")
def bundle(tmp_path_factory, model):
    path = tmp_path_factory.mktemp("run") / "adaptive.pyth"
    model.save(path)
    return path


def test_a_folder_is_pushed_pulled_and_loaded(bundle, tmp_path, capsys):
    folder = tmp_path / "shared" / "walker"
    push.main([str(bundle), str(folder), "--license", "apache-2.0"])
    assert f"written: {folder / 'adaptive.pyth'}" in capsys.readouterr().out
    assert {path.name for path in folder.iterdir()} >= {"adaptive.pyth", "README.md", "query_table.csv"}
    assert (folder / "adaptive.pyth").read_bytes() == bundle.read_bytes()
    pull.main([str(folder), "--output", str(tmp_path / "mine.pyth")])
    assert "AdaptiveModel(x3d, 0.5-16-2 to 1-24-4" in capsys.readouterr().out
    for path in (tmp_path / "mine.pyth", folder):
        assert same(dict(mutual3d.load(path).network.state_dict()), dict(mutual3d.load(bundle).network.state_dict()))
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match="there is no adaptive.pyth in the folder"):
        pull.main([str(tmp_path / "empty")])
    safetensors = pytest.importorskip("safetensors.torch")
    weights = safetensors.load_file(folder / "model.safetensors")
    assert same(weights, dict(mutual3d.load(bundle).network.state_dict()))


def test_another_run_is_not_pushed_over(model, bundle, tmp_path):
    other = tmp_path / "run" / "adaptive.pyth"
    other.parent.mkdir()
    AdaptiveModel(model.network, preprocessing=model.preprocessing).save(other)
    before = other.read_bytes()
    with pytest.raises(ValueError, match="run/adaptive.pyth' is there already, of another network that nobody shared there: name another folder"):
        push.main([str(bundle), str(other.parent)])
    assert other.read_bytes() == before and [path.name for path in other.parent.iterdir()] == ["adaptive.pyth"]
    push.main([str(other), str(other.parent)])  # a run's own folder may be shared
    push.main([str(bundle), str(other.parent)])  # and what is shared is replaced
    assert other.read_bytes() == bundle.read_bytes()


def test_another_network_is_not_pulled_over(model, bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "theirs").mkdir()
    push.main([str(bundle), "theirs/walker"])
    pull.main(["theirs/walker"])
    pull.main(["theirs/walker"])  # the same once more changes nothing
    mine = tmp_path / "walker" / "adaptive.pyth"
    assert mine.read_bytes() == bundle.read_bytes()
    AdaptiveModel(model.network, preprocessing=model.preprocessing).save(mine)
    before = mine.read_bytes()
    with pytest.raises(ValueError, match="'walker/adaptive.pyth' is there already, and is another network: move it away, or name a place with --output"):
        pull.main(["theirs/walker"])
    assert mine.read_bytes() == before
    pull.main(["theirs/walker", "--output", str(mine)])
    assert mine.read_bytes() == bundle.read_bytes()


def test_weights_that_are_left_out_are_told(bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    push.main([str(bundle), str(tmp_path / "walker")])
    assert "left out: model.safetensors, which needs safetensors: pip install -e .[hub]" in capsys.readouterr().out


def test_another_network_replaces_the_one_before_and_no_page_of_ones_own(model, bundle, tmp_path, monkeypatch):
    folder = tmp_path / "walker"
    push.main([str(bundle), str(folder)])
    (folder / "model.safetensors").touch()
    (folder / "README.md").write_text((folder / "README.md").read_text() + "\nMore of mine.\n")
    alone = AdaptiveModel(model.network, preprocessing=model.preprocessing)
    alone.save(tmp_path / "alone.pyth")
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    push.main([str(tmp_path / "alone.pyth"), str(folder)])
    assert {path.name for path in folder.iterdir()} == {"adaptive.pyth", "README.md"}
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / "README.md").write_text("# My project\n\nIts library_name: mutual3d\n")
    (mine / "query_table.csv").write_text("mine")
    with pytest.raises(ValueError, match="README.md' is there already and is no card of a shared network: name another folder"):
        push.main([str(bundle), str(mine)])
    assert {path.name for path in mine.iterdir()} == {"README.md", "query_table.csv"} and "My project" in (mine / "README.md").read_text()


def test_the_card_is_written_from_the_table_and_nothing_of_a_stranger_is_markup(model):
    card = model_card(model, "org/walker", "cc-by-nc-4.0", about="Trained on *my* videos.")
    _, facts, text = card.split("---\n", 2)
    assert yaml.safe_load(facts) == {
        "license": "cc-by-nc-4.0", "library_name": "mutual3d", "pipeline_tag": "video-classification", "tags": ["mutual3d", "adaptive", "pytorch"],
    }  # fmt: skip
    assert "# org/walker\n\nTrained on *my* videos.\n" in text and 'mutual3d.load("org/walker")' in text
    assert "| configuration | GFLOPs | parameters | top-1 accuracy (%) | ms, cpu |" in text
    assert "| 0.5-16-2 | 0.5 | 100 | 50.0 | 10 |\n| 1-24-4 | 1 | 200 | 60.0 | 30 |" in text
    assert "- split: val" in text and r"- dataset: my\_\*videos\*" in text and "f00" not in text
    assert r"right, \[down\](evil)" in text and "## Licence\n\ncc-by-nc-4.0" in text
    unlicensed = model_card(model, "walker")
    assert "license:" not in unlicensed and "No licence was named: ask who made it" in unlicensed and 'mutual3d.load("adaptive.pyth")' in unlicensed
    with pytest.raises(ValueError, match="give the hub's word for it, such as apache-2.0"):
        model_card(model, "walker", "Apache License 2.0")


def test_names_of_repositories_are_no_paths(tmp_path, monkeypatch):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "net").write_text("")
    monkeypatch.chdir(tmp_path)
    assert is_repository("org/name") and is_repository("my-org/x3d_m.v2")
    for other in ("out/net", "out/adaptive.pyth", "name", "a/b/c", "../x", "/a/b", "org/"):
        assert not is_repository(other)


def test_without_the_extra_its_name_is_told(bundle, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    for call in (lambda: mutual3d.load("org/name"), lambda: push.main([str(bundle), "--hub", "org/name"])):
        with pytest.raises(ImportError, match=r"huggingface_hub.*pip install -e .\[hub\]"):
            call()


class Hub(BaseHTTPRequestHandler):
    """As much of the hub as one commit and one download take; `server.files` is the repository."""

    def log_message(self, *arguments):
        pass

    def _answer(self, content, status=200, **headers):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **headers}.items():
            self.send_header(name.replace("_", "-"), str(value))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def do_POST(self):
        length = self.headers.get("Content-Length")
        body = self.rfile.read(int(length)) if length else self._chunks()
        if self.path == "/api/repos/create":
            self.server.created.append(json.loads(body))
            self._answer({"url": f"{self.server.address}/org/walker"})
        elif self.path == "/api/validate-yaml":
            self._answer({"errors": [], "warnings": []})
        elif "/preupload/" in self.path:
            files = [{"path": each["path"], "uploadMode": "regular", "shouldIgnore": False, "oid": None} for each in json.loads(body)["files"]]
            self._answer({"files": files})
        elif "/commit/" in self.path:
            for line in body.decode().splitlines():
                if (entry := json.loads(line))["key"] == "file":
                    self.server.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
                elif entry["key"] == "deletedFile":
                    del self.server.files[entry["value"]["path"]]
            self._answer({"success": True, "commitOid": "c" * 40, "commitUrl": f"{self.server.address}/org/walker/commit/{'c' * 40}", "hookOutput": ""})
        else:
            self._answer({"error": "unknown"}, 404)

    def _chunks(self):
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body

    def do_GET(self):
        name = self.path.rpartition("/resolve/main/")[2]
        if "/resolve/main/" not in self.path or name not in self.server.files or not self.path.startswith("/org/walker/"):
            if self.path.startswith("/api/models/org/walker/tree/main"):
                return self._answer([{"type": "file", "path": name, "size": len(content), "oid": "0" * 40} for name, content in self.server.files.items()])
            if self.path.startswith("/api/models/org/walker"):
                return self._answer({"id": "org/walker", "sha": "c" * 40, "siblings": [{"rfilename": name} for name in self.server.files]})
            return self._answer({"error": "Repository not found"}, 404, X_Error_Code="RepoNotFound")
        content = self.server.files[name]
        self._answer(content, ETag=f'"{hashlib.sha256(content).hexdigest()}"', X_Repo_Commit="c" * 40)

    do_HEAD = do_GET


@pytest.fixture
def hub(monkeypatch, tmp_path):
    constants = pytest.importorskip("huggingface_hub.constants")
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.files, server.created, server.address = {}, [], f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    template = server.address + "/{repo_id}/resolve/{revision}/{filename}"
    own = {"ENDPOINT": server.address, "HUGGINGFACE_CO_URL_TEMPLATE": template, "HF_HUB_CACHE": str(tmp_path / "hub")}
    for name, value in own.items():
        monkeypatch.setattr(constants, name, value)
    monkeypatch.setenv("HF_TOKEN", "a-token-of-this-test")
    yield server
    server.shutdown()


def test_the_hub_takes_and_gives_a_bundle(hub, bundle, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    hub.files.update({"query_table.csv": b"earlier", "model.safetensors": b"earlier", "notes.txt": b"mine"})
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    push.main([str(bundle), "--hub", "org/walker", "--license", "mit", "--private"])
    assert {*hub.files} == {"adaptive.pyth", "README.md", "query_table.csv", "notes.txt"} and hub.files["query_table.csv"] != b"earlier"
    assert f"sent: {hub.address}/org/walker" in capsys.readouterr().out
    # Its clients say it in one way or another.
    assert hub.created[0]["name"] == "walker" and (hub.created[0].get("private") or hub.created[0].get("visibility") == "private")
    assert hub.files["adaptive.pyth"] == bundle.read_bytes() and b"license: mit" in hub.files["README.md"]
    loaded = mutual3d.load("org/walker")
    assert same(dict(loaded.network.state_dict()), dict(mutual3d.load(bundle).network.state_dict()))
    pull.main(["org/walker"])
    assert (tmp_path / "walker" / "adaptive.pyth").read_bytes() == bundle.read_bytes()
    with pytest.raises(OSError, match="there is no file 'org/other', and as a repository it cannot be taken from the hub: RepositoryNotFoundError"):
        mutual3d.load("org/other")
