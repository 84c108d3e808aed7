"""Small files of texts and token ids, written by pyarrow, fastparquet and NumPy: `make_data.py FOLDER`.

With pyarrow 26.0, pandas 3.1, fastparquet and NumPy 2.4 it made runtime/tests/data.
"""
import sys, os, json, numpy as np, pyarrow as pa, pyarrow.parquet as pq, pandas as pd

out = sys.argv[1]
os.makedirs(out, exist_ok=True)
texts = ["hello world", "", "zwei\nZeilen", "naïve café", None, "hello world", "x" * 300, "last one"]
ids = [[1, 2, 3], [], [65535, 7], None, [0], [9, 9, 9], [4] * 70, [12]]
table = pa.table({
    "id": pa.array(range(8), pa.int32()),
    "text": pa.array(texts, pa.string()),
    "input_ids": pa.array(ids, pa.list_(pa.int32())),
    "meta": pa.array([{"body": t, "n": i} for i, t in enumerate(texts)]),
    "wide": pa.array(ids, pa.large_list(pa.int64())),
    "unsigned": pa.array(ids, pa.list_(pa.uint32())),
    "small": pa.array(ids, pa.list_(pa.uint16())),
})
def write(name, **kw):
    pq.write_table(table, f"{out}/{name}.parquet", **kw)
write("plain", compression="none", use_dictionary=False)
write("dictionary", compression="none", use_dictionary=True)
write("snappy", compression="snappy")
write("zstd", compression="zstd", data_page_version="2.0")
write("gzip", compression="gzip", row_group_size=3)
write("delta", compression="none", use_dictionary=False, column_encoding={"text": "DELTA_BYTE_ARRAY", "id": "DELTA_BINARY_PACKED", "input_ids.list.element": "DELTA_BINARY_PACKED"})
write("pages", compression="none", data_page_size=64, write_batch_size=2)
write("brotli", compression="brotli")
large = table.select(["text"]).cast(pa.schema([("text", pa.large_string())]))
pq.write_table(large, f"{out}/large.parquet")
pd.DataFrame({"text": [t or "" for t in texts], "input_ids": [i or [] for i in ids]}).to_parquet(f"{out}/pandas.parquet")
try:
    pd.DataFrame({"text": texts}).to_parquet(f"{out}/fastparquet.parquet", engine="fastparquet")
except ImportError:
    print("fastparquet is not installed: its file is left out")
json.dump({"texts": texts, "input_ids": ids}, open(f"{out}/expected.json", "w"), ensure_ascii=False)
flat = np.array([i for row in ids if row for i in row])
np.save(f"{out}/u2.npy", flat.astype("<u2")); np.save(f"{out}/i8.npy", flat.astype("<i8"))
flat.astype("<u2").tofile(f"{out}/ids.u16"); flat.astype("<u4").tofile(f"{out}/ids.u32")
