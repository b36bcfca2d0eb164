"""The published data sets, as the commands read them and as other code opens them."""

from data_utils import CIRRDataset, FashionIQDataset
from src.tasks.registry import TASKS

CIRR, FASHIONIQ = TASKS["CIRR"], TASKS["FashionIQ"]


def read_cirr(data_path, split):
    return CIRR.read(data_path, "rc2", split)


def read_fashioniq(data_path, category, split):
    return FASHIONIQ.read(data_path, category, split)


def published_dataset(name, split, mode, preprocess, data_path):
    """Open a data set, FashionIQ's with all its categories, by the class that other code imports."""
    if name == "CIRR":
        return CIRRDataset(split, mode, preprocess, data_path)
    return FashionIQDataset(split, FASHIONIQ.categories, mode, preprocess, data_path)
