"""Checksums of gigabytes, computed as fast as memory is read."""

import hashlib

import numpy as np

WORDS = 1024
"""32-bit words of a block."""
WEIGHTS = np.frombuffer(hashlib.shake_256(b"index").digest(8 * WORDS), "<u8") | np.uint64(1)
"""Random and odd. They belong to the format of what carries checksums."""


def checksum(data) -> str:
    """Return a checksum of contiguous bytes or an array, against accidents, not forgery.

    Each block gives the sum of its words times their weights, modulo 2^64; the checksum is the SHA-256 of these sums
    and of the bytes after the last whole block, so blocks cannot change places.

    A changed word is always noticed: its difference d, 0 < |d| < 2^32, times an odd weight is not 0 modulo 2^64. Any
    other change of a block is missed for at most one in 2^32 choices of the weights: with all but one of them chosen,
    that one w has to solve w d = c for a d of another word, whose factors of two are fewer than 32, so at most 2^31 of
    the 2^63 odd numbers do.
    """
    octets = np.frombuffer(data, np.uint8)
    whole = len(octets) - len(octets) % (4 * WORDS)
    blocks = octets[:whole].view("<u4").reshape(-1, WORDS)
    sums = np.einsum("ij,j->i", blocks, WEIGHTS, dtype=np.uint64, casting="safe")
    return hashlib.sha256(sums.astype("<u8").tobytes() + octets[whole:].tobytes()).hexdigest()
