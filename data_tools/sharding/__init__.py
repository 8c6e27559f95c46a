"""Work in shards: ranges of rows, a folder of finished shards that survives a kill, processes and jobs."""
