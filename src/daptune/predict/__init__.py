"""Prediction: images in, one row an image out, from one file to millions.

    predictor.py      `Predictor`: what the torch and the ONNX classifier share; a stream of images -> probabilities
    onnx.py           `OnnxClassifier`, a `Predictor` without torch, and what its file says of itself
    inputs.py         files, folders, lists, tables -> a stream of named images; shards of it
    rows.py           named images -> rows, in their order -> JSON lines, CSV, Parquet
    ray_rows.py       the same rows, computed on a Ray cluster
    row_log.py        rows on disk: a run that was stopped goes on, and nothing is done twice

Nothing here imports torch; `daptune.FewShotClassifier` is the `Predictor` that does.
"""
