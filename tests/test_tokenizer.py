from __future__ import annotations

import json
import pickle
import subprocess
import sys
import unicodedata
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer

from electra_convert import tokenizer as module
from electra_convert.errors import OptionError, OutputError, VocabularyError
from electra_convert.tokenizer import (
    SPECIAL_TOKENS,
    ElectraTokenizer,
    ElectraTokenizerFast,
    Vocabulary,
    check_casing,
    check_fits,
    read_vocabulary,
    tokenizer_files,
)

FIXTURES = Path(__file__).parents[1] / "fixtures" / "tokenization"
VOCABULARIES = {"bert": "bert_uncased_vocab.txt", "tiny": "tiny_vocab.txt"}
SPECIALS = "".join(f"{token}\n" for token in SPECIAL_TOKENS).encode()


@cache
def vocabulary(name: str) -> Vocabulary:
    return read_vocabulary(FIXTURES / VOCABULARIES[name])


@cache
def tokenizer(name: str, *, lowercase: bool, strip_accents: bool | None = None) -> ElectraTokenizer:
    return ElectraTokenizer.from_vocabulary(
        vocabulary(name), lowercase=lowercase, strip_accents=strip_accents, max_length=12
    )


@pytest.fixture
def tiny() -> ElectraTokenizer:
    return tokenizer("tiny", lowercase=True)


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def read(tmp_path: Path, content: bytes) -> Vocabulary:
    return read_vocabulary(write(tmp_path / "vocab.txt", content))


def refusal(tmp_path: Path, content: bytes) -> VocabularyError:
    with pytest.raises(VocabularyError) as caught:
        read(tmp_path, content)
    return caught.value


# What Google's code does, told again from the rules in model/tokenization.py, without `tokenizers`

CJK_BLOCKS = (
    range(0x4E00, 0xA000),
    range(0x3400, 0x4DC0),
    range(0x20000, 0x2A6E0),
    range(0x2A700, 0x2CEB0),
    range(0xF900, 0xFB00),
    range(0x2F800, 0x2FA20),
)


@dataclass(frozen=True)
class Google:
    """Google's FullTokenizer."""

    ids: dict[str, int]
    lowercase: bool
    strip_accents: bool = True

    def words(self, text: str) -> list[str]:
        spaced = "".join(map(self._clean, text))
        return " ".join("".join(map(self._split, self._fold(word))) for word in spaced.split()).split()

    def encode(self, text: str) -> list[int]:
        return [index for word in self.words(text) for index in self._pieces(word)]

    def _clean(self, char: str) -> str:
        category = unicodedata.category(char)
        if char in "\t\n\r" or category == "Zs":
            return " "
        if char == "\ufffd" or category.startswith("C"):
            return ""
        return f" {char} " if any(ord(char) in block for block in CJK_BLOCKS) else char

    def _fold(self, word: str) -> str:
        if not self.lowercase:
            return word
        if not self.strip_accents:
            return word.lower()
        decomposed = unicodedata.normalize("NFD", word.lower())
        return "".join(char for char in decomposed if unicodedata.category(char) != "Mn")

    def _split(self, char: str) -> str:
        symbol = char.isascii() and char.isprintable() and not char.isalnum()
        return f" {char} " if symbol or unicodedata.category(char).startswith("P") else char

    def _pieces(self, word: str) -> list[int]:
        pieces: list[int] = []
        start = 0
        while start < len(word) <= 200:
            prefix = "##" if start else ""
            ends = range(len(word), start, -1)
            end = next((end for end in ends if prefix + word[start:end] in self.ids), None)
            if end is None:
                break
            pieces.append(self.ids[prefix + word[start:end]])
            start = end
        return pieces if start == len(word) else [self.ids["[UNK]"]]


def google_ids(content: bytes) -> dict[str, int]:
    """Return what Google's load_vocab makes of a file."""
    lines = content.decode().split("\n")
    if not lines[-1]:
        lines.pop()
    return {line.strip(): number for number, line in enumerate(lines)}


# Ids


def recorded() -> list[Any]:
    return [
        pytest.param(name, item, id=f"{name}-{'uncased' if item['do_lower_case'] else 'cased'}-{number}")
        for name in VOCABULARIES
        for number, item in enumerate(json.loads((FIXTURES / f"tokenization_{name}_vocab.json").read_text()))
    ]


def test_both_vocabularies_come_with_texts_of_both_casings() -> None:
    casings = [(param.values[0], param.values[1]["do_lower_case"]) for param in recorded()]

    assert {casing: casings.count(casing) for casing in set(casings)} == {
        (name, lowercase): 20 for name in VOCABULARIES for lowercase in (True, False)
    }


