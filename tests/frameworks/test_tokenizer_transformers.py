"""The files written here in the hands of the installed transformers, 4 or 5.

Nothing is skipped: which classes exist and what they cannot do is chosen by version when tests are collected.
A client that cannot give Google's ids has its differences pinned, so that its mending is noticed.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from electra_convert.tokenizer import (
    SPECIAL_TOKENS,
    ElectraTokenizer,
    Vocabulary,
    read_vocabulary,
    tokenizer_files,
)

transformers = pytest.importorskip("transformers")

FIXTURES = Path(__file__).parents[2] / "fixtures" / "tokenization"
VOCABULARIES = {"bert": "bert_uncased_vocab.txt", "tiny": "tiny_vocab.txt"}
LONG = "a" * 150
"""The recorded word longer than 100 characters, the limit in clients that rebuild the model."""
BRACKETED = "[CLS] special [MASK] tokens [SEP] [UNK] [PAD] inside"

FAITHFUL: list[str]
"""Classes that give Google's ids."""
DIFFERENT: dict[str, tuple[str, ...]]
"""Classes that do not, with the recorded texts on which they differ."""
LOADED: dict[str, str]
"""The class that ELECTRA's names lead to."""

MAJOR = int(transformers.__version__.partition(".")[0])

if MAJOR == 4:
    FAITHFUL = ["AutoTokenizer", "ElectraTokenizerFast"]
    DIFFERENT = {
        # the slow class takes words of up to 100 characters, and cannot leave special tokens unrecognised
        "ElectraTokenizer": (LONG, BRACKETED),
    }
    LOADED = {
        "AutoTokenizer": "ElectraTokenizerFast",
        "ElectraTokenizer": "ElectraTokenizer",
        "ElectraTokenizerFast": "ElectraTokenizerFast",
    }
else:
    # the general class takes tokenizer.json as it is; the others rebuild it for words of up to 100 characters
    FAITHFUL = ["PreTrainedTokenizerFast"]
    DIFFERENT = {"AutoTokenizer": (LONG,), "ElectraTokenizer": (LONG,), "ElectraTokenizerFast": (LONG,)}
    LOADED = dict.fromkeys(DIFFERENT, "BertTokenizer")

ELECTRA_CLASSES = list(LOADED)
ALL_CLASSES = sorted({*ELECTRA_CLASSES, *FAITHFUL})
each_vocabulary = pytest.mark.parametrize("name", VOCABULARIES)
each_casing = pytest.mark.parametrize("lowercase", [True, False], ids=["uncased", "cased"])


@cache
def vocabulary(name: str) -> Vocabulary:
    return read_vocabulary(FIXTURES / VOCABULARIES[name])


def recorded(name: str, *, lowercase: bool) -> dict[str, list[int]]:
    """Return the ids that Google's code gave each text."""
    items = json.loads((FIXTURES / f"tokenization_{name}_vocab.json").read_text())
    return {item["text"]: item["ids"] for item in items if item["do_lower_case"] == lowercase}


def published(folder: Path, subject: Vocabulary, **options: Any) -> Path:
    """Write a directory as a conversion leaves it, without its weights."""
    files = tokenizer_files(subject, **{"lowercase": True, "max_length": 40, **options})
    for name, content in files.items():
        (folder / name).write_bytes(content)
    (folder / "config.json").write_text('{"model_type": "electra"}')
    return folder


def load(client: str, folder: Path) -> Any:
    return getattr(transformers, client).from_pretrained(folder)


def plain_ids(tokenizer: Any, text: str) -> list[int]:
    """Encode as Google's code does: no special token added, none recognised."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
    return ids


def differences(client: str, name: str, folder: Path, *, lowercase: bool) -> dict[str, list[int]]:
    """Return the texts whose ids are not Google's, with the ids."""
    tokenizer = load(client, published(folder, vocabulary(name), lowercase=lowercase))
    expected = recorded(name, lowercase=lowercase)
    given = {text: plain_ids(tokenizer, text) for text in expected}
    return {text: ids for text, ids in given.items() if ids != expected[text]}


@each_vocabulary
@each_casing
@pytest.mark.parametrize("client", FAITHFUL)
def test_ids_equal_googles_on_every_text(client: str, name: str, tmp_path: Path, *, lowercase: bool) -> None:
    assert len(recorded(name, lowercase=lowercase)) == 20
    assert differences(client, name, tmp_path, lowercase=lowercase) == {}


@each_vocabulary
@each_casing
@pytest.mark.parametrize("client", DIFFERENT)
def test_ids_differ_from_googles_exactly_where_they_are_known_to(
    client: str, name: str, tmp_path: Path, *, lowercase: bool
) -> None:
    """The long word is unknown as a whole; special tokens are recognised although they should be split."""
    ours = ElectraTokenizer.from_vocabulary(vocabulary(name), lowercase=lowercase)
    expected = {LONG: [ours.unk_token_id], BRACKETED: ours.encode(BRACKETED, add_special_tokens=False)}

    found = differences(client, name, tmp_path, lowercase=lowercase)

    assert found == {text: expected[text] for text in DIFFERENT[client]}


@pytest.mark.parametrize("client", DIFFERENT)
@pytest.mark.parametrize("length", [100, 101])
def test_the_limit_of_clients_that_differ_is_100_characters(client: str, length: int, tmp_path: Path) -> None:
    tokenizer = load(client, published(tmp_path, vocabulary("tiny")))

    assert len(tokenizer.tokenize("a" * length)) == (100 if length == 100 else 1)


