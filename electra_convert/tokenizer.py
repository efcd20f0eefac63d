"""Google's `vocab.txt` as a tokenizer: the files every client loads, and a class to use them.

ELECTRA takes BERT's WordPiece tokenizer over (`model/tokenization.py` of google-research/electra). A text
gets the same ids here because:

- a token's id is its line: the file is read exactly as `load_vocab` reads it;
- the text is cleaned, its Chinese characters set apart, lower-cased and split as `BasicTokenizer` does;
- a word longer than 200 characters is unknown, Google's limit, where `tokenizers` defaults to 100.

What cannot agree is small and known. `tokenizers` carries older Unicode tables than Python, so characters
that Unicode has added or reclassified since may be split or dropped differently. And it lower-cases each
letter by itself, where Python ends a Greek word in final sigma: words in capitals that end in sigma differ.

Google's code knows no special tokens: `[MASK]` inside a text is three words to it, and one token to everybody
else. `split_special_tokens=True` follows Google.
"""

from __future__ import annotations

import json
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias, overload

import msgspec

from electra_convert.errors import OptionError, OutputError, VocabularyError
from electra_convert.json_text import indented_json
from electra_convert.whole_file import read_whole

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping, Sequence

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
"""The tokens every ELECTRA vocabulary holds, in the order Google's own has them."""

MAX_CHARACTERS_PER_WORD = 200
"""Longer words are unknown: the default of `WordpieceTokenizer`, which Google never overrides."""

MAX_FILE_BYTES = 128 * 2**20
"""The largest file read here: a `tokenizer.json`."""

MAX_VOCABULARY_BYTES = 32 * 2**20
"""Published vocabularies take 0.1 to 6 MB; what is larger is something else."""

MAX_LINES = 1 << 20
"""The largest published vocabularies have half as many."""

MAX_LINE_BYTES = 1 << 12
"""Google's tokenizer takes no word of more than 200 characters apart."""

MAX_NEIGHBOUR_BYTES = 1 << 20
"""The largest `tokenizer_config.json` that is looked at."""

VOCABULARY_FILE = "vocab.txt"
TOKENIZER_FILE = "tokenizer.json"
CONFIG_FILE = "tokenizer_config.json"
SPECIAL_TOKENS_FILE = "special_tokens_map.json"
TOKENIZER_FILES = (VOCABULARY_FILE, TOKENIZER_FILE, CONFIG_FILE, SPECIAL_TOKENS_FILE)

_COLUMNS = {"input_ids": "ids", "token_type_ids": "type_ids", "attention_mask": "attention_mask"}
"""The names of models' inputs, and of the attributes of `tokenizers.Encoding` that hold them."""

_EXAMPLES = 5
_METASPACE = "\u2581"
_BYTE_ORDER_MARK = "\ufeff"
_WEIGHTS_ALONE = "convert the weights alone with `--no-tokenizer`, and ship the tokenizer the model was trained with"


class Vocabulary(msgspec.Struct, frozen=True):
    """The tokens of a model, one per id.

    Args:
        tokens: The token of each id. No two are equal, none is empty, and all of `SPECIAL_TOKENS` are there.
        notes: What was unusual in the file, one sentence each, for the report.
        file: Where it was read, for messages.
    """

    tokens: tuple[str, ...]
    notes: tuple[str, ...] = ()
    file: str = "the vocabulary"

    def __len__(self) -> int:
        return len(self.tokens)

    def ids(self) -> dict[str, int]:
        """Return the id of each token, in the order of ids."""
        return {token: index for index, token in enumerate(self.tokens)}


# Reading vocab.txt


