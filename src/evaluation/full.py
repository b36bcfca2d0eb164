"""Judging in full: protocols with confidence intervals and baselines, printed and kept in files."""

import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from src.base.files import write_json
from src.command.combining import CombiningFunction
from src.command.outputs import data_files, output_files, require_outputs
from src.command.terminal import PROSE, filled
from src.evaluation import judged as results
from src.evaluation.candidates import candidate_files, write_candidates
from src.evaluation.intervals import CONFIDENCE, DRAWS, SEED
from src.evaluation.judged import Judged
from src.evaluation.outside import judge_runs, with_ladder
from src.evaluation.per_query import write_per_query
from src.evaluation.trec import trec_files, write_trec
from src.tasks.annotations import refuse
from src.tasks.protocol import Protocol
from src.tasks.task import Task
from src.tasks.triplets import Split

if TYPE_CHECKING:
    from src.evaluation.validation import Validation

UNGRADED = "no picture is graded but the targets, so each query scores as under hard targets"
AS_ABOVE = ": see above"


def _require_groups(protocols: Sequence[Protocol], splits: Iterable[Split]) -> None:
    """Raise InputError for triplets without a group where a protocol ranks only that."""
    if all(protocol.gallery != "group" for protocol in protocols):
        return
    for split in splits:
        lacking = [
            triplet.place or f"entry {number}" for number, triplet in enumerate(split.triplets) if not triplet.group
        ]
        refuse(split.path, lacking, len(split.triplets), "triplets without a group, which --gallery group ranks")


class FullJudging:
    """Results under each of some protocols, and the files that the options of validate.py name for them."""

    def __init__(self, task: Task, protocols: Sequence[Protocol], options: Mapping, splits: Mapping[str, Split]):
        """Judge a ranking of another program, where `options` name one: `judge` adds the ladder of a model.

        Raises InputError unless all files can be written and replace nothing that is read, such as `splits`.
        """
        self.protocols = self._graded(protocols, options["protocol"] or (), splits.values())
        _require_groups(self.protocols, splits.values())
        self.outside = judge_runs(task, splits, self.protocols, options) if options["run"] else []
        self.judged = [one.judged for one in self.outside]
        if self.outside:
            self.protocols = [judged.protocol for judged in self.judged]
        self.per_query, self.json = options["per_query"], options["json"]
        self.trec_run, self.candidates = options["trec_run"], options["candidates"]
        self.cluster, self.splits = options["cluster"], splits
        self.files = output_files(options, "per_query", "json", "trec_run", "candidates")
        for name, files_of in (("trec_run", trec_files), ("candidates", candidate_files)):
            if options[name] is not None:
                paths = [files_of(options[name], protocol, self.protocols) for protocol in self.protocols]
                self.files[f"--{name.replace('_', '-')}"] = [path for of_one in paths for path in of_one]
        require_outputs(options, self.files, data_files(task.tables(options["data_path"]), splits.values()))

    @staticmethod
    def _graded(protocols: Sequence[Protocol], names: Sequence[str], splits: Iterable[Split]) -> list[Protocol]:
        """Leave soft protocols out of `all` where annotators graded nothing; one that is named is refused later."""
        if "all" not in names or any(triplet.graded for split in splits for triplet in split.triplets):
            return list(protocols)
        left_out = [protocol.name for protocol in protocols if protocol.soft]
        for name in left_out:
            print(f"protocol {name}: left out, no triplet has a target_soft, which it counts by", file=sys.stderr)
        return [protocol for protocol in protocols if not protocol.soft]

    def judge(self, validation: "Validation", functions: Sequence[CombiningFunction], name: str) -> None:
        """Judge a retriever, whose function is called `name` in the table `functions`, under all protocols.

        Beside a ranking of another program it is the ladder below that.
        """
        from src.evaluation.judging import judge  # late: a ranking of another program needs no torch

        if self.outside:
            models = (judge(validation, run.protocol, functions, name) for run in self.judged)
            self.judged = list(map(with_ladder, self.judged, models))
        else:
            self.judged = [judge(validation, protocol, functions, name) for protocol in self.protocols]

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

    def write(self, options: dict, weights: Mapping[str, str], remarks: Mapping) -> None:
        """Write the files; `options`, in plain values, digests of `weights`, and `remarks` go into that of --json."""
        if self.per_query:
            write_per_query(self.per_query, self.judged)
        if self.trec_run:
            write_trec(self.trec_run, self.judged)
        if self.candidates:
            write_candidates(self.candidates, self.judged, self.splits)
        if self.json:
            write_json(self.json, {**self._plain(options, weights), **remarks}, indent=1)
        for paths in self.files.values():
            # Standard output is for the metrics, which scripts read.
            print(*(f"wrote {path}" for path in paths), sep="\n", file=sys.stderr)

    def _with_facts(self) -> Iterator[tuple[Judged, dict]]:
        """Yield each result, with what is known of the ranking of another program that it is of."""
        facts = [{"run": one.facts} for one in self.outside] or [{}] * len(self.judged)
        return zip(self.judged, facts, strict=True)

    def _plain(self, options, weights) -> dict:
        facts = ("clip_model_name", "clip_model_path", "combiner_path", "transform", "target_ratio", "precision")
        first = self.judged[0]
        # No model was loaded for a ranking of another program by itself.
        has_model = len(first.functions) > len(self.outside[:1])
        return {
            "dataset": first.task.name,
            "split": first.split,
            "combining_function": first.rung,
            "model": {name: str(options[name]) if has_model and options[name] is not None else None for name in facts},
            "weights_sha256": weights,
            "intervals": {"confidence": CONFIDENCE, "draws": DRAWS, "seed": SEED, "drawn": self.cluster or "query"},
            "protocols": [results.plain(judged, self.cluster) | facts for judged, facts in self._with_facts()],
        }
