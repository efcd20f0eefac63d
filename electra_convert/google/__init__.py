"""Checkpoints for Google's code, made of models or of other checkpoints.

`conversion.py` is the pipeline; `target.py` says which variables there are, with what `heads.py` knows of heads and
`hparams.py` of runs.
"""
