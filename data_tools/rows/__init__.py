"""Reading rows from untrusted files: JSON lines, one JSON document and Parquet."""
