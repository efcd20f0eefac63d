"""What a model card says, in words: the variables of its template.

Only what the files say: no time, path or host is in it, and the same files give the same words.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import product
from typing import TYPE_CHECKING, Any, NamedTuple, get_args

import msgspec

from electra_convert.errors import OptionError
from electra_convert.formats import FRAMEWORK_NAMES, TargetFormat
from electra_convert.mapping import Topology, load_mappings
from electra_convert.models.files import ARCHITECTURES, CONFIG_FILE, read_json
from electra_convert.parity.directories import Directory, Record, RecordedField
from electra_convert.parity.known import SHOWN_BY_OUTPUTS
from electra_convert.parity.report import PRECISIONS, Check, Coverage, Pair, Precision, Status
from electra_convert.parity.verdict import listed
from electra_convert.parity.verification import RunRecord, Verification
from electra_convert.part import ASSUMED, SOURCE_FORMAT
from electra_convert.plan import TensorFate, is_native
from electra_convert.report.calls import FRAMEWORKS, class_name, example, own_example
from electra_convert.report.words import SYMBOLS, figure, gate_rule, percent, plural, share, value
from electra_convert.source import step_of
from electra_convert.tokenizer import TOKENIZER_FILE, VOCABULARY_FILE

if TYPE_CHECKING:
    from huggingface_hub import ModelCardData

GOOGLE = "[google-research/electra](https://github.com/google-research/electra)"
UNTRAINED = "untrained"
UNVERIFIED = "unverified"
NEVER = "it is not known that these files were ever verified, or they have changed since"
TAGS: dict[TargetFormat, str] = {"pytorch": "pytorch", "tensorflow": "tf", "flax": "jax"}
"""What the Hub calls the formats."""
TOKENIZER_FILES = (TOKENIZER_FILE, VOCABULARY_FILE, "spiece.model")
"""Files that say that there is a tokenizer, whoever wrote it."""

GELU_HEADS = {"masked_lm", "causal_lm"}
"""Heads in which transformers uses GELU whatever the model's activation is."""


class Task(NamedTuple):
    """What a head does, and the name the Hub has for that, if it has one."""

    does: str
    pipeline_tag: str | None = None


TASKS = {
    "base": Task("", "feature-extraction"),
    "pretraining": Task("tells which tokens of a text were replaced"),
    "masked_lm": Task("fills in masked tokens", "fill-mask"),
    "causal_lm": Task("predicts the next token"),
    "sequence_classification": Task("classifies texts", "text-classification"),
    "multiple_choice": Task("chooses between answers", "multiple-choice"),
    "token_classification": Task("classifies tokens", "token-classification"),
    "question_answering": Task("finds the answer to a question in a text", "question-answering"),
}


REGRESSION = Task("gives a text a number", TASKS["sequence_classification"].pipeline_tag)
"""What a classification head with one label does."""


class Metadata(NamedTuple):
    """What a field of a card's metadata may be."""

    pattern: re.Pattern[str]
    means: str


METADATA = {
    "license": Metadata(re.compile(r"[a-z0-9][a-z0-9.+-]*"), "an identifier such as apache-2.0"),
    "language": Metadata(re.compile(r"[a-z]{2,3}(-[A-Za-z0-9]+)*|code|multilingual"), "a code such as ko"),
    "tags": Metadata(re.compile(r"\S(.*\S)?"), "a word"),
    "base_model": Metadata(re.compile(r"[\w.-]+(/[\w.-]+)?"), "the name of a model on the Hub: org/name"),
    "datasets": Metadata(re.compile(r"[\w.-]+(/[\w.-]+)?"), "the name of a data set on the Hub: org/name"),
}


