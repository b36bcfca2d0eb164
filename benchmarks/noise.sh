#!/bin/sh
# Train stage 2 on tables in which a share of the targets is wrong, by each loss: the tables of docs/recipes.md.
#
#     benchmarks/noise.sh OUTPUT DATA_PATH CLIP_MODEL_NAME TUNED_CLIP
#
# SHARES (percent), SEEDS, EPOCHS and PYTHON are read from the environment. The validation split stays as it is.
set -eu
if [ $# -ne 4 ] || [ -e "$1" ]; then
    echo "error: $0 needs OUTPUT (a new folder), DATA_PATH, CLIP_MODEL_NAME and TUNED_CLIP" >&2
    exit 2
fi
output=$1 data_path=$2 clip=$3 tuned=$4
python=${PYTHON:-python} shares=${SHARES:-0 10 30 50}

"$python" "$(dirname "$0")/wrong_targets.py" anywhere "$output" "$data_path" $shares

# train SHARE WAY SEED OPTION…
train() {
    share=$1 way=$2 seed=$3 folder=$output/$1-$2-$3
    shift 3
    "$python" combiner_train.py --dataset CIRR --data-path "$output/$share" --clip-model-name "$clip" \
        --clip-model-path "$tuned" --output-path "$folder" --feature-cache "$output/features" --seed "$seed" \
        --num-epochs "${EPOCHS:-10}" --batch-size 256 --combiner-lr 1e-3 --validation-frequency 1 \
        --projection-dim 256 --hidden-dim 512 --save-training "$@"
    set -- "$folder"/models/*
    last=$("$python" -c 'import sys, pandas; print(len(pandas.read_csv(sys.argv[1])) - 1)' "$1/validation_metrics.csv")
    "$python" validate.py --dataset CIRR --data-path "$output/$share" --clip-model-name "$clip" --clip-model-path "$tuned" \
        --combiner-path "$1/saved_models/combiner_$last.pt" --output-path "$folder" --feature-cache "$output/features" \
        --per-query "$folder/queries.csv"
}

for share in $shares; do
    for seed in ${SEEDS:-0 1 2}; do
        train "$share" cross-entropy "$seed"
        train "$share" gce "$seed" --loss gce
        train "$share" bank "$seed" --negatives bank
        train "$share" bank-gce "$seed" --negatives bank --loss gce
    done
done

for share in $shares; do
    "$python" "$(dirname "$0")/mean_of_seeds.py" "$output" \
        "$share-cross-entropy" "$share-gce" "$share-bank" "$share-bank-gce"
    "$python" compare.py "$output/$share-cross-entropy.csv" "$output/$share-gce.csv"
    "$python" compare.py "$output/$share-bank.csv" "$output/$share-bank-gce.csv"
done
