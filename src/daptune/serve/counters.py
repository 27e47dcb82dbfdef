"""Prometheus metrics, in a separate registry per server so that two servers in one process do not mix."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Counters:
    """Metrics named `daptune_...`; no label contains client input."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter("daptune_requests", "Requests answered", ["route", "status"], registry=registry)
        self.request_seconds = Histogram(
            "daptune_request_seconds", "Time to answer a request", ["route"], buckets=SECONDS, registry=registry
        )
        self.images = Counter("daptune_images", "Images classified", registry=registry)
        self.batch_images = Histogram(
            "daptune_batch_images", "Images in a batch", buckets=(1, 2, 4, 8, 16, 32, 64, 128), registry=registry
        )
        self.batch_adapters = Histogram(
            "daptune_batch_adapters", "Adapters in a batch", buckets=(1, 2, 4, 8, 16, 32, 64), registry=registry
        )
        self.batch_seconds = Histogram(
            "daptune_batch_seconds", "Time to classify a batch", buckets=SECONDS, registry=registry
        )
        self.queue = Gauge("daptune_queue_images", "Images accepted and not yet answered", registry=registry)
        self.adapters = Gauge("daptune_adapters", "Adapters served", registry=registry)
        self.loaded = Gauge("daptune_adapters_loaded", "Adapters in memory", registry=registry)
        self.connections = Gauge("daptune_connections", "Open connections", registry=registry)
        self.closed = Counter(
            "daptune_connections_closed", "Connections ended by the server", ["reason"], registry=registry
        )
