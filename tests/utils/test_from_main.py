"""What the main process does for all of them."""

import socket

import pytest
import torch.distributed as dist
import torch.multiprocessing as mp

from mutual3d.utils import distributed
from mutual3d.utils.distributed import MainProcessError, from_main


def _free_port():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def _ask_main(rank, port, path):
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=2)
    told = [from_main(lambda: f"of {distributed.rank()}")]
    try:
        from_main(lambda: [][1])
    except (IndexError, MainProcessError) as error:
        told.append(f"{type(error).__name__}: {error}")
    (path / str(rank)).write_text("\n".join(told))
    dist.destroy_process_group()


def test_every_process_has_what_the_main_one_found_or_its_error(tmp_path):
    mp.start_processes(_ask_main, args=(_free_port(), tmp_path), nprocs=2, start_method="fork")
    told = [(tmp_path / str(rank)).read_text().splitlines() for rank in (0, 1)]
    assert told[0][0] == told[1][0] == "of 0"
    assert told[0][1] == "IndexError: list index out of range"
    assert told[1][1] == "MainProcessError: the main process failed: IndexError: list index out of range"


def test_alone_it_is_the_function_itself():
    assert from_main(lambda: 3) == 3
    with pytest.raises(IndexError):
        from_main(lambda: [][1])
