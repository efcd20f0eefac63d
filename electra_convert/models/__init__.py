"""Models that can be read in a sitting: one file for each framework, and one for Google's own graph.

`pytorch.py`, `tensorflow.py` and `flax.py` hold the eight ELECTRA classes under the names the field knows. They load
what this package writes without its mappings: a parameter is called in the model what it is called in the file.
`google.py` is the oracle: NumPy, Google's graph, Google's variable names. Nothing here is imported before it is used.
"""
