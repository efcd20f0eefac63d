"""The model card: its calls run, its figures are those of the verification, and what must be said is said."""

from __future__ import annotations

import ast
import json
import os
import platform
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import ModelCard
from huggingface_hub.repocard import TEMPLATE_MODELCARD_PATH
from markdown_it import MarkdownIt
from msgspec.structs import replace

from electra_convert.errors import ConfigError, OptionError
from electra_convert.formats import FRAMEWORK_NAMES, TARGETS
from electra_convert.mapping import load_mappings
from electra_convert.parity.directories import Directory, RecordedField, find_directories
from electra_convert.parity.report import HeadReport, Status, VerificationReport
from electra_convert.parity.verdict import head_verdict
from electra_convert.parity.verification import Verification, file_hashes, read_verification, write_verification
from electra_convert.report.card import CardMetadata, check_card, render_card, required_words
from electra_convert.report.card_content import cell, code
from electra_convert.report.words import figure, share

REPO = "acme/electra-tiny"
UNPROVEN: tuple[Status, ...] = ("incomplete", "unverified", "audited")
NATIVE = {"discriminator": "pretraining", "generator": "masked_lm"}
HEADS = (
    "base",
    "pretraining",
    "masked_lm",
    "causal_lm",
    "sequence_classification",
    "multiple_choice",
    "token_classification",
    "question_answering",
)
WELL_FORMED = "---\nlicense: mit\n---\n\n"

ReportOf = Callable[[Status], VerificationReport]
Model = Callable[..., Directory]
Verify = Callable[..., Verification]


def directory_at(path: Path) -> Directory:
    """Return the one model in a directory."""
    (directory,) = find_directories(path, load_mappings().inventory)
    return directory


def card_of(directory: Directory, verification: Verification | None, **options: Any) -> str:
    """Return the card of a directory in a repository."""
    return render_card(directory, verification, **{"repo_id": REPO, **options})


def body_of(card: str) -> str:
    """Return what a person reads of a card, without the front matter."""
    return str(ModelCard(card).text)


def programs(card: str) -> list[str]:
    """Return the Python programs of a card."""
    return re.findall(r"^```python\n(.*?)^```$", card, re.DOTALL | re.MULTILINE)


def limits(card: str) -> str:
    """Return the last section of a card."""
    return card.partition("\n## Limits\n")[2]


def tables(card: str) -> list[list[list[str]]]:
    """Return the tables of a card as Markdown has them: each with its rows, each with its cells."""
    found: list[list[list[str]]] = []
    inside = False
    for token in MarkdownIt("commonmark").enable("table").parse(body_of(card)):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in {"td_open", "th_open"}:
            inside = True
        elif token.type == "inline" and inside:
            found[-1][-1].append("".join(child.content for child in token.children or ()))
            inside = False
    return found


@pytest.fixture
def model(converted: Callable[..., Path], tmp_path: Path) -> Model:
    """Copy one converted head, so that a test may change it."""

    def copy(
        head: str = "pretraining", part: str = "discriminator", fixture: str = "electra_tiny", **options: Any
    ) -> Directory:
        target = tmp_path / f"{part}-{head}"
        shutil.copytree(converted(fixture, part, **options) / head, target)
        return directory_at(target)

    return copy


@pytest.fixture
def verify(report_of: ReportOf) -> Verify:
    """Write into a directory what a verification with some verdict says, and read it back."""

    def write(
        directory: Directory,
        status: Status = "proven",
        change: Callable[[HeadReport], HeadReport] = lambda head: head,
        **changes: Any,
    ) -> Verification:
        report = replace(report_of(status), **changes)
        head = change(replace(report.heads[0], directory=directory.path, head=directory.head))
        write_verification(head, report, head_verdict(head, report), file_hashes(directory.path))
        verification = read_verification(directory.path)
        assert verification is not None
        assert verification.status == head.status  # an audit leaves a proof as it is
        return verification

    return write


