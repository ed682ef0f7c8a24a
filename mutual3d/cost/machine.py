"""What this machine is: the names of its processor and its GPU, and what of them decides how fast a network runs."""

import functools
import platform
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

_CPUINFO = Path("/proc/cpuinfo")
# Of a CPU, those that networks are computed with.
_FEATURES = (
    "avx", "avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_int8", "amx_bf16",
    "asimd", "asimddp", "sve", "sve2", "bf16", "i8mm",
)  # fmt: skip
# What says nothing of a processor's kind: its maker where the family follows, marks, clock rates, counts of cores.
_FILLER = re.compile(
    r"\((r|tm)\)|@.*|\bwith\b.*|\b(\d+|quad|six|eight|dual)-core\b|\b(\d+th gen|gen|cpu|processor|amd|intel|nvidia|corporation)\b"
)


@functools.cache
def cpu_name() -> str:
    """The name that the processor gives itself: `AMD EPYC 7B13`."""
    name = _cpuinfo().get("model name", "")
    if sys.platform == "darwin":
        name = _run("sysctl", "-n", "machdep.cpu.brand_string")
    elif sys.platform == "win32":
        name = _registry_name()
    info = _cpuinfo()
    if not name and "CPU part" in info:  # ARM on Linux
        name = f"ARM {info.get('CPU implementer', '')} {info['CPU part']}"
    return " ".join((name or platform.processor() or platform.machine() or "unknown").split())


@functools.cache
def cpu_word() -> str:
    """The processor's name as one word of small letters, digits and underscores: `epyc_7b13`.

    Where the name is one of many processors', as virtual machines have it (`AMD EPYC`), its family and model are added:
    `epyc_f25m1`.
    """
    return word_of(cpu_name(), _cpuinfo())


def word_of(name: str, info: Mapping[str, str] | None = None) -> str:
    """`cpu_word` of a processor or GPU called `name`. info: entries of /proc/cpuinfo, for a name that says little."""
    word = "_".join(re.findall(r"[a-z0-9]+", _FILLER.sub(" ", name.lower())))
    family, model = ((info or {}).get(key, "") for key in ("cpu family", "model"))
    if family and model and not re.search(r"\d", word):
        word = f"{word}_f{family}m{model}".lstrip("_")
    return word or "unknown"


@functools.cache
def cpu_features() -> tuple[str, ...]:
    """What the processor computes networks with, in the words of Linux: avx2, avx512f, amx_tile, ...; elsewhere what torch uses."""
    info = _cpuinfo()
    flags = (info.get("flags") or info.get("Features") or "").split()
    return tuple(name for name in _FEATURES if name in flags) or (torch.backends.cpu.get_cpu_capability().lower(),)


def device_name(device: torch.device) -> str:
    """What a device calls itself, for the record of a measurement."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else cpu_name()


def device_word(device: torch.device) -> str:
    """A device's kind as one word: `epyc_7b13`, `h100_80gb_hbm3`."""
    if device.type == "cuda":
        return word_of(torch.cuda.get_device_name(device))
    return cpu_word() if device.type == "cpu" else "unknown"


def describe_device(device: torch.device) -> dict[str, Any]:
    """What decides how fast `device` runs networks, as plain data: names, features, versions."""
    about: dict[str, Any] = {"cpu": cpu_name(), "features": " ".join(cpu_features()), "torch": torch.__version__}
    if device.type == "cuda":
        major, minor = torch.cuda.get_device_capability(device)
        driver = _run("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader").splitlines()
        about |= {"gpu": torch.cuda.get_device_name(device), "capability": f"{major}.{minor}", "cuda": torch.version.cuda or ""}
        about |= {"driver": driver[0].strip() if driver else "unknown"}
    return about


@functools.cache
def _cpuinfo() -> dict[str, str]:
    """The entries of the first processor in Linux's list; {} elsewhere."""
    try:
        text = _CPUINFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return {}
    lines = (line.partition(":") for line in text.split("\n\n")[0].splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def _run(*command: str) -> str:
    """What a program of the system prints; "" where there is none, or it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def _registry_name() -> str:
    """The processor's name on Windows, where `platform` has its family and model alone."""
    try:
        import winreg

        with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, r"HARDWARE\DESCRIPTION\System\CentralProcessor\0") as key:  # type: ignore[attr-defined,unused-ignore]  # on Windows alone
            return str(winreg.QueryValueEx(key, "ProcessorNameString")[0])  # type: ignore[attr-defined,unused-ignore]  # on Windows alone
    except (ImportError, OSError):
        return ""
