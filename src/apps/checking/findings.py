"""Findings: possible faults of annotations and pictures, weighed by their effect on results."""

from collections.abc import Iterator
from itertools import chain, combinations
from operator import itemgetter
from pathlib import Path
from typing import NamedTuple

from src.base.crops import file_of
from src.base.errors import repeated
from src.base.folders import is_picture
from src.pictures.gaps import Gaps
from src.pictures.kinds import FAULTS, ODDITIES, Look
from src.tasks.captions import cleaned_caption
from src.tasks.triplets import Split

LEVELS = FAULT, WARNING, NOTE = "fault", "warning", "note"
REFUSED = "listed, so a command that needs it refuses"
TRANSFORMED = {
    "animated": (NOTE, "several frames: the first is taken"),
    "16-bit": (WARNING, "grey turns white above 255, as published; colour keeps 8 bits"),
    "palette": (NOTE, "becomes RGB after padding and resizing, as published"),
    "CMYK": (NOTE, "becomes RGB after padding and resizing, as published"),
    "EXIF-rotated": (NOTE, "taken as stored, unturned, as published"),
}


class Finding(NamedTuple):
    """What was looked for, and all that was found of it."""

    level: str
    """FAULT when it would change a result, WARNING when it bears on what a result means, else NOTE."""
    kind: str
    names: list
    of: int
    """How many were looked at, 0 where that is no number."""
    meaning: str

    def plain(self) -> dict:
        """Return it as plain values."""
        weight = {"level": self.level, "changes_results": self.level == FAULT}
        found = {"meaning": self.meaning, "names": self.names}
        return {"kind": self.kind, "count": len(self.names), "of": self.of, **weight, **found}


Splits = dict[str, dict[str, Split]]
"""{split: {category: Split}}"""


def annotation_findings(splits: Splits) -> list[Finding]:
    """Return what can be found without looking at a picture."""
    # A picture in two splits is published so; it tells how much of a result may be memory.
    findings = [*_shared_names(splits)]
    # FashionIQ's categories are trained together, so a dress that the shirts train on is no new picture.
    if {"train", "val"} <= splits.keys() and len(splits["val"]) > 1:
        findings.append(_targets_of_other_categories(splits))
    if {"train", "val"} <= splits.keys():
        findings.append(_trained_triplets(splits))
    captions = list(_captions(splits))
    blank = [entry for entry, caption in captions if is_blank(caption)]
    findings.append(Finding(WARNING, "blank captions", blank, len(captions), "nothing but punctuation and blanks"))
    triplets = list(_triplet_keys(splits))
    # Equal triplets are asked twice and count twice, as published.
    later = [entry for entry, _ in repeated(triplets, key=itemgetter(1))]
    findings.append(Finding(NOTE, "repeated triplets", later, len(triplets), "all counted"))
    return findings


def picture_findings(splits: Splits, looks: dict[Path, Look], folder: Path) -> list[Finding]:
    """Return what was found of the pictures as they are on disk; `folder` is the data set's."""
    findings = [*_faults(splits, looks, folder), *_same_contents(splits, looks)]
    for kind in ODDITIES:
        level, meaning = TRANSFORMED[kind]
        odd = [_below(folder, path) for path, look in looks.items() if kind in look.kinds]
        findings.append(Finding(level, kind, odd, len(looks), meaning))
    # Files without a listing change nothing, but often show a data set unpacked half or twice.
    unlisted = [_below(folder, path) for path in _unlisted(looks)]
    findings.append(Finding(NOTE, "unlisted", unlisted, 0, "picture files that no split lists, in no gallery"))
    return findings


def pictures_of(categories: dict[str, Split]) -> dict[str, Path]:
    """Return {name: path} of a split, all its categories together."""
    return dict(chain.from_iterable(split.pictures.items() for split in categories.values()))


def is_blank(caption: str) -> bool:
    """Whether cleaning leaves nothing of a caption to read."""
    return not cleaned_caption(caption).strip()


def _shared_names(splits):
    for earlier, later in combinations(splits, 2):
        known, names = _chosen(splits[earlier]), _chosen(splits[later])
        shared = [name for name in names if name in known]
        how = "list" if all(split.is_listed for split in splits[later].values()) else "name in their rows"
        yield Finding(WARNING, f"{later} in {earlier} by name", shared, len(names), f"pictures that both splits {how}")


def _chosen(categories: dict[str, Split]) -> dict[str, Path]:
    """Return {name: path} of the pictures that somebody chose for a split: not all that lies in a folder."""
    chosen = {}
    for split in categories.values():
        named = (name for triplet in split.triplets for name in split.needed(triplet))
        chosen |= split.pictures if split.is_listed else {name: split.pictures[name] for name in dict.fromkeys(named)}
    return chosen