def test_metadata_that_the_hub_would_refuse() -> None:
    """It is refused before a repository is made: every fault at once, with what was expected."""
    with pytest.raises(OptionError) as error:
        CardMetadata(license="MIT License", language=("", "ko"), tags=(" ",), base_model="a b", datasets=("x/y/z",))
    assert [problem.partition(" is ")[0] for problem in error.value.problems] == [
        "license",
        "language",
        "tags",
        "base_model",
        "datasets",
    ]
    CardMetadata(license="cc-by-nc-4.0", language=("zh-Hans", "multilingual"), base_model="gpt2", datasets=("a/b",))


def test_front_matter(model: Model, verify: Verify) -> None:
    """The Hub reads the license, the languages, the library and the formats; a publisher's tags come last, once."""
    directory = model("masked_lm", part="generator")
    metadata = CardMetadata(
        license="mit", language=("no",), tags=("tiny", "electra"), datasets=("a/b",), base_model="c/d"
    )
    data = ModelCard(card_of(directory, verify(directory), metadata=metadata)).data
    assert data.to_dict() == {
        "base_model": "c/d",
        "datasets": ["a/b"],
        "language": "no",
        "library_name": "transformers",
        "license": "mit",
        "pipeline_tag": "fill-mask",
        "tags": ["electra", "pytorch", "tf", "jax", "electra-convert", "tiny"],
    }


def test_what_nobody_said_is_left_out(model: Model) -> None:
    """Without metadata the front matter holds only what follows from the files; several languages are a list."""
    directory = model()
    data = ModelCard(card_of(directory, None)).data
    assert set(data.to_dict()) == {"library_name", "tags"}
    two = ModelCard(card_of(directory, None, metadata=CardMetadata(language=("ko", "en")))).data
    assert two.language == ["ko", "en"]


@pytest.mark.parametrize(
    ("head", "part", "tag"),
    [
        ("base", "discriminator", "feature-extraction"),
        ("pretraining", "discriminator", None),
        ("masked_lm", "discriminator", None),
        ("masked_lm", "generator", "fill-mask"),
        ("causal_lm", "generator", None),
        ("token_classification", "generator", None),
    ],
)
def test_pipeline(model: Model, head: str, part: str, tag: str | None) -> None:
    """A model is offered for a task only where it was trained for it."""
    assert ModelCard(card_of(model(head, part), None)).data.pipeline_tag == tag


def test_fine_tuned(converted: Callable[..., Path]) -> None:
    """A task's model is offered for it, and the card says what it was tuned on and how its head was constructed."""
    out = converted("finetuned_mnli", "discriminator", heads=("native", "token_classification"), task="mnli")
    card = card_of(directory_at(out / "sequence_classification"), None)
    assert ModelCard(card).data.pipeline_tag == "text-classification"
    assert ["fine-tuned on", "mnli"] in tables(card)[0]
    assert "4 constructed" in card
    assert "gelu(x) - gelu(-x) = x" in limits(card)
    other = card_of(directory_at(out / "token_classification"), None)
    assert ModelCard(other).data.pipeline_tag is None
    assert "gelu(x)" not in other


def test_regression(converted: Callable[..., Path]) -> None:
    """A regressor is not said to classify."""
    out = converted("finetuned_sts", "discriminator", heads=("native",), task="sts")
    card = card_of(directory_at(out / "sequence_classification"), None)
    assert "with a head that gives a text a number" in card
    assert "divides the scores of sts by 5" in limits(card)


def test_figures(model: Model, verify: Verify) -> None:
    """The table holds the figures of every framework at every precision, each in its own cell."""
    directory = model()
    verification = verify(directory)
    heading, *rows = tables(card_of(directory, verification))[-1]
    assert heading == ["framework", "precision", "worst difference", "where", "allowed", "share"]
    assert len(rows) == len(verification.runs) == 6
    for run in verification.runs:
        row = [
            FRAMEWORK_NAMES[run.framework],
            run.precision,
            figure(run.difference),
            run.array,
            figure(run.limit),
            share(run.difference / run.limit),
        ]
        assert row in rows


