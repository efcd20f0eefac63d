"""The proof: what was written is read back, run, and compared with Google's graph.

::

    probes -> workers (one process for each framework, and the oracle) -> comparison -> gates -> report
"""
