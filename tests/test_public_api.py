"""What is public, and that everything agrees on it."""

from __future__ import annotations

import ast
import inspect
from importlib import import_module
from pathlib import Path

import pytest

import electra_convert
from electra_convert import errors

SOURCE = ast.parse(Path(electra_convert.__file__).read_text())


def declared() -> dict[str, str]:
    """Return the names of the TYPE_CHECKING block with the modules they are from."""
    (block,) = (
        node
        for node in SOURCE.body
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"
    )
    names: dict[str, str] = {}
    for node in block.body:
        assert isinstance(node, ast.ImportFrom)
        for alias in node.names:
            assert alias.asname == alias.name, "`import x as x` is what tells a type checker that x is public"
            names[alias.name] = str(node.module)
    return names


def test_type_checkers_and_the_lazy_table_agree() -> None:
    """What a type checker sees is what is looked up, from the same module."""
    lazy = {name: f"electra_convert.{module}" for module, names in electra_convert._MODULES.items() for name in names}
    assert declared() == lazy


def test_all_is_exactly_what_is_public() -> None:
    """`__all__` has the version and every name of the table, once."""
    assert len(electra_convert.__all__) == len(set(electra_convert.__all__))
    assert set(electra_convert.__all__) == {"__version__", *declared()}


@pytest.mark.parametrize("name", electra_convert.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    """Each name resolves, to what the module it is from defines."""
    value = getattr(electra_convert, name)
    if name != "__version__":
        assert value is getattr(import_module(declared()[name]), name)
        assert value.__module__ == declared()[name], "it is declared where it is defined"
        assert value.__doc__


def test_every_error_is_public() -> None:
    """Whatever the library raises on purpose can be caught by its public name."""
    defined = {name for name, value in vars(errors).items() if inspect.isclass(value) and issubclass(value, Exception)}
    assert defined == {name for name, module in declared().items() if module == "electra_convert.errors"}


def test_error_tree_is_drawn_as_it_is() -> None:
    """The tree in the docstring of `errors` is the classes' own."""
    assert errors.__doc__
    drawn: list[tuple[str, str]] = []
    parents: list[tuple[int, str]] = []
    for line in errors.__doc__.splitlines():
        word = next((word for word in line.split() if word.endswith("Error") and hasattr(errors, word)), None)
        if word:
            depth = line.index(word)
            while parents and parents[-1][0] >= depth:
                parents.pop()
            drawn.append((word, parents[-1][1] if parents else "Exception"))
            parents.append((depth, word))
    classes = [value for value in vars(errors).values() if inspect.isclass(value) and issubclass(value, Exception)]
    assert sorted(drawn) == sorted((kind.__name__, kind.__bases__[0].__name__) for kind in classes)


def test_unknown_name_is_an_attribute_error() -> None:
    """A name that is not there is told as Python tells it."""
    with pytest.raises(AttributeError, match="module 'electra_convert' has no attribute 'nonsense'"):
        _ = electra_convert.nonsense


def test_dir_lists_what_is_public() -> None:
    """Completion finds every name before it was used."""
    assert set(electra_convert.__all__) <= set(dir(electra_convert))