def test_proven(model: Model, verify: Verify) -> None:
    """A proof is read with what it is given, what was checked, what was reached, and by which versions."""
    directory = model()
    verification = verify(directory)
    card = card_of(directory, verification)
    assert "> ✓ proven, given assumed: num_attention_heads = 4, lowercase = true" in card
    assert "proven, given assumed" in limits(card)
    assert "round trip, PyTorch, TensorFlow and Flax: 199 tensors equal the source bit for bit" in card
    assert "100% of the positions, 100% of the token types and 3.3% of the vocabulary" in card
    assert "at most 3.7e-15 in float64 and 9.5e-07 in float32" in card
    assert "electra-convert 0.1.0, numpy 2.4.6, torch 2.13.0+cpu" in card
    assert "`64 x 2**-24 x scale x depth`" in card
    assert not re.search("untrained|unverified", card)


def test_origin(model: Model, fixtures: Path) -> None:
    """The checkpoint, its step, identity and kind are named, and what every value of the config is known from."""
    directory = model()
    assert directory.record is not None
    facts, config = tables(card_of(directory, None))
    said = dict(row for row in facts if row[0])
    assert said["checkpoint"] == "model.ckpt-30, step 30"
    assert said["SHA-256 of its index"] == directory.record.source.index_sha256
    assert said["what it holds"] == "a discriminator and a generator that share their embeddings"
    assert said["part"] == "discriminator"
    assert said["head"] == "pretraining: native head"
    assert said["tensors"] == f"{len(directory.record.tensors)} copied"
    known = {field: (value, origin) for field, value, origin in config[1:]}
    assert known.keys() == {*directory.record.config, "lowercase"}
    assert known["hidden_size"] == ("64", "electra/embeddings_project/kernel [32, 64]")
    assert known["layer_norm_eps"] == ("1e-12", "assumed")
    assert str(fixtures) not in str(facts + config)


@pytest.mark.parametrize("name", ["electra_small", "30"])
def test_a_name_without_a_step(model: Model, name: str) -> None:
    """A checkpoint whose name does not end in a step is given none."""
    directory = model()
    assert directory.record is not None
    source = replace(directory.record.source, checkpoint=name)
    card = card_of(replace(directory, record=replace(directory.record, source=source)), None)
    assert dict(row for row in tables(card)[0] if row[0])["checkpoint"] == name


def test_a_kind_only_the_users_mappings_know(model: Model) -> None:
    """A kind of checkpoint that the package's mappings lack is shown by its name."""
    directory = model()
    assert directory.record is not None
    source = replace(directory.record.source, topology="of_my_own")
    card = card_of(replace(directory, record=replace(directory.record, source=source)), None)
    assert "| what it holds | `of_my_own` |" in card


def test_assumptions(model: Model, verify: Verify) -> None:
    """What was assumed is listed, and what confirmed it: real text, or the config that the verification was given."""
    directory = model()
    record = directory.record
    assert record is not None
    guessed = {
        field: RecordedField(record.config[field].value, "assumed") for field in ("num_attention_heads", "hidden_act")
    }
    directory = replace(directory, record=replace(record, config=record.config | guessed))
    audited, proven = verify(directory, "audited"), verify(directory)
    for nothing_new in (None, audited, replace(proven, given={"hidden_act": "gelu"})):
        assert "- `hidden_act` = `gelu`\n" in card_of(directory, nothing_new)
    card = card_of(directory, proven)
    assert "- `num_attention_heads` = `4`: 4 heads do best by 5.2 standard errors" in card
    assert "- `hidden_act` = `gelu`: the config file that the verification was given says the same" in card
    assert "- `lowercase` = `true`\n" in card


