"""The whole pipeline on a toy world, in minutes on two cores: what a user types, one command after the other.

    python quickstart.py

Writes everything to toy/ in the project's root: the world, the runs, the submission, and the pages report.html and
search.html.
"""

import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

from src.command.frame import one_line_errors
from src.command.parser import Parser, count_or_zero

PROJECT_ROOT = Path(__file__).absolute().parent
# Pictures and CLIP are so small here that opening pictures takes as long as computing. One thread for computing leaves
# the other cores to the workers, which halves the time.
ENVIRONMENT = {"OMP_NUM_THREADS": "1"}
COMBINER = ["--projection-dim", "256", "--hidden-dim", "512"]


def run(*command) -> None:
    """Print a command of this project as a user would type it, and run it; ends this process if it fails."""
    arguments = [str(argument) for argument in command]
    print(f"\n$ python {shlex.join(arguments)}", flush=True)
    environment = os.environ | ENVIRONMENT
    status = subprocess.run([sys.executable, *arguments], check=False, cwd=PROJECT_ROOT, env=environment).returncode
    if status != 0:
        raise SystemExit(status)


def newest_weights(folder: Path, run_name: str, weights_name: str) -> Path:
    """Return the weights that the newest run called `run_name` kept, relative to the project's root."""
    # By time of change: a name's time stamp has no more than seconds.
    runs = sorted(folder.glob(f"models/{run_name}_*"), key=lambda path: path.stat().st_mtime)
    return (runs[-1] / "saved_models" / f"{weights_name}.pt").relative_to(PROJECT_ROOT)


def walk(seed: int) -> Path:
    """Run every command on the toy world of `seed`; return its folder."""
    toy = PROJECT_ROOT / "toy" if seed == 0 else PROJECT_ROOT / f"toy-{seed}"
    name = toy.name
    # The CLIP is written last, so its file says that the world is whole.
    if not (toy / "small_clip.pt").is_file():
        run("-m", "src.toy", name, "--seed", seed)
    common = ["--data-path", name, "--clip-model-name", f"{name}/small_clip.pt"]
    to_toy = ["--output-path", name]
    written = [*common, *to_toy, "--seed", seed]
    kept = ["--save-training", "--save-best"]
    cirr = ["--dataset", "CIRR"]

    run("validate.py", *cirr, *common, *to_toy)
    schedule = ["--num-epochs", 8, "--batch-size", 128, "--learning-rate", "1e-3"]
    run("clip_fine_tune.py", *cirr, *written, *schedule, *kept)
    tuned = ["--clip-model-path", newest_weights(toy, "clip_finetuned_on_cirr", "tuned_clip_arithmetic")]
    run("validate.py", *cirr, *common, *to_toy, *tuned)
    schedule = ["--num-epochs", 15, "--batch-size", 256, "--combiner-lr", "1e-3", "--validation-frequency", 1]
    run("combiner_train.py", *cirr, *written, *tuned, *COMBINER, *schedule, *kept)
    combiner = newest_weights(toy, "combiner_trained_on_cirr", "combiner_arithmetic")
    trained = [*tuned, "--combiner-path", combiner]
    run("validate.py", *cirr, *common, *to_toy, *trained)
    run("cirr_test_submission.py", *written, *trained, "--submission-name", "toy")
    # Pictures of one's own, which nothing was trained on.
    run("validate.py", "--dataset", f"{name}/my_pictures", *common, *to_toy, *trained)
    reference = min((toy / "my_pictures").glob("dress/*.png")).relative_to(PROJECT_ROOT)
    asked = ["--reference", reference, "--caption", "in blue, with a white belt"]
    run("report.py", "--run-folder", combiner.parents[1], "--output", f"{name}/report.html")
    answers = ["-k", 5, "--page", f"{name}/search.html"]
    run("search.py", "--pictures", f"{name}/my_pictures", *asked, *common[2:], *to_toy, *trained, *answers)
    return toy


def make_parser() -> Parser:
    parser = Parser("Run the whole pipeline on a toy world.", __doc__)
    parser.add_argument("--seed", type=count_or_zero, default=0, help="decides the world and the training")
    return parser


@one_line_errors
def main(argv=None):
    args = make_parser().parse_args(argv)
    started = time.monotonic()
    print("".join(f"$ export {name}={value}\n" for name, value in ENVIRONMENT.items()), end="")
    toy = walk(args.seed)
    print(f"\nDone in {time.monotonic() - started:.0f} s. Open these in a browser:")
    print(f"  {toy / 'report.html'}: the ladder, the curves, the misses")
    print(f"  {toy / 'search.html'}: the reference and the five answers of the search above")
    print("Next, with CIRR or FashionIQ in the project's root (docs/data.md):")
    print("  python clip_fine_tune.py --dataset CIRR --num-epochs 100 --batch-size 128 --save-training --save-best")


if __name__ == "__main__":
    main()
