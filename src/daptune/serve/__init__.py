"""`daptune serve`: one frozen CLIP in memory, any number of adapters over HTTP, and a page to use and teach them.

    limits.py    what a request may ask for      guard.py      who may ask: hosts, origins, token
    engine.py    what classifies; models         pool.py       adapters of one backbone
    batcher.py   requests in one batch           uploads.py    files out of a request
    lessons.py   what is taught, on disk         trainer.py    the fit behind a lesson
    app.py, routes/   the HTTP interface         page/         what a browser shows
    context.py   what the routes share           counters.py   figures for Prometheus
    answers.py   what an error answers           server.py     sources, sockets, signals

Only pool, lessons and trainer need torch; they are imported when an adapter is served.
"""
