"""Writes times.json and labels.json: what cftime and xarray make of times and labels.

Run with xarray, pandas and cftime at hand: `python make_labels.py`, in this folder. The tests read
the files and need no Python.
"""

import json
import random
import warnings
from fractions import Fraction

import cftime
import numpy as np
import xarray as xr

warnings.simplefilter("ignore")
RANDOM = random.Random(20)
CALENDARS = ["standard", "proleptic_gregorian", "julian", "noleap", "all_leap", "360_day"]



def is_tie(value, unit):
    """Whether cftime's product, of 64 bits, rounds another way than the exact one."""
    factor = cftime._cftime.UNIT_CONVERSION_FACTORS[unit.lower()]
    exact, long = Fraction(value) * factor, np.longdouble(value) * factor
    return round(exact) != int(np.rint(long))


def decode(calendar, units, values):
    rows = []
    for value in values:
        if isinstance(value, float) and is_tie(value, units.split()[0]):
            continue
        try:
            date = cftime.num2date(value, units, calendar)
        except (ValueError, OverflowError):
            continue
        parts = [date.year, date.month, date.day, date.hour, date.minute, date.second]
        rows.append([value, *parts, date.microsecond, date.dayofyr, date.dayofwk])
    return {"calendar": calendar, "units": units, "rows": rows}


def days(calendar, *dates):
    """The days around some dates, since one of them."""
    units = "days since 1600-02-28"
    for date in dates:
        first = cftime.date2num(cftime.datetime(*date, calendar=calendar), units)
        yield from range(int(first) - 1, int(first) + 3)


def times():
    for calendar in CALENDARS:
        dates = [(y, 2, 28) for y in (-401, -101, -5, -4, -1, 4, 1500, 1582, 1900, 2000, 2020, 2021)]
        dates += [(1582, 10, 4), (-1, 12, 30), (1, 1, 1), (9999, 12, 30), (20000, 6, 1), (1970, 1, 1)]
        yield decode(calendar, "days since 1600-02-28", list(days(calendar, *dates)))
        floats = [0.1, 1 / 3, 2 / 3, 1e-11, -1e-11, 0.99999999999, 1.5, -0.25, 1e5 + 1e-6]
        floats += [RANDOM.uniform(-1e6, 1e6) for _ in range(6)]
        seconds = [x + d for x in (5.0, 86399.0) for d in (1e-6, -1e-6, 5e-7, 2.5e-6, -1.4e-6)]
        for units, values in [
            ("days since 0001-01-01", floats),
            ("Hours since 1-1-1 00:00:0.0", floats),
            ("h since 1582-10-4 23:30", floats),
            ("min since 1900-01-01T00:00:00Z", floats),
            ("seconds since 1970-01-01 00:00:00.5", [*floats, *seconds]),
            ("msecs since 1970-01-01 06:00:00 -06:00", floats),
            ("microseconds since 2000-02-28 23:59:59 +0130", floats),
            ("s since -0044-03-15", [2**40, -(2**40), 0]),
            ("microsec since 1900-01-01 00:00:00.25", [2**55 + 1, -(2**55) - 1]),
        ]:
            yield decode(calendar, units, values)
    yield decode("360_day", "months since 1850-01-16", [0, 1, -1, 1200, 0.5])
    yield decode("noleap", "common_years since 2000-03-01", [0, -2000, 0.5, 21])


