"""A key is declared with its default, its legal values and what a resumed run does with another value."""

import pytest

from mutual3d.config import KEYS, TAKES_EFFECT, Key, Resume
from mutual3d.config.keys import Group, declared, defaults_of
from mutual3d.config.legal import Integer, Only


def test_every_key_says_what_it_may_be_and_what_a_resume_does():
    assert len(KEYS) > 100
    assert all(key.legal.accepts(key.default) and isinstance(key.resume, Resume) for key in KEYS.values())


def test_a_bare_value_is_no_declaration():
    group = Group()
    group.DATA = Group()
    group.DATA.NUM_FRAMES = 8
    with pytest.raises(TypeError, match="DATA.NUM_FRAMES is declared as 8: write Key"):
        declared(group)


def test_a_default_must_be_legal():
    with pytest.raises(AssertionError, match="the default 0 is not legal: it must be above 0"):
        Key(0, Integer(1, 10), TAKES_EFFECT)


def test_defaults_have_the_shape_of_the_declarations():
    group = Group()
    group.A, group.B = Key(1, Integer(1, 2), TAKES_EFFECT), Group()
    group.B.C = Key("x", Only("x"), TAKES_EFFECT)
    assert list(declared(group)) == ["A", "B.C"]
    assert defaults_of(group) == {"A": 1, "B": {"C": "x"}}