def read_vocabulary(path: Path) -> Vocabulary:
    """Read Google's `vocab.txt`: one token per line, whose id is the line's number, counted from 0.

    Every token that Google's tokenizer can produce keeps the id it has there (`load_vocab` of
    `model/tokenization.py`): white space around a token is stripped, and of equal lines the last one counts.
    Blank lines at the end are no tokens.

    An id that Google's tokenizer never produces (the earlier of equal lines, a blank line, a line with a
    carriage return inside) gets a stand-in such as `[unused-line-17]`, because other readers would drop the
    line, and shift all ids after it when they save. No text becomes a stand-in, since brackets are split off.

    A vocabulary for words that another program has to split first (MeCab, Sudachi, Juman++) looks like any
    other. It is recognised only where a `tokenizer_config.json` beside it says so.

    Args:
        path: The file.

    Returns:
        The vocabulary, with a note on whatever was unusual.

    Raises:
        VocabularyError: The file cannot be read, is not a WordPiece vocabulary, or has faults: all are told.
    """
    content = _read(path, MAX_VOCABULARY_BYTES)
    _refuse_sentencepiece_model(path, content)
    _refuse_other_segmenter(path)
    _refuse_too_many_lines(path, content)
    lines, problems = _decode(content)
    tokens = _without_trailing_blanks([line.strip() for line in lines])
    if not tokens:
        raise VocabularyError(f"{path} holds no token", hint="give the vocab.txt the model was trained with")
    _refuse_sentencepiece_text(path, tokens)
    tokens, mark_notes = _without_byte_order_mark(tokens)
    problems += _missing_special_tokens(tokens)
    if problems:
        raise VocabularyError(
            f"{path} is not a vocabulary ELECTRA can use",
            problems=problems,
            hint=f"give the vocab.txt the model was trained with, or {_WEIGHTS_ALONE}",
        )
    tokens, notes = _with_stand_ins(tokens)
    return Vocabulary(tuple(tokens), (*mark_notes, *notes, *_padding_notes(tokens)), str(path))


def check_fits(vocabulary: Vocabulary, vocab_size: int) -> str | None:
    """Check that every token has an embedding.

    Args:
        vocabulary: The tokens.
        vocab_size: Rows of the word embedding table.

    Returns:
        A sentence for the report where rows are left over, as in models whose table was padded; else nothing.

    Raises:
        VocabularyError: There are more tokens than rows.
    """
    lines = len(vocabulary)
    if lines > vocab_size:
        raise VocabularyError(
            f"{vocabulary.file} has {lines} lines, but the model has {vocab_size} word embeddings: "
            f"{_ids(vocab_size, lines)} none",
            hint=f"give the vocab.txt the model was trained with, which has at most {vocab_size} lines",
        )
    if lines < vocab_size:
        unused = _ids(lines, vocab_size)
        return f"{VOCABULARY_FILE} has {lines} lines for {vocab_size} embedding rows: {unused} no token"
    return None


def check_casing(vocabulary: Vocabulary, *, lowercase: bool) -> str | None:
    """Check whether the vocabulary looks made for the way text will be cased, which is recorded in no file.

    Args:
        vocabulary: The tokens.
        lowercase: Whether text is lower-cased before it is looked up.

    Returns:
        A sentence for the report where the vocabulary speaks against it; else nothing.
    """
    words = [token for token in vocabulary.tokens if not (token.startswith("[") and token.endswith("]"))]
    cased = [token for token in words if token != token.lower()]
    if lowercase and cased:
        return (
            f"text is lower-cased, but {len(cased)} of {len(vocabulary)} tokens hold capitals, so no text "
            f"becomes them ({_quoted(cased)}): the model may have been trained on cased text"
        )
    if not lowercase and not cased and any(token != token.upper() for token in words):
        return (
            f"text keeps its capitals, but none of {len(vocabulary)} tokens holds one, so words with "
            "capitals become [UNK]: the model may have been trained on lower-cased text"
        )
    return None


def _read(path: Path, most: int = MAX_FILE_BYTES) -> bytes:
    """Return the content of a file that is not absurdly large."""
    try:
        return read_whole(path, most)
    except OSError as error:
        raise VocabularyError(
            f"{path} cannot be read: {error.strerror or error}",
            hint="name a file that exists and is readable, such as the vocab.txt the model was trained with",
        ) from error


