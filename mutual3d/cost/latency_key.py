"""What a latency belongs to: the machine, the runtime, the type of number, the batch and the threads."""

import re
from dataclasses import dataclass

import torch

from mutual3d.cost.machine import device_word

# PyTorch on the network's own weights, which all configurations share; runtimes run one configuration each.
EAGER = "eager"
# The costs that are latencies of one call: the median, the 90th and the 99th percentile.
LATENCIES = ("latency_ms", "latency_p90_ms", "latency_p99_ms")
_DTYPES = {torch.float32: "fp32", torch.float16: "fp16", torch.bfloat16: "bf16", torch.float64: "fp64"}
_KEY = re.compile(
    r"(?P<device>[a-z]+(:\d{1,3})?)(\.(?P<model>[a-z0-9_]+))?(-(?P<runtime>[A-Za-z0-9_]+))?-(?P<dtype>[a-z0-9_]+)"
    r"-b(?P<batch>[1-9]\d{0,5})(-t(?P<threads>[1-9]\d{0,3}))?"
)


@dataclass(frozen=True)
class LatencyKey:
    """What a column of latencies was measured on and in, printed and parsed as `cpu.epyc_7b13-openvino-fp32-b1-t2`.

    device: cpu, cuda. model: of the processor or GPU, in a word; "" in tables of earlier versions, which is some other,
    unknown machine. runtime: the name of one, `eager`, or what decoded a video; "" in tables of earlier versions. dtype: of
    the numbers. batch: clips at a time. threads: None where they are not told, as of a GPU.
    """

    device: str
    model: str
    runtime: str
    dtype: str = "fp32"
    batch: int = 1
    threads: int | None = None

    @classmethod
    def here(
        cls, device: torch.device, runtime: str = EAGER, dtype: torch.dtype = torch.float32, batch: int = 1, threads: int | None = None
    ) -> "LatencyKey":
        """The key of what is measured on this machine now. threads: None takes those that PyTorch uses."""
        threads = (threads or torch.get_num_threads()) if device.type == "cpu" else None
        name = _DTYPES.get(dtype, str(dtype).removeprefix("torch."))
        return cls(device.type, device_word(device), runtime, name, batch, threads)

    @classmethod
    def parse(cls, text: str) -> "LatencyKey":
        """The inverse of `str`; ValueError for a text of another form."""
        found = _KEY.fullmatch(text)
        if not found:
            raise ValueError(f"'{text:.80}' is no key of a latency: such are cpu.epyc_7b13-openvino-fp32-b1-t2")
        threads = found["threads"]
        return cls(
            found["device"], found["model"] or "", found["runtime"] or "", found["dtype"], int(found["batch"]),
            int(threads) if threads else None,
        )  # fmt: skip

    def __str__(self) -> str:
        model, runtime = (f"{mark}{word}" if word else "" for mark, word in ((".", self.model), ("-", self.runtime)))
        threads = "" if self.threads is None else f"-t{self.threads}"
        return f"{self.device}{model}{runtime}-{self.dtype}-b{self.batch}{threads}"

    @property
    def is_here(self) -> bool:
        """Whether this machine is of that kind: these are latencies that it can promise."""
        if self.device == "cpu":
            return self.model == device_word(torch.device("cpu"))
        places = range(torch.cuda.device_count()) if self.device == "cuda" else ()
        return self.model in {device_word(torch.device("cuda", i)) for i in places}


def is_here(key: str) -> bool:
    """`LatencyKey.is_here` of a text; False for one that is no key."""
    return bool(_KEY.fullmatch(key)) and LatencyKey.parse(key).is_here
