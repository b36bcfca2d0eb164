"""Findings about the files of a submission, for a terminal and as JSON."""

from collections.abc import Iterator
from pathlib import Path

from src.apps.submission.files import SubmissionFile
from src.apps.submission.rules import FAULT, WARNING
from src.base.errors import first_ten
from src.base.files import write_json
from src.command.terminal import filled

WIDTH = 100


def is_ready(files: list[SubmissionFile]) -> bool:
    """Whether the server would take the files, and score them as they are meant."""
    return not any(finding.level == FAULT for file in files for finding in file.findings)


def text_of(files: list[SubmissionFile]) -> Iterator[str]:
    """Yield the findings as lines for a terminal: of each kind the first ten names, and what mends it."""
    for file in files:
        holds = f"{file.metric}, {len(file.values):,} {file.queries}, " if file.metric else ""
        yield f"{file.path.name}: {holds}{file.size / 1e6:.2f} MB"
        for finding in file.findings:
            yield f"  {finding.level:<7}  {finding.summary()}"
            for text in [first_ten(finding.names), finding.mend] if finding.names else [finding.mend]:
                yield filled(" " * 11 + text, " " * 11, longest=WIDTH)


def verdict(files: list[SubmissionFile]) -> str:
    """Return the last line: whether the files are ready, and how many findings stand above it."""
    levels = [finding.level for file in files for finding in file.findings]
    counts = [(levels.count(level), level) for level in (FAULT, WARNING) if level in levels]
    found = ", ".join(f"{count} {level}{'s' * (count > 1)}" for count, level in counts)
    ready = "ready to upload" if is_ready(files) else "not ready to upload"
    return f"{ready}: {found}" if found else ready


def plain(file: SubmissionFile) -> dict:
    """Return a file and its findings as plain values."""
    found = [{"count": len(finding.names)} | finding._asdict() for finding in file.findings]
    return {"file": str(file.path), "metric": file.metric, "pairs": len(file.values), "findings": found}


def write(path: Path, files: list[SubmissionFile]) -> None:
    """Write the findings as JSON."""
    write_json(path, {"ready": is_ready(files), "files": [plain(file) for file in files]}, indent=1)