def _refuse_sentencepiece_model(path: Path, content: bytes) -> None:
    """Refuse SentencePiece's `ModelProto`: a piece (field 1), its length, its text (field 1), its score."""
    if content[:1] == b"\n" and content[2:3] == b"\n" and b"\0" in content[:64]:
        raise VocabularyError(
            f"{path} is a SentencePiece model, not a WordPiece vocabulary as Google's code reads it",
            hint=_WEIGHTS_ALONE,
        )


def _refuse_other_segmenter(path: Path) -> None:
    """Refuse a vocabulary whose neighbour says that words are not split by white space and punctuation."""
    neighbour = path.with_name(CONFIG_FILE)
    try:
        config = json.loads(_read(neighbour, MAX_NEIGHBOUR_BYTES)) if neighbour.is_file() else {}
    except (VocabularyError, ValueError, RecursionError):
        return  # not ours, and not needed
    segmenters = _segmenters(config) if isinstance(config, dict) else []
    if segmenters:
        raise VocabularyError(
            f"{path} is not for Google's tokenizer: {neighbour.name} beside it asks for another one",
            problems=segmenters,
            hint=_WEIGHTS_ALONE,
        )


def _refuse_too_many_lines(path: Path, content: bytes) -> None:
    """Refuse what would take more memory than any vocabulary."""
    count = content.count(b"\n")
    if count > MAX_LINES:
        raise VocabularyError(
            f"{path} has {count} lines, more than the {MAX_LINES} of any vocabulary",
            hint="give the vocab.txt the model was trained with",
        )


def _segmenters(config: Mapping[str, Any]) -> list[str]:
    """Return the settings that ask for another tokenizer, such as transformers' `BertJapaneseTokenizer`."""
    usual = {"word_tokenizer_type": (None, "basic"), "subword_tokenizer_type": (None, "wordpiece")}
    found = {key: config.get(key) for key, values in usual.items() if config.get(key) not in values}
    if "Japanese" in str(config.get("tokenizer_class")):
        found["tokenizer_class"] = config["tokenizer_class"]
    return [f"{key} is {json.dumps(value, ensure_ascii=False)}" for key, value in found.items()]


def _decode(content: bytes) -> tuple[list[str], list[str]]:
    """Split into lines at line feeds alone, as Google's reader does, and say which lines hold no token."""
    rows = content.split(b"\n")
    bad = [] if _is_utf8(content) else [number for number, row in enumerate(rows, 1) if not _is_utf8(row)]
    long = [number for number, size in enumerate(map(len, rows), 1) if size > MAX_LINE_BYTES]
    problems = [
        f"{len(numbers)} of {len(rows)} lines {what}: line {_first(numbers)}"
        for numbers, what in ((bad, "are not UTF-8"), (long, f"have more than {MAX_LINE_BYTES} bytes"))
        if numbers
    ]
    return content.decode(errors="replace").split("\n"), problems


def _first(numbers: Sequence[int]) -> str:
    return ", ".join(map(str, numbers[:_EXAMPLES])) + (", ..." if len(numbers) > _EXAMPLES else "")


def _is_utf8(row: bytes) -> bool:
    try:
        row.decode()
    except UnicodeDecodeError:
        return False
    return True


def _without_trailing_blanks(tokens: list[str]) -> list[str]:
    count = len(tokens)
    while count and not tokens[count - 1]:
        count -= 1
    return tokens[:count]


def _refuse_sentencepiece_text(path: Path, tokens: Sequence[str]) -> None:
    """Refuse the text form of a SentencePiece vocabulary, by any of its marks."""
    marked = len([token for token in tokens if token[:1] == _METASPACE])
    scored = sum(_has_score(token) for token in tokens if "\t" in token)
    signs = []
    if marked * 10 > len(tokens):
        signs.append(f"{marked} of {len(tokens)} lines begin with {_METASPACE}, SentencePiece's mark for a space")
    if scored * 2 > len(tokens):
        signs.append(f"{scored} of {len(tokens)} lines are a piece, a tab and a score")
    if "[UNK]" not in tokens and any(token.partition("\t")[0] == "<unk>" for token in tokens[:_EXAMPLES]):
        signs.append("the unknown token is <unk>, not [UNK]")
    if signs:
        raise VocabularyError(
            f"{path} looks like a SentencePiece vocabulary, not a WordPiece one as Google's code reads it",
            problems=signs,
            hint=_WEIGHTS_ALONE,
        )


