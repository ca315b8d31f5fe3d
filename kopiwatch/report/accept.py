"""What a client accepts: formats and encodings, with their weights (RFC 9110, section 12.5)."""

from __future__ import annotations

from collections.abc import Iterator

OPENMETRICS = "application/openmetrics-text"
OPENMETRICS_VERSION = "1.0.0"
TEXT = "text/plain"


def wants_openmetrics(accept: str) -> bool:
    """OpenMetrics 1.0 is asked for by name, and not less than the text format.

    Prometheus sends
    ``application/openmetrics-text;version=1.0.0,…;q=0.75,text/plain;version=0.0.4;q=0.5,*/*;q=0.1``
    with any encoding; a browser, or curl, asks for nothing by name and gets text.
    """
    openmetrics = text = 0.0
    for word, parameters, weight in _items(accept):
        if word == OPENMETRICS and parameters.get("version", "") in ("", OPENMETRICS_VERSION):
            openmetrics = max(openmetrics, weight)
        elif word == TEXT:
            text = max(text, weight)
    return openmetrics > 0 and openmetrics >= text


def wants_gzip(encodings: str) -> bool:
    """Gzip is acceptable, by name or by ``*``."""
    weights = {word: weight for word, _, weight in _items(encodings)}
    return weights.get("gzip", weights.get("x-gzip", weights.get("*", 0.0))) > 0


def _items(header: str) -> Iterator[tuple[str, dict[str, str], float]]:
    for item in header.lower().split(","):
        word, *rest = (part.strip() for part in item.split(";"))
        pairs = (part.partition("=") for part in rest)
        parameters = {key.strip(): value.strip().strip('"') for key, _, value in pairs}
        yield word, parameters, _weight(parameters.get("q", "1"))


def _weight(text: str) -> float:
    try:
        weight = float(text)
    except ValueError:
        return 0.0  # not understood: not acceptable
    return weight if 0.0 <= weight <= 1.0 else 0.0