@pytest.mark.parametrize("head", ["masked_lm", "sequence_classification"])
def test_untrained(model: Model, verify: Verify, head: str) -> None:
    """A head with random parameters is called untrained before anything else, with the modules that hold them."""
    directory = model(head)
    card = card_of(directory, verify(directory))
    alert = re.search(r"^> \*\*untrained\*\*: .*$", card, re.MULTILINE)
    assert alert
    assert alert.start() < card.index("## How to use it")
    for module in {"masked_lm": ("generator.dense",), "sequence_classification": ("classifier.dense",)}[head]:
        assert f"`{module}`" in alert.group()
    assert "`embeddings.word`" not in alert.group()
    assert "untrained" in limits(card)
    assert "with seed 0" in dict(row for row in tables(card)[0] if row[0])["tensors"]


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (None, "it is not known that these files were ever verified, or they have changed since"),
        ("unverified", "all passed, but with loosened gates (float32 x 10)"),
        ("incomplete", "incomplete: not all was run, for flax is not installed"),
        ("audited", "not compared with Google's code, only audited: consistent with itself"),
    ],
)
def test_unverified(model: Model, verify: Verify, status: Status | None, why: str) -> None:
    """What is not proven is called unverified before anything else, with the reason, and never proven."""
    directory = model()
    card = card_of(directory, verify(directory, status) if status else None)
    assert f"> **unverified**: {why}" in card.partition("## How to use it")[0]
    assert "## Proof" not in card
    assert "✓" not in card


def test_loosened_gate(model: Model, verify: Verify) -> None:
    """A gate that was loosened is shown as it was applied."""
    directory = model()
    assert "`64 x 2**-24 x scale x depth, loosened 10 times`" in card_of(directory, verify(directory, "unverified"))


def test_what_was_not_compared(model: Model, verify: Verify) -> None:
    """A framework without figures says why: not installed, left out, the reference, or not run."""

    def rows(verification: Verification) -> dict[tuple[str, str], str]:
        table = tables(card_of(directory, verification))[-1]
        return {(row[0], row[1]): row[2] for row in table if not any(row[3:])}

    directory = model()
    pairs = [("Flax", "float64"), ("Flax", "float32")]
    assert rows(verify(directory, "incomplete")) == dict.fromkeys(pairs, "not installed")
    assert rows(verify(directory, "audited")) == {("PyTorch", "float64"): "the reference"}

    def no_flax(head: HeadReport) -> HeadReport:
        return replace(head, runs=tuple(run for run in head.runs if run.framework != "flax"))

    left_out = verify(directory, change=no_flax, left_out=("flax",), frameworks=("pytorch", "tensorflow"))
    assert rows(left_out) == dict.fromkeys(pairs, "left out")
    assert "Flax: left out of the verification on request" in limits(card_of(directory, left_out))
    assert rows(verify(directory, change=no_flax)) == dict.fromkeys(pairs, "not run")
    nothing = card_of(directory, verify(directory, change=lambda head: replace(head, runs=(), pairs=())))
    assert "Nothing of it was run." in nothing


def test_failed(model: Model, verify: Verify) -> None:
    """A model that failed gets no card."""
    directory = model()

    def failed(head: HeadReport) -> HeadReport:
        return replace(head, status="failed", causes=("a bias is gone",))

    with pytest.raises(OptionError, match="a bias is gone"):
        card_of(directory, verify(directory, "failed", failed))


def test_programs(model: Model) -> None:
    """Every head has a program for each framework that is Python and names the repository and revision."""
    for head in HEADS:
        directory = model(head, "generator" if head == "causal_lm" else "discriminator")
        card = card_of(directory, None, revision="step-30")
        found = programs(card)
        assert len(found) == len(TARGETS) + 1
        for program in found:
            ast.parse(program)
            assert set(re.findall(r'"acme/.*?\)', program)) <= {
                f'"{REPO}", revision="step-30")',
                f'"{REPO}", revision="step-30", use_safetensors=False)',
            }
            assert REPO in program
        assert "use_safetensors=False" in found[1]
        assert "use_safetensors" not in found[0] + found[2] + found[3]