def _has_score(line: str) -> bool:
    _, tab, score = line.rpartition("\t")
    if not tab:
        return False
    try:
        float(score)
    except ValueError:
        return False
    return True


def _without_byte_order_mark(tokens: list[str]) -> tuple[list[str], list[str]]:
    """Remove the mark some editors put first from a special token, which no text contains: no id changes."""
    first = tokens[0].removeprefix(_BYTE_ORDER_MARK)
    if first == tokens[0] or first not in SPECIAL_TOKENS:
        return tokens, []
    return [first, *tokens[1:]], [f"Line 1 begins with a byte-order mark; {first} is read without it."]


def _missing_special_tokens(tokens: Sequence[str]) -> list[str]:
    return [f"the special token {token} is missing" for token in SPECIAL_TOKENS if token not in tokens]


def _with_stand_ins(tokens: Sequence[str]) -> tuple[list[str], list[str]]:
    """Name the ids that Google's tokenizer never produces and that other readers would lose."""
    last = {token: index for index, token in enumerate(tokens)}
    unused = [index for index, token in enumerate(tokens) if not token or last[token] != index or "\r" in token]
    blank = [index for index in unused if not tokens[index]]
    broken = [index for index in unused if "\r" in tokens[index]]
    repeated = [index for index in unused if tokens[index] and "\r" not in tokens[index]]
    result = list(tokens)
    for index in unused:
        result[index] = _stand_in(index + 1, last)
    notes = [
        _unused_note("blank", [f"line {index + 1}" for index in blank]),
        _unused_note("broken by a carriage return", [f"line {index + 1}" for index in broken]),
        _unused_note(
            "repeated later, where the last counts",
            [f"{tokens[index]!r} on lines {index + 1} and {last[tokens[index]] + 1}" for index in repeated],
        ),
    ]
    return result, [note for note in notes if note]


def _stand_in(line: int, taken: Mapping[str, int]) -> str:
    name = f"[unused-line-{line}]"
    while name in taken:
        name = f"[{name}]"
    return name


def _unused_note(fault: str, places: Sequence[str]) -> str:
    """Say how many lines have no token, or nothing where none has that fault."""
    if not places:
        return ""
    more = f" and {len(places) - _EXAMPLES} more" if len(places) > _EXAMPLES else ""
    are = "1 line is" if len(places) == 1 else f"{len(places)} lines are"
    return (
        f"{are} {fault} ({'; '.join(places[:_EXAMPLES])}{more}): Google's tokenizer never produces such ids; "
        "they are called [unused-line-...] here, so that all others keep theirs"
    )


def _padding_notes(tokens: Sequence[str]) -> list[str]:
    index = tokens.index("[PAD]")
    if index == 0:
        return []
    return [f"[PAD] has id {index}, but Google's code pads with id 0; attention masks hide either."]


def _ids(start: int, stop: int) -> str:
    """Name a range of ids as the subject of a sentence, with its verb."""
    return f"id {start} has" if stop == start + 1 else f"ids {start} to {stop - 1} have"


def _quoted(tokens: Sequence[str]) -> str:
    return ", ".join(map(repr, tokens[:_EXAMPLES])) + (", ..." if len(tokens) > _EXAMPLES else "")


# Writing the files that clients load


