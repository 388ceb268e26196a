"""Copies the array into HSDS with h5pyd. Runs in the environment of HSDS.

load_hsds.py PORT NETCDF CHUNKS
"""

from __future__ import annotations

import json
import sys

import h5py
import h5pyd

port, netcdf, chunks = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
server = {
    "endpoint": f"http://127.0.0.1:{port}",
    "username": "admin",
    "password": "admin",
    "bucket": "bench",
}
# Names inside the server, which wants such ones; nothing on this machine.
for folder in ("/home/", "/home/admin/"):
    h5pyd.Folder(folder, mode="x" if folder == "/home/" else "w", **server).close()
domain = "/home/admin/cube.h5"
with h5py.File(netcdf) as source, h5pyd.File(domain, "w", **server) as target:
    values = source["t2m"]
    copy = target.create_dataset(
        "t2m",
        shape=values.shape,
        dtype="<f4",
        chunks=tuple(chunks),
        compression="gzip",
        compression_opts=1,
    )
    if list(copy.chunks) != chunks:
        raise SystemExit(f"HSDS made chunks of {copy.chunks}, not {chunks}")
    step = chunks[0]
    for start in range(0, values.shape[0], step):
        copy[start : start + step] = values[start : start + step]
    dataset = copy.id.uuid
with h5pyd.File(domain, "a", **server) as target:
    target.flush()
print(json.dumps({"domain": domain, "dataset": dataset}))
