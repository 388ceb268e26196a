"""xarray: ``engine="quarr"``, reductions in the service (``.quarr``), and :func:`to_quarr`.

import xarray as xr

ds = xr.open_dataset("http://127.0.0.1:8686/v1/repos/climate/refs/main", engine="quarr")
ds["t2m"].quarr.mean("time")
"""

from __future__ import annotations

from ._accessor import DataArrayAccessor, RemoteArray
from ._backend import QuarrBackend
from ._datasets import DatasetAccessor
from ._report import Operation, Report, Transfer, report
from ._writing import to_quarr

__all__ = [
    "DataArrayAccessor",
    "DatasetAccessor",
    "Operation",
    "QuarrBackend",
    "RemoteArray",
    "Report",
    "Transfer",
    "report",
    "to_quarr",
]
