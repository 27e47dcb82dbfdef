"""`daptune serve`: one frozen CLIP in memory, any number of adapters over HTTP, and a page to use and teach them.

    limits.py    what a request may ask for      guard.py     who may ask: hosts, origins, token
    names.py     what may be called how          uploads.py   files out of a request
    engine.py    what classifies, as a protocol  batcher.py   images of many requests in a batch
    pool.py      adapters of one backbone        onnx.py      an exported model, without torch
    lessons.py   what is taught, on disk         training.py  the fit behind a lesson
    app.py, routes/   the HTTP interface         page/        what a browser shows
    answers.py   what an error answers           metrics.py  counters for Prometheus
    run.py       sources, sockets, signals

Only pool, lessons and training need torch; they are imported when an adapter is served.
"""
