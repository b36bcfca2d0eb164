"""What a demo needs before anything is loaded: pictures, and a port."""

import socket
from pathlib import Path

from src.apps.demo.walk import MOST_ANSWERS
from src.base.errors import InputError, in_a_line
from src.base.folders import PassedOver, pictures_below

LOOPBACK = "127.0.0.1", "localhost"
PORTS = range(7860, 7960)


def require_sense(pictures: Path, k: int) -> None:
    """Raise InputError unless a folder holds pictures, and the page can show `k` answers."""
    if k > MOST_ANSWERS:
        raise InputError(f"-k {k}: the page shows at most {MOST_ANSWERS} answers")
    if not pictures.is_dir():
        raise InputError(f"--pictures {pictures}: no such folder")
    passed = PassedOver.nothing()
    if not pictures_below(pictures, {}, passed):
        lines = ["holds no pictures, at no depth", *passed.lines()]
        raise InputError(f"--pictures {pictures}: {'; '.join(lines)}")


def free_port(host: str, port: int | None) -> int:
    """Return `port`, or the first free one; raises InputError where nothing can be served there."""
    # Not left to gradio, which tries for minutes what cannot be.
    for number in PORTS if port is None else [port]:
        try:
            with socket.create_server((host, number)):
                return number
        except (OSError, OverflowError) as error:
            fault = in_a_line(error)
    raise InputError(f"--host {host} --port {number}: cannot be served ({fault})")