@pytest.mark.parametrize(("name", "item"), recorded())
def test_ids_equal_those_recorded_from_googles_code(name: str, item: dict[str, Any], tmp_path: Path) -> None:
    files = tokenizer_files(vocabulary(name), lowercase=item["do_lower_case"], max_length=512)
    backend = Tokenizer.from_file(str(write(tmp_path / "tokenizer.json", files["tokenizer.json"])))
    backend.encode_special_tokens = True

    encoding = backend.encode(item["text"], add_special_tokens=False)

    assert encoding.ids == item["ids"]
    assert encoding.tokens == item["tokens"]


@pytest.mark.parametrize(("name", "item"), recorded())
def test_the_class_gives_the_recorded_ids_too(name: str, item: dict[str, Any]) -> None:
    subject = tokenizer(name, lowercase=item["do_lower_case"])

    assert subject.tokenize(item["text"], split_special_tokens=True) == item["tokens"]
    assert subject.encode(item["text"], add_special_tokens=False, split_special_tokens=True) == item["ids"]


@pytest.mark.parametrize(("name", "item"), recorded())
def test_the_rules_told_again_in_this_file_are_googles(name: str, item: dict[str, Any]) -> None:
    assert Google(vocabulary(name).ids(), lowercase=item["do_lower_case"]).encode(item["text"]) == item["ids"]


RECLASSIFIED = {
    "\u166d",  # Canadian Syllabics Chi Sign: punctuation until Unicode 12, a symbol since
    "\u1734",  # Hanunoo Sign Pamudpod: a non-spacing mark until Unicode 14, a spacing one since
    "\u1885",  # Mongolian Letter Ali Gali Baluda: a letter until Unicode 9, a mark since
    "\u1886",  # Mongolian Letter Ali Gali Three Baluda: likewise
}
"""All characters of Unicode 3.2 that `tokenizers`, with its older tables, treats unlike Python."""


@cache
def characters() -> tuple[str, ...]:
    """Return the characters of Unicode 3.2, the one old version that Python carries, but no private ones."""
    return tuple(
        char for char in map(chr, range(sys.maxunicode + 1))
        if unicodedata.ucd_3_2_0.category(char) not in {"Cn", "Cs", "Co"}
    )  # fmt: skip


@pytest.mark.parametrize(
    ("lowercase", "strip_accents", "expected"),
    [
        pytest.param(True, None, RECLASSIFIED, id="uncased"),
        pytest.param(True, False, {"\u166d"}, id="uncased-with-accents"),
        pytest.param(False, None, {"\u166d"}, id="cased"),
    ],
)
def test_characters_are_treated_as_in_googles_code_but_for_four_reclassified_ones(
    *,
    lowercase: bool,
    strip_accents: bool | None,
    expected: set[str],
) -> None:
    google = Google({}, lowercase=lowercase, strip_accents=strip_accents is not False)
    files = tokenizer_files(vocabulary("tiny"), lowercase=lowercase, strip_accents=strip_accents, max_length=9)
    backend = Tokenizer.from_str(files["tokenizer.json"].decode())

    def words(text: str) -> list[str]:
        normalized = backend.normalizer.normalize_str(text)
        return [word for word, _ in backend.pre_tokenizer.pre_tokenize_str(normalized)]

    different = {char for char in characters() if words(f"a{char}b") != google.words(f"a{char}b")}

    assert different == expected


def texts() -> st.SearchStrategy[str]:
    """Draw texts in which anything may touch anything: words, pieces, marks, scripts, spaces, controls."""
    frequent = st.sampled_from(
        "aZ1 .,-#[]\u0301\u0300é\u212bÅIİ\u0131ßﬁ中日한\u3000\t\n\r\x00\x1c\x85\xa0\xad\u200b\u2028\ufeff"
    )
    rare = st.sampled_from([char for char in characters() if char not in RECLASSIFIED | {"Σ"}])
    words = st.sampled_from([*vocabulary("bert").tokens[1996:4000], *SPECIAL_TOKENS])
    long = st.builds(str.__mul__, st.sampled_from("aé中!"), st.integers(99, 202))
    return st.lists(frequent | rare | words | long, max_size=12).map("".join)


@given(text=texts())
@pytest.mark.parametrize("name", VOCABULARIES)
@pytest.mark.parametrize(("lowercase", "strip_accents"), [(True, True), (True, False), (False, True)])
def test_ids_equal_googles_on_any_text(
    *,
    name: str,
    lowercase: bool,
    strip_accents: bool,
    text: str,
) -> None:
    google = Google(vocabulary(name).ids(), lowercase=lowercase, strip_accents=strip_accents)
    subject = tokenizer(name, lowercase=lowercase, strip_accents=None if strip_accents else False)

    ids = subject.encode(text, add_special_tokens=False, split_special_tokens=True)

    assert ids == google.encode(text)


@pytest.mark.parametrize("length", [100, 101, 200, 201])
def test_words_of_more_than_200_characters_are_unknown(length: int, tiny: ElectraTokenizer) -> None:
    expected = ["[UNK]"] if length > 200 else ["a"] + ["##a"] * (length - 1)

    assert tiny.tokenize("a" * length) == expected


