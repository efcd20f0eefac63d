"""Checkpoints that Google released, by name: `google://electra-small`."""

from __future__ import annotations

from electra_convert.errors import OptionError

SCHEME = "google"
ADDRESSES = {
    "electra-small": "https://storage.googleapis.com/electra-data/electra_small.zip",
    "electra-base": "https://storage.googleapis.com/electra-data/electra_base.zip",
    "electra-large": "https://storage.googleapis.com/electra-data/electra_large.zip",
}
"""Where each lies, as "Released Models" in the README of google-research/electra says."""


def address_of(name: str) -> str:
    """Return the address of a released checkpoint.

    Raises:
        OptionError: None is called so.
    """
    try:
        return ADDRESSES[name]
    except KeyError:
        raise OptionError(
            f"Google released nothing called {name!r}",
            hint=f"choose from {', '.join(f'{SCHEME}://{known}' for known in ADDRESSES)}",
        ) from None
