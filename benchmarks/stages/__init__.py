"""One module a measurement, each with ``measure(options) -> dict`` of figures."""
