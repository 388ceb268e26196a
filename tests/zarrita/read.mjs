// Reads arrays with zarrita. Each line of the input asks for one, each line of the output answers:
// {"location": URL, "path", "parts": [[first, end] or null, per dimension]}, null for all of it
//   -> {"shape", "stride" in elements, "dtype", "data": base64 of the elements, or "strings"}
//      or {"error"}.

import { createInterface } from "node:readline";
import * as zarr from "zarrita";

async function read({ location, path, parts }) {
  const store = new zarr.FetchStore([location, ...path.split("/").map(encodeURIComponent)].join("/"));
  const array = await zarr.open.v3(store, { kind: "array" });
  const selection = parts?.map((part) => part && zarr.slice(...part)) ?? null;
  const isScalar = array.shape.length === 0;
  const found = isScalar ? await array.getChunk([]) : await zarr.get(array, selection);
  const { shape, stride } = found;
  return { shape, stride, dtype: array.dtype, ...encode(found.data) };
}

function encode(data) {
  if (Array.isArray(data)) {
    if (!data.every((value) => typeof value === "string")) {
      throw new Error("elements are neither numbers nor strings");
    }
    return { strings: data };
  }
  const bytes = Buffer.from(data.buffer, data.byteOffset, data.byteLength);
  return { data: bytes.toString("base64") };
}

for await (const line of createInterface({ input: process.stdin })) {
  let answer;
  try {
    answer = await read(JSON.parse(line));
  } catch (error) {
    answer = { error: String(error?.message ?? error) };
  }
  process.stdout.write(`${JSON.stringify(answer)}\n`);
}
