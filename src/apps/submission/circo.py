"""CIRCO's evaluation server: the form of the file that it takes, and the rules that are CIRCO's only.

{"0": [50 ids], …, "799": [50 ids]}, an id being the number that COCO gives a picture. No picture is opened.
"""

import re
from functools import cached_property

from src.apps.submission.files import SubmissionFile, number_in
from src.apps.submission.rules import (
    ODD_KEYS,
    OF_FORM,
    OF_LISTS,
    OF_VALUES,
    OLDER,
    OTHER_KEYS,
    REFERENCE,
    WARNING,
    Rule,
    misspelling,
    with_reference,
)

FILES, NO_NUMBERS = "file names for ids", "ids that are not whole numbers"
UNLISTED = "ids that the gallery does not have"


class CIRCOFile(SubmissionFile):
    """CIRCO's file."""

    dataset, split, captions = "CIRCO", "test", "test.json"
    most, too_many = 1, "a second file; a submission to CIRCO has one"
    key, variable, queries = "query id", "query_id", "queries"
    name, a_name, names, right_name = "id", "an id", "ids", "the number that COCO gives the picture"
    example = '"0": [123456, …]'
    val_count = 220  # queries of val, which are numbered from 0 like those of test
    limit = "a right file has 0.3 MB"  # the server's own limit is not known

    @property
    def metric(self) -> str:
        return "mAP" if self.lists else ""

    @property
    def keys_of_cirr(self) -> dict[str, str]:
        """{key of CIRR's files: a question}"""
        hint = "" if "0" in self.content else " Is it a submission to CIRR? Then add --dataset CIRR."
        return {key: hint for key in self.head if key in self.content}

    @cached_property
    def of_val(self) -> list[str]:
        """All keys where they are those of val, otherwise none: test has the same numbers."""
        ids = set(map(self.id_of, self.keys))
        is_val = ids == set(map(str, range(self.val_count))) < self.triplets.keys()
        return self.keys if is_val else []

    def spell(self, name: str) -> tuple[str, str]:
        if re.fullmatch("[0-9]+", name):
            plain = number_in(name)
            return "" if plain in self.pictures else UNLISTED, plain
        if re.fullmatch("-[0-9]+", name):
            return UNLISTED, name
        kind = FILES if re.search(r"[\\/]|\.[A-Za-z]\w*$", name) else NO_NUMBERS
        one_number = re.fullmatch(r"\D*([0-9]+)(\.0*)?\D*", re.split(r"[\\/]", name)[-1])
        meant = number_in(one_number[1]) if one_number else ""
        return kind, meant if meant in self.pictures else name

    @property
    def hint(self) -> str:
        """A question for a file whose ids may all be rows of a gallery."""
        are_rows = all(_is_below(len(self.pictures), plain) for _, plain in self.spelled.values())
        return " Is it the row of a gallery?" if are_rows else ""


def _is_below(bound: int, number: str) -> bool:
    # Python refuses to read numbers of thousands of digits.
    return number.isdecimal() and len(number) <= len(str(bound)) and int(number) < bound


# fmt: off
CIRCOFile.rules = (
    *OF_FORM,
    Rule("keys of CIRR's files", lambda file: file.keys_of_cirr,
        "Delete what is not a query's key: CIRCO's files have no version and no metric.{case}", "content"),
    *OF_VALUES,
    ODD_KEYS,
    Rule("a file of val", lambda file: file.of_val,
        "Answer the {file.query_count} queries of {file.captions}: val has {file.val_count}, and no server scores it."),
    *OTHER_KEYS,
    misspelling(FILES, "Write {case.right}, where it has {case.written}."),
    misspelling(NO_NUMBERS, "Write {case.right}, where it has {case.written}."),
    misspelling(UNLISTED,
        "Rank only the pictures of image_info_unlabeled2017.json: {case.written} is none of them.{file.hint}"),
    *OF_LISTS,
    Rule(REFERENCE, lambda file: [] if file.of_val else with_reference(file),  # val's queries have other references
        "Leave it if it is meant: the server counts it as a miss. Some take it out, before the list is cut.",
        "answers", WARNING),
    OLDER,
)
# fmt: on