def test_greek_words_in_capitals_differ_from_googles_in_their_final_sigma() -> None:
    """`tokenizers` lower-cases each letter by itself; Python looks at the word."""
    google = Google(vocabulary("bert").ids(), lowercase=True)
    subject = tokenizer("bert", lowercase=True)

    assert subject.tokenize("ΔΣ ΣΔ") == [
        "δ",
        "##\N{GREEK SMALL LETTER SIGMA}",
        "\N{GREEK SMALL LETTER SIGMA}",
        "##δ",
    ]
    assert google.words("ΔΣ ΣΔ") == ["δ\N{GREEK SMALL LETTER FINAL SIGMA}", "\N{GREEK SMALL LETTER SIGMA}δ"]


def test_code_points_without_a_character_are_unknown_where_googles_code_drops_them() -> None:
    assert tokenizer("bert", lowercase=True).tokenize("a \ufdd0") == ["a", "[UNK]"]
    assert Google(vocabulary("bert").ids(), lowercase=True).words("a \ufdd0") == ["a"]


# Reading vocab.txt


@pytest.mark.parametrize("name", VOCABULARIES)
def test_published_vocabularies_are_read_without_a_remark_and_written_byte_for_byte(name: str) -> None:
    content = (FIXTURES / VOCABULARIES[name]).read_bytes()
    subject = vocabulary(name)

    assert subject.ids() == google_ids(content)
    assert subject.notes == ()
    assert tokenizer_files(subject, lowercase=True, max_length=512)["vocab.txt"] == content


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(SPECIALS + b"a\nb\n", id="as-google-writes-it"),
        pytest.param(SPECIALS + b"a\nb", id="no-final-newline"),
        pytest.param((SPECIALS + b"a\nb\n").replace(b"\n", b"\r\n"), id="crlf"),
        pytest.param(SPECIALS + b"a\nb\n\n \r\n\n", id="blank-lines-at-the-end"),
        pytest.param(SPECIALS + " a\t\n\u3000b\xa0\n".encode(), id="white-space-around-tokens"),
    ],
)
def test_line_ends_and_white_space_change_no_token(content: bytes, tmp_path: Path) -> None:
    subject = read(tmp_path, content)

    assert (subject.tokens, subject.notes) == ((*SPECIAL_TOKENS, "a", "b"), ())
    assert tokenizer_files(subject, lowercase=True, max_length=9)["vocab.txt"] == SPECIALS + b"a\nb\n"


def test_of_equal_lines_the_last_one_counts_and_the_others_keep_their_ids(tmp_path: Path) -> None:
    subject = read(tmp_path, SPECIALS + b"a\nb\na\nc\na\n")

    assert subject.tokens[5:] == ("[unused-line-6]", "b", "[unused-line-8]", "c", "a")
    (note,) = subject.notes
    assert note == (
        "2 lines are repeated later, where the last counts ('a' on lines 6 and 10; 'a' on lines 8 and 10): "
        "Google's tokenizer never produces such ids; they are called [unused-line-...] here, so that all "
        "others keep theirs"
    )


def test_blank_lines_in_the_middle_keep_their_ids(tmp_path: Path) -> None:
    subject = read(tmp_path, SPECIALS + b"a\n\n\t\nb\n")

    assert subject.tokens[5:] == ("a", "[unused-line-7]", "[unused-line-8]", "b")
    assert "2 lines are blank (line 7; line 8)" in subject.notes[0]


def test_a_carriage_return_inside_a_line_ends_no_line(tmp_path: Path) -> None:
    subject = read(tmp_path, SPECIALS + b"a\rb\nc\n")

    assert subject.tokens[5:] == ("[unused-line-6]", "c")
    assert "1 line is broken by a carriage return (line 6)" in subject.notes[0]


def test_a_stand_in_never_takes_the_name_of_a_token(tmp_path: Path) -> None:
    subject = read(tmp_path, SPECIALS + b"\n[unused-line-6]\n[[unused-line-6]]\n")

    assert subject.tokens[5:] == ("[[[unused-line-6]]]", "[unused-line-6]", "[[unused-line-6]]")


def test_long_lists_of_unused_lines_are_counted_not_told(tmp_path: Path) -> None:
    note = read(tmp_path, SPECIALS + b"\n" * 9 + b"a\n").notes[0]

    assert note.startswith("9 lines are blank (line 6; line 7; line 8; line 9; line 10 and 4 more): ")


def vocabulary_files() -> st.SearchStrategy[bytes]:
    """Draw files with every fault Google's reader passes over, in any order and number."""
    tokens = st.sampled_from(["", " ", "a", "##a", " a", "b\u3000", "c\rd", "\x85", "[x]", "\u2028", "e f", "\ufeffg"])
    lines = st.lists(tokens, max_size=12).flatmap(lambda some: st.permutations([*SPECIAL_TOKENS, *some]))
    return st.tuples(lines, st.sampled_from(["\n", "\r\n"]), st.sampled_from(["", "\n", "\n\n"])).map(
        lambda drawn: (drawn[1].join(drawn[0]) + drawn[2]).encode()
    )


