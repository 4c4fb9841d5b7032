"""How long things take; ``python -m tests.benchmarks.desk`` measures the dashboard."""
