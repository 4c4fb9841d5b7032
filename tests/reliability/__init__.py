"""Harnesses that try to break the promise of the outbox, and count what they broke.

``python -m tests.reliability`` lists them. Each is a file with a ``run`` that gives a
:class:`~tests.reliability.report.Findings` and a ``command`` around it; the list is in
``__main__.py``. What they share:

``report.py``
    the counters, what of them is a promise, and how they are printed
``processes.py``
    forks, kills and scratch files
``server.py``
    MMOLove as it behaves on a bad day, in a process of its own
``site.py``
    a Flask site on the public API, with a diary of what it attempted and was told
``accounts.py``
    the same with accounts and gifts of its own, in one database with the outbox
``doorsite.py``, ``visitor.py``
    a site with every door that a stranger finds, and what strangers send
``evidence.py``
    the comparison of the diary with the server's history
"""
