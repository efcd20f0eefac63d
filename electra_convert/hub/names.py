"""How repositories on the Hub, and places in them, are called."""

from __future__ import annotations

from electra_convert.errors import OptionError

SCHEME = "hf"
"""How the address of a repository begins: `hf://org/name`."""
MAIN = "main"


def check_repo_id(repo_id: str) -> None:
    """Check that a repository can be called so.

    Raises:
        OptionError: It cannot, or the name does not say whose it is.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(repo_id)
    except HFValidationError as error:
        raise OptionError(f"{repo_id!r} is no name of a repository: {error}", hint="write OWNER/NAME") from error
    if "/" not in repo_id:
        raise OptionError(f"{repo_id!r} does not say whose repository it is", hint=f"write OWNER/{repo_id}")


def place_name(repo_id: str, revision: str) -> str:
    """Name a repository, with its branch where that is not the main one: `org/name at step-30`."""
    return repo_id if revision == MAIN else f"{repo_id} at {revision}"
