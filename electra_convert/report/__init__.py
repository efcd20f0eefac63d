"""How a verification is shown: on a terminal, as HTML to look at, as JUnit for CI systems."""