@pytest.mark.parametrize(
    ("head", "classes"),
    [
        ("base", ["ElectraModel", "TFElectraModel", "FlaxElectraModel"]),
        ("pretraining", ["ElectraForPreTraining", "TFElectraForPreTraining", "FlaxElectraForPreTraining"]),
        ("causal_lm", ["ElectraForCausalLM", "TFElectraForMaskedLM", "FlaxElectraForCausalLM"]),
    ],
)
def test_classes(model: Model, head: str, classes: list[str]) -> None:
    """Each program loads the class of its framework; for one that transformers lacks, another that reads the file."""
    card = card_of(model(head), None)
    for name, program in zip(classes, programs(card), strict=False):
        assert f"from transformers import AutoTokenizer, {name}\n" in program
        assert f"model = {name}.from_pretrained(" in program
    assert ("transformers has no `TFElectraForCausalLM`" in limits(card)) == (head == "causal_lm")


def test_some_formats(model: Model) -> None:
    """Only what is there is offered; without a file for PyTorch, TensorFlow needs no argument."""
    directory = model(targets=("tensorflow",))
    card = card_of(directory, None)
    assert re.findall("^### (.*)$", card, re.MULTILINE) == ["TensorFlow", "Without transformers"]
    assert "use_safetensors" not in card
    assert "Flax" not in card.replace("no TensorFlow and no Flax classes", "")
    assert ModelCard(card).data.tags == ["electra", "tf", "electra-convert"]
    pytorch = card_of(replace(directory, formats=("pytorch",)), None)
    assert re.findall("^### (.*)$", pytorch, re.MULTILINE) == ["PyTorch"]
    assert "TensorFlow" not in pytorch


def test_split_formats(converted: Callable[..., Path]) -> None:
    """A directory of one format of several is a repository of that format alone."""
    out = converted("electra_tiny", "discriminator", split_formats=True, heads=("pretraining",))
    card = card_of(directory_at(out / "pretraining" / "tensorflow"), None)
    assert f'TFElectraForPreTraining.from_pretrained("{REPO}")' in card
    assert "### PyTorch" not in card


def test_no_tokenizer(model: Model) -> None:
    """Without a tokenizer none is loaded, and the card says whose to use."""
    card = card_of(model(tokenizer=False), None)
    assert "AutoTokenizer" not in card
    assert "There is no tokenizer here" in limits(card)
    assert f'model = ElectraForPreTraining.from_pretrained("{REPO}")' in card


def test_tokenizer_notes(model: Model) -> None:
    """What was unusual in the vocabulary is a limit, with nothing in it taken for markup."""
    directory = model()
    assert directory.record is not None
    assert directory.record.tokenizer is not None
    tokenizer = replace(directory.record.tokenizer, notes=("'<b>' and '`' are repeated later.",))
    card = card_of(replace(directory, record=replace(directory.record, tokenizer=tokenizer)), None)
    assert r"'\<b>' and '\`' are repeated later." in limits(card)
    assert "100 characters" in limits(card)


def test_cast(model: Model) -> None:
    """Weights of a lower dtype are said to be so."""
    assert "cast to float16" in limits(card_of(model(dtype="float16"), None))


def test_activation(model: Model) -> None:
    """Where transformers uses GELU in place of the model's activation, the card says so; elsewhere it does not."""
    for head in ("masked_lm", "pretraining"):
        directory = model(head)
        assert "GELU" not in card_of(directory, None)
        path = directory.path / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"hidden_act": "relu"}))
        assert ("uses GELU all the same" in limits(card_of(directory, None))) == (head == "masked_lm")


def test_causal(model: Model) -> None:
    """A generator's causal head is not untrained, and was not trained causally."""
    card = card_of(model("causal_lm", "generator"), None)
    assert "not causally" in limits(card)
    assert "untrained" not in card


