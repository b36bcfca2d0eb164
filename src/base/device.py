"""Where torch computes: on a card, where one can be used, else on the processor."""

import os
import re
import warnings
from collections.abc import Sequence
from pathlib import Path

import torch

from src.base.errors import in_a_line

OTHER_WHEELS = "https://pytorch.org/get-started/locally names one that has"


def choose_device() -> tuple[torch.device, str]:
    """Return the device, and why a card of this machine cannot be used and what would help, else ""."""
    with warnings.catch_warnings(record=True) as doubts:
        warnings.simplefilter("always")
        found = torch.cuda.is_available()
    if not found:
        return torch.device("cpu"), _unused_card([str(doubt.message) for doubt in doubts])
    fault = without_code(torch.cuda.get_device_name(), torch.cuda.get_device_capability(), torch.cuda.get_arch_list())
    return torch.device("cpu" if fault else "cuda"), fault


def _unused_card(doubts: Sequence[str]) -> str:
    if doubts:  # an old driver, or one that does not answer
        return in_a_line(doubts[0].removeprefix("CUDA initialization: "), longest=400)
    if Path("/proc/driver/nvidia/version").exists() and "CUDA_VISIBLE_DEVICES" not in os.environ:
        if torch.version.cuda is None:
            return f"the NVIDIA card is not used: this torch has no CUDA; {OTHER_WHEELS}"
        return "the NVIDIA card is not used: the driver gives none to this process; nvidia-smi shows why"
    has_xpu = hasattr(torch, "xpu") and torch.xpu.is_available()
    for name, is_there in (("Apple's GPU", torch.backends.mps.is_available()), ("Intel's GPU", has_xpu)):
        if is_there:
            return f"{name} is not used: this code runs on CUDA, ROCm or the processor"
    return ""


def without_code(name: str, capability: tuple[int, int], architectures: Sequence[str]) -> str:
    """Return a sentence where this torch has no code for the card called `name`, else "".

    `architectures` are torch's: sm_86 runs on 8.6 and later ones of 8, compute_80 is compiled for all from 8.0 on.
    """
    for architecture in architectures:
        kind, _, number = architecture.partition("_")
        digits = re.match(r"\d+", number)
        if digits is None:
            return ""  # ROCm's have other names
        built = divmod(int(digits[0]), 10)
        if built <= capability and (kind == "compute" or built[0] == capability[0]):
            return ""
    own = "sm_{}{}".format(*capability)
    return f"{name} is not used: this torch has no code for it ({own}); {OTHER_WHEELS}"


def emulates_bf16() -> bool:
    """Whether the card computes in bf16 only by way of fp32."""
    return torch.cuda.is_available() and torch.version.hip is None and torch.cuda.get_device_capability()[0] < 8


device, UNUSED_CARD = choose_device()

# fp32 means fp32: cuDNN would round a convolution's factors to ten bits, and an environment variable a product's.
torch.backends.cudnn.allow_tf32 = False
torch.backends.cuda.matmul.allow_tf32 = False


def device_line(precision: str, processes: int) -> str:
    """Return the line about device, precision and processes, with a warning where one is due."""
    where = torch.cuda.get_device_name() if device.type == "cuda" else "the processor"
    jobs = "1 process" if processes == 1 else f"{processes} processes"
    unused = f" ({UNUSED_CARD})" if UNUSED_CARD else ""
    doubt = "; it only emulates bf16, fp16 and fp32 are faster" if precision == "bf16" and emulates_bf16() else ""
    return f"computing on {where}{unused} in {precision}, {jobs}{doubt}"
