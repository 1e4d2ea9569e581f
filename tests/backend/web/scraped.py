"""Metrics as Prometheus reads them."""

from __future__ import annotations

from prometheus_client.parser import text_string_to_metric_families

from backend.inference.engine import Engine
from backend.label_studio.image_loader import ImageCacheStats
from backend.web.metrics import Metrics
from tests.backend.fakes.colour_segmenter import colour_engine


def make_metrics(engine: Engine | None = None) -> Metrics:
    kept = ImageCacheStats(hits=3, misses=4, bytes=500, limit_bytes=1000)
    return Metrics((engine or colour_engine()).snapshot, lambda: kept)


def values(metrics: Metrics) -> dict[str, float]:
    """Name and labels as they are written -> value."""
    found = {}
    for family in text_string_to_metric_families(metrics.render().decode()):
        for sample in family.samples:
            labels = ",".join(f"{name}={value}" for name, value in sorted(sample.labels.items()))
            found[f"{sample.name}{{{labels}}}"] = sample.value
    return found
