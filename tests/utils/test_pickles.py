"""Pickles of strangers: arrays come out as they went in, and nothing else happens."""

import os
import pickle
import random
import time
import tracemalloc
from collections import OrderedDict

import numpy as np
import pytest

from mutual3d.utils.pickles import load_arrays

ARRAYS = {
    "matrix": np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
    "fortran": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
    "big_endian": np.arange(4).astype(">i2"),
    "half": np.ones((1, 2, 1), np.float16),
    "flag": np.array([True, False]),
    "nothing": np.zeros(()),
}
# What Python 2 wrote with protocol 2: {"conv1_w": array([1, -2], float32)}, bytes as text.
PYTHON_2 = (
    b"\x80\x02}U\x07conv1_wcnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
    b"(K\x01K\x02\x85cnumpy\ndtype\nU\x02f4K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb\x89"
    b"U\x08" + np.array([1, -2], "<f4").tobytes() + b"tbs."
)


class Executed:
    """Pickled, a request to run `function` when the file is opened."""

    def __init__(self, function, *arguments):
        self.request = function, arguments

    def __reduce__(self):
        return self.request


def write(path, value, protocol=2):
    path.write_bytes(pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_arrays_and_containers_come_back(tmp_path, protocol):
    content = {"blobs": OrderedDict(ARRAYS), "lr": [0.1, np.float64(0.5)], "cfg": ("é", None, 3)}
    read = load_arrays(write(tmp_path / "zoo.pkl", content, protocol))
    assert list(read) == list(content) and list(read["blobs"]) == list(ARRAYS)
    assert read["lr"] == [0.1, 0.5] and read["cfg"] == ("é", None, 3)
    for name, array in ARRAYS.items():
        assert np.array_equal(read["blobs"][name], array) and read["blobs"][name].shape == array.shape
        assert read["blobs"][name].dtype == array.dtype.newbyteorder("=")


def test_a_file_of_python_2(tmp_path):
    (tmp_path / "old.pkl").write_bytes(PYTHON_2)
    read = load_arrays(tmp_path / "old.pkl")
    assert list(read) == ["conv1_w"] and read["conv1_w"].tolist() == [1, -2]


@pytest.mark.parametrize("protocol", [0, 2, 5])
@pytest.mark.parametrize("place", [lambda bomb: bomb, lambda bomb: {"blobs": {"w": [bomb]}}, lambda bomb: {bomb: 1}])
@pytest.mark.parametrize("function", [os.system, eval, getattr, np.load])
def test_code_in_a_pickle_is_refused_and_never_executed(tmp_path, protocol, place, function):
    sentinel = tmp_path / "sentinel"
    arguments = {
        os.system: [f"touch {sentinel}"],
        eval: [f"open({str(sentinel)!r}, 'w')"],
        getattr: [[], "append"],
        np.load: [str(sentinel)],
    }[function]
    path = write(tmp_path / "evil.pkl", place(Executed(function, *arguments)), protocol)
    with pytest.raises(ValueError, match="evil.pkl' is not a pickle that can be opened safely.*never executed.*asks"):
        load_arrays(path)
    assert not sentinel.exists()


@pytest.mark.parametrize("array", [np.array([{}], object), np.array(["text"]), np.zeros(2, [("x", "f4")])])
def test_arrays_of_anything_but_numbers_are_refused(tmp_path, array):
    with pytest.raises(ValueError, match="zoo.pkl.*"):
        load_arrays(write(tmp_path / "zoo.pkl", {"x": array}))


def test_a_damaged_file_is_named(tmp_path):
    whole = pickle.dumps({"blobs": ARRAYS}, 2)
    for content in (b"", b"\x80", b"no pickle", whole[:-1], whole[: len(whole) // 2], b"PK\x03\x04" + whole):
        (tmp_path / "zoo.pkl").write_bytes(content)
        with pytest.raises(ValueError, match="zoo.pkl' is not a"):
            load_arrays(tmp_path / "zoo.pkl")


def test_changed_bytes_end_in_data_or_in_a_clear_error(tmp_path):
    whole, dice = pickle.dumps({"blobs": ARRAYS}, 2), random.Random(0)
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(3):
            damaged[dice.randrange(len(damaged))] = dice.randrange(256)
        (tmp_path / "zoo.pkl").write_bytes(damaged)
        try:
            load_arrays(tmp_path / "zoo.pkl")
        except ValueError as error:
            assert "zoo.pkl" in str(error)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match="there is no file '.*zoo.pkl'"):
        load_arrays(tmp_path / "zoo.pkl")


# ---- bounded work -----------------------------------------------------------------------------------------------------


def pairs(depth, protocol):
    """The bytes of a pair of twice a pair of twice ...: `depth` short steps, 2 ** depth leaves."""
    value = 0
    for _ in range(depth):
        value = (value, value)
    return pickle.dumps(value, protocol)


def as_key(pairs):
    """The same as the key of a dict, which has to be hashed."""
    body = pairs.removesuffix(pickle.STOP)
    return pickle.EMPTY_DICT + body + pickle.INT + b"1\n" + pickle.SETITEM + pickle.STOP


SELF = pickle.EMPTY_LIST + pickle.PUT + b"0\n" + pickle.GET + b"0\n" + pickle.APPEND + pickle.STOP
DEEP = pickle.EMPTY_LIST * 5000 + pickle.APPEND * 4999 + pickle.STOP
ENDLESS = {
    "tuples": pairs(40, 0), "tuples_2": pairs(40, 2), "lists": pairs(40, 0).replace(b"t", b"l"), "key": as_key(pairs(40, 0)),
    "in_itself": SELF, "deep": DEEP, "long": pickle.BINUNICODE8 + (2**60).to_bytes(8, "little") + b"x" + pickle.STOP,
    "long_bytes": pickle.BINBYTES8 + (2**40).to_bytes(8, "little") + b"x" + pickle.STOP,
    "digits": pickle.LONG + b"9" * 10**6 + b"L\n" + pickle.STOP,
    "memo": pickle.NONE + pickle.LONG_BINPUT + (2**32 - 1).to_bytes(4, "little") + pickle.STOP,
}  # fmt: skip


@pytest.mark.parametrize("name", [name for name in ENDLESS if name not in ("memo",)])
def test_a_small_file_takes_little_time_and_memory_and_is_named(tmp_path, name):
    (tmp_path / "zoo.pkl").write_bytes(ENDLESS[name])
    start = time.perf_counter()
    tracemalloc.start()
    try:
        with pytest.raises(ValueError, match="zoo.pkl' is not a readable pickle of arrays"):
            load_arrays(tmp_path / "zoo.pkl")
        assert tracemalloc.get_traced_memory()[1] < 1e8
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - start < 10


def test_a_place_far_out_in_the_memo_takes_no_memory(tmp_path):
    (tmp_path / "zoo.pkl").write_bytes(ENDLESS["memo"])
    assert load_arrays(tmp_path / "zoo.pkl") is None


@pytest.mark.parametrize("content", [b"cnumpy\nndarray\n.", b"c_codecs\nencode\n.", b"ccollections\nOrderedDict\n.", b"\x8f."])
def test_functions_classes_and_sets_are_no_values(tmp_path, content):
    (tmp_path / "zoo.pkl").write_bytes(content)
    with pytest.raises(ValueError, match="zoo.pkl' is not a.*it holds a (type|function|set|method)"):
        load_arrays(tmp_path / "zoo.pkl")


def test_a_file_sets_the_state_of_stand_ins_alone(tmp_path):
    (tmp_path / "zoo.pkl").write_bytes(b"c_codecs\nencode\n}Vx\nI1\nsb.")
    with pytest.raises(ValueError, match="zoo.pkl' is not a pickle that can be opened safely.*sets the state of a"):
        load_arrays(tmp_path / "zoo.pkl")


def test_containers_that_stand_in_several_places_come_back_in_each(tmp_path):
    shared = (1, [2, np.ones(2)])
    read = load_arrays(write(tmp_path / "zoo.pkl", {"a": shared, "b": [shared, shared], (1, "x"): shared}))
    assert type(read["a"]) is tuple and read["b"][1][1][0] == 2 and read[1, "x"][1][1].tolist() == [1, 1]
    assert all(type(key) in (str, tuple) for key in read)
