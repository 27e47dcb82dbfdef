"""`daptune serve`: one frozen CLIP in memory, any number of adapters over HTTP, and a page to use and teach them.

    limits.py    what a request may ask for, and how one is refused     guard.py    who may ask: hosts, origins, token
    names.py     what an adapter may be called                         uploads.py  files out of a request
    engine.py    what the server needs of whatever classifies           batcher.py  images of many requests in a batch
    pool.py      adapters of one backbone        onnx.py   an exported model, without torch
    lessons.py   what is taught, on disk         training.py   the fit behind a lesson
    app.py, routes/   the HTTP interface         page/     what a browser shows
    metrics.py   counters for Prometheus         run.py    sockets, signals

Only `pool.py` and `training.py` need torch; they are imported when an adapter is served.
"""