def test_electric(model: Model) -> None:
    """What the checkpoint's kind has to be known for is a limit."""
    assert "log q" in limits(card_of(model(fixture="electric_tiny"), None))


def test_foreign(model: Model, verify: Verify) -> None:
    """What something else wrote has no origin and no proof, and its calls all the same."""
    directory = model("masked_lm")
    (directory.path / "conversion.json").unlink()
    directory = directory_at(directory.path)
    assert directory.record is None
    card = card_of(directory, verify(directory, "audited"))
    assert "## Where it came from" not in card
    assert "Nothing here says which checkpoint it was made from" in card
    assert "**unverified**" in card
    assert "untrained" not in card
    assert ModelCard(card).data.pipeline_tag == "fill-mask"
    assert len(programs(card)) == 4


def test_nothing_of_this_machine(model: Model, verify: Verify, tmp_path: Path) -> None:
    """The same files in another place give the same card, and neither place nor machine is named in it."""
    directory = model()
    verification = verify(directory)
    card = card_of(directory, verification)
    copy = directory_at(Path(shutil.copytree(directory.path, tmp_path / "elsewhere")))
    assert card_of(copy, read_verification(copy.path)) == card
    for private in (str(tmp_path), str(Path.home()), platform.node(), "x86_64, 2 cores", "elsewhere"):
        assert private not in card


@pytest.mark.parametrize("head", HEADS)
def test_markdown(model: Model, verify: Verify, head: str) -> None:
    """Every table is a table, nothing in it is empty that has a name, and no blank lines pile up."""
    directory = model(head)
    card = card_of(directory, verify(directory))
    assert len(tables(card)) == 3
    assert all(len(row) == len(table[0]) for table in tables(card) for row in table)
    assert "\n\n\n" not in card
    assert not re.search(r"(?<!\[)\bNone\b|[ \t]$|\{\{|<Card", card, re.MULTILINE)
    assert card.endswith(".\n")
    assert card.encode().decode() == card


def test_marks_in_names(model: Model) -> None:
    """Bars, backticks and line breaks in a name neither break a table nor come out as marks."""
    directory = model()
    assert directory.record is not None
    odd = {"hidden_act": RecordedField("a|b`c\nd", "`x` | y")}
    directory = replace(directory, record=replace(directory.record, config=directory.record.config | odd))
    row = next(row for row in tables(card_of(directory, None))[1] if row[0] == "hidden_act")
    assert row == ["hidden_act", "a|b`c d", "`x` | y"]
    assert code("a``b") == "``` a``b ```"
    assert cell("a\nb|c") == r"a b\|c"


def test_template(model: Model, tmp_path: Path) -> None:
    """A user's template has the metadata, the filters, and every variable of a card."""
    template = tmp_path / "mine.md"
    template.write_text(
        "---\n{{ card_data }}\n---\n# {{ name | upper }} {{ license }} {{ tags[0] }} {{ base_model }}\n"
        "{{ status }} {{ snippets[0].code }} {{ source.config[0].field | code }}"
        "{% for limit in limits %}\n* {{ limit }}{% endfor %}\n{{ proof }}\n"
    )
    card = card_of(model(), None, template=template, metadata=CardMetadata(license="mit"))
    assert "# ELECTRA-TINY mit electra None\nunverified from transformers" in card
    assert "`attention_probs_dropout_prob`" in card
    assert card.endswith("None\n")


def test_template_of_huggingface_hub(model: Model, verify: Verify) -> None:
    """A template that was made for `ModelCard.from_template` works."""
    directory = model()
    card = card_of(directory, verify(directory), template=Path(TEMPLATE_MODELCARD_PATH))
    assert ModelCard(card).data.library_name == "transformers"
    assert "# Model Card for" in card


