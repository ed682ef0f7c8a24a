"""What is kept between openings of a file: bounded, and gone when the file changes."""

import os

from mutual3d.data.video.file_cache import FileCache, file_fingerprint


def test_what_was_used_last_stays():
    cache = FileCache(10, len)
    for name, value in (("a", "xxxx"), ("b", "xxxx")):
        cache.put(name, value)
    assert cache.get("a") == "xxxx"
    cache.put("c", "xxxx")
    assert cache.get("b") is None and cache.get("a") and cache.get("c")
    cache.put("a", "x")
    cache.put("d", "xxxxx")
    assert cache.get("c") == "xxxx" and cache.get("d")
    cache.put("e", "x" * 11)
    assert cache.get("e") is None and cache.get("a") is None
    cache.clear()
    cache.put("f", "x" * 10)
    assert cache.get("f")


def test_a_changed_file_has_another_fingerprint(tmp_path):
    path = tmp_path / "file"
    path.write_text("one")
    first = file_fingerprint(str(path))
    assert file_fingerprint(str(path)) == first
    os.utime(path, ns=(1, 1))
    assert file_fingerprint(str(path)) != first
    second = file_fingerprint(str(path))
    path.write_text("longer")
    os.utime(path, ns=(1, 1))
    assert file_fingerprint(str(path)) != second
