"""``engine="quarr"``: datasets whose reads are slices, not chunks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, Self

import numpy as np
import xarray as xr
from xarray import Dataset, DataTree, Variable
from xarray.backends import AbstractDataStore, BackendEntrypoint, StoreBackendEntrypoint, ZarrStore
from xarray.backends.common import datatree_from_dict_with_io_cleanup
from xarray.backends.zarr import ZarrArrayWrapper
from xarray.core import indexing
from xarray.core.treenode import NodePath

from ._arrays import Decoded, Origin, ServedArray, Source
from ._targets import Opened, is_ours, resolve

__all__ = ["QuarrBackend"]

PACKING = ("_FillValue", "missing_value", "scale_factor", "add_offset", "_Unsigned")
"""Attributes by which values are decoded, the same in the service and in xarray."""
RANGES = ("valid_min", "valid_max", "valid_range")
"""Attributes that mask values in the service and not in xarray."""


class QuarrStore(ZarrStore):
    """xarray's Zarr store with reads by slices. Metadata is read and encoded as it does."""

    __slots__ = ("served", "source")

    source: Source | None
    served: dict[str, tuple[ServedArray, Mapping[str, Any]]]
    """Arrays that are read by slices and their attributes, by name of the variable."""

    @classmethod
    def open(cls, opened: Opened, group: str | None) -> Self:
        """The store of a group."""
        store: Self = cls.open_group(
            opened.store, mode="r", group=group, consolidated=opened.is_consolidated
        )
        return store.read_from(opened.source)

    def read_from(self, source: Source | None) -> Self:
        """Reads from there from now on; chunks of the Zarr store if it is ``None``."""
        self.source, self.served = source, {}
        return self

    def open_store_variable(self, name: str) -> Variable:
        """As xarray's, but for how it reads."""
        variable: Variable = super().open_store_variable(name)
        array: Any = self.members[name]
        chunked = ZarrArrayWrapper(array)
        text = chunked.dtype
        is_text = text.kind == "T" or xr.coding.strings.check_vlen_dtype(text) is str
        if self.source is None or not (is_text or text.kind in "biufcmMSU"):
            return variable
        dims = tuple(map(str, variable.dims))
        chunks = variable.encoding["chunks"]
        if not all(isinstance(length, int) for length in chunks):
            return variable
        served = ServedArray(
            self.source, array.path, dims, array.shape, text, chunked, tuple(chunks), is_text
        )
        self.served[name] = served, dict(variable.attrs)
        data = indexing.LazilyIndexedArray(served)
        return Variable(variable.dims, data, variable.attrs, variable.encoding, fastpath=True)


def _decoding(
    decoded: Variable, array: ServedArray, attrs: Mapping[str, Any], is_masked: bool
) -> tuple[str | None, str]:
    """How the service decodes an array as xarray did, or ``None`` and why it does not."""
    if decoded.dims != array.dims or decoded.shape != array.shape:
        return None, "its dimensions were changed when it was decoded"
    if decoded.dtype.kind not in "biuf":
        return None, f"it holds {_kind(decoded.dtype)}"
    packing = [name for name in PACKING if name in attrs]
    if decoded.dtype != array.dtype and not packing:
        return None, f"it was decoded from {array.dtype} to {decoded.dtype}"
    if not packing or not is_masked:
        return "raw", ""
    ranges = [name for name in RANGES if name in attrs]
    if ranges:
        return None, f"the service masks by {', '.join(ranges)}, xarray does not"
    return "cf", ""


def _kind(dtype: np.dtype[Any]) -> str:
    kinds = {"M": "times", "m": "durations", "c": "complex numbers", "O": "objects"}
    return kinds.get(dtype.kind, "texts")


def _mark(dataset: Dataset, store: QuarrStore, mask_and_scale: Any) -> Dataset:
    """Marks where the variables of a dataset come from."""
    source = store.source
    if source is None or not source.is_commit:
        return dataset
    coords: dict[str, Variable] = {}
    for name, variable in dataset.variables.items():
        if name not in store.served:
            continue
        array, attrs = store.served[str(name)]
        is_masked = mask_and_scale
        if isinstance(mask_and_scale, Mapping):
            is_masked = mask_and_scale.get(name, True)
        is_masked = is_masked is None or bool(is_masked)
        decode, reason = _decoding(variable, array, attrs, is_masked)
        if variable.dims == (name,):
            coords[str(name)] = Variable(
                variable.dims, variable._data, variable.attrs, fastpath=True
            )
        origin = Origin(source, array.path, array.dims, attrs, decode, reason, coords)
        variable.data = indexing.LazilyIndexedArray(Decoded(variable._data, origin))
    return dataset


