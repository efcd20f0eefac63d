"""Models for the library of a framework alone, without transformers and this package: Orbax, Keras 3, SavedModel.

`run.py`: open, write each in a process of its own (`writer.py`), load each in another (`alone.py`), compare, publish.
"""
