"""Products of slices are NumPy's, and the rows found are those that sorting all of them finds."""

from __future__ import annotations

import numpy as np
import pytest

import quarr
import service

NUMBERS = [
    "bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64",
    "float16", "float32", "float64",
]  # fmt: skip


def values(shape: tuple[int, ...], dtype: str, seed: int = 1) -> np.ndarray:
    random = np.random.default_rng(seed)
    if dtype == "bool":
        return random.random(shape) < 0.3
    if np.dtype(dtype).kind == "f":
        return random.standard_normal(shape).astype(dtype)
    ends = np.iinfo(dtype)
    return random.integers(ends.min, ends.max, shape, dtype=dtype, endpoint=True)


def stored(repo: quarr.Repository, **arrays: np.ndarray | tuple[np.ndarray, dict]) -> quarr.Snapshot:
    """The arrays, in chunks that do not divide them."""
    with repo.transaction() as tx:
        for name, given in arrays.items():
            array, options = given if isinstance(given, tuple) else (given, {})
            inner = [max(1, length // 2 - 1) for length in array.shape]
            options = {"chunks": inner, "data_type": array.dtype, **options}
            tx.create_array(name, shape=array.shape, **options)
            tx.write(name, array)
    return repo.at()


def in_lanes(terms: np.ndarray) -> np.ndarray:
    """The sum over the last axis in the documented order."""
    length = -(-terms.shape[-1] // 32) * 32
    padded = np.zeros((*terms.shape[:-1], length))
    padded[..., : terms.shape[-1]] = terms
    lanes = np.zeros((*terms.shape[:-1], 32))
    for start in range(0, length, 32):
        lanes = lanes + padded[..., start : start + 32]
    while lanes.shape[-1] > 1:
        lanes = lanes[..., ::2] + lanes[..., 1::2]
    return lanes[..., 0]


def product(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """``numpy.matmul``; of floats in the documented order."""
    dtype = np.result_type(a, b)
    if dtype.kind != "f":
        return np.matmul(a, b)
    wide = a.astype("f8"), np.moveaxis(b.astype("f8"), -1, -2) if b.ndim > 1 else b.astype("f8")
    with np.errstate(all="ignore"):
        if b.ndim > 1:
            sums = in_lanes(wide[0][..., np.newaxis, :] * wide[1])
        else:
            sums = in_lanes(wide[0] * wide[1])
        return np.asarray(sums.astype(dtype))


def along(tensor: np.ndarray, matrix: np.ndarray, axis: int) -> np.ndarray:
    last = np.moveaxis(tensor, axis, -1)
    flat = product(last.reshape(-1, last.shape[-1]), np.ascontiguousarray(matrix.T))
    return np.moveaxis(flat.reshape(*last.shape[:-1], -1), -1, axis)


def same(found: np.ndarray, wanted: np.ndarray) -> None:
    np.testing.assert_array_equal(found, wanted, strict=True)


@pytest.mark.parametrize("left", NUMBERS)
def test_products_of_all_types_are_numpys(repo, left):
    a = values((5, 37), left)
    others = {f"b{at}": values((37, 4), dtype, 2) for at, dtype in enumerate(NUMBERS)}
    snapshot = stored(repo, a=a, **others)
    for name, b in others.items():
        found = snapshot.product("a", name)
        same(found, product(a, b))
        assert found.dtype == np.matmul(a, b).dtype


def test_floats_are_near_what_numpy_has(repo):
    a, b = values((70, 1300), "f4"), values((1300, 101), "f4", 2)
    snapshot = stored(repo, a=a, b=b)
    found = snapshot.product("a", "b")
    same(found, product(a, b))
    np.testing.assert_allclose(found, a.astype("f8") @ b.astype("f8"), rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found, a @ b, rtol=1e-2, atol=1e-3)


def test_vectors_matrices_and_selections(repo):
    a, b = values((6, 7, 8), "f8"), values((8, 5, 9), "f8", 2)
    snapshot = stored(repo, a=a, b=b)
    for slice, other in [
        (np.s_[0], np.s_[:, 1]),
        (np.s_[:, 2], np.s_[:, 1, 2]),
        (np.s_[3, 2], np.s_[:, :, 2]),
        (np.s_[3, 2], np.s_[:, 1, 2]),
        (np.s_[::-2, 1, ::2], np.s_[::-2, ::-1, 0]),
        (np.s_[0, :, 2:4], np.s_[[5, 1], 0]),
        (np.s_[0, :, 3:3], np.s_[2:2, 0]),
        (np.s_[0, 2:2], np.s_[:, 0]),
    ]:
        found = snapshot.product("a", "b", slice=slice, other_slice=other)
        right = b[other]
        same(found, product(a[slice], np.asarray(right)))


@pytest.mark.parametrize("dtype", ["f4", "f8", "i2", "u1"])
def test_tensors_times_matrices_along_an_axis(repo, dtype):
    tensor = values((9, 11, 40), dtype)
    matrices = {f"m{axis}": values((6, length), dtype, axis) for axis, length in enumerate(tensor.shape)}
    options = {"dimension_names": ["time", "lat", "lon"]}
    snapshot = stored(repo, t=(tensor, options), **matrices)
    for axis, name in enumerate(options["dimension_names"]):
        matrix = matrices[f"m{axis}"]
        wanted = np.moveaxis(np.tensordot(tensor, matrix, (axis, 1)), -1, axis)
        for asked in (axis, axis - 3, name):
            found = snapshot.product("t", f"m{axis}", asked)
            assert (found.shape, found.dtype) == (wanted.shape, wanted.dtype)
            if found.dtype.kind == "f":
                same(found, along(tensor, matrix, axis))
                np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)
            else:
                same(found, wanted)
    found = snapshot.product("t", "m2", 1, slice=np.s_[1], other_slice=np.s_[::2])
    same(found, along(tensor[1], matrices["m2"][::2], 1))


def test_missing_values_are_nan_and_nan_is_not_left_out(repo):
    packed = np.array([[1, 2], [-1, 3]], "i2")
    attributes = {"scale_factor": 0.5, "_FillValue": -1}
    holes = np.array([[1, np.nan], [np.inf, 0], [2, 1]])
    snapshot = stored(repo, packed=(packed, {"attributes": attributes}), holes=holes, one=np.ones((2, 1)))
    found = snapshot.product("holes", "packed")
    with np.errstate(invalid="ignore"):
        same(found, product(holes, np.where(packed == -1, np.nan, packed * 0.5)))
    assert np.isnan(found[0]).all() and not np.isnan(found[2, 1])
    same(snapshot.product("packed", "one", decode="raw"), product(packed, np.ones((2, 1))))


def test_products_that_do_not_fit_say_why(repo):
    snapshot = stored(
        repo, a=values((3, 4), "f4"), b=values((5, 4), "f4"), c=values((3, 4, 2), "f4"),
        t=np.array(["2020-01-01"], "M8[D]"),
    )  # fmt: skip
    for arguments, options, parameter in [
        (("a", "b"), {}, "with"),
        (("a", "c"), {}, "with"),
        (("c", "a"), {}, "axis"),
        (("c", "b", 0), {}, "with"),
        (("c", "c", 0), {}, "with"),
        (("c", "b", 3), {}, "axis"),
        (("c", "b", "lat"), {}, "axis"),
        (("a", "none"), {}, "with"),
        (("a", "b"), {"other_slice": "7"}, "with_slice"),
        (("a", "b"), {"other_slice": "x"}, "with_slice"),
        (("a", "b"), {"other_slice": ":9", "strict": True}, "with_slice"),
    ]:
        with pytest.raises(quarr.BadRequestError) as error:
            snapshot.product(*arguments, **options)
        assert error.value.parameter == parameter, (arguments, error.value)
    with pytest.raises(quarr.NoAnswerError, match="datetime"):
        snapshot.product("t", "t")
    with pytest.raises(quarr.PreconditionError):
        snapshot.product("a", "b", other_slice=np.s_[:4], expected_shape=(1, 1))


def scores(metric: str, queries: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """As documented, for every query and row."""
    queries, rows = queries.astype("f8")[:, np.newaxis], rows.astype("f8")
    with np.errstate(all="ignore"):
        if metric == "l2":
            return np.sqrt(in_lanes((queries - rows) ** 2))
        products = in_lanes(queries * rows)
        if metric == "ip":
            return products
        norms = np.sqrt(in_lanes(queries**2)) * np.sqrt(in_lanes(rows**2))
        return np.where((norms > 0) & np.isfinite(norms), products / norms, np.nan)


def nearest(metric: str, queries: np.ndarray, rows: np.ndarray, k: int) -> tuple[np.ndarray, np.ndarray]:
    all_scores = scores(metric, queries, rows)
    worst = all_scores if metric == "l2" else -all_scores
    order = np.argsort(worst, axis=1, kind="stable")[:, :k]
    found = np.take_along_axis(all_scores, order, 1)
    order = np.where(np.isnan(found), -1, order)
    missing = ((0, 0), (0, k - order.shape[1]))
    return np.pad(order, missing, constant_values=-1), np.pad(found, missing, constant_values=np.nan)


@pytest.mark.parametrize("metric", ["cosine", "l2", "ip"])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint16"])
def test_what_is_found_is_what_sorting_finds(repo, metric, dtype):
    rows = values((700, 45), dtype)
    # Ties, zeros and holes.
    rows[300:310] = rows[0]
    rows[500] = 0
    if rows.dtype.kind == "f":
        rows[20, 3] = np.nan
    queries = values((33, 45), "f8", 3)
    queries[0], queries[1] = np.nan_to_num(rows[0].astype("f8")), 0
    snapshot = stored(repo, rows=(rows, {"chunks": [64, 16], "shards": [256, 48]}))
    for k in (1, 7, 800):
        found = snapshot.nearest("rows", queries, k, metric=metric)
        wanted = nearest(metric, queries, rows, k)
        same(found[0], wanted[0].astype("i8"))
        same(found[1], wanted[1])
    single = snapshot.nearest("rows", queries[2], 5, metric=metric)
    same(single[0], nearest(metric, queries[2:3], rows, 5)[0][0].astype("i8"))


def test_rows_are_numbered_as_they_are_selected(repo):
    rows = values((4, 60, 9), "f4")
    snapshot = stored(repo, rows=rows)
    query = values((2, 9), "f8", 4)
    for slice in [np.s_[1], np.s_[:, 3], np.s_[2, ::-1], np.s_[2, 50:10:-3], np.s_[3, [5, 1, 40]]]:
        found = snapshot.nearest("rows", query, 3, metric="l2", slice=slice)
        same(found[0], nearest("l2", query, rows[slice], 3)[0].astype("i8"))
    few = snapshot.nearest("rows", query[:, ::2], 3, slice=np.s_[1, :, ::2])
    same(few[0], nearest("cosine", query[:, ::2], rows[1, :, ::2], 3)[0].astype("i8"))
    none = snapshot.nearest("rows", query, 2, slice=np.s_[0, 5:5])
    assert none[0].tolist() == [[-1, -1]] * 2 and np.isnan(none[1]).all()


def test_packed_rows_are_decoded(repo):
    packed = values((50, 6), "int16")
    packed[7, 2] = -1
    attributes = {"scale_factor": 0.5, "add_offset": 3.0, "_FillValue": -1}
    snapshot = stored(repo, rows=(packed, {"attributes": attributes}))
    query = values((1, 6), "f8", 5)
    decoded = np.where(packed == -1, np.nan, packed * 0.5 + 3)
    for decode, rows in [("cf", decoded), ("raw", packed)]:
        found = snapshot.nearest("rows", query, 50, decode=decode)
        same(found[0], nearest("cosine", query, rows, 50)[0].astype("i8"))
        same(found[1], nearest("cosine", query, rows, 50)[1])


def test_searches_that_make_no_sense_say_why(repo):
    snapshot = stored(repo, rows=values((5, 4), "f4"), cube=values((5, 4, 3), "f4"))
    for arguments, options, parameter in [
        (("rows", [1.0, 2.0]), {}, "vectors"),
        (("rows", np.ones((2, 0))), {}, "vectors"),
        (("rows", np.ones((0, 4))), {}, "vectors"),
        (("rows", np.ones(4), 0), {}, "k"),
        (("rows", np.ones(4)), {"metric": "l1"}, "metric"),
        (("cube", np.ones(3)), {}, "slice"),
        (("rows", np.ones(4)), {"slice": "0"}, "slice"),
        (("rows", np.ones(4)), {"slice": "9"}, "slice"),
    ]:
        with pytest.raises(quarr.BadRequestError) as error:
            snapshot.nearest(*arguments, **options)
        assert error.value.parameter == parameter, (arguments, error.value)
    with pytest.raises(quarr.TooLargeError):
        snapshot.nearest("rows", np.ones(4), 2**40)
    with pytest.raises(ValueError, match="NaN"):
        snapshot.nearest("rows", [np.nan] * 4)


def test_rows_are_searched_in_less_memory_than_they_take(tmp_path):
    rows = values((200_000, 64), "f4")
    rows[150_000] = rows[10]
    process = service.ServerProcess(tmp_path)
    try:
        repo = quarr.connect(process.server.url).create_repo("rows")
        stored(repo, rows=(rows, {"chunks": [3000, 64], "shards": [60_000, 64]}))
    finally:
        process.stop()
    process = service.ServerProcess(tmp_path, "--memory-limit", "64MiB")
    try:
        snapshot = quarr.connect(process.server.url).repo("rows").at()
        for refused in (
            lambda: snapshot.product("rows", "rows", other_slice=np.s_[0]),
            lambda: snapshot.read_as("rows", "npy"),
        ):
            with pytest.raises(quarr.TooLargeError):
                refused()
        queries = np.concatenate([rows[10:11], values((2, 64), "f4", 9)])
        for metric in ("cosine", "l2"):
            found = snapshot.nearest("rows", queries, 20, metric=metric)
            assert found[0][0, :2].tolist() == [10, 150_000]
            for at in range(len(queries)):
                wanted = nearest(metric, queries[at : at + 1], rows, 20)
                same(found[0][at], wanted[0][0].astype("i8"))
                same(found[1][at], wanted[1][0])
    finally:
        process.stop()
