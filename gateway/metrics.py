"""Prometheus metrics, summed over workers where there are several (PROMETHEUS_MULTIPROC_DIR)."""

import os

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """Every metric of one process. No label holds anything a caller can choose freely."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self._calls_of: dict[tuple[str, str], Counter] = {}
        self._times_of: dict[str, tuple[Histogram, Histogram]] = {}
        self.calls = Counter(
            "gateway_calls_total", "Proxied calls by their end", ("upstream", "outcome"), registry=registry
        )
        self.latency = Histogram(
            "gateway_call_latency_seconds",
            "Latency of proxied calls",
            ("upstream",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.time_to_first_token = Histogram(
            "gateway_time_to_first_token_seconds",
            "Time to first token of streamed calls",
            ("upstream",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.posted = Counter("gateway_spans_posted_total", "Spans posted and stored", registry=registry)
        self.refused = Counter("gateway_spans_refused_total", "Posted spans that were turned down", registry=registry)
        self.dropped = Counter(
            "gateway_spans_dropped_total", "Spans of calls that found no room or failed", registry=registry
        )
        self.store_troubles = Counter(
            "gateway_store_troubles_total", "Commits that failed and are tried again", registry=registry
        )
        self.commit_waits_over = Counter(
            "gateway_commit_waits_over_total", "Replies released before their span's commit", registry=registry
        )
        self.sign_ins_refused = Counter(
            "gateway_sign_ins_refused_total", "Wrong keys and links at the dashboard's sign-in", registry=registry
        )
        self.waiting_bytes = Gauge(
            "gateway_store_waiting_bytes",
            "Bytes of spans that wait for their commit",
            registry=registry,
            multiprocess_mode="livesum",
        )

    def count_call(self, upstream: str, outcome: str, latency: float, time_to_first_token: float | None) -> None:
        """One call that has ended; times in seconds."""
        calls = self._calls_of.get((upstream, outcome))
        if calls is None:
            # Labels are looked up once: prometheus-client makes a text of each and takes a lock, each time.
            calls = self._calls_of[upstream, outcome] = self.calls.labels(upstream, outcome)
            self._times_of[upstream] = (self.latency.labels(upstream), self.time_to_first_token.labels(upstream))
        calls.inc()
        of_answers, of_first_tokens = self._times_of[upstream]
        of_answers.observe(latency)
        if time_to_first_token is not None:
            of_first_tokens.observe(time_to_first_token)

    def render(self) -> bytes:
        """The text format, of all workers together."""
        if "PROMETHEUS_MULTIPROC_DIR" not in os.environ:
            return generate_latest(self._registry)
        together = CollectorRegistry()
        MultiProcessCollector(together)  # type: ignore[no-untyped-call]
        return generate_latest(together)
