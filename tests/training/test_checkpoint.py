import os

import pytest
import torch
from tiny import tiny_network

from mutual3d.training import Checkpoints, Progress, build_optimizer
from mutual3d.utils.files import DamagedFileError


def saved(tmp_path, epoch=1, num_classes=2):
    model = tiny_network(num_classes)
    optimizer = build_optimizer(model, base_lr=0.1, weight_decay=0.0)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(model, optimizer, epoch=epoch)
    return checkpoints, model, optimizer


def test_the_newest_is_found_by_number(tmp_path):
    for epoch in (2, 10, 9):
        checkpoints, *_ = saved(tmp_path, epoch)
    (checkpoints.directory / ".checkpoint_epoch_00011.pyth.x.tmp").write_bytes(b"half")
    assert checkpoints.last() == checkpoints.path(10)


def test_resume_restores_weights_and_epoch(tmp_path):
    checkpoints, model, _ = saved(tmp_path, 3)
    other = tiny_network()
    assert Checkpoints(tmp_path).resume(other, build_optimizer(other, base_lr=0.1, weight_decay=0.0)).epoch == 3
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values()))


def test_nothing_to_resume_is_epoch_0(tmp_path):
    model = tiny_network()
    assert Checkpoints(tmp_path).resume(model, build_optimizer(model, base_lr=0.1, weight_decay=0.0)) == Progress()


def test_a_checkpoint_of_another_class_count_says_so(tmp_path):
    saved(tmp_path, num_classes=3)
    model = tiny_network(2)
    with pytest.raises(ValueError, match="made for 3 classes and this network has 2: set MODEL.NUM_CLASSES"):
        Checkpoints(tmp_path).resume(model, build_optimizer(model, base_lr=0.1, weight_decay=0.0))


def test_foreign_weights_in_its_place_say_what_to_do(tmp_path):
    checkpoints, model, optimizer = saved(tmp_path)
    torch.save(model.state_dict(), checkpoints.path(2))
    with pytest.raises(ValueError, match="TRAIN.CHECKPOINT_FILE_PATH"):
        checkpoints.resume(model, optimizer)


def flip_a_bit(path):
    damaged = bytearray(path.read_bytes())
    damaged[len(damaged) // 2] ^= 1
    path.write_bytes(damaged)


DAMAGE = {
    "a flipped bit": flip_a_bit,
    "cut short": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: os.truncate(path, 0),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "another file": lambda path: path.write_text("hello"),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_newest_checkpoint_is_stepped_over_and_said(tmp_path, caplog, damage):
    for epoch in (1, 2, 3):
        checkpoints, model, optimizer = saved(tmp_path, epoch)
    damage(checkpoints.path(3))
    whole = checkpoints.last()
    assert whole == checkpoints.path(2)
    assert checkpoints.resume(tiny_network(), optimizer, path=whole).epoch == 2
    assert caplog.text.count("the checkpoint before it is taken") == 1
    assert checkpoints.resume(tiny_network(), optimizer).epoch == 2
    assert f"'{checkpoints.path(3)}' is not a" in caplog.text and "the checkpoint before it is taken" in caplog.text
    assert "weights_only" not in caplog.text


def test_when_no_checkpoint_is_whole_that_is_said_with_the_ways_on(tmp_path):
    for epoch in (1, 2):
        checkpoints, model, optimizer = saved(tmp_path, epoch)
        flip_a_bit(checkpoints.path(epoch))
    with pytest.raises(DamagedFileError, match="none of the 2 checkpoints in '.*' is whole: copy them here anew, or move them away"):
        checkpoints.resume(model, optimizer)
