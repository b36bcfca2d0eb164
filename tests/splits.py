"""Splits of the published data sets, read as the commands read them."""

from src.tasks.registry import TASKS

CIRR, FASHIONIQ = TASKS["CIRR"], TASKS["FashionIQ"]


def read_cirr(data_path, split):
    return CIRR.read(data_path, "rc2", split)


def read_fashioniq(data_path, category, split):
    return FASHIONIQ.read(data_path, category, split)
