"""Prediction: one row per image, from one file to millions.

    predictor.py      `Predictor`: base class of the torch and the ONNX classifier; stream of images -> probabilities
    adapted.py        `AdapterPredictor`, an adapter with torch; `daptune.FewShotClassifier` is one that can be fitted
    as_set.py         `SetPredictor`: an adapter that answers to a whole set of images at once (TransCLIP)
    onnx.py           `OnnxClassifier`, a `Predictor` without torch, and the metadata of its file
    exported.py, runtimes.py, openvino.py   what computes that file: onnxruntime, or OpenVINO
    inputs.py         files, folders, lists, tables -> a stream of named images; shards of it
    rows.py           named images -> rows in the same order -> JSON lines, CSV, Parquet
    tools.py          rows -> documents that FiftyOne and Label Studio import
    ray_rows.py       the same rows, computed on a Ray cluster
    row_log.py        rows on disk, so that an interrupted run resumes

Nothing here but adapted.py and as_set.py imports torch.
"""
