import dataclasses
import subprocess
import sys
import time

from mutual3d.utils.processes import this_process

CODE = "from mutual3d.utils.processes import this_process as t; p = t(); print(p.place, p.pid, p.started, flush=True); input()"


def test_a_process_lives_until_it_ends_even_before_its_parent_looks():
    child = subprocess.Popen([sys.executable, "-c", CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    place, pid, started = child.stdout.readline().split()
    named = dataclasses.replace(this_process(), place=place, pid=int(pid), started=int(started))
    assert named.pid == child.pid and named.is_alive() and this_process().is_alive()
    child.kill()
    end = time.monotonic() + 10
    while named.is_alive() and time.monotonic() < end:  # nobody has waited for it yet: it is dead and has its number still
        time.sleep(0.01)
    assert not named.is_alive()
    child.wait()
    assert not named.is_alive()


def test_a_later_process_of_the_same_number_is_another_one():
    assert not dataclasses.replace(this_process(), started=this_process().started - 1).is_alive()


def test_another_machines_process_cannot_be_seen():
    assert dataclasses.replace(this_process(), place="other").is_alive() is None
