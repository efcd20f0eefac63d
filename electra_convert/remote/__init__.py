"""Files elsewhere: `place.py` says where and opens them, `cache.py` keeps what was read, `copy.py` sends outputs.

`repository.py` reads the Hub, and `released.py` knows what Google released.
"""
