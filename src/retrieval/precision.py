"""Precision: which type a --precision computes in, and the line that says where a command computes."""

import sys

import torch

from src.base.device import device, device_line
from src.command.flags import PRECISIONS
from src.processes import distributed


def autocast(precision: str, training: bool = False) -> torch.autocast:
    """Return the autocast context of a --precision; "auto" is fp16 for training on CUDA as published, else fp32."""
    dtype = autocast_dtype(precision, training)
    return torch.autocast(device.type, dtype=dtype, enabled=dtype is not torch.float32)


def autocast_dtype(precision: str, training: bool = False) -> torch.dtype:
    """Return the type that a --precision computes in."""
    return getattr(torch, PRECISIONS[resolved(precision, training)])


def resolved(precision: str, training: bool = False) -> str:
    """Return the --precision that "auto" stands for on this device; every other one is itself."""
    if precision != "auto":
        return precision
    return "fp16" if training and device.type == "cuda" else "fp32"


def say_device(precision: str, training: bool = False) -> None:
    """Print to stderr where a command computes, in which precision, and with how many processes, in a line."""
    print(device_line(resolved(precision, training), distributed.processes()), file=sys.stderr, flush=True)
