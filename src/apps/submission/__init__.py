"""Checks of what evaluation servers take. A server is one file here and its class below."""

from src.apps.submission.circo import CIRCOFile
from src.apps.submission.cirr import CIRRFile
from src.apps.submission.files import SubmissionFile

SERVERS: dict[str, type[SubmissionFile]] = {form.dataset: form for form in (CIRRFile, CIRCOFile)}
"""{data set: the form of the files that its server takes}"""
