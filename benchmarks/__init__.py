"""Measurements: each module prints a table and writes results/<name>.json. Run as `python -m benchmarks.<name>`."""