@given(content=vocabulary_files())
def test_every_token_google_can_produce_keeps_its_id(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("vocabulary")
    subject = read(folder, content)
    ids = {token: index for token, index in google_ids(content).items() if token and "\r" not in token}

    assert ids.items() <= subject.ids().items()
    assert all(token.startswith("[unused-line-") for token in subject.ids().keys() - ids.keys())
    assert len(subject) == len(subject.ids()) == len(content.decode().rstrip().split("\n"))


@given(content=vocabulary_files())
def test_what_is_written_reads_the_same_everywhere(content: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("vocabulary")
    subject = read(folder, content)
    files = tokenizer_files(subject, lowercase=False, max_length=9)
    path = write(folder / "vocab.txt", files["vocab.txt"])

    assert read_vocabulary(path).tokens == subject.tokens
    assert path.read_text(encoding="utf-8").split("\n")[:-1] == list(subject.tokens), "universal newlines"
    assert Tokenizer.from_str(files["tokenizer.json"].decode()).get_vocab() == subject.ids()


def test_a_byte_order_mark_before_a_special_token_is_dropped(tmp_path: Path) -> None:
    subject = read(tmp_path, b"\xef\xbb\xbf" + SPECIALS)

    assert subject.tokens == SPECIAL_TOKENS
    assert subject.notes == ("Line 1 begins with a byte-order mark; [PAD] is read without it.",)


def test_a_byte_order_mark_before_a_word_hides_the_word_as_in_googles_code(tmp_path: Path) -> None:
    assert read(tmp_path, b"\xef\xbb\xbfword\n" + SPECIALS).tokens[0] == "\ufeffword"


def test_padding_with_another_id_than_googles_is_remarked(tmp_path: Path) -> None:
    (note,) = read(tmp_path, b"a\n" + SPECIALS).notes

    assert note == "[PAD] has id 1, but Google's code pads with id 0; attention masks hide either."


def test_all_faults_are_told_at_once(tmp_path: Path) -> None:
    error = refusal(tmp_path, b"[PAD]\n\xff\n[CLS]\nok\n\xe9t\xe9\n[UNK]")

    assert error.problems == (
        "2 of 6 lines are not UTF-8: line 2, 5",
        "the special token [SEP] is missing",
        "the special token [MASK] is missing",
    )
    assert "--no-tokenizer" in error.hint


def test_many_lines_in_another_encoding_are_counted(tmp_path: Path) -> None:
    error = refusal(tmp_path, SPECIALS + b"\xe9\n" * 9)

    assert error.problems == ("9 of 15 lines are not UTF-8: line 6, 7, 8, 9, 10, ...",)


@pytest.mark.parametrize("content", [b"", b"\n \n\r\n"])
def test_a_file_without_tokens_is_refused(content: bytes, tmp_path: Path) -> None:
    assert "holds no token" in refusal(tmp_path, content).message


def test_a_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match=r"missing\.txt cannot be read: No such file"):
        read_vocabulary(tmp_path / "missing.txt")
    with pytest.raises(VocabularyError, match="cannot be read: Is a directory"):
        read_vocabulary(tmp_path)


def test_a_file_larger_than_any_vocabulary_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_VOCABULARY_BYTES", len(SPECIALS))

    assert len(read(tmp_path, SPECIALS)) == 5
    assert f"it has more than {len(SPECIALS)} bytes" in refusal(tmp_path, SPECIALS + b"a").message


# Vocabularies of other tokenizers


def sentencepiece_model() -> bytes:
    """Return the first pieces of a SentencePiece model, as its protocol buffer lays them out."""
    pieces = [(b"<unk>", b"\x18\x02"), (b"<s>", b"\x18\x03"), ("\u2581the".encode(), b"")]
    bodies = [b"\n" + bytes([len(text)]) + text + b"\x15\0\0\0\0" + kind for text, kind in pieces]
    return b"".join(b"\n" + bytes([len(body)]) + body for body in bodies)


def test_a_sentencepiece_model_is_recognised(tmp_path: Path) -> None:
    error = refusal(tmp_path, sentencepiece_model())

    assert "is a SentencePiece model" in error.message
    assert "--no-tokenizer" in error.hint


@pytest.mark.parametrize(
    ("content", "sign"),
    [
        pytest.param(
            SPECIALS + "\u2581the\n\u2581of\n".encode(),
            "2 of 7 lines begin with \u2581, SentencePiece's mark for a space",
            id="marked",
        ),
        pytest.param(
            SPECIALS.replace(b"\n", b"\t0\n") + b"a\t-2.5\n",
            "6 of 6 lines are a piece, a tab and a score",
            id="scored",
        ),
        pytest.param(b"<unk>\n<s>\n</s>\na\nb\n", "the unknown token is <unk>, not [UNK]", id="other-specials"),
    ],
)
def test_a_sentencepiece_vocabulary_in_text_is_recognised(content: bytes, sign: str, tmp_path: Path) -> None:
    error = refusal(tmp_path, content)

    assert "looks like a SentencePiece vocabulary" in error.message
    assert error.problems == (sign,)
    assert "--no-tokenizer" in error.hint


def test_a_wordpiece_vocabulary_may_hold_what_looks_like_sentencepiece(tmp_path: Path) -> None:
    odd = "<unk>\n<s>\n\u2581\nword\t-7.5\n".encode()
    content = odd + SPECIALS + b"".join(b"%d\n" % number for number in range(30))

    assert len(read(tmp_path, content)) == 39


@pytest.mark.parametrize(
    ("config", "problem"),
    [
        ({"word_tokenizer_type": "mecab"}, 'word_tokenizer_type is "mecab"'),
        ({"subword_tokenizer_type": "character"}, 'subword_tokenizer_type is "character"'),
        ({"tokenizer_class": "BertJapaneseTokenizer"}, 'tokenizer_class is "BertJapaneseTokenizer"'),
    ],
)
def test_a_vocabulary_for_words_split_by_another_program_is_refused(
    config: dict[str, str], problem: str, tmp_path: Path
) -> None:
    write(tmp_path / "tokenizer_config.json", json.dumps(config).encode())

    error = refusal(tmp_path, SPECIALS)

    assert error.problems == (problem,)
    assert "--no-tokenizer" in error.hint


@pytest.mark.parametrize(
    "neighbour",
    [
        b'{"tokenizer_class": "ElectraTokenizer", "word_tokenizer_type": "basic"}',
        b'{"word_tokenizer_type": null}',
        b"[1]",
        b"[" * 100_000,
        b"{",
        b"\xff",
    ],
)
def test_other_neighbours_do_not_matter(neighbour: bytes, tmp_path: Path) -> None:
    write(tmp_path / "tokenizer_config.json", neighbour)

    assert len(read(tmp_path, SPECIALS)) == 5


# Does it fit?


def test_as_many_lines_as_embeddings_need_no_remark() -> None:
    assert check_fits(vocabulary("tiny"), 600) is None


@pytest.mark.parametrize(("rows", "rest"), [(601, "id 600 has no token"), (640, "ids 600 to 639 have no token")])
def test_fewer_lines_than_embeddings_are_remarked(rows: int, rest: str) -> None:
    assert check_fits(vocabulary("tiny"), rows) == f"vocab.txt has 600 lines for {rows} embedding rows: {rest}"


def test_more_lines_than_embeddings_are_refused() -> None:
    small = vocabulary("tiny")
    with pytest.raises(VocabularyError) as caught:
        check_fits(small, 597)

    assert caught.value.message == (
        f"{small.file} has 600 lines, but the model has 597 word embeddings: ids 597 to 599 have none"
    )
    assert small.file.endswith("tiny_vocab.txt")
    assert "at most 597 lines" in caught.value.hint


def test_a_vocabulary_with_capitals_speaks_against_lower_casing() -> None:
    subject = Vocabulary((*SPECIAL_TOKENS, "The", "the", "##É"))

    assert check_casing(subject, lowercase=False) is None
    assert check_casing(subject, lowercase=True) == (
        "text is lower-cased, but 2 of 8 tokens hold capitals, so no text becomes them ('The', '##É'): "
        "the model may have been trained on cased text"
    )


def test_a_vocabulary_without_capitals_speaks_against_keeping_them() -> None:
    note = check_casing(vocabulary("bert"), lowercase=False)

    assert check_casing(vocabulary("bert"), lowercase=True) is None
    assert note == (
        "text keeps its capitals, but none of 30522 tokens holds one, so words with capitals become [UNK]: "
        "the model may have been trained on lower-cased text"
    )


@pytest.mark.parametrize("lowercase", [True, False])
def test_a_script_without_capitals_speaks_for_neither(*, lowercase: bool) -> None:
    assert check_casing(Vocabulary((*SPECIAL_TOKENS, "中", "##한")), lowercase=lowercase) is None


# The files


def files_of(name: str = "tiny", **changes: Any) -> dict[str, bytes]:
    arguments: dict[str, Any] = {"lowercase": True, "max_length": 128} | changes
    return tokenizer_files(vocabulary(name), **arguments)


@pytest.mark.parametrize("name", VOCABULARIES)
@pytest.mark.parametrize(("lowercase", "strip_accents"), [(True, None), (True, False), (True, True), (False, None)])
def test_tokenizer_json_is_what_tokenizers_itself_writes(
    *,
    name: str,
    lowercase: bool,
    strip_accents: bool | None,
) -> None:
    content = files_of(name, lowercase=lowercase, strip_accents=strip_accents)["tokenizer.json"].decode()

    assert Tokenizer.from_str(content).to_str(pretty=True) == content


def test_tokenizer_json_escapes_odd_tokens_as_tokenizers_does() -> None:
    subject = Vocabulary((*SPECIAL_TOKENS, '"', "\\", "a\tb", "\x00", "\x7f", "\u2028", "😀"))
    content = tokenizer_files(subject, lowercase=True, max_length=9)["tokenizer.json"].decode()

    assert Tokenizer.from_str(content).to_str(pretty=True) == content


def test_special_tokens_are_registered_wherever_they_stand() -> None:
    subject = Vocabulary(("a", "[MASK]", "[SEP]", "[CLS]", "b", "[UNK]", "[PAD]"))
    content = tokenizer_files(subject, lowercase=True, max_length=9)["tokenizer.json"].decode()
    backend = Tokenizer.from_str(content)

    assert backend.to_str(pretty=True) == content
    assert backend.get_vocab_size() == 7
    assert backend.encode("a [MASK]", "b").ids == [3, 0, 1, 2, 4, 2]


def test_the_config_says_what_transformers_needs_to_rebuild_the_tokenizer() -> None:
    assert json.loads(files_of(lowercase=False, max_length=40)["tokenizer_config.json"]) == {
        "clean_up_tokenization_spaces": True,
        "cls_token": "[CLS]",
        "do_lower_case": False,
        "mask_token": "[MASK]",
        "model_input_names": ["input_ids", "token_type_ids", "attention_mask"],
        "model_max_length": 40,
        "pad_token": "[PAD]",
        "sep_token": "[SEP]",
        "strip_accents": None,
        "tokenize_chinese_chars": True,
        "tokenizer_class": "ElectraTokenizer",
        "unk_token": "[UNK]",
    }


@pytest.mark.parametrize("strip_accents", [None, True, False])
def test_accents_are_said_alike_in_both_files(*, strip_accents: bool | None) -> None:
    files = files_of(strip_accents=strip_accents)

    assert json.loads(files["tokenizer_config.json"])["strip_accents"] is strip_accents
    assert json.loads(files["tokenizer.json"])["normalizer"]["strip_accents"] is strip_accents


def test_accents_cannot_be_stripped_from_cased_text() -> None:
    with pytest.raises(OptionError, match="only when it lower-cases"):
        files_of(lowercase=False, strip_accents=True)


def test_the_special_tokens_map_names_all_five() -> None:
    assert json.loads(files_of()["special_tokens_map.json"]) == {
        "cls_token": "[CLS]",
        "mask_token": "[MASK]",
        "pad_token": "[PAD]",
        "sep_token": "[SEP]",
        "unk_token": "[UNK]",
    }


def test_the_bytes_depend_on_the_arguments_alone() -> None:
    script = (
        "import hashlib, pathlib, sys; from electra_convert.tokenizer import *;"
        "files = tokenizer_files(read_vocabulary(pathlib.Path(sys.argv[1])), lowercase=True, max_length=128);"
        "print({name: hashlib.sha256(content).hexdigest() for name, content in files.items()})"
    )
    command = [sys.executable, "-c", script, str(FIXTURES / "bert_uncased_vocab.txt")]
    environments = [{"PYTHONHASHSEED": seed, "PYTHONPATH": ":".join(sys.path)} for seed in ("1", "2")]

    first, second = (subprocess.check_output(command, env=environment) for environment in environments)

    assert first == second


def test_importing_the_module_imports_no_tokenizers_and_no_numpy() -> None:
    script = (
        "import sys, electra_convert; before = set(sys.modules); import electra_convert.tokenizer;"
        "print(*(set(sys.modules) - before) & {'tokenizers', 'numpy', 'transformers', 'torch'})"
    )
    output = subprocess.check_output([sys.executable, "-c", script], env={"PYTHONPATH": ":".join(sys.path)})

    assert output.split() == []


# The class


def test_a_text_is_framed_by_cls_and_sep(tiny: ElectraTokenizer) -> None:
    assert tiny("The world") == {
        "input_ids": [2, 114, 590, 3],
        "token_type_ids": [0, 0, 0, 0],
        "attention_mask": [1, 1, 1, 1],
    }


def test_the_second_segment_has_token_type_1(tiny: ElectraTokenizer) -> None:
    assert tiny("the", "world of") == {
        "input_ids": [2, 114, 3, 590, 115, 3],
        "token_type_ids": [0, 0, 0, 1, 1, 1],
        "attention_mask": [1] * 6,
    }


def test_a_batch_gives_a_row_per_text(tiny: ElectraTokenizer) -> None:
    assert tiny(["the", "the world"]) == {
        "input_ids": [[2, 114, 3], [2, 114, 590, 3]],
        "token_type_ids": [[0] * 3, [0] * 4],
        "attention_mask": [[1] * 3, [1] * 4],
    }
    assert tiny(("the",), ("world",))["input_ids"] == [[2, 114, 3, 590, 3]]
    assert tiny([]) == {"input_ids": [], "token_type_ids": [], "attention_mask": []}


@pytest.mark.parametrize("padding", [True, "longest"])
def test_a_batch_is_padded_to_its_longest_text(padding: Any, tiny: ElectraTokenizer) -> None:
    assert tiny(["the", "the world"], ["of", "of"], padding=padding) == {
        "input_ids": [[2, 114, 3, 115, 3, 0], [2, 114, 590, 3, 115, 3]],
        "token_type_ids": [[0, 0, 0, 1, 1, 0], [0, 0, 0, 0, 1, 1]],
        "attention_mask": [[1, 1, 1, 1, 1, 0], [1] * 6],
    }


@pytest.mark.parametrize(("max_length", "expected"), [(5, 5), (None, 12)])
def test_texts_are_padded_to_the_longest_input(max_length: int | None, expected: int, tiny: ElectraTokenizer) -> None:
    columns = tiny("the", padding="max_length", max_length=max_length)

    assert columns["input_ids"] == [2, 114, 3] + [0] * (expected - 3)
    assert columns["attention_mask"] == [1, 1, 1] + [0] * (expected - 3)


@pytest.mark.parametrize(("max_length", "expected"), [(5, 5), (None, 12)])
def test_texts_are_cut_to_the_longest_input(max_length: int | None, expected: int, tiny: ElectraTokenizer) -> None:
    ids = tiny("the " * 20, truncation=True, max_length=max_length)["input_ids"]

    assert ids == [2] + [114] * (expected - 2) + [3]


def test_of_a_pair_the_longer_segment_is_cut(tiny: ElectraTokenizer) -> None:
    assert tiny("the " * 9, "of", truncation=True, max_length=6)["input_ids"] == [2, 114, 114, 3, 115, 3]


def test_settings_of_one_call_do_not_leak_into_the_next(tiny: ElectraTokenizer) -> None:
    before = tiny("the [MASK] of")

    tiny(["the"] * 2, padding="max_length", truncation=True, max_length=4, split_special_tokens=True)

    assert tiny("the [MASK] of") == before
    assert tiny.encode("the [MASK] of") == before["input_ids"]


def test_special_tokens_in_a_text_are_recognised_unless_split(tiny: ElectraTokenizer) -> None:
    assert tiny("[MASK]")["input_ids"] == [2, 4, 3]
    assert tiny("[MASK]", split_special_tokens=True)["input_ids"] == [2, 37, 55, 73, 91, 83, 39, 3]
    assert tiny.tokenize("[MASK]") == ["[MASK]"]
    assert tiny.tokenize("[MASK]", split_special_tokens=True) == ["[", "m", "##a", "##s", "##k", "]"]


def test_encode_returns_ids_with_or_without_special_tokens(tiny: ElectraTokenizer) -> None:
    assert tiny.encode("the", "of") == [2, 114, 3, 115, 3]
    assert tiny.encode("the", "of", add_special_tokens=False) == [114, 115]


def test_decode_joins_pieces_and_may_skip_special_tokens(tiny: ElectraTokenizer) -> None:
    ids = tiny.encode("Hello, world!")

    assert tiny.decode(ids) == "[CLS] hello, world! [SEP]"
    assert tiny.decode(ids, skip_special_tokens=True) == "hello, world!"


def test_decode_leaves_no_space_around_punctuation(tiny: ElectraTokenizer) -> None:
    ids = tiny.encode("Isn't it Smith's ? Yes .", add_special_tokens=False)

    assert tiny.decode(ids) == "isn't it smith's? yes."


def test_tokens_and_ids_convert_both_ways(tiny: ElectraTokenizer) -> None:
    assert tiny.convert_tokens_to_ids("world") == 590
    assert tiny.convert_tokens_to_ids(["world", "[MASK]", "no such token"]) == [590, 4, 1]
    assert tiny.convert_ids_to_tokens(590) == "world"
    assert tiny.convert_ids_to_tokens([590, 4, 600]) == ["world", "[MASK]", "[UNK]"]


def test_ids_may_come_as_arrays(tiny: ElectraTokenizer) -> None:
    ids: Any = np.array([590, 4], dtype=np.int64)

    assert tiny.convert_ids_to_tokens(ids) == ["world", "[MASK]"]
    assert tiny.decode(ids) == "world [MASK]"


def test_the_attributes_transformers_users_know(tiny: ElectraTokenizer) -> None:
    assert (tiny.pad_token_id, tiny.unk_token_id, tiny.cls_token_id) == (0, 1, 2)
    assert (tiny.sep_token_id, tiny.mask_token_id) == (3, 4)
    assert tiny.all_special_ids == [0, 1, 2, 3, 4]
    assert tiny.vocab_size == len(tiny) == 600
    assert tiny.model_max_length == 12
    assert tiny.do_lower_case is True
    assert (tiny.pad_token, tiny.unk_token, tiny.cls_token, tiny.sep_token, tiny.mask_token) == SPECIAL_TOKENS


def test_padding_uses_the_id_of_the_padding_token() -> None:
    subject = ElectraTokenizer.from_vocabulary(
        Vocabulary(("a", "[MASK]", "[SEP]", "[CLS]", "b", "[UNK]", "[PAD]")), lowercase=True
    )

    assert subject("a", padding="max_length", max_length=5)["input_ids"] == [3, 0, 2, 6, 6]
    assert subject.model_max_length == 512


def test_the_fast_class_is_the_same_class() -> None:
    assert ElectraTokenizerFast is ElectraTokenizer


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"text_pair": ["a"]}, "both be a string"),
        ({"padding": "longer"}, "padding is 'longer'"),
        ({"max_length": 5}, "nothing is cut or padded"),
        ({"max_length": 5, "padding": True}, "nothing is cut or padded"),
        ({"max_length": 1, "truncation": True}, "the 2 special tokens alone take 2"),
        ({"max_length": 2, "truncation": True, "text_pair": "b"}, "the 3 special tokens alone take 3"),
    ],
)
def test_contradictory_arguments_are_refused(arguments: Any, message: str, tiny: ElectraTokenizer) -> None:
    with pytest.raises(OptionError, match=message):
        tiny("a", **arguments)