def _targets_of_other_categories(splits):
    """Find the validation targets that a training triplet of another category names, each once."""
    trained = {category: _endpoints(split) for category, split in splits["train"].items()}
    targets, leaked = {}, {}
    for category, split in splits["val"].items():
        # Within its own category the names that both splits list tell it already.
        elsewhere = set().union(*(names for other, names in trained.items() if other != category))
        of_category = dict.fromkeys(name for triplet in split.triplets for name in triplet.targets)
        targets |= of_category
        leaked |= dict.fromkeys(name for name in of_category if name in elsewhere)
    meaning = "val targets in another category's training triplets"
    return Finding(WARNING, "val targets trained", list(leaked), len(targets), meaning)


def _trained_triplets(splits):
    """Find the validation triplets that are training triplets too."""

    def asked(triplet):
        return triplet.reference, triplet.captions

    answers = {}
    for split in splits["train"].values():
        for triplet in split.triplets:
            answers.setdefault(asked(triplet), set()).update(triplet.targets)
    val = [of for split in splits["val"].values() for of in ((split, *pair) for pair in enumerate(split.triplets))]
    trained = [
        split.place(number)
        for split, number, triplet in val
        if answers.get(asked(triplet), set()) & set(triplet.targets)
    ]
    return Finding(WARNING, "val triplets trained", trained, len(val), "that training asks and answers too")


def _endpoints(split: Split) -> set[str]:
    return {name for triplet in split.triplets for name in (triplet.reference, *triplet.targets)}


def _captions(splits: Splits) -> Iterator[tuple[str, str]]:
    """Yield (where it stands, caption) of every caption."""
    for split, number, triplet in _triplets(splits):
        for caption in triplet.captions:
            yield split.place(number), caption


def _triplet_keys(splits: Splits) -> Iterator[tuple[str, tuple]]:
    """Yield (where it stands, all that makes it this triplet) of every triplet."""
    for split, number, triplet in _triplets(splits):
        yield split.place(number), (split.path, triplet.reference, triplet.targets, triplet.captions)


def _triplets(splits: Splits):
    for categories in splits.values():
        for split in categories.values():
            for number, triplet in enumerate(split.triplets):
                yield split, number, triplet


def _faults(splits, looks, folder):
    missing = [path for path, look in looks.items() if "missing" in look.kinds]
    gaps = Gaps((split for categories in splits.values() for split in categories.values()), missing)
    for kind in FAULTS:
        faulty = {path: look.fault for path, look in looks.items() if kind in look.kinds}
        found = [(_below(folder, path), fault or gaps.about(path)) for path, fault in faulty.items()]
        names = [f"{name}: {fault}" if fault else name for name, fault in found]
        yield Finding(FAULT, kind, names, len(looks), REFUSED)


def _same_contents(splits, looks):
    """Find pictures whose bytes an earlier one has: in all splits, then between each two of them."""
    everywhere = {}
    for categories in splits.values():
        everywhere |= _digests(pictures_of(categories), looks)
    first = {}
    copies = [
        # The first name of some bytes is the original, all later ones are its copies.
        f"{name} = {first[digest]}"
        for name, digest in everywhere.items()
        if first.setdefault(digest, name) != name
    ]
    meaning = "as a picture of another name: they score equal"
    yield Finding(WARNING, "same bytes", copies, len(everywhere), meaning)
    digests = {split: _digests(_chosen(categories), looks) for split, categories in splits.items()}
    for earlier, later in combinations(splits, 2):
        twins = _twins(digests[earlier], digests[later])
        meaning = "pictures that the other split has under another name"
        yield Finding(WARNING, f"{later} in {earlier} by bytes", twins, len(digests[later]), meaning)


def _digests(pictures, looks):
    """Return {name: digest} of the pictures {name: path} that have bytes."""
    named = ((name, looks[path].digest) for name, path in pictures.items())
    return {name: digest for name, digest in named if digest}


def _twins(earlier, later):
    # Several pictures of the earlier split may have the same bytes; any but the name itself will do.
    names = {}
    for name, digest in earlier.items():
        names.setdefault(digest, []).append(name)
    others = {name: [twin for twin in names.get(digest, ()) if twin != name] for name, digest in later.items()}
    return [f"{name} = {twins[0]}" for name, twins in others.items() if twins]


def _unlisted(listed):
    """Find picture files, by their suffix, in the folders of those that are `listed`."""
    # By name: opening every file of a folder to learn what it is would take as long as the check itself.
    listed = {file_of(path) for path in listed}
    for folder in sorted({path.parent for path in listed}):
        if folder.is_dir():
            files = (path for path in sorted(folder.iterdir()) if path not in listed)
            yield from (path for path in files if is_picture(path.name) and path.is_file())


def _below(folder, path):
    return str(path.relative_to(folder))
