"""Publishing on the Hub: `publication.py` says what, `client.py` talks, `upload.py` compares and commits.

`names.py` says how repositories are called, for those who read them too.
"""