def test_a_batch_needs_as_many_pairs_as_texts(tiny: ElectraTokenizer) -> None:
    with pytest.raises(OptionError, match="2 texts, but 1 pairs"):
        tiny(["a", "b"], ["c"])


def test_saving_and_loading_keeps_every_byte(tmp_path: Path, tiny: ElectraTokenizer) -> None:
    tiny.save_pretrained(tmp_path / "new" / "folder")

    again = ElectraTokenizer.from_pretrained(str(tmp_path / "new" / "folder"))
    again.save_pretrained(tmp_path / "second")

    assert again("The [MASK]") == tiny("The [MASK]")
    assert again.model_max_length == 12
    assert {path.name: path.read_bytes() for path in (tmp_path / "second").iterdir()} == files_of(max_length=12)


def test_a_target_that_cannot_be_written_is_an_output_error(tmp_path: Path, tiny: ElectraTokenizer) -> None:
    blocked = write(tmp_path / "file", b"")

    with pytest.raises(OutputError, match="cannot be written"):
        tiny.save_pretrained(blocked)


def test_a_tokenizer_survives_pickling(tiny: ElectraTokenizer) -> None:
    again = pickle.loads(pickle.dumps(tiny))  # noqa: S301 - bytes made here

    assert again("The world") == tiny("The world")


