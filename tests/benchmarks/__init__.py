"""How long things take.

``python -m tests.benchmarks`` measures most of them, ``tests.benchmarks.dashboard`` the
dashboard's pages and ``tests.benchmarks.scale`` databases of a larger site.
"""
