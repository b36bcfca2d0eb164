#!/bin/sh
# Train stage 2 in six ways with several seeds, and compare the ways on the same queries: the tables of docs/recipes.md.
#
#     benchmarks/recipes.sh OUTPUT DATA_PATH CLIP_MODEL_NAME TUNED_CLIP
#
# SEEDS, EPOCHS, BATCH_SIZE, HIDDEN (of the projection) and PYTHON are read from the environment. For the toy world,
# after make quickstart:
#
#     benchmarks/recipes.sh toy/recipes toy toy/small_clip.pt \
#         "$(ls -t toy/models/clip_finetuned_on_cirr_*/saved_models/tuned_clip_arithmetic.pt | head -n 1)"
set -eu
if [ $# -ne 4 ] || [ -e "$1" ]; then
    echo "error: $0 needs OUTPUT (a new folder), DATA_PATH, CLIP_MODEL_NAME and TUNED_CLIP" >&2
    exit 2
fi
output=$1 data_path=$2 clip=$3 tuned=$4
python=${PYTHON:-python}

# train WAY SEED OPTION…
train() {
    way=$1 seed=$2 folder=$output/$1-$2
    shift 2
    "$python" combiner_train.py --dataset CIRR --data-path "$data_path" --clip-model-name "$clip" \
        --clip-model-path "$tuned" --output-path "$folder" --feature-cache "$output/features" --seed "$seed" \
        --num-epochs "${EPOCHS:-12}" --batch-size "${BATCH_SIZE:-256}" --combiner-lr 1e-3 --validation-frequency 1 \
        --projection-dim 256 --hidden-dim 512 --save-training "$@"
    run=$(echo "$folder"/models/*)
    best=$("$python" -c 'import sys, pandas; print(pandas.read_csv(sys.argv[1]).recall_at1.idxmax())' \
        "$run/validation_metrics.csv")
    set -- --combiner-path "$run/saved_models/combiner_$best.pt"
    case $way in
    along*) ;; # with its text encoder the file holds the CLIP too
    *) set -- "$@" --clip-model-path "$tuned" ;;
    esac
    "$python" validate.py --dataset CIRR --data-path "$data_path" --clip-model-name "$clip" "$@" \
        --output-path "$folder" --feature-cache "$output/features" --per-query "$folder/queries.csv"
}

along="--negatives bank --dropout .2 --encoder text --learning-rate 1e-3 --frozen-epochs 1 --clip-bs 256"
for seed in ${SEEDS:-0 1 2}; do
    train published "$seed"
    train bank "$seed" --negatives bank
    train dropout "$seed" --negatives bank --dropout .2
    train projection "$seed" --negatives bank --dropout .2 --gallery-projection "${HIDDEN:-512}"
    train along "$seed" $along
    train along_projection "$seed" $along --gallery-projection "${HIDDEN:-512}"
done

"$python" "$(dirname "$0")/mean_of_seeds.py" "$output" published bank dropout projection along along_projection
# compare FIRST OTHER…
compare() {
    for way in "$@"; do
        set -- "$@" "$output/$way.csv"
        shift
    done
    "$python" compare.py "$@"
}
compare published bank dropout projection along along_projection
compare dropout projection
compare along along_projection
