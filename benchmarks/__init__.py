"""How long things take; ``python -m benchmarks.desk`` measures the operator's page."""