def tokenizer_files(
    vocabulary: Vocabulary, *, lowercase: bool, strip_accents: bool | None = None, max_length: int
) -> dict[str, bytes]:
    """Build the files of a tokenizer that gives Google's ids.

    The bytes depend on the arguments alone. `vocab.txt` is the file that was read, byte for byte, unless
    its line ends, white space or unused lines had to be put right.

    Args:
        vocabulary: The tokens.
        lowercase: Whether to lower-case text (`do_lower_case` of Google's scripts).
        strip_accents: Whether to strip accents; by default exactly when lower-casing, as Google's code does.
        max_length: The longest input of the model, its `max_position_embeddings`.

    Returns:
        The content of each file by its name.

    Raises:
        OptionError: Accents are to be stripped without lower-casing, which Google's code never does.
    """
    if strip_accents and not lowercase:
        raise OptionError(
            "accents cannot be stripped from text that keeps its capitals: Google's tokenizer strips accents "
            "only when it lower-cases, whatever its `strip_accents` says",
            hint="lower-case too, or leave the accents alone",
        )
    config = _tokenizer_config(lowercase=lowercase, strip_accents=strip_accents, max_length=max_length)
    tokenizer = _tokenizer(vocabulary, lowercase=lowercase, strip_accents=strip_accents)
    return {
        VOCABULARY_FILE: "".join(f"{token}\n" for token in vocabulary.tokens).encode(),
        TOKENIZER_FILE: indented_json(tokenizer, floats=False),
        CONFIG_FILE: indented_json(config) + b"\n",
        SPECIAL_TOKENS_FILE: indented_json(_special_token_names()) + b"\n",
    }


def _special_token_names() -> dict[str, str]:
    """Return the special tokens under the names clients give them: `[MASK]` is `mask_token`."""
    return {f"{token.strip('[]').lower()}_token": token for token in sorted(SPECIAL_TOKENS)}


def _tokenizer_config(*, lowercase: bool, strip_accents: bool | None, max_length: int) -> dict[str, Any]:
    """Return `tokenizer_config.json`, from which transformers rebuilds the normalizer."""
    config = _special_token_names() | {
        "clean_up_tokenization_spaces": True,
        "do_lower_case": lowercase,
        # the default of ELECTRA's classes; transformers' general class would leave out token_type_ids
        "model_input_names": list(_COLUMNS),
        "model_max_length": max_length,
        "strip_accents": strip_accents,
        "tokenize_chinese_chars": True,
        "tokenizer_class": "ElectraTokenizer",
    }
    return dict(sorted(config.items()))


def _tokenizer(vocabulary: Vocabulary, *, lowercase: bool, strip_accents: bool | None) -> dict[str, Any]:
    """Return `tokenizer.json`, key by key in the order that `tokenizers` writes them."""
    ids = vocabulary.ids()
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [_added_token(ids[token], token) for token in sorted(SPECIAL_TOKENS, key=ids.__getitem__)],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": strip_accents,
            "lowercase": lowercase,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": _post_processor(ids),
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": MAX_CHARACTERS_PER_WORD,
            "vocab": ids,
        },
    }


def _added_token(index: int, token: str) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    return {"id": index, "content": token, **flags}


def _post_processor(ids: Mapping[str, int]) -> dict[str, Any]:
    """Return the template `[CLS] A [SEP] B [SEP]`; the second segment, with its `[SEP]`, has token type 1."""
    first = [_special("[CLS]", 0), {"Sequence": {"id": "A", "type_id": 0}}, _special("[SEP]", 0)]
    second = [{"Sequence": {"id": "B", "type_id": 1}}, _special("[SEP]", 1)]
    return {
        "type": "TemplateProcessing",
        "single": first,
        "pair": first + second,
        "special_tokens": {
            token: {"id": token, "ids": [ids[token]], "tokens": [token]} for token in ("[CLS]", "[SEP]")
        },
    }


def _special(token: str, token_type: int) -> dict[str, Any]:
    return {"SpecialToken": {"id": token, "type_id": token_type}}


# Using them

Texts: TypeAlias = list[str] | tuple[str, ...]
Padding: TypeAlias = bool | Literal["longest", "max_length"]

_NO_LIMIT = 2**31
"""transformers writes 1e30 as `model_max_length` where a model has no limit."""


class _Settings(NamedTuple):
    """How one call encodes."""

    padding: Padding = False
    truncation: bool = False
    max_length: int | None = None
    split_special_tokens: bool = False


