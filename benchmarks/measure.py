"""Time and memory of ways to do one thing, taken in turn so that their ratio holds while the machine's speed drifts."""

import contextlib
import ctypes
import gc
import platform
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch

from src.base.device import device, emulates_bf16
from src.base.parser import usable_cores


class Measured(NamedTuple):
    """What a way cost, and what it gave."""

    seconds: float
    """The median of its turns."""
    peak_bytes: int | None
    """The most memory that it held beyond what was held before; None where the system does not say."""
    result: object
    """What it returned in its last turn."""


def alternate(ways: dict[str, Callable[[], object]], repeats: int, warm_up: bool = False) -> dict[str, Measured]:
    """Call `ways` {name: function} in turn, `repeats` times each; return {name: Measured}.

    `warm_up` adds a turn before these, which does not count.
    """
    times, peaks, results = {name: [] for name in ways}, dict.fromkeys(ways, 0), {}
    with _collecting_only_what_is_new():
        for turn in range(repeats + warm_up):
            for name, way in ways.items():
                seconds, peak, results[name] = _measure(way)
                if turn >= warm_up:
                    times[name].append(seconds)
                    peaks[name] = None if peak is None else max(peak, peaks[name])
    return {name: Measured(median(times[name]), peaks[name], results[name]) for name in ways}


@contextlib.contextmanager
def _collecting_only_what_is_new() -> Iterator[None]:
    """Spare the collections between ways the millions of objects that libraries keep for ever."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


def machine() -> str:
    """Return what the machine is, in a line."""
    name = platform.processor() or platform.machine()
    cpu = Path("/proc/cpuinfo")
    if cpu.is_file():
        models = [line.partition(":")[2].strip() for line in cpu.read_text().splitlines() if "model name" in line]
        name = models[0] if models else name
    gpu = f", {torch.cuda.get_device_name()}" if device.type == "cuda" else ", no GPU"
    instructions = torch.backends.cpu.get_cpu_capability()
    bf16 = "with" if has_fast_bf16() else "without"
    return (
        f"{usable_cores()} cores of {name} ({instructions}, {bf16} bf16 instructions){gpu}, torch {torch.__version__}"
    )


def has_fast_bf16() -> bool:
    """Whether this device multiplies bf16 matrices in hardware."""
    if device.type == "cuda":
        return not emulates_bf16()
    cpu = Path("/proc/cpuinfo")
    return not cpu.is_file() or any(flag in cpu.read_text() for flag in ("avx512_bf16", "amx_bf16", " bf16 "))


def timed(way: Callable[[], object]) -> tuple[float, object]:
    """Return the seconds that `way()` took, and what it gave."""
    started = time.perf_counter()
    result = way()
    if device.type == "cuda":
        torch.cuda.synchronize()  # a card computes on after the call has returned
    return time.perf_counter() - started, result


def duration(seconds: float) -> str:
    """Return a time in words, in the unit that suits it."""
    for unit, length in (("h", 3600), ("min", 60)):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return "0" if not seconds else f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"


def data_size(number: float) -> str:
    """Return a number of bytes in words, in the unit that suits it."""
    return "0" if not number else f"{number / 1e9:.3g} GB" if number >= 1e9 else f"{number / 1e6:.3g} MB"


def _measure(way):
    gc.collect()  # what an earlier way left must not be freed, and counted, in this one
    before = held_memory()
    seconds, result = timed(way)
    peak = peak_memory()
    return seconds, None if peak is None else max(0, peak - before), result


def held_memory() -> int | None:
    """Return the memory held now, and begin a new peak; None where the system does not say."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        return torch.cuda.memory_allocated()
    if sys.platform == "linux":
        # What was freed but is kept for later would serve again, and so not count. Not every C library can.
        getattr(ctypes.CDLL(None), "malloc_trim", bool)(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # 5 sets VmHWM back to what is held now
    except OSError:
        return None
    return peak_memory()


def peak_memory() -> int | None:
    """Return the most memory held since the last peak began."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    lines = _lines(Path("/proc/self/status"))
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM")), None)


def available_memory(on: torch.device = device) -> int | None:
    """Return the bytes that can be had on a device before it is full; None where the system does not say."""
    if on.type == "cuda":
        free, _ = torch.cuda.mem_get_info(on)
        return free + torch.cuda.memory_reserved(on) - torch.cuda.memory_allocated(on)
    own = next((line.partition("::/")[2] for line in _lines(Path("/proc/self/cgroup")) if line.startswith("0::/")), "")
    rooms = [1024 * int(line.split()[1]) for line in _lines(Path("/proc/meminfo")) if line.startswith("MemAvailable")]
    return min([*rooms, *rooms_of_groups(Path("/sys/fs/cgroup") / own)], default=None)


def rooms_of_groups(group: Path) -> Iterator[int]:
    """Yield the bytes that containers and batch systems leave a process, in its control `group` and those around it."""
    for folder in (group, *group.parents):
        limits, facts = _lines(folder / "memory.max"), dict(line.split() for line in _lines(folder / "memory.stat"))
        if limits and limits[0].isdecimal():
            yield int(limits[0]) - int(facts.get("anon", 0))  # what is not anonymous can be given back


def _lines(path):
    return path.read_text().splitlines() if path.is_file() else []
