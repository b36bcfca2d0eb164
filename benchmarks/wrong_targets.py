"""Make copies of a data set in CIRR's layout in which a share of the training targets is wrong.

python wrong_targets.py anywhere|group OUTPUT DATA_PATH SHARE [SHARE ...]

Each lies in OUTPUT/SHARE (percent): pictures by links, and 4,096 training triplets at most. The wrong targets are a
permutation of the right ones (anywhere), a few of which stay as they were by chance, or other members of their group.
OUTPUT/SHARE/wrong.json has the numbers of the triplets whose target is wrong.
"""

import json
import random
import sys
from pathlib import Path


def link_all_but_the_table(source: Path, folder: Path) -> None:
    (folder / "cirr" / "captions").mkdir(parents=True)
    for path in [*source.iterdir(), *(source / "cirr").iterdir(), *(source / "cirr" / "captions").iterdir()]:
        link = folder / path.relative_to(source)
        if not link.exists() and not path.name.endswith(".train.json"):
            link.symlink_to(path)


def others_of_group(triplet: dict) -> list[str]:
    ends = triplet["reference"], triplet["target_hard"]
    return [name for name in triplet["img_set"]["members"] if name not in ends]


def put_wrong_targets(rows: list[dict], share: int, where: str, drawn: random.Random) -> list[int]:
    """Give a share of the triplets, in percent, other targets; return the numbers of those whose target is wrong."""
    chosen = drawn.sample(range(len(rows)), len(rows) * share // 100)
    if where == "group":
        targets = [drawn.choice(others_of_group(rows[row])) for row in chosen]
    else:
        targets = [rows[row]["target_hard"] for row in chosen]
        drawn.shuffle(targets)
    wrong = []
    for row, target in zip(chosen, targets, strict=True):
        triplet, right = rows[row], rows[row]["target_hard"]
        if target in (triplet["reference"], right):  # the commands refuse the one, and the other is right
            continue
        members = triplet["img_set"]["members"]
        if target not in members:  # so they do a target outside its group
            members[members.index(right)] = target
        triplet.update(target_hard=target, target_soft={target: 1.0})
        wrong.append(row)
    return sorted(wrong)


if __name__ == "__main__":
    where, output, source = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]).resolve() / "cirr_dataset"
    for share in sys.argv[4:]:
        link_all_but_the_table(source, output / share / "cirr_dataset")
        (table,) = (source / "cirr" / "captions").glob("cap.*.train.json")
        rows, drawn = json.loads(table.read_text()), random.Random(0)
        rows = drawn.sample(rows, min(4096, len(rows)))
        wrong = put_wrong_targets(rows, int(share), where, drawn)
        (output / share / table.relative_to(source.parent)).write_text(json.dumps(rows))
        (output / share / "wrong.json").write_text(json.dumps(wrong))
        print(f"{share} %: {len(wrong):,} of {len(rows):,} targets are wrong", flush=True)
