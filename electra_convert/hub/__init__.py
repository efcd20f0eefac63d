"""Publishing on the Hub: `publication.py` says what, `client.py` talks, `upload.py` compares and commits."""
