"""What a run needs to go on as if it had never stopped: written whole or not at all, read without running its code."""

import errno
import random

import numpy as np
import torch

from src.errors import InputError, in_a_line
from src.files import replacing
from src.weights import read_content


def write_checkpoint(path, content):
    """Write `content`, of tensors and plain values, to `path`; a full disk raises OSError with the size needed."""
    with replacing(path) as unfinished:
        try:
            torch.save(content, unfinished)
        except RuntimeError as error:  # what torch's writer makes of a failed write
            needed = f"cannot be written, it needs {size_of(content) / 1e9:.3f} GB ({in_a_line(error)})"
            raise OSError(errno.ENOSPC, needed, str(path)) from None


def read_checkpoint(path, keys):
    """The dict that `write_checkpoint` wrote to `path`; raises InputError when it lacks one of `keys`."""
    content = read_content(path)
    lacking = [key for key in keys if not isinstance(content, dict) or key not in content]
    if lacking:
        raise InputError(f"{path}: not the state of a run, it has no {lacking[0]!r}")
    return content


def size_of(content):
    """Bytes of all tensors in nested dicts and lists."""
    if isinstance(content, torch.Tensor):
        return content.numel() * content.element_size()
    parts = content.values() if isinstance(content, dict) else content if isinstance(content, (list, tuple)) else ()
    return sum(map(size_of, parts))


def random_states():
    """Where every global random generator is now, in plain values and tensors."""
    kind, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,  # alike in all processes of a job
        "numpy": [kind, keys.tolist(), *rest],
        "python": random.getstate(),
    }


def restore_random_states(states):
    """Set every global random generator to where `random_states` found it."""
    torch.set_rng_state(states["torch"])
    if torch.cuda.is_available() and states["cuda"] is not None:
        torch.cuda.set_rng_state(states["cuda"])
    kind, keys, *rest = states["numpy"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
    random.setstate(states["python"])