class CardMetadata(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What nobody but the publisher knows. Names and meanings are those of the Hub.

    Args:
        license: Identifier of the license: `apache-2.0`.
        language: Codes of the languages it was trained on: `ko`.
        tags: Tags beside those that follow from the files.
        base_model: The model on the Hub it derives from.
        datasets: The data sets on the Hub it was trained on.

    Raises:
        OptionError: The Hub would not take them; all faults are listed.
    """

    license: str | None = None
    language: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()
    base_model: str | None = None
    datasets: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        said = {
            "license": () if self.license is None else (self.license,),
            "language": self.language,
            "tags": self.tags,
            "base_model": () if self.base_model is None else (self.base_model,),
            "datasets": self.datasets,
        }
        problems = [
            f"{field} is {value!r}; expected {METADATA[field].means}"
            for field, values in said.items()
            for value in values
            if not METADATA[field].pattern.fullmatch(value)
        ]
        if problems:
            raise OptionError("the Hub does not take such a card", problems=problems, hint="correct these")


class Snippet(msgspec.Struct, frozen=True, kw_only=True):
    """How a model is loaded and run in one framework.

    Args:
        framework: The framework's name.
        transformers: The versions of transformers that can.
        install: What to install.
        code: The program.
    """

    framework: str
    transformers: str
    install: str
    code: str


class ConfigRow(msgspec.Struct, frozen=True, kw_only=True):
    """A value of the config, and where it is known from.

    Args:
        field: Its name.
        value: The value, spelt.
        origin: What it is known from.
        assumed: Nothing tells it: it was assumed.
        confirmed: What was found about that since; empty if nothing was.
    """

    field: str
    value: str
    origin: str
    assumed: bool
    confirmed: str = ""


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """One framework at one precision; without figures, `outcome` says why.

    Args:
        framework: The framework's name.
        precision: The dtype it computed in.
        outcome: `passed`, or why it was not compared.
        array: The array that came closest to its gate.
        difference: The largest difference in it.
        limit: What the gate allows there.
        share: How much of that it takes.
    """

    framework: str
    precision: Precision
    outcome: str
    array: str = ""
    difference: str = ""
    limit: str = ""
    share: str = ""


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model came from.

    Args:
        facts: What is known of the conversion: what, and its value in Markdown.
        config: Every value of the config.
    """

    facts: tuple[tuple[str, str], ...]
    config: tuple[ConfigRow, ...]


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What a verification found.

    Args:
        comparison: What was compared with what.
        figures: How far each framework is off.
        agreement: How far the frameworks are from one another; empty if only one was run.
        gates: The rule of each gate, in Markdown.
        checks: What was checked without running a model.
        coverage: What the inputs reached; empty if nothing was run.
        versions: What took part.
    """

    comparison: str
    figures: tuple[Figures, ...]
    agreement: str
    gates: tuple[str, ...]
    checks: tuple[str, ...]
    coverage: str
    versions: str


class Card(msgspec.Struct, frozen=True, kw_only=True):
    """The variables of a template; the fields of `CardMetadata` stand beside them.

    Args:
        card_data: The front matter as YAML, under the name that templates of `huggingface_hub` have for it.
        library_name: The library that loads it.
        pipeline_tag: What it can do as it is, as the Hub calls it; none, if it has no name for that.
        repo_id: The repository.
        name: Its name without its owner.
        revision: The revision that is published, if not the main one.
        part: `discriminator` or `generator`; none, if that is not known.
        head: The head.
        architecture: Its class, without a framework's prefix.
        summary: What it is, in a paragraph.
        alerts: What must be read first.
        status: The verdict in a word.
        symbol: The verdict at a glance.
        verdict: The verdict in a sentence.
        snippets: How it is loaded in each framework.
        own_models: How it is loaded in TensorFlow and Flax without transformers; empty if it is for neither.
        source: Where it came from; none, if that is not recorded.
        proof: What was found for it; none, if it was never verified.
        limits: What it is not, and what was not shown.
    """

    card_data: str
    library_name: str
    pipeline_tag: str | None
    repo_id: str
    name: str
    revision: str | None
    part: str | None
    head: str
    architecture: str
    summary: str
    alerts: tuple[str, ...]
    status: str
    symbol: str
    verdict: str
    snippets: tuple[Snippet, ...]
    own_models: str
    source: Source | None
    proof: Proof | None
    limits: tuple[str, ...]


class Subject(NamedTuple):
    """What a card is about.

    Args:
        directory: The directory.
        verification: What was found for it; `None` if it was never verified, or changed since.
        repo_id: The repository it is published in.
        revision: The revision, if it is not the main one.
    """

    directory: Directory
    verification: Verification | None
    repo_id: str
    revision: str | None

    @property
    def record(self) -> Record | None:
        """What its conversion says."""
        return self.directory.record

    @property
    def head(self) -> str:
        """Its head."""
        return self.directory.head

    @property
    def is_regression(self) -> bool:
        """Whether its outputs are numbers, not classes."""
        return self.head == "sequence_classification" and self.record is not None and len(self.record.labels) == 1

    @property
    def activation(self) -> str:
        """Its activation."""
        return str(read_json(self.directory.path / CONFIG_FILE).get("hidden_act", "gelu"))

    @property
    def formats(self) -> str:
        """The frameworks it has weights for."""
        return listed([FRAMEWORK_NAMES[target] for target in self.directory.formats])

    @property
    def has_tokenizer(self) -> bool:
        """Whether there is a tokenizer, whoever wrote it."""
        return any((self.directory.path / name).is_file() for name in TOKENIZER_FILES)


def drawn_modules(directory: Directory) -> list[str]:
    """Return the modules of a model whose parameters no checkpoint supplied."""
    tensors = directory.record.tensors if directory.record else {}
    names = [name for name, tensor in tensors.items() if tensor.fate == "initialised"]
    return list(dict.fromkeys(name.rpartition(".")[0] for name in names))


def front_matter(subject: Subject, metadata: CardMetadata) -> ModelCardData:
    """Return what the Hub reads of a card."""
    from huggingface_hub import ModelCardData

    language = list(metadata.language)
    tags = ["electra", *(TAGS[target] for target in subject.directory.formats), "electra-convert", *metadata.tags]
    as_it_is = subject.record is None or subject.head == "base" or is_native(subject.record.note)
    return ModelCardData(
        license=metadata.license,
        language=language[0] if len(language) == 1 else language or None,
        library_name="transformers",
        pipeline_tag=TASKS[subject.head].pipeline_tag if as_it_is else None,
        tags=tags,
        base_model=metadata.base_model,
        datasets=list(metadata.datasets) or None,
    )


def card_content(subject: Subject, front: ModelCardData) -> Card:
    """Return what people read of a card."""
    record, verification = subject.record, subject.verification
    status: Status = verification.status if verification else "unverified"
    return Card(
        card_data=front.to_yaml(),
        library_name=str(front.library_name),
        pipeline_tag=front.pipeline_tag,
        repo_id=subject.repo_id,
        name=subject.repo_id.rpartition("/")[2],
        revision=subject.revision,
        part=record.part if record else None,
        head=subject.head,
        architecture=ARCHITECTURES[subject.head],
        summary=_summary(subject),
        alerts=tuple(_alerts(subject)),
        status=status,
        symbol=SYMBOLS[status],
        verdict=verification.verdict if verification else f"{UNVERIFIED}: {NEVER}",
        snippets=tuple(_snippets(subject)),
        own_models=_own_models(subject),
        source=_source(record, verification) if record else None,
        proof=_proof(subject.directory, verification) if verification else None,
        limits=tuple(_limits(subject)),
    )


def _summary(subject: Subject) -> str:
    record, task = subject.record, REGRESSION if subject.is_regression else TASKS[subject.head]
    a_head = f"an **{UNTRAINED}** head" if drawn_modules(subject.directory) else "a head"
    head = f"with {a_head} that {task.does}" if task.does else "without a head"
    if record is None:
        return f"An ELECTRA model {head}, in {subject.formats}. Nothing here says which checkpoint it was made from."
    size = {field: each.value for field, each in record.config.items()}
    framework = next((name for target, name in FRAMEWORK_NAMES.items() if target == record.source.format), "")
    origin = f"converted from a model of {framework}" if framework else f"trained with {GOOGLE}, and converted"
    made = f"{origin} to {subject.formats} by electra-convert {record.electra_convert}"
    sizes = (
        f"{plural(size['num_hidden_layers'], 'layer')} of {size['hidden_size']} with "
        f"{plural(size['num_attention_heads'], 'attention head')} each, a vocabulary of {size['vocab_size']:,}"
    )
    longest = plural(size["max_position_embeddings"], "token")
    return f"An ELECTRA {record.part} {head}: {made}. It has {sizes}, and takes up to {longest}."


def _alerts(subject: Subject) -> Iterator[str]:
    """Yield what must be read first, each with its word of `required_words`."""
    verification, record = subject.verification, subject.record
    if record and (drawn := drawn_modules(subject.directory)):
        yield (
            f"**{UNTRAINED}**: the checkpoint has nothing for this head, so {listed([code(name) for name in drawn])} "
            f"{'has' if len(drawn) == 1 else 'have'} random first values (seed {record.options.seed}). Fine-tune the "
            "model before you use what it predicts."
        )
    if verification is None:
        yield f"**{UNVERIFIED}**: {NEVER}."
    elif verification.status == "audited":
        yield f"**{UNVERIFIED}**: not compared with Google's code, only {_prose(verification.verdict)}."
    elif verification.status != "proven":
        yield f"**{UNVERIFIED}**: {_prose(verification.verdict.removeprefix(f'{UNVERIFIED}: '))}."


def _snippets(subject: Subject) -> Iterator[Snippet]:
    formats = subject.directory.formats
    for target in formats:
        yield Snippet(
            framework=FRAMEWORK_NAMES[target],
            transformers=FRAMEWORKS[target].transformers,
            install=FRAMEWORKS[target].install,
            code=example(
                subject.head,
                target,
                subject.repo_id,
                formats=formats,
                tokenizer=subject.has_tokenizer,
                revision=subject.revision,
            ),
        )


def _own_models(subject: Subject) -> str:
    targets = [target for target in subject.directory.formats if target != "pytorch"]
    return own_example(subject.head, targets, subject.repo_id, revision=subject.revision) if targets else ""


def _source(record: Record, verification: Verification | None) -> Source:
    return Source(facts=tuple(_facts(record)), config=tuple(_config(record, verification)))


def _facts(record: Record) -> Iterator[tuple[str, str]]:
    checkpoint = record.source.checkpoint
    step = step_of(checkpoint)
    fates = [tensor.fate for tensor in record.tensors.values()]
    counts = ", ".join(f"{fates.count(fate)} {fate}" for fate in get_args(TensorFate) if fate in fates)
    yield "checkpoint", code(checkpoint) + ("" if step is None else f", step {step:,}")
    hashed = "index" if record.source.index_sha256 else "config and weights"
    yield f"SHA-256 of its {hashed}", code(record.source.identity)
    yield "what it holds", _topology(record).says
    if record.task:
        yield "fine-tuned on", code(record.task.name)
    yield "part", record.part
    yield "head", code(record.head) + (f": {record.note}" if record.note else "")
    yield "tensors", counts + (f" with seed {record.options.seed}" if "initialised" in fates else "")
    yield "dtype", record.options.dtype
    yield "converted by", f"electra-convert {record.electra_convert}"


@cache
def _topologies() -> dict[str, Topology]:
    return load_mappings().formats[SOURCE_FORMAT].topologies


def _topology(record: Record) -> Topology:
    """Return the kind of checkpoint; one that only the user's mappings know has no more than its name."""
    key = record.source.topology
    return _topologies().get(key) or Topology(has=(), parts={}, says=code(key))


def _config(record: Record, verification: Verification | None) -> Iterator[ConfigRow]:
    fields = dict(record.config)
    if record.tokenizer:
        fields["lowercase"] = record.tokenizer.lowercase
        if record.tokenizer.strip_accents is not None:
            fields["strip_accents"] = RecordedField(record.tokenizer.strip_accents, "the options")
    for field, each in fields.items():
        assumed = each.origin == ASSUMED
        says = _confirmed(field, verification) if assumed and verification else ""
        yield ConfigRow(field=field, value=value(each.value), origin=each.origin, assumed=assumed, confirmed=says)


def _confirmed(field: str, verification: Verification) -> str:
    """Say what a verification found about an assumption; nothing, if it had to assume the same."""
    ranking = next((each for each in verification.rankings if each.field == field), None)
    if ranking:
        return _prose(ranking.says)
    if verification.index_sha256 and field in SHOWN_BY_OUTPUTS and field not in verification.given:
        return "the config file that the verification was given says the same"
    return ""


def _proof(directory: Directory, verification: Verification) -> Proof:
    return Proof(
        comparison=_comparison(verification),
        figures=tuple(_figures(directory, verification)),
        agreement=_agreement(verification.pairs),
        gates=tuple(f"{gate.precision} {code(gate_rule(gate))}" for gate in verification.gates),
        checks=tuple(_checks(verification.checks)),
        coverage=_coverage(verification.coverage) if verification.coverage else "",
        versions=", ".join(f"{name} {version}" for name, version in verification.versions.items()),
    )


def _comparison(verification: Verification) -> str:
    if not verification.runs:
        return "Nothing of it was run."
    if not verification.index_sha256:
        return (
            "No checkpoint was known, so the formats were compared with one another only: they agree, which does not "
            "show that they compute what Google's code computes."
        )
    return (
        "These files were run, and compared at the embeddings, at every layer and at the outputs with Google's graph: "
        "a NumPy model that reads the checkpoint's own variables and shares nothing with the conversion."
    )


def _figures(directory: Directory, verification: Verification) -> Iterator[Figures]:
    runs = {(run.framework, run.precision): run for run in verification.runs}
    for target, precision in product(directory.formats, PRECISIONS):
        run, name = runs.get((target, precision)), FRAMEWORK_NAMES[target]
        if run is None or not run.array:
            yield Figures(framework=name, precision=precision, outcome=_absent(target, run, verification))
        else:
            yield Figures(
                framework=name,
                precision=precision,
                outcome=run.outcome,
                array=run.array,
                difference=figure(run.difference),
                limit=figure(run.limit),
                share=share(run.difference / run.limit if run.limit else 0.0),
            )


def _absent(target: TargetFormat, run: RunRecord | None, verification: Verification) -> str:
    """Say why there are no figures."""
    if run is not None:
        return "not installed" if run.outcome == "missing" else "nothing was compared"
    if target in verification.left_out:
        return "left out"
    return "the reference" if verification.status == "audited" else "not run"


def _agreement(pairs: Sequence[Pair]) -> str:
    worst = {
        precision: max((pair.difference for pair in pairs if pair.precision == precision), default=None)
        for precision in PRECISIONS
    }
    says = [f"{figure(most)} in {precision}" for precision, most in worst.items() if most is not None]
    return f"The frameworks differ from one another by at most {listed(says)}." if says else ""


def _checks(checks: Sequence[Check]) -> Iterator[str]:
    """Yield what was checked; formats of which the same is said share a line."""
    formats: dict[tuple[str, str], list[str]] = {}
    for check in checks:
        names = formats.setdefault((check.name, check.says), [])
        names += [FRAMEWORK_NAMES[check.framework]] if check.framework else []
    for (name, says), names in formats.items():
        yield f"{name}{f', {listed(names)}' if names else ''}: {_prose(says)}"


def _coverage(coverage: Coverage) -> str:
    reach = (
        f"{percent(coverage.positions)} of the positions",
        f"{percent(coverage.token_types)} of the token types",
        f"{percent(coverage.vocabulary)} of the vocabulary",
    )
    inputs = f"{plural(len(coverage.probes), 'input')} with {plural(coverage.tokens, 'token')} reached {listed(reach)}"
    return inputs + (f"; {coverage.scaled}" if coverage.scaled else "")


def _limits(subject: Subject) -> Iterator[str]:
    yield from _limits_of_proof(subject.verification)
    yield from _limits_of_model(subject)
    yield from _limits_of_clients(subject)
    yield from _limits_of_tokenizer(subject)


def _limits_of_proof(verification: Verification | None) -> Iterator[str]:
    if verification and verification.status == "proven":
        yield f"{_prose(verification.verdict)}."
        yield "A proof says that the model computes what the checkpoint computes. How good it is was not measured."
    if verification and verification.left_out:
        names = listed([FRAMEWORK_NAMES[target] for target in verification.left_out])
        yield f"{names}: left out of the verification on request, and never run."


def _limits_of_model(subject: Subject) -> Iterator[str]:
    record = subject.record
    if drawn_modules(subject.directory):
        yield f"The head is {UNTRAINED}: what it predicts means nothing before it is fine-tuned."
    if record is None:
        return
    if record.head == "causal_lm" and not drawn_modules(subject.directory):
        yield "The head was trained to fill in masked tokens, not causally: fine-tune it to generate text."
    if record.task and record.head == record.task.head:
        yield from (f"{_prose(note[0].upper() + note[1:])}." for note in record.task.notes if note)
    if record.options.dtype != "float32":
        yield f"The weights were cast to {record.options.dtype}; what is said of them holds for the cast values."
    if note := _topology(record).note:
        yield f"{note[0].upper()}{note[1:]}."


def _limits_of_clients(subject: Subject) -> Iterator[str]:
    formats, architecture = subject.directory.formats, ARCHITECTURES[subject.head]
    if set(formats) != {"pytorch"}:
        yield "transformers 5 has no TensorFlow and no Flax classes."
    if "tensorflow" in formats and (name := class_name(architecture, "tensorflow")) != f"TF{architecture}":
        yield f"transformers has no {code(f'TF{architecture}')}; the TensorFlow file is that of {code(name)}."
    activation = subject.activation
    if activation != "gelu" and subject.head in GELU_HEADS:
        yield (
            f"The model's activation is {code(activation)}. In this head transformers uses GELU all the same, and so "
            "differs from Google's code; the models of electra-convert do not."
        )


def _limits_of_tokenizer(subject: Subject) -> Iterator[str]:
    if not subject.has_tokenizer:
        yield "There is no tokenizer here: make the ids with the one that the model was trained with."
    elif subject.record and (tokenizer := subject.record.tokenizer):
        yield (
            "Words of more than 100 characters are `[UNK]` in transformers 5, and in the slow tokenizer of version 4; "
            "Google's code takes up to 200."
        )
        yield from (f"{_prose(note).rstrip('.')}." for note in tokenizer.notes)


def code(text: Any) -> str:
    """Return text as code in Markdown, whatever characters it has."""
    plain = " ".join(str(text).split())
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", plain)), default=0))
    return f"{fence} {plain} {fence}" if "`" in plain else f"{fence}{plain}{fence}"


def cell(text: Any) -> str:
    """Return Markdown as a cell of a table."""
    return " ".join(str(text).split()).replace("|", r"\|")


def _prose(text: str) -> str:
    """Return text from elsewhere with nothing in it that Markdown takes for a mark."""
    return re.sub(r"([\\`*<])", r"\\\1", " ".join(text.split()))
