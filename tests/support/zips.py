"""Files of weights taken apart and put together again, as no torch writes them."""

import io
import struct
import zipfile


def entries_of(path):
    """Return {entry: its bytes} of an archive."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_zip(path, entries, compression=zipfile.ZIP_STORED):
    """Write an archive with the `entries` {name without the archive's folder: bytes}."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(f"archive/{name}", content)
    return path


def data_of(content, name):
    """Return where an entry's data lies in the bytes of an archive: begin and end."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entry = next(entry for entry in archive.infolist() if entry.filename.partition("/")[2] == name)
    lengths = struct.unpack_from("<HH", content, entry.header_offset + 26)
    begin = entry.header_offset + 30 + sum(lengths)
    return begin, begin + entry.file_size


def mutated(content, random):
    """Return `content` with one of the things done to it that happen to files: `random` draws which and where."""
    content = bytearray(content)
    place = random.randrange(len(content))
    length = random.randint(1, 64)
    kind = random.choice(("bit", "byte", "run", "zeros", "cut", "swap", "insert", "delete", "append"))
    if kind == "bit":
        content[place] ^= 1 << random.randrange(8)
    elif kind == "byte":
        content[place] = random.randrange(256)
    elif kind == "run":
        content[place : place + length] = random.randbytes(len(content[place : place + length]))
    elif kind == "zeros":
        content[place : place + length] = bytes(len(content[place : place + length]))
    elif kind == "cut":
        del content[place:]
    elif kind == "swap":
        other = random.randrange(len(content))
        first, second = sorted((place, other))
        length = min(length, second - first, len(content) - second)
        one, two = content[first : first + length], content[second : second + length]
        content[first : first + length], content[second : second + length] = two, one
    elif kind == "insert":
        content[place:place] = random.randbytes(length)
    elif kind == "delete":
        del content[place : place + length]
    else:
        content += random.randbytes(length)
    return bytes(content)