def test_threads_share_a_tokenizer_without_mixing_their_settings(tiny: ElectraTokenizer) -> None:
    def length(size: int) -> int:
        return len(tiny("the", padding="max_length", max_length=size)["input_ids"])

    sizes = [3 + number % 50 for number in range(2000)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(8) as pool:
            assert list(pool.map(length, sizes)) == sizes
    finally:
        sys.setswitchinterval(interval)


def test_a_tokenizer_without_a_longest_input_asks_for_one() -> None:
    config = json.dumps({"model_max_length": int(1e30)}).encode()
    subject = ElectraTokenizer({**files_of(), "tokenizer_config.json": config})

    assert subject.model_max_length is None
    assert subject("the", truncation=True, max_length=4)["input_ids"] == [2, 114, 3]
    with pytest.raises(OptionError, match="knows no longest input"):
        subject("the", truncation=True)


def test_a_directory_without_a_tokenizer_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match=r"holds no tokenizer\.json") as caught:
        ElectraTokenizer.from_pretrained(tmp_path)

    assert "from_vocabulary" in caught.value.hint


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("tokenizer.json", b"{", "tokenizer.json cannot be used"),
        ("tokenizer.json", b"\xff", "tokenizer.json cannot be used"),
        ("tokenizer.json", files_of()["tokenizer.json"].replace(b"[MASK]", b"[GAP]"), "lacks special tokens"),
        ("tokenizer_config.json", b"{", "tokenizer_config.json is not JSON"),
        ("tokenizer_config.json", b"\xff", "tokenizer_config.json is not JSON"),
        ("tokenizer_config.json", b"[" * 100_000, "tokenizer_config.json is not JSON"),
        ("tokenizer_config.json", b"[]", "tokenizer_config.json is not a JSON object"),
    ],
)
def test_damaged_files_are_refused(name: str, content: bytes, message: str) -> None:
    with pytest.raises(VocabularyError, match=message):
        ElectraTokenizer({**files_of(), name: content})