@pytest.mark.parametrize(
    ("text", "line", "why"),
    [
        ("{{ card_data }}\n{{ nmae }}\n", 2, "'nmae' is undefined"),
        ("a\nb\n{% if x %}\n", 3, "Unexpected end of template"),
        ("a\n{{ name.no_such }}\n", 2, "no attribute 'no_such'"),
        ("a\n\n\n{{ 1 / 0 }}\n", 4, "division by zero"),
        ("a\n{{ name + 1 }}\n", 2, "can only concatenate str"),
        ("a\n{% include 'other.md' %}\n", 2, "other.md is another file"),
        ("\n{{ ''.__class__.__mro__ }}\n", 2, "unsafe"),
    ],
)
def test_broken_template(model: Model, tmp_path: Path, text: str, line: int, why: str) -> None:
    """A template that cannot be rendered is one error that names the file, the line and the reason."""
    template = tmp_path / "mine.md"
    (tmp_path / "other.md").write_text("another")
    template.write_text(text)
    with pytest.raises(ConfigError) as caught:
        card_of(model(), None, template=template)
    assert f"{template} cannot be rendered: line {line}: " in caught.value.message
    assert why in caught.value.message
    assert "snippets" in caught.value.hint


def test_no_template(model: Model, tmp_path: Path) -> None:
    """A template that is not there is named; so is one that never ends."""
    directory = model()
    os.mkfifo(tmp_path / "pipe.md")
    for template in (tmp_path / "nowhere.md", tmp_path / "pipe.md", Path("/dev/zero")):
        with pytest.raises(ConfigError, match=f"{template} cannot be rendered"):
            card_of(directory, None, template=template)


@pytest.mark.parametrize("said", ["", "<!-- unverified -->", "<!-- unverified", "reunverified"])
def test_template_that_hides_what_must_be_said(model: Model, tmp_path: Path, said: str) -> None:
    """A template whose card does not say, to people, that a model is unverified is refused by its name."""
    template = tmp_path / "mine.md"
    template.write_text(f"{WELL_FORMED}# A model\n{said}\n")
    with pytest.raises(ConfigError, match=r"mine\.md does not say that the model is unverified"):
        card_of(model(), None, template=template)


def test_required_words(model: Model, verify: Verify) -> None:
    """What is not trained and what is not proven must be said; of a proven native head, nothing."""
    native, untrained = model(), model("masked_lm")
    assert required_words(native, verify(native)) == ()
    assert required_words(native, None) == ("unverified",)
    assert required_words(untrained, verify(untrained)) == ("untrained",)
    assert required_words(untrained, None) == ("untrained", "unverified")
    for status in UNPROVEN:
        assert required_words(native, verify(native, status)) == ("unverified",)


def test_own_card(model: Model) -> None:
    """A card that a person wrote passes with the words in whatever case, and all that are lacking are named at once."""
    directory = model("masked_lm")
    check_card(f"{WELL_FORMED}UNTRAINED and, so far, Unverified.", directory, None)
    with pytest.raises(ConfigError, match=r"README\.md does not say that the model is untrained and unverified"):
        check_card("---\ntags: [untrained, unverified]\n---\n# A model\n", directory, None)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("# unverified\n", "no front matter"),
        ("---\nlicense: mit\n# unverified\n", "no front matter"),
        ("---\nlicense: [mit\n---\nunverified", "does not take"),
        ("---\n- mit\n---\nunverified", "got `array`"),
        ("---\n1: mit\n---\nunverified", "does not take"),
        ("---\nlanguage: no\n---\nunverified", r"got `bool` - at `\$\.language`"),
        ("---\ntags: electra\n---\nunverified", r"at `\$\.tags`"),
        ("---\nlicense: 2\n---\nunverified", r"at `\$\.license`"),
    ],
)
def test_front_matter_that_is_wrong(model: Model, text: str, why: str) -> None:
    """Front matter that is missing, is no YAML, or has types that the Hub does not take is an error."""
    with pytest.raises(ConfigError, match=why):
        check_card(text, model(), None)
