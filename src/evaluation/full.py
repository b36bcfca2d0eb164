"""Judging in full: protocols with confidence intervals and baselines, printed and kept in files."""

import sys
from collections.abc import Iterable, Mapping, Sequence

from src.base.files import write_json
from src.command.combining import CombiningFunction
from src.command.outputs import data_files, output_files, require_outputs
from src.command.terminal import PROSE, filled
from src.evaluation import judged as results
from src.evaluation.intervals import CONFIDENCE, DRAWS, SEED
from src.evaluation.judging import judge
from src.evaluation.per_query import write_per_query
from src.evaluation.trec import trec_files, write_trec
from src.evaluation.validation import Validation
from src.tasks.protocol import Protocol
from src.tasks.task import Task
from src.tasks.triplets import Split

UNGRADED = "no picture is graded but the targets, so each query scores as under hard targets"
AS_ABOVE = ": see above"


class FullJudging:
    """A model's results under each of some protocols, and the files that the options of validate.py name for them."""

    def __init__(self, task: Task, protocols: Sequence[Protocol], options: Mapping, splits: Iterable[Split]):
        """Raises InputError unless all files can be written and replace nothing that is read, such as `splits`."""
        self.protocols = self._graded(protocols, options["protocol"] or (), splits)
        self.per_query, self.trec_run, self.json = (options[name] for name in ("per_query", "trec_run", "json"))
        self.cluster = options["cluster"]
        self.files = output_files(options, "per_query", "json", "trec_run")
        if self.trec_run is not None:
            runs = [trec_files(self.trec_run, protocol, self.protocols) for protocol in self.protocols]
            self.files["--trec-run"] = [path for paths in runs for path in paths]
        require_outputs(options, self.files, data_files(task.tables(options["data_path"]), splits))

    @staticmethod
    def _graded(protocols: Sequence[Protocol], names: Sequence[str], splits: Iterable[Split]) -> list[Protocol]:
        """Leave soft protocols out of `all` where annotators graded nothing; one that is named is refused later."""
        if "all" not in names or any(triplet.graded for split in splits for triplet in split.triplets):
            return list(protocols)
        left_out = [protocol.name for protocol in protocols if protocol.soft]
        for name in left_out:
            print(f"protocol {name}: left out, no triplet has a target_soft, which it counts by", file=sys.stderr)
        return [protocol for protocol in protocols if not protocol.soft]

    def judge(self, validation: Validation, functions: Sequence[CombiningFunction], name: str) -> None:
        """Judge a retriever, whose function is called `name` in the table `functions`, under all protocols."""
        self.judged = [judge(validation, protocol, functions, name) for protocol in self.protocols]
        self.remarks = validation.retriever.skipping.remarks

    def measures(self) -> dict[str, float]:
        """Return {protocol/metric: percent}."""
        return {
            f"{judged.protocol.name}/{name}": percent
            for judged in self.judged
            for name, percent in judged.measures().items()
        }

    def print(self, mark: str) -> None:
        """Print each protocol's tables, with the `mark` of results that lack pictures."""
        rules = [judged.protocol._replace(name="") for judged in self.judged]
        for judged in self.judged:
            lines = results.text_of(judged, self.cluster)
            if judged.repeats:
                is_above = judged.protocol._replace(name="", soft=False) in rules
                remark = filled(UNGRADED + (AS_ABOVE if is_above else ""), longest=PROSE)
                lines = [next(lines), remark, *(() if is_above else lines)]
            print(*lines, *([mark.strip()] if mark else []), "", sep="\n")

    def write(self, options: dict, weights: dict[str, str]) -> None:
        """Write the files; `options`, in plain values, and the digests of `weights` go into that of --json."""
        if self.per_query:
            write_per_query(self.per_query, self.judged)
        if self.trec_run:
            write_trec(self.trec_run, self.judged)
        if self.json:
            write_json(self.json, self._plain(options, weights), indent=1)
        for paths in self.files.values():
            # Standard output is for the metrics, which scripts read.
            print(*(f"wrote {path}" for path in paths), sep="\n", file=sys.stderr)

    def _plain(self, options, weights) -> dict:
        facts = ("clip_model_name", "clip_model_path", "combiner_path", "transform", "target_ratio", "precision")
        first = self.judged[0]
        return {
            "dataset": first.task.name,
            "split": first.split,
            "combining_function": first.rung,
            "model": {name: None if options[name] is None else str(options[name]) for name in facts},
            "weights_sha256": weights,
            "intervals": {"confidence": CONFIDENCE, "draws": DRAWS, "seed": SEED, "drawn": self.cluster or "query"},
            "protocols": [results.plain(judged, self.cluster) for judged in self.judged],
            **self.remarks,
        }
