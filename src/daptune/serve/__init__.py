"""`daptune serve`: one frozen CLIP in memory, any number of adapters over HTTP, and a web page.

    limits.py    limits of requests, names       guard.py      access: hosts, origins, token
    engine.py    engines; exported models        pool.py       adapters of one backbone
    batcher.py   dynamic batching                uploads.py    files of a request
    lessons.py   training images on disk         trainer.py    training of a lesson
    app.py, routes/   HTTP interface             page/         the web page
    context.py   shared state of the routes      counters.py   Prometheus metrics
    answers.py   answers to errors               server.py     sources, sockets, signals

Only pool, lessons and trainer need torch; they are imported only to serve adapters.
"""
