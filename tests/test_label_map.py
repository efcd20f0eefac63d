"""The labels of a tagger, read from what Google's code pickled."""

from __future__ import annotations

import json
import pickle
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from electra_convert import ConfigError, ConvertOptions, OptionError, convert_checkpoint
from electra_convert.label_map import read_label_map

CHUNKS = {"B-NP": 0, "E-NP": 1, "O": 2, "S-ADJP": 3, "S-NP": 4, "S-VP": 5}


def written(path: Path, value: Any, protocol: int = pickle.HIGHEST_PROTOCOL) -> Path:
    """Pickle a value to a file."""
    path.write_bytes(pickle.dumps(value, protocol))
    return path


class Harmful:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        """Say what to run."""
        return (exec, ("raise SystemExit",))


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("count", [1, 2, 300, 70_000])
def test_every_protocol_is_read(tmp_path: Path, protocol: int, count: int) -> None:
    """Names come in the order of their numbers, however many there are."""
    names = [f"B-{number} \N{HANGUL SYLLABLE GA}" for number in range(count)]
    path = written(tmp_path / "map.pkl", {name: number for number, name in reversed([*enumerate(names)])}, protocol)
    assert read_label_map(path) == tuple(names)


def test_what_python_2_wrote_is_read(tmp_path: Path) -> None:
    """Its texts are bytes."""
    path = tmp_path / "map.pkl"
    path.write_bytes(b"\x80\x02}q\x00(U\x01Oq\x01K\x00U\x04B-NPq\x02K\x01u.")
    assert read_label_map(path) == ("O", "B-NP")


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ({}, "must have the numbers 0 to"),
        ({"a": 1}, "must have the numbers 0 to 0"),
        ({"a": 0, "b": 0}, "each once"),
        ({"a": 0, "b": 2}, "each once"),
        ({"a": -1, "b": 0}, "each once"),
        ({"a": 0, "b": Harmful()}, "there is "),
        ({"a": {"b": 0}}, "there is "),
        ({"a": "b"}, "there is "),
        ({"a": 1.0}, "there is BINFLOAT"),
        (["a", 0], "there is EMPTY_LIST"),
        ([{"a": 0}], "there is EMPTY_LIST"),
        ({0: "a"}, "there is BININT1"),
        ({"a": True}, "there is NEWTRUE"),
        ("a", "something else than one dict"),
        (Harmful(), "there is "),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, value: Any, message: str) -> None:
    """What is no dict of names to numbers is said so, and never run."""
    with pytest.raises(ConfigError, match=message):
        read_label_map(written(tmp_path / "map.pkl", value))


def test_broken_files_are_refused(tmp_path: Path) -> None:
    """Cut anywhere, and with any byte changed, a file gives labels or one error."""
    whole = pickle.dumps(CHUNKS)
    path = tmp_path / "map.pkl"
    for size in range(len(whole)):
        path.write_bytes(whole[:size])
        with pytest.raises(ConfigError):
            read_label_map(path)
    for place in range(len(whole)):
        for byte in (0, 1, 0x28, 0x63, 0x93, 0xFF):
            path.write_bytes(whole[:place] + bytes([byte]) + whole[place + 1 :])
            with suppress(ConfigError):
                read_label_map(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    """It is named."""
    with pytest.raises(ConfigError, match=r"map\.pkl is no map of labels: No such file"):
        read_label_map(tmp_path / "map.pkl")


def test_labels_of_a_tagger(fixtures: Path, tmp_path: Path) -> None:
    """They become `id2label`, as Google's code numbered them."""
    label_map = written(tmp_path / "map.pkl", CHUNKS)
    options = ConvertOptions(heads=("native",), targets=("pytorch",), label_map=label_map)
    convert_checkpoint(fixtures / "finetuned_chunk", tmp_path / "out", options)
    config = json.loads((tmp_path / "out/token_classification/config.json").read_text())
    assert config["label2id"] == CHUNKS


def test_labels_that_do_not_fit(fixtures: Path, tmp_path: Path) -> None:
    """Their number is that of the tensor."""
    options = ConvertOptions(label_map=written(tmp_path / "map.pkl", {"O": 0}), targets=("pytorch",))
    with pytest.raises(ConfigError, match=r"task_specific/chunk/dense/kernel \[128, 6\] shows 6"):
        convert_checkpoint(fixtures / "finetuned_chunk", tmp_path / "out", options)


def test_labels_twice(tmp_path: Path) -> None:
    """A map beside names is a contradiction."""
    with pytest.raises(OptionError, match="a map of labels is given"):
        ConvertOptions(label_map=tmp_path / "map.pkl", labels=("O",))


@pytest.mark.parametrize("place", [".", "../../finetuning_tfrecords/chunk_tfrecords"])
def test_it_is_found_where_googles_code_keeps_it(fixtures: Path, tmp_path: Path, place: str) -> None:
    """Beside the checkpoint, or where `run_finetuning.py` writes it; the report says so, and options go before it."""
    source = tmp_path / "model" / "finetuning_models" / "chunk_model_1"
    shutil.copytree(fixtures / "finetuned_chunk", source)
    (source / place).mkdir(parents=True, exist_ok=True)
    file = written(source / place / "chunk_label_mapping.pkl", CHUNKS)
    head = tmp_path / "out" / "token_classification"
    report = convert_checkpoint(source, tmp_path / "out", ConvertOptions(heads=("native",)))
    assert "the names of the labels are those of chunk_label_mapping.pkl" in report.notes
    assert tuple(json.loads((head / "config.json").read_text())["id2label"].values()) == tuple(CHUNKS)
    given = ConvertOptions(heads=("native",), labels=tuple("abcdef"), overwrite=True)
    assert not any("labels" in note for note in convert_checkpoint(source, tmp_path / "out", given).notes)
    written(file, {"a": 0, "b": 1})
    other = convert_checkpoint(source, tmp_path / "out", ConvertOptions(heads=("native",), overwrite=True))
    assert "chunk_label_mapping.pkl names 2 labels, and the task chunk has 6" in other.notes