@each_casing
@pytest.mark.parametrize("client", ELECTRA_CLASSES)
def test_clients_load_the_class_and_the_options_that_were_written(
    client: str, tmp_path: Path, *, lowercase: bool
) -> None:
    tokenizer = load(client, published(tmp_path, vocabulary("tiny"), lowercase=lowercase))

    assert type(tokenizer).__name__ == LOADED[client]
    assert tokenizer.do_lower_case is lowercase
    assert tokenizer.model_max_length == 40
    assert tokenizer.init_kwargs["tokenize_chinese_chars"] is True
    assert len(tokenizer) == tokenizer.vocab_size == 600


@pytest.mark.parametrize(
    ("strip_accents", "expected"),
    [(None, ["e", "##t"]), (True, ["e", "##t"]), (False, ["[UNK]"])],
)
@pytest.mark.parametrize("client", ALL_CLASSES)
def test_clients_strip_accents_as_asked(
    client: str, expected: list[str], tmp_path: Path, *, strip_accents: bool | None
) -> None:
    tokenizer = load(client, published(tmp_path, vocabulary("tiny"), strip_accents=strip_accents))

    assert tokenizer.tokenize("ÉT") == expected


@pytest.mark.parametrize("client", ALL_CLASSES)
def test_clients_know_the_special_tokens(client: str, tmp_path: Path) -> None:
    ids = {token: index for index, token in enumerate(reversed(SPECIAL_TOKENS), 1)}
    tokenizer = load(client, published(tmp_path, Vocabulary(("a", *ids))))

    assert {token: tokenizer.convert_tokens_to_ids(token) for token in ids} == ids
    assert tokenizer.pad_token_id == ids["[PAD]"]
    assert tokenizer.unk_token_id == ids["[UNK]"]
    assert tokenizer.cls_token_id == ids["[CLS]"]
    assert tokenizer.sep_token_id == ids["[SEP]"]
    assert tokenizer.mask_token_id == ids["[MASK]"]
    assert set(tokenizer.all_special_tokens) == set(SPECIAL_TOKENS)
    assert len(tokenizer) == 6


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        pytest.param(("The world",), {}, id="text"),
        pytest.param(("a [MASK] b", "of the world"), {}, id="pair"),
        pytest.param((["the", "the world of"], ["of", "to"]), {"padding": True}, id="batch"),
        pytest.param(("the",), {"padding": "max_length", "max_length": 7}, id="padded"),
        pytest.param(("the " * 60,), {"truncation": True}, id="cut-to-the-models-length"),
        pytest.param(("the " * 9, "of"), {"truncation": True, "max_length": 6}, id="cut-pair"),
    ],
)
@pytest.mark.parametrize("client", ALL_CLASSES)
def test_our_class_encodes_as_clients_do(
    client: str, arguments: tuple[Any, ...], options: dict[str, Any], tmp_path: Path
) -> None:
    folder = published(tmp_path, vocabulary("tiny"))
    ours = ElectraTokenizer.from_pretrained(folder)

    assert ours(*arguments, **options) == dict(load(client, folder)(*arguments, **options))


@pytest.mark.parametrize("client", ALL_CLASSES)
def test_our_class_decodes_as_clients_do(client: str, tmp_path: Path) -> None:
    folder = published(tmp_path, vocabulary("bert"))
    ours = ElectraTokenizer.from_pretrained(folder)
    theirs = load(client, folder)

    for text in recorded("bert", lowercase=True):
        ids = ours.encode(text)
        assert ours.decode(ids) == theirs.decode(ids)
        assert ours.decode(ids, skip_special_tokens=True) == theirs.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("client", ALL_CLASSES)
def test_unused_lines_keep_all_ids_even_when_a_client_saves_again(client: str, tmp_path: Path) -> None:
    """Without stand-ins transformers 4 closes the gaps when it saves `vocab.txt`, and ids shift."""
    source = tmp_path / "source.txt"
    source.write_bytes(b"[PAD]\nb\n\nb\n[UNK]\n[CLS]\r\n[SEP]\n[MASK]\nc\rd\nx\n\xe3\x80\x80\na\n\n")
    subject = read_vocabulary(source)
    expected = {"[PAD]": 0, "b": 3, "[UNK]": 4, "[CLS]": 5, "[SEP]": 6, "[MASK]": 7, "x": 9, "a": 11}

    load(client, published(tmp_path, subject)).save_pretrained(tmp_path / "again")
    again = load(client, tmp_path / "again")

    assert expected.items() <= subject.ids().items()
    assert again.get_vocab() == subject.ids()
    assert again.encode("a b x") == [5, 11, 3, 9, 6]


@pytest.mark.parametrize("client", ALL_CLASSES)
def test_our_class_loads_what_clients_save(client: str, tmp_path: Path) -> None:
    folder = published(tmp_path, vocabulary("tiny"))
    load(client, folder).save_pretrained(tmp_path / "again")
    has_tokenizer_json = (tmp_path / "again" / "tokenizer.json").is_file()

    assert has_tokenizer_json is not (MAJOR == 4 and client == "ElectraTokenizer"), "the slow class writes none"
    if has_tokenizer_json:
        again = ElectraTokenizer.from_pretrained(tmp_path / "again")
        assert again("The world of [MASK]") == ElectraTokenizer.from_pretrained(folder)("The world of [MASK]")
        assert again.model_max_length == 40
