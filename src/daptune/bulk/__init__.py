"""Prediction of many images: `daptune predict`, from one file to millions.

    inputs.py   files, folders, lists, tables -> a stream of images, never held at once; shards of it
    rows.py     a stream of images -> rows, in its order
    log.py      rows on disk: what was done survives the process, and nothing is done twice
    tables.py   rows -> JSON lines, CSV, Parquet
    cluster.py  the same rows, computed on a Ray cluster

Nothing here needs torch: whatever has `stream` and `classes_` can predict.
"""
