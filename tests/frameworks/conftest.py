"""The Hub on loopback, for tests that read back what was published."""

from tests.hub.conftest import hub, secret  # noqa: F401  # fixtures