TIMES = {
    "hourly": ("hours since 2020-02-28", "standard", list(range(0, 72, 3))),
    "daily": ("days since 2019-12-25", "standard", list(range(100))),
    "falling": ("days since 2019-12-25", "standard", list(range(99, -1, -1))),
    "monthly": ("days since 1999-01-01", "standard", list(range(0, 1500, 30))),
    "shuffled": ("hours since 2020-02-28", "standard", [9, 3, 30, 51, 6]),
    "noleap": ("days since 1999-12-01", "noleap", [x + 0.5 for x in range(0, 800, 7)]),
    "360_day": ("days since 1999-12-01", "360_day", list(range(0, 800, 3))),
    "julian": ("hours since 1582-09-01", "julian", list(range(0, 2000, 6))),
    "old": ("days since 1582-09-01", "standard", list(range(0, 60))),
}
TIME_LABELS = (
    "2020 2020-01 2020-02-29 2020-02-29T06 2020-02-29T06:00 2020-02-29T07 2000-02 2000-02-30 "
    "1582-10 1582-10-04 1582-10-15 1582-10-10 2021 2020-02-28T09:00:00 1999-12-08T12 "
    "2019-12-31/2020-01-02 2020-01/2020-02 2020/ /2020-01-05 2020-02-28T12/2020-02-29T11 "
    "2000-02-28/2000-03-01 1582-10-04/1582-10-15 1999/2000 2030/2040 "
    "2020-01-01,2019-12-31 2020-02-29T06,2020-02-29T12 2020-01-01,2021-01-01 "
    "nearest::2020-01-06T13 nearest::2020-02-29T04:30 nearest::2000-02-15,2000-02-16 "
    "pad::2020-02-29T04 bfill::2020-02-29T04 pad::1990 bfill::2050 nearest::1582-10-20T05"
).split()
NUMBERS = {
    "levels": ("<i4", [1000, 850, 500, 250, 100]),
    "rising": ("<f8", [-1.5, 0.1, 0.25, 2, 3, 1e10]),
    "single": ("<f4", [0.1, 0.2, 0.3, 0.7]),
    "twice": ("<i8", [1, 2, 2, 3]),
    "mixed": ("<i8", [4, 1, 3, 9]),
}
NUMBER_LABELS = (
    "850 850.0 0.1 0.3 2 7 1e10 850,500 500,850 2,2 2,1 0.1,0.7 0.1/0.3 0.15/2 900/200 200/900 "
    "1/3 2/2 nearest::0.15 nearest::175 nearest::2.5 nearest::-9 nearest::9999 pad::0.3 pad::900 "
    "bfill::900 bfill::2.5 pad::-9 bfill::1e11 pad::2.5 100/ /0.25 50/60"
).split()
TEXTS = {"sorted": ["ant", "bee", "cat", "dog"], "unsorted": ["c", "a", "b"]}
TEXT_LABELS = "bee cat,ant eel b/d ant/bee a/b a b/ pad::bird".split()
METHODS = {"nearest": "nearest", "pad": "pad", "bfill": "backfill"}


def select(array, text, is_falling, read):
    """The positions that xarray selects, and whether it drops the dimension."""
    method, _, rest = text.rpartition("::")
    if "/" in rest:
        ends = [read(end) if end else None for end in rest.split("/")]
        if None not in ends and (ends[0] > ends[1]):
            ends.reverse()
        label = slice(*(ends[::-1] if is_falling else ends))
    else:
        labels = [read(label) for label in rest.split(",")]
        label = labels if "," in rest else labels[0]
    options = {"method": METHODS[method]} if method else {}
    try:
        found = array.sel(x=label, **options)
    except Exception as error:  # pandas has its own
        return {"labels": text, "error": type(error).__name__}
    return {"labels": text, "at": found.values.tolist()}


def cases(array, labels, read=str):
    values = array.x.values
    is_falling = len(values) > 1 and values[0] > values[-1]
    is_sorted = array.indexes["x"].is_monotonic_increasing or array.indexes["x"].is_monotonic_decreasing
    is_cftime = array.x.dtype == object and not isinstance(values[0], str)
    for text in labels:
        # Lists and methods of text are for other indexes.
        if is_cftime and ("," in text or ":" in text.split("T")[0]):
            continue
        if "/" in text and not is_sorted:
            continue
        found = select(array, text, is_falling, read)
        # Falling indexes of times have no ranges in pandas; other errors mean "not in this index".
        if "error" in found and "/" in text:
            continue
        if found.get("error", "KeyError") == "KeyError":
            yield found


def groups(array, calendar):
    names = "year month day hour minute dayofyear dayofweek quarter season".split()
    for name in names:
        if array.x.dtype == object and name == "quarter":
            continue
        groups = array.groupby(f"x.{name}").groups
        yield {"name": name, "groups": [[getattr(k, "item", lambda k=k: k)(), list(v)] for k, v in groups.items()]}


def labels():
    for name, (units, calendar, values) in TIMES.items():
        attrs = {"units": units, "calendar": calendar}
        dataset = xr.Dataset(coords={"x": ("x", np.array(values), attrs)})
        array = xr.decode_cf(dataset).assign(a=("x", np.arange(len(values)))).a
        yield {
            "coordinate": name,
            "data_type": np.array(values).dtype.str,
            "values": values,
            "attributes": attrs,
            # xarray never drops the dimension for text on such an index.
            "is_cftime": array.x.dtype == object,
            "cases": list(cases(array, TIME_LABELS)),
            "groups": list(groups(array, calendar)) if len(values) <= 120 else [],
        }
    for name, (dtype, values) in NUMBERS.items():
        values = np.array(values, dtype)
        array = xr.DataArray(np.arange(len(values)), dims="x", coords={"x": values})
        found = list(cases(array, NUMBER_LABELS, float))
        yield {"coordinate": name, "data_type": dtype, "values": values.tolist(), "cases": found}
    for name, values in TEXTS.items():
        array = xr.DataArray(np.arange(len(values)), dims="x", coords={"x": values})
        yield {"coordinate": name, "data_type": "string", "values": values, "cases": list(cases(array, TEXT_LABELS))}


def write(name, rows):
    with open(name, "w") as file:
        file.write("[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in rows) + "\n]\n")


write("times.json", times())
write("labels.json", labels())
