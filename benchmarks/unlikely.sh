#!/bin/sh
# Train stage 2 on tables with 5 % wrong targets, and count the wrong ones among the 5 % that the model holds least
# likely: the table of docs/recipes.md.
#
#     benchmarks/unlikely.sh OUTPUT DATA_PATH CLIP_MODEL_NAME TUNED_CLIP
#
# SEEDS, EPOCHS, BATCH_SIZE and PYTHON are read from the environment.
set -eu
if [ $# -ne 4 ] || [ -e "$1" ]; then
    echo "error: $0 needs OUTPUT (a new folder), DATA_PATH, CLIP_MODEL_NAME and TUNED_CLIP" >&2
    exit 2
fi
output=$1 data_path=$2 clip=$3 tuned=$4
python=${PYTHON:-python} here=$(dirname "$0")

# train WHERE WAY SEED OPTION…
train() {
    where=$1 way=$2 seed=$3 held=$output/$1-$2-$3.csv
    shift 3
    "$python" combiner_train.py --dataset CIRR --data-path "$output/$where/5" --clip-model-name "$clip" \
        --clip-model-path "$tuned" --output-path "$output" --feature-cache "$output/features" --seed "$seed" \
        --num-epochs "${EPOCHS:-10}" --batch-size "${BATCH_SIZE:-256}" --combiner-lr 1e-3 --validation-frequency 100 \
        --projection-dim 256 --hidden-dim 512 --per-triplet "$held" "$@"
    "$python" - "$where, $way, seed $seed" "$held" "$output/$where/5/wrong.json" <<END_OF_COUNT
import json
import sys

import pandas

name, held, wrong = sys.argv[1:]
held = pandas.read_csv(held).sort_values("loss", ascending=False, kind="stable")
first = held.triplet[: len(held) * 5 // 100]
print(f"{name}: {100 * first.isin(json.load(open(wrong))).mean():.1f} % of the first {len(first)} are wrong")
END_OF_COUNT
}

for where in anywhere group; do
    "$python" "$here/wrong_targets.py" $where "$output/$where" "$data_path" 5
    for seed in ${SEEDS:-0 1 2}; do
        train $where batch "$seed"
        train $where gce "$seed" --loss gce
        train $where bank "$seed" --negatives bank
    done
done