class QuarrBackend(BackendEntrypoint):
    """Opens what Quarr serves.

    ``filename_or_obj`` is a :class:`quarr.Snapshot`, :class:`quarr.Repository`,
    :class:`quarr.Transaction` or :class:`quarr.Store`; a URL
    ``http://HOST/v1/repos/REPO/refs/REF`` or ``quarr+http://HOST/REPO@REF``; or, with ``repo=``,
    the URL of a service, or the path or URL of a store. Branches and tags are followed to their
    commit once, when the dataset is opened.
    """

    description = "Open repositories of Quarr, read by slices"
    url = "https://github.com/quarr/quarr"
    supports_groups = True
    # xarray finds them itself only for engines that are named, not for ones that are classes.
    open_dataset_parameters: ClassVar[tuple[str, ...]] = (
        "filename_or_obj", "mask_and_scale", "decode_times", "concat_characters", "decode_coords",
        "drop_variables", "use_cftime", "decode_timedelta", "group", "repo", "ref", "options",
    )  # fmt: skip

    def guess_can_open(self, filename_or_obj: Any) -> bool:
        """Whether it is one of Quarr's objects or URLs."""
        return is_ours(filename_or_obj)

    def open_dataset(
        self,
        filename_or_obj: Any,
        *,
        mask_and_scale: bool | Mapping[str, bool] | None = True,
        decode_times: Any = True,
        concat_characters: bool | Mapping[str, bool] | None = True,
        decode_coords: Any = True,
        drop_variables: str | Iterable[str] | None = None,
        use_cftime: bool | Mapping[str, bool] | None = None,
        decode_timedelta: Any = None,
        group: str | None = None,
        repo: str | None = None,
        ref: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Dataset:
        """As :func:`xarray.open_dataset`.

        Parameters
        ----------
        group : path of a group below what is opened.
        repo, ref : which repository, and its branch, tag or commit (``main``), where
            ``filename_or_obj`` does not say it.
        options : of :func:`quarr.connect` or :func:`quarr.open`, for URLs and paths.
        """
        opened = resolve(filename_or_obj, repo=repo, ref=ref, options=options)
        store = QuarrStore.open(opened, opened.below(group))
        decoding = {
            "mask_and_scale": mask_and_scale,
            "decode_times": decode_times,
            "concat_characters": concat_characters,
            "decode_coords": decode_coords,
            "drop_variables": drop_variables,
            "use_cftime": use_cftime,
            "decode_timedelta": decode_timedelta,
        }
        return _open(store, decoding)

    def open_datatree(self, filename_or_obj: Any, **options: Any) -> DataTree:
        """As :func:`xarray.open_datatree`."""
        groups = self.open_groups_as_dict(filename_or_obj, **options)
        return datatree_from_dict_with_io_cleanup(groups)

    def open_groups_as_dict(
        self,
        filename_or_obj: Any,
        *,
        mask_and_scale: bool | Mapping[str, bool] | None = True,
        decode_times: Any = True,
        concat_characters: bool | Mapping[str, bool] | None = True,
        decode_coords: Any = True,
        drop_variables: str | Iterable[str] | None = None,
        use_cftime: bool | Mapping[str, bool] | None = None,
        decode_timedelta: Any = None,
        group: str | None = None,
        repo: str | None = None,
        ref: str | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> dict[str, Dataset]:
        """As :func:`xarray.open_groups`."""
        opened = resolve(filename_or_obj, repo=repo, ref=ref, options=options)
        top = NodePath("/") / (opened.below(group) or "")
        decoding = {
            "mask_and_scale": mask_and_scale,
            "decode_times": decode_times,
            "concat_characters": concat_characters,
            "decode_coords": decode_coords,
            "drop_variables": drop_variables,
            "use_cftime": use_cftime,
            "decode_timedelta": decode_timedelta,
        }
        stores = QuarrStore.open_store(
            opened.store, mode="r", group=str(top), consolidated=opened.is_consolidated
        )
        found = {}
        for path, store in stores.items():
            name = NodePath(path)
            if str(top) != "/":
                name = name.relative_to(top)
            found[str(name)] = _open(store.read_from(opened.source), decoding)
        return found


def _open(store: QuarrStore, decoding: Mapping[str, Any]) -> Dataset:
    try:
        dataset = StoreBackendEntrypoint().open_dataset(store, **decoding)
        return _mark(dataset, store, decoding["mask_and_scale"])
    except BaseException:
        AbstractDataStore.close(store)
        raise
