"""Data: files, folders and Python objects as rows for a training step."""

from __future__ import annotations

from graphc.train.data.dataset import Columns, Dataset, Samples, Stream, Subset, split
from graphc.train.data.sources import Data, open_data

__all__ = ["Columns", "Data", "Dataset", "Samples", "Stream", "Subset", "open_data", "split"]
