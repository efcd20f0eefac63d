"""Speed and memory, beside `cp` and `sync` of the same bytes."""
