"""Time and memory of several ways to do one thing, in turn: ratios hold even if the machine's speed drifts."""

import ctypes
import gc
import platform
import sys
import time
from collections.abc import Callable, Iterator
from itertools import product
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

from src.base.device import device, emulates_bf16
from src.command.parser import usable_cores

CPUINFO = Path("/proc/cpuinfo")


class Measured(NamedTuple):
    """Cost and result of one way."""

    seconds: float  # the median of its turns
    peak_bytes: int | None  # the most memory held beyond what was held before; None if the system cannot say
    result: object  # of its last turn


def alternate(ways: dict[str, Callable[[], object]], repeats: int, warm_up: bool = False) -> dict[str, Measured]:
    """Call `ways` {name: function} in turn, `repeats` times each; return {name: Measured}.

    `warm_up` adds a first turn that does not count.
    """
    times, peaks, results = {name: [] for name in ways}, dict.fromkeys(ways, 0), {}
    gc.collect()
    gc.freeze()  # collections between turns need not look at the millions of objects that libraries keep
    try:
        for turn, (name, way) in product(range(repeats + warm_up), ways.items()):
            seconds, peak, results[name] = _measure(way)
            if turn >= warm_up:
                times[name].append(seconds)
                peaks[name] = None if peak is None else max(peak, peaks[name])
    finally:
        gc.unfreeze()
    return {name: Measured(median(times[name]), peaks[name], results[name]) for name in ways}


def machine() -> str:
    """Describe the machine on one line."""
    models = [line.partition(":")[2].strip() for line in _lines(CPUINFO) if "model name" in line]
    name = models[0] if models else platform.processor() or platform.machine()
    gpu = torch.cuda.get_device_name() if device.type == "cuda" else "no GPU"
    bf16 = "with" if has_fast_bf16() else "without"
    instructions = f"{torch.backends.cpu.get_cpu_capability()}, {bf16} bf16 instructions"
    return f"{usable_cores()} cores of {name} ({instructions}), {gpu}, torch {torch.__version__}"


def has_fast_bf16() -> bool:
    """Whether this device multiplies bf16 matrices in hardware."""
    if device.type == "cuda":
        return not emulates_bf16()
    instructions = "\n".join(_lines(CPUINFO))
    return not instructions or any(flag in instructions for flag in ("avx512_bf16", "amx_bf16", " bf16 "))


def timed(way: Callable[[], object]) -> tuple[float, object]:
    """Return the seconds that `way()` took, and its result."""
    started = time.perf_counter()
    result = way()
    if device.type == "cuda":
        torch.cuda.synchronize()  # calls return before the card has finished
    return time.perf_counter() - started, result


def duration(seconds: float) -> str:
    """Format a time in the unit that suits it."""
    return f"{seconds:.3g} s" if seconds >= 0.1 else f"{1000 * seconds:.3g} ms"


def _measure(way):
    gc.collect()  # garbage of the other ways must not be freed, and counted, during this one
    before = held_memory()
    seconds, result = timed(way)
    peak = peak_memory()
    return seconds, None if peak is None else max(0, peak - before), result


def held_memory() -> int | None:
    """Return the memory held now, and start a new peak; None if the system cannot say."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    if sys.platform == "linux":
        # Freed memory that malloc keeps would be used again without counting. Not every C library has this call.
        getattr(ctypes.CDLL(None), "malloc_trim", bool)(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # 5 sets VmHWM back to what is held now
    except OSError:
        return None
    return peak_memory()


def peak_memory() -> int | None:
    """Return the most memory held since the peak was reset."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    lines = _lines(Path("/proc/self/status"))
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), None)


def available_memory() -> int | None:
    """Return how many bytes of the machine's memory this process can still get; None if the system cannot say."""
    own = next((line.partition("::/")[2] for line in _lines(Path("/proc/self/cgroup")) if line.startswith("0::/")), "")
    rooms = [1024 * int(line.split()[1]) for line in _lines(Path("/proc/meminfo")) if line.startswith("MemAvailable")]
    return min([*rooms, *rooms_of_groups(Path("/sys/fs/cgroup") / own)], default=None)


def rooms_of_groups(group: Path) -> Iterator[int]:
    """Yield the bytes that containers and batch systems still allow: those of control `group` and of all around it."""
    for folder in (group, *group.parents):
        limits, facts = _lines(folder / "memory.max"), dict(line.split() for line in _lines(folder / "memory.stat"))
        if limits and limits[0].isdecimal():
            yield int(limits[0]) - int(facts.get("anon", 0))  # the rest, such as cached files, can be freed


def _lines(path):
    return path.read_text().splitlines() if path.is_file() else []
