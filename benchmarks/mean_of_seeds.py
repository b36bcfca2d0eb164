"""Take the mean of each query's scores over the seeds of a way to train, as one more per-query file.

python mean_of_seeds.py FOLDER WAY [WAY ...]
"""

import sys
from pathlib import Path

import pandas as pd

output = Path(sys.argv[1])
for way in sys.argv[2:]:
    folders = sorted(output.glob(f"{way}-[0-9]*"))
    tables = [path for folder in folders for path in folder.glob("models/*/validation_metrics.csv")]
    epochs = [pd.read_csv(path).recall_at1 for path in tables]
    best, last = (", ".join(f"{take(seed):.2f}" for seed in epochs) for take in (max, lambda seed: seed.iloc[-1]))
    print(f"{way}: R@1 of each seed's best epoch {best}, of its last {last}")
    mean, *others = (pd.read_csv(folder / "queries.csv") for folder in folders)
    for metric in (name for name in mean if "recall_at" in name):
        mean[metric] = (mean[metric] + sum(seed[metric] for seed in others)) / len(folders)
    mean.to_csv(output / f"{way}.csv", index=False)
