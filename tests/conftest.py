"""Shared set-up: two threads unless OMP_NUM_THREADS says otherwise; compiled networks are kept for the tests alone."""

import os
import signal

import pytest
import torch

# Small networks on a busy machine are far slower with two threads that wait for each other than with one.
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", 2)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport():
    """Processes of tests tell each other what was printed as UTF-8, which names of files need not be."""
    report = yield
    report.sections = [(title, text.encode("utf-8", "backslashreplace").decode()) for title, text in report.sections]
    return report


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """A folder for compiled networks, and for the commands that tests run: not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MUTUAL3D_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def same_signal_handlers():
    """A test that leaves a handler behind fails itself, and not those after it that are sent a signal."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    left = {number: signal.getsignal(number) for number in before}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert left == before


@pytest.fixture
def one_thread():
    """For tensors that are so small that a second thread would only be waited for."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def programs():
    """{what a network is: its ONNX program}, which takes seconds to make."""
    return {}


@pytest.fixture
def share_programs(programs, monkeypatch):
    """ONNX Runtime, OpenVINO and exported files run one program of a network."""
    from mutual3d.deploy.runtimes import onnx_program
    from mutual3d.utils.fingerprint import fingerprint

    make = onnx_program.onnx_program

    def make_once(network):
        shapes = {name: (str(x.dtype), tuple(x.shape)) for name, x in network.examples.items()}
        key = fingerprint(dict(network.module.state_dict()), dict(network.metadata), shapes)
        if key not in programs:
            programs[key] = make(network)
        return programs[key]

    monkeypatch.setattr(onnx_program, "onnx_program", make_once)