class ElectraTokenizer:
    """Turns text into the ids of an ELECTRA model, and back.

    It has the names of transformers' class and needs only `tokenizers`::

        tokenizer = ElectraTokenizer.from_pretrained("electra-small/pretraining")
        tokenizer("An example", "and its pair", padding="max_length", max_length=16)

    It may be shared between threads, and pickled.

    Args:
        files: The content of each file by its name, as from `tokenizer_files`; at least `tokenizer.json`.

    Raises:
        VocabularyError: A file is missing or damaged.
    """

    pad_token = "[PAD]"  # noqa: S105 - ruff takes tokens for passwords, here and below
    unk_token = "[UNK]"  # noqa: S105
    cls_token = "[CLS]"  # noqa: S105
    sep_token = "[SEP]"  # noqa: S105
    mask_token = "[MASK]"  # noqa: S105

    def __init__(self, files: Mapping[str, bytes]) -> None:
        self._files = dict(files)
        config = _parse_config(self._files.get(CONFIG_FILE, b"{}"))
        limit = config.get("model_max_length")
        self.model_max_length: int | None = limit if isinstance(limit, int) and limit < _NO_LIMIT else None
        self.do_lower_case: bool | None = config.get("do_lower_case")
        self._backend = _load_backend(self._files)
        self._lock = threading.Lock()  # settings are state of the backend

    @classmethod
    def from_vocabulary(
        cls,
        vocabulary: Vocabulary,
        *,
        lowercase: bool,
        strip_accents: bool | None = None,
        max_length: int = 512,
    ) -> ElectraTokenizer:
        """Build a tokenizer from a vocabulary; the arguments are those of `tokenizer_files`.

        Raises:
            OptionError: Accents are to be stripped without lower-casing.
        """
        files = tokenizer_files(vocabulary, lowercase=lowercase, strip_accents=strip_accents, max_length=max_length)
        return cls(files)

    @classmethod
    def from_pretrained(cls, directory: str | os.PathLike[str]) -> ElectraTokenizer:
        """Load the tokenizer in a directory, as this package or transformers wrote it. Nothing is downloaded.

        Raises:
            VocabularyError: The directory holds no `tokenizer.json`, or a damaged one.
        """
        folder = Path(directory)
        files = {name: _read(folder / name) for name in TOKENIZER_FILES if (folder / name).is_file()}
        if TOKENIZER_FILE not in files:
            raise VocabularyError(
                f"{folder} holds no {TOKENIZER_FILE}",
                hint="name a directory that `save_pretrained` or a conversion wrote. Models on the Hub "
                "are not looked up; for a vocab.txt alone use `ElectraTokenizer.from_vocabulary`",
            )
        return cls(files)

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write the files this tokenizer was made from, unchanged.

        Raises:
            OutputError: The directory or a file cannot be written.
        """
        folder = Path(directory)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            for name, content in self._files.items():
                (folder / name).write_bytes(content)
        except OSError as error:
            raise OutputError(
                f"the tokenizer cannot be written to {folder}: {error.strerror or error}",
                hint="name a directory that can be written",
            ) from error

    def __reduce__(self) -> tuple[type[ElectraTokenizer], tuple[dict[str, bytes]]]:
        return type(self), (self._files,)

    @overload
    def __call__(
        self,
        text: str,
        text_pair: str | None = None,
        *,
        padding: Padding = False,
        truncation: bool = False,
        max_length: int | None = None,
        split_special_tokens: bool = False,
    ) -> dict[str, list[int]]: ...

    @overload
    def __call__(
        self,
        text: Texts,
        text_pair: Texts | None = None,
        *,
        padding: Padding = False,
        truncation: bool = False,
        max_length: int | None = None,
        split_special_tokens: bool = False,
    ) -> dict[str, list[list[int]]]: ...

    def __call__(
        self,
        text: str | Texts,
        text_pair: str | Texts | None = None,
        *,
        padding: Padding = False,
        truncation: bool = False,
        max_length: int | None = None,
        split_special_tokens: bool = False,
    ) -> dict[str, list[int]] | dict[str, list[list[int]]]:
        """Encode a text, a pair of texts, or a batch of either, with `[CLS]` and `[SEP]`.

        Args:
            text: A text, or several.
            text_pair: The second segment of the text, or of each.
            padding: True or `"longest"` pads to the longest of the batch, `"max_length"` to `max_length`.
            truncation: Whether to cut to `max_length`, token by token off the longer segment.
            max_length: Length in tokens, special ones included; by default `model_max_length`.
            split_special_tokens: Whether `[MASK]` and the like are ordinary text, as in Google's code.

        Returns:
            `input_ids`, `token_type_ids` (1 for the second segment and its `[SEP]`) and `attention_mask`
            (1 for tokens, 0 for padding), each a list of numbers, or a list of such lists for a batch.

        Raises:
            OptionError: The arguments contradict each other.
        """
        _check_pairing(text, text_pair)
        settings = _Settings(padding, truncation, max_length, split_special_tokens)
        with self._set_up(settings, special=2 if text_pair is None else 3) as backend:
            if isinstance(text, str):
                return _columns(backend.encode(text, text_pair))
            texts = text if text_pair is None else list(zip(text, text_pair, strict=True))
            rows = [_columns(encoding) for encoding in backend.encode_batch(list(texts))]
        return {name: [row[name] for row in rows] for name in _COLUMNS}

    def encode(
        self,
        text: str,
        text_pair: str | None = None,
        *,
        add_special_tokens: bool = True,
        split_special_tokens: bool = False,
    ) -> list[int]:
        """Return the ids of a text or a pair; without special tokens and split, exactly Google's."""
        with self._set_up(_Settings(split_special_tokens=split_special_tokens)) as backend:
            ids: list[int] = backend.encode(text, text_pair, add_special_tokens=add_special_tokens).ids
        return ids

    def tokenize(self, text: str, *, split_special_tokens: bool = False) -> list[str]:
        """Return the tokens of a text, without `[CLS]` and `[SEP]`."""
        with self._set_up(_Settings(split_special_tokens=split_special_tokens)) as backend:
            tokens: list[str] = backend.encode(text, add_special_tokens=False).tokens
        return tokens

    def decode(self, ids: Sequence[int], *, skip_special_tokens: bool = False) -> str:
        """Join the tokens of ids into text. What normalisation removed does not come back.

        No space is left before `.`, `,`, `!` and `?`, nor around an apostrophe, as transformers does it too.
        """
        text: str = self._backend.decode(list(ids), skip_special_tokens=skip_special_tokens)
        return text.replace(" ' ", "'")  # the rest is the decoder's, which sees one token at a time

    @overload
    def convert_tokens_to_ids(self, tokens: str) -> int: ...

    @overload
    def convert_tokens_to_ids(self, tokens: Texts) -> list[int]: ...

    def convert_tokens_to_ids(self, tokens: str | Texts) -> int | list[int]:
        """Return the id of a token, or of each; that of `[UNK]` where there is no such token."""
        if isinstance(tokens, str):
            index: int | None = self._backend.token_to_id(tokens)
            return self.unk_token_id if index is None else index
        return [self.convert_tokens_to_ids(token) for token in tokens]

    @overload
    def convert_ids_to_tokens(self, ids: int) -> str: ...

    @overload
    def convert_ids_to_tokens(self, ids: Sequence[int]) -> list[str]: ...

    def convert_ids_to_tokens(self, ids: int | Sequence[int]) -> str | list[str]:
        """Return the token of an id, or of each; `[UNK]` where an id has none."""
        if isinstance(ids, int):
            return self._backend.id_to_token(ids) or self.unk_token
        return [self.convert_ids_to_tokens(int(index)) for index in ids]  # int() for elements of arrays

    @property
    def vocab_size(self) -> int:
        """Number of tokens, special ones included. The model may have more embeddings."""
        size: int = self._backend.get_vocab_size()
        return size

    def __len__(self) -> int:
        return self.vocab_size

    @property
    def pad_token_id(self) -> int:
        """The id of `[PAD]`."""
        return self._special_id(self.pad_token)

    @property
    def unk_token_id(self) -> int:
        """The id of `[UNK]`."""
        return self._special_id(self.unk_token)

    @property
    def cls_token_id(self) -> int:
        """The id of `[CLS]`."""
        return self._special_id(self.cls_token)

    @property
    def sep_token_id(self) -> int:
        """The id of `[SEP]`."""
        return self._special_id(self.sep_token)

    @property
    def mask_token_id(self) -> int:
        """The id of `[MASK]`."""
        return self._special_id(self.mask_token)

    @property
    def all_special_ids(self) -> list[int]:
        """The ids of `SPECIAL_TOKENS`, in that order."""
        return [self._special_id(token) for token in SPECIAL_TOKENS]

    def _special_id(self, token: str) -> int:
        index: int = self._backend.token_to_id(token)
        return index

    @contextmanager
    def _set_up(self, settings: _Settings, *, special: int = 0) -> Iterator[Any]:
        """Yield the backend, set for one call, to one thread at a time."""
        length = self._length(settings, special=special)
        with self._lock:
            self._backend.encode_special_tokens = settings.split_special_tokens
            self._backend.no_truncation()
            self._backend.no_padding()
            if settings.truncation:
                self._backend.enable_truncation(length)
            if settings.padding:
                fixed = length if settings.padding == "max_length" else None
                self._backend.enable_padding(pad_id=self.pad_token_id, pad_token=self.pad_token, length=fixed)
            yield self._backend

    def _length(self, settings: _Settings, *, special: int) -> int | None:
        """Return the length to cut or pad to, where the settings need one."""
        if settings.padding not in (False, True, "longest", "max_length"):
            raise OptionError(f"padding is {settings.padding!r}", hint='pass True, False, "longest" or "max_length"')
        if not settings.truncation and settings.padding != "max_length":
            if settings.max_length is not None:
                raise OptionError(
                    f"max_length is {settings.max_length}, but nothing is cut or padded to it",
                    hint='pass truncation=True or padding="max_length" too, or leave max_length out',
                )
            return None
        length = self.model_max_length if settings.max_length is None else settings.max_length
        if length is None:
            raise OptionError("the tokenizer knows no longest input of its model", hint="pass max_length")
        if length < special:
            raise OptionError(
                f"max_length is {length}, but the {special} special tokens alone take {special}",
                hint=f"pass {special + 1} or more",
            )
        return length


