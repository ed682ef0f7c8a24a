import dataclasses
import enum
import os
import subprocess
import sys
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch

from mutual3d.sampling import Configuration
from mutual3d.utils.fingerprint import fingerprint


class Colour(enum.Enum):
    RED = 1
    BLUE = 2


@dataclasses.dataclass
class Box:
    side: float


class Listed:
    def __init__(self, text):
        self.text = text

    def fingerprint(self):
        return self.text


LONG = np.arange(5000)
CHANGED = LONG.copy()
CHANGED[2500] = -1
DIFFERENT = [
    (), (None,), (0,), (False,), ("0",), (b"0",), (0.0,), (-0.0,), (1,), (True,), (1.0,), ("1",), (Path("1"),), ("",), ([],), ({},), (set(),),
    (1, 2), ([1, 2],), ([1], 2), ([1, [2]],), (12,), ("a", "b"), ("ab",), ("ab", ""), ({"a": 1},), ({"a": 2},), ({"b": 1},), ({"a": 1, "b": 2},), ({1, 2},),
    (range(3),), (range(4),), (Colour.RED,), (Colour.BLUE,), (Box(1.0),), (Box(2.0),), (Listed("x"),), (Listed("y"),), (float("nan"),), (float("inf"),), (2**80,),
    (torch.zeros(4),), (torch.zeros(2, 2),), (torch.zeros(4, dtype=torch.int32),), (torch.zeros(4, dtype=torch.bfloat16),), (torch.zeros(2),), (torch.zeros(()),),
    (torch.zeros(0, 3),), (torch.zeros(0, 4),), (torch.zeros(2, dtype=torch.complex64),), (torch.zeros(16, dtype=torch.uint8),), (torch.zeros(4, dtype=torch.bool),),
    (LONG,), (CHANGED,), (LONG.reshape(50, 100),), (LONG.astype(np.int32),), (LONG.astype(">i8"),), (LONG.astype(str),), (LONG.astype(object),), (CHANGED.astype(object),),
    (np.float32(1),), (np.float64(1),), (np.array(["a", "bc"]),), (np.array(["ab", "c"]),), (np.array([(1, 2)], dtype=[("x", "i4"), ("y", "i4")]),),
    (np.array([(1, 2)], dtype=[("x", "i4"), ("z", "i4")]),), (np.array(["2020-01-01"], dtype="datetime64[D]"),), (Configuration(0.5, 160, 8),), (Configuration(0.5, 160, 9),),
    (torch.float32,), ("torch.float32",), (torch.device("cpu"),), ("cpu",),
]  # fmt: skip


def test_two_contents_have_two_fingerprints():
    texts = [fingerprint(*parts) for parts in DIFFERENT]
    alike = [(DIFFERENT[i], DIFFERENT[j]) for i, j in combinations(range(len(texts)), 2) if texts[i] == texts[j]]
    assert not alike
    assert all(len(text) == 32 for text in texts)


def test_one_content_has_one_fingerprint():
    table = torch.arange(12).reshape(3, 4)
    same = [
        ([1, 2], (1, 2)), ({"a": 1, "b": 2}, {"b": 2, "a": 1}), ({1, 2, 3}, frozenset([3, 2, 1])), (table, table.T.contiguous().T),
        (table.numpy(), np.asfortranarray(table.numpy())), (torch.nn.Parameter(torch.ones(2)), torch.ones(2)), (Listed("x"), Listed("x")),
    ]  # fmt: skip
    assert all(fingerprint(a) == fingerprint(b) for a, b in same)


def test_another_process_gives_the_same():
    code = "from mutual3d.utils.fingerprint import fingerprint; print(fingerprint({'a', 'b', 'c'}, {'x': [1.5, None]}))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    told = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == fingerprint({"a", "b", "c"}, {"x": [1.5, None]})


@pytest.mark.parametrize(
    "part", [object(), lambda: 1, [object()], {"a": Path}, np.array([object()]), torch.zeros(2, device="meta"), Box, iter([1])]
)
def test_what_has_no_content_of_its_own_is_refused(part):
    with pytest.raises(TypeError, match="fingerprint of .* is not defined"):
        fingerprint("before", part)
