"""`daptune serve`: one frozen CLIP in memory, any number of adapters over HTTP, and a page to use and teach them.

    limits.py    what a request may ask for      guard.py      who may ask: hosts, origins, token
    client_names.py  what may be called how      uploads.py    files out of a request
    engine.py    what classifies, abstract       batcher.py    images of many requests in a batch
    pool.py      adapters of one backbone        models.py     exported models, without torch
    lessons.py   what is taught, on disk         trainer.py    the fit behind a lesson
    app.py, routes/   the HTTP interface         page/         what a browser shows
    answers.py   what an error answers           counters.py   figures for Prometheus
    server.py    sources, sockets, signals

Only pool, lessons and trainer need torch; they are imported when an adapter is served.
"""