ElectraTokenizerFast = ElectraTokenizer
"""The same class: transformers 4 has a slow and a fast one, and scripts import either."""


def _columns(encoding: Any) -> dict[str, list[int]]:
    return {name: list(getattr(encoding, attribute)) for name, attribute in _COLUMNS.items()}


def _check_pairing(text: str | Texts, text_pair: str | Texts | None) -> None:
    """Check that a text has one second segment, and a batch as many as it has texts."""
    if text_pair is None:
        return
    if isinstance(text, str) != isinstance(text_pair, str):
        raise OptionError("text and text_pair must both be a string, or both be lists", hint="pass a pair per text")
    if not isinstance(text, str) and len(text) != len(text_pair):
        raise OptionError(f"there are {len(text)} texts, but {len(text_pair)} pairs", hint="pass a pair per text")


def _parse_config(content: bytes) -> dict[str, Any]:
    try:
        config = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise VocabularyError(f"{CONFIG_FILE} is not JSON: {error}", hint="convert the checkpoint again") from error
    if not isinstance(config, dict):
        raise VocabularyError(f"{CONFIG_FILE} is not a JSON object", hint="convert the checkpoint again")
    return config


def _load_backend(files: Mapping[str, bytes]) -> Any:
    """Return the `tokenizers.Tokenizer` of `tokenizer.json`, once it is known to hold the special tokens."""
    from tokenizers import Tokenizer

    try:
        backend = Tokenizer.from_str(files[TOKENIZER_FILE].decode())
    except Exception as error:  # tokenizers raises nothing narrower
        raise VocabularyError(
            f"{TOKENIZER_FILE} cannot be used: {error}", hint="convert the checkpoint again"
        ) from error
    missing = [token for token in SPECIAL_TOKENS if backend.token_to_id(token) is None]
    if missing:
        raise VocabularyError(
            f"{TOKENIZER_FILE} lacks special tokens of ELECTRA",
            problems=[f"{token} is missing" for token in missing],
        )
    return backend
