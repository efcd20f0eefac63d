"""The command line: what it prints where, what it returns, and what it loads."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_args

import click
import pytest
import yaml
from click.testing import CliRunner, Result

import electra_convert
from electra_convert import ConvertOptions, load_mappings
from electra_convert.cli import main
from electra_convert.cli.arguments import HEADS, NATIVE_HEAD
from electra_convert.formats.sstable import read_table, write_table
from electra_convert.mapping import LAYOUTS
from electra_convert.options import DTYPES, PART_CHOICES, TARGET_CHOICES
from electra_convert.signals import WORDS

MAPPINGS = Path(__file__).parents[1] / "mappings"
FRAMEWORKS = ("torch", "tensorflow", "tf_keras", "keras", "jax", "flax", "transformers")
SLOW = (
    "numpy",
    "h5py",
    "ml_dtypes",
    "tokenizers",
    "huggingface_hub",
    "msgpack",
    "msgspec",
    "yaml",
    "rich",
)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every test in a directory of its own, which is the working directory."""
    monkeypatch.chdir(tmp_path)


def run(*arguments: str | Path) -> Result:
    """Run the command line in this process."""
    return CliRunner().invoke(main, list(map(str, arguments)))


def process(*arguments: str | Path, script: str = "") -> subprocess.CompletedProcess[str]:
    """Run the command line, or a script with arguments, in a process of its own."""
    begin = ["-c", script] if script else ["-m", "electra_convert"]
    return subprocess.run(
        [sys.executable, "-W", "error", *begin, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


def commands(group: click.Group = main, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    """Yield every command with what is typed for it, the groups too."""
    yield path, group
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield (*path, name), command


COMMANDS = dict(commands())


@pytest.fixture
def here(fixtures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory with a checkpoint of one part; it is the working directory."""
    directory = Path(shutil.copytree(fixtures / "electra_tiny_uniform", tmp_path / "electra_toy"))
    monkeypatch.chdir(directory)
    return directory


class TestDefaultCommand:
    def test_in_a_checkpoint_directory_the_part_is_enough(self, here: Path) -> None:
        """`electra-convert --part discriminator` converts the checkpoint that is here, to ./NAME-PART."""
        result = run("--part", "discriminator", "--to", "pytorch")
        assert result.exit_code == 0, result.stderr
        out = here / "electra_toy-discriminator"
        assert sorted(path.name for path in out.iterdir() if path.is_dir()) == sorted(HEADS)
        assert "under electra_toy-discriminator" in result.stdout

    @pytest.mark.usefixtures("here")
    def test_an_option_comes_first_whatever_its_name(self) -> None:
        """`--verify` is no slip of `verify`."""
        result = run("--verify", "--dry-run", "--part", "discriminator")
        assert "a dry run writes nothing that could be verified" in result.stderr

    @pytest.mark.parametrize(("word", "meant"), [("verfy", "verify"), ("uploads", "upload"), ("inspcet", "inspect")])
    def test_a_slip_in_a_command_is_no_checkpoint(self, here: Path, word: str, meant: str) -> None:
        """A word that is nearly a command is told as one, unless files are called so."""
        result = run(word, "out")
        assert result.exit_code == 2
        assert f"there is no command '{word}', and no file of that name. Did you mean '{meant}'?" in result.stderr
        shutil.copytree(here, here / word, ignore=lambda *_: [word])
        assert run(word, "out", "--dry-run").exit_code == 0

    def test_part_may_be_left_out_where_there_is_one(self, here: Path) -> None:
        """With nothing typed at all, the only part of the checkpoint here is converted."""
        result = run()
        assert result.exit_code == 0, result.stderr
        assert (here / "electra_toy-discriminator/pretraining/tf_model.h5").is_file()

    def test_naming_the_command_is_the_same(self, fixtures: Path) -> None:
        """`convert` may be typed or not."""
        arguments = ("--part", "generator", fixtures / "electra_tiny", "--dry-run")
        assert run(*arguments).stdout == run("convert", *arguments).stdout

    def test_source_may_come_first(self, fixtures: Path) -> None:
        """What is no command is a source."""
        result = run(fixtures / "electra_tiny_uniform", "out", "--head", "base", "--to", "flax")
        assert result.exit_code == 0, result.stderr
        assert Path("out/base/flax_model.msgpack").is_file()

    def test_nothing_found_shows_an_example(self) -> None:
        """Where there is no checkpoint, the error shows a call that works."""
        result = run("--part", "discriminator")
        assert result.exit_code == 1
        assert "there is no checkpoint in ." in result.stderr
        assert "electra-convert --part discriminator path/to/electra_small" in result.stderr

    def test_two_parts_are_a_question(self, fixtures: Path) -> None:
        """Without a part, a checkpoint of two asks which; that is wrong usage."""
        result = run(fixtures / "electra_tiny")
        assert result.exit_code == 2
        assert "which part is to be converted?" in result.stderr
        assert not result.stdout


class TestSummary:
    def test_table_ledger_and_calls(self, fixtures: Path) -> None:
        """The summary has the topology, what is assumed, a row for each head, the ledger, and the calls that load."""
        result = run("--part", "discriminator", fixtures / "electra_tiny", "out")
        lines = result.stdout.splitlines()
        assert lines[0] == "model.ckpt-30: a discriminator and a generator that share their embeddings"
        assert any("assumed" in line and "num_attention_heads = 1" in line for line in lines)
        rows = {line.split()[0]: line.split()[1:] for line in lines if line.split() and line.split()[0] in HEADS}
        assert list(rows) == list(HEADS)
        assert rows["pretraining"][:2] == ["59", "140,513"]
        assert rows["masked_lm"][:4] == ["55", "1", "5", "139,032"]
        assert "all 337 tensors of the checkpoint, as the discriminator sees them: 59 used" in result.stdout
        assert '  ElectraForPreTraining.from_pretrained("out/pretraining")' in lines
        assert '  TFElectraForPreTraining.from_pretrained("out/pretraining", use_safetensors=False)' in lines
        assert '  FlaxElectraForPreTraining.from_pretrained("out/pretraining")' in lines
        assert [line.split()[0] for line in result.stderr.splitlines()] == ["writing"]

    def test_split_formats_load_with_no_argument(self, fixtures: Path) -> None:
        """In a directory of its own TensorFlow needs no argument."""
        result = run("--part", "discriminator", fixtures / "electra_tiny", "out", "--split-formats", "--head", "base")
        assert '  TFElectraModel.from_pretrained("out/base/tensorflow")' in result.stdout.splitlines()

    def test_tensorflow_loads_the_causal_head_as_a_masked_one(self, fixtures: Path) -> None:
        """transformers has no TFElectraForCausalLM, so the call that is shown is one that works."""
        result = run(
            "--part", "generator", fixtures / "electra_tiny", "out", "--head", "causal_lm", "--to", "tensorflow"
        )
        assert '  TFElectraForMaskedLM.from_pretrained("out/causal_lm")' in result.stdout.splitlines()

    def test_dry_run_writes_nothing(self, fixtures: Path, tmp_path: Path) -> None:
        """A dry run shows the same and says what it would write."""
        result = run("--part", "both", fixtures / "electra_tiny", "--dry-run")
        assert result.exit_code == 0
        assert re.search(r"Would write [\d.]+ MB in 16 directories under electra_tiny-both", result.stdout)
        assert "generator/masked_lm" in result.stdout
        assert "Load it" not in result.stdout
        assert not list(tmp_path.iterdir())

    def test_completed_set_says_what_was_there(self, fixtures: Path) -> None:
        """Heads of an earlier run are in the table, and not among those that were written."""
        arguments = ("--part", "discriminator", fixtures / "electra_tiny", "out", "--to", "flax", "--head")
        run(*arguments, "base")
        result = run(*arguments, "base,pretraining")
        assert any(line.startswith("base") and "already there" in line for line in result.stdout.splitlines())
        assert "in 1 directory under out" in result.stdout

    @pytest.mark.parametrize("name", ["[/bold]", "[red]", ":cat:", "a b"])
    @pytest.mark.parametrize("extra", [[], ["--dry-run"], ["--json"]])
    def test_paths_are_printed_as_they_are(self, fixtures: Path, name: str, extra: list[str]) -> None:
        """Brackets and colons in a path are no markup."""
        source = fixtures / "electra_tiny_uniform"
        result = run(source, f"{name}/out", "--to", "pytorch", "--head", "base", *extra)
        assert result.exit_code == 0, result.exception
        assert f"{name}/out" in result.stdout


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["nowhere"], "there is no checkpoint at nowhere"),
            (["{fixtures}/electra_tiny_uniform", "--part", "generator"], "this checkpoint has no generator"),
            (["{fixtures}/electra_tiny_uniform", "--step", "7"], "no checkpoint of step 7"),
            (["{fixtures}/electra_tiny_uniform", "--config", "config.json"], "num_attention_heads is 5"),
            (["{fixtures}/electra_tiny_uniform", "occupied"], "occupied/base exists already"),
            (["inspect", "nowhere"], "there is no checkpoint at nowhere"),
            (["mappings", "check", "occupied"], "there is no electra.yaml"),
        ],
    )
    def test_known_errors_return_1(self, fixtures: Path, arguments: list[str], says: str) -> None:
        """A known error is one message on stderr with what to do, and no traceback."""
        Path("config.json").write_text('{"num_attention_heads": 5}')
        Path("occupied/base").mkdir(parents=True)
        result = run(*(argument.format(fixtures=fixtures) for argument in arguments))
        assert result.exit_code == 1
        assert result.stderr.startswith("error: ")
        assert says in result.stderr
        assert "What to do: " in result.stderr
        assert "Traceback" not in result.stderr
        assert not result.stdout

    @pytest.mark.parametrize(
        ("arguments", "says"),
        [
            (["--part", "encoder"], "'encoder' is not one of"),
            (["--head", "base,pooler"], "'pooler': choose from base, pretraining"),
            (["--to", "onnx"], "'onnx': choose from pytorch, tensorflow, flax"),
            (["--to", "pytorch,pytorch"], "a format is named twice"),
            (["--num-labels", "0"], "--num-labels"),
            (["--seed", "-1"], "--seed"),
            (["--config", "nowhere.json"], "does not exist"),
            (["--dtype", "bfloat16"], "tensorflow cannot hold bfloat16"),
            (["--labels", "a,a"], "labels must differ"),
            (["--no-tokenizer", "--cased"], "no tokenizer is to be written"),
            (["--no-such-option"], "--no-such-option"),
            ([""], "it is empty; expected a path"),
            (["source", ""], "it is empty; expected a path"),
            (["one", "two", "three"], "three"),
            (["inspect", "--part", "generator"], "--part"),
            (["mappings", "nonsense"], "nonsense"),
        ],
    )
    def test_wrong_usage_returns_2(self, arguments: list[str], says: str) -> None:
        """What contradicts itself, or is no option, is wrong usage."""
        result = run(*arguments)
        assert result.exit_code == 2
        assert says in result.stderr
        assert "Traceback" not in result.stderr
        assert not result.stdout

    def test_debug_shows_the_traceback(self) -> None:
        """`--debug` shows where an error comes from; without it there is none."""
        plain, debug = process("nowhere"), process("nowhere", "--debug")
        assert (plain.returncode, debug.returncode) == (1, 1)
        assert plain.stderr.startswith("error: there is no checkpoint at nowhere")
        assert "Traceback" not in plain.stderr
        assert "Traceback" in debug.stderr
        assert "electra_convert.errors.CheckpointNotFoundError: there is no checkpoint at nowhere" in debug.stderr

    def test_terminated(self, fixtures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        """A run that a batch system ends leaves neither a half-written head nor the unpacked archive."""
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        monkeypatch.setenv("TMPDIR", str(scratch))
        archive = shutil.make_archive(str(tmp_path / "model"), "zip", fixtures, "electra_tiny_uniform")
        script = """
import os, pathlib, signal, time
from electra_convert.cli import main
from electra_convert.formats import pytorch
write = pytorch.write
def terminated(path, contents, advance, written):
    write(path, contents, advance, written)
    assert os.listdir(os.environ["TMPDIR"])
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(10)
pytorch.write = terminated
main()
"""
        result = process(archive, "out", "--to", "pytorch", script=script)
        assert result.returncode == 128 + signal.SIGTERM
        assert not Path("out").exists()
        assert not list(scratch.iterdir())

    def test_interrupt(self, fixtures: Path) -> None:
        """Ctrl-C in the middle ends with a sentence and 130; what is finished stays, and nothing is half-written."""
        script = """
import os, signal, time
from electra_convert.cli import main
from electra_convert.formats import pytorch
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
write = pytorch.write
def interrupted(path, contents, advance, written):
    write(path, contents, advance, written)
    if "pretraining" in str(path):
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)
pytorch.write = interrupted
main()
"""
        result = process(fixtures / "electra_tiny_uniform", "out", "--to", "pytorch", script=script)
        assert result.returncode == 130
        assert result.stderr.splitlines()[-1] == "interrupted: what was finished stays, nothing is half-written"
        assert [path.name for path in Path("out").iterdir()] == ["base"]


class TestSignals:
    """Real processes, which a signal reaches while they do this or that."""

    @pytest.mark.parametrize("seconds", [0.005, 0.05, 0.1])
    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_whenever_they_come(self, fixtures: Path, number: signal.Signals, seconds: float) -> None:
        """While the command line is loaded, too; a second one at once changes nothing."""
        script = """
import signal
from electra_convert.__main__ import main
from electra_convert.signals import heed_signals
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
heed_signals()
print(flush=True)
main()
"""
        command = [sys.executable, "-c", script, str(fixtures / "electra_tiny_uniform"), "out"]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as begun:
            assert begun.stdout
            begun.stdout.readline()
            for pause in (seconds, 0.001):
                time.sleep(pause)
                begun.send_signal(number)
            _, said = begun.communicate(timeout=20)
        assert begun.returncode == 128 + number, said
        assert "Traceback" not in said
        assert said.endswith(WORDS) == (number == signal.SIGINT)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    def test_while_a_class_is_made(self, number: signal.Signals) -> None:
        """Python before 3.12 makes a `RuntimeError` of what is raised then."""
        script = """
import signal, sys
import electra_convert.signals
from electra_convert.__main__ import main
signal.signal(signal.SIGINT, signal.default_int_handler)
class Name:
    def __set_name__(self, owner, name):
        signal.raise_signal(int(sys.argv[1]))
heed = electra_convert.signals.heed_signals
def heed_signals():
    heed()
    type("Made", (), {"name": Name()})
sys.modules["electra_convert.__main__"].heed_signals = heed_signals
main()
"""
        command = [sys.executable, "-c", script, str(int(number))]
        ended = subprocess.run(command, capture_output=True, text=True, check=False)
        assert ended.returncode == 128 + number, ended.stderr
        assert "Traceback" not in ended.stderr

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
    @pytest.mark.parametrize("times", [1, 2])
    def test_one_that_is_lost_is_sent_again(self, number: signal.Signals, times: int) -> None:
        """In the callback of a weak reference nothing can be raised: Python drops it there, and would a second one."""
        script = """
import signal, sys, threading, time, weakref
from electra_convert.signals import heed_signals, send_again
signal.signal(signal.SIGINT, signal.default_int_handler)
heed_signals()
sys.unraisablehook = send_again
class Timer(threading.Timer):
    def start(self):
        for _ in range(int(sys.argv[2]) - 1):
            signal.raise_signal(int(sys.argv[1]))
            [None for _ in range(9)]
        super().start()
threading.Timer = Timer
class Something: pass
def lose(_):
    signal.raise_signal(int(sys.argv[1]))
    [None for _ in range(9)]
something = Something()
reference = weakref.ref(something, lose)
del something
try:
    time.sleep(10)
finally:
    print("raised")
"""
        result = process(str(int(number)), str(times), script=script)
        assert result.stdout == "raised\n"
        assert result.returncode == (-number if number == signal.SIGINT else 128 + number)


class TestStdout:
    @pytest.mark.parametrize(
        "arguments", [["--help"], ["mappings", "schema"], ["inspect", "{source}"], ["{source}", "out", "--to", "flax"]]
    )
    def test_a_full_disk_is_told(self, fixtures: Path, arguments: list[str]) -> None:
        """What cannot be printed is no bug: one message, 1, and what was written stays."""
        command = [sys.executable, "-m", "electra_convert", *arguments]
        command = [word.format(source=fixtures / "electra_tiny_uniform") for word in command]
        with Path("/dev/full").open("w") as full:
            result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False, timeout=60)
        assert result.returncode == 1
        told = "error: what was to be printed could not be: No space left on device"
        assert result.stderr.splitlines()[-1] == told
        assert "Traceback" not in result.stderr
        assert Path("out").exists() == ("out" in arguments)

    def test_a_reader_that_goes_is_no_error(self, fixtures: Path) -> None:
        """As in `electra-convert inspect | head -1`: no words."""
        command = [sys.executable, "-m", "electra_convert", "inspect", str(fixtures / "electra_tiny")]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as begun:
            assert begun.stdout
            begun.stdout.close()
            assert begun.stderr
            assert not begun.stderr.read()
        assert begun.returncode == 1

    def test_no_name_writes_to_the_terminal(self, fixtures: Path, tmp_path: Path) -> None:
        """What a terminal would obey, in the name of a directory or of a tensor, is escaped."""
        source = Path(shutil.copytree(fixtures / "electra_tiny_uniform", tmp_path / "source"))
        (index,) = source.glob("*.index")
        entries = read_table(index.read_bytes())
        entries[b"\x1b[31m\x07\nred"] = entries.pop(b"global_step")
        index.write_bytes(write_table(dict(sorted(entries.items()))))
        inspected = run("inspect", source)
        assert r"\x1b[31m\x07\nred  " in inspected.stdout
        converted = run(fixtures / "electra_tiny_uniform", "out\n\x1b[31mred", "--to", "flax", "--head", "base")
        assert r"under out\n\x1b[31mred" in converted.stdout
        for result in (inspected, converted):
            assert result.exit_code == 0, result.stderr
            assert not {"\x1b", "\x07"} & {*result.stdout, *result.stderr}
        assert r"unexpected extra argument (\x07)" in process("one", "two", "\x07").stderr


class TestJson:
    def test_conversion(self, fixtures: Path) -> None:
        """`--json` prints the report and nothing else on stdout."""
        result = run("--part", "discriminator", fixtures / "electra_tiny", "out", "--to", "flax", "--json")
        report = json.loads(result.stdout)
        assert report["output"] == "out"
        assert [head["head"] for head in report["heads"]] == list(HEADS)
        assert report["heads"][1]["directory"] == "out/pretraining"
        assert {head["status"] for head in report["heads"]} == {"written"}
        assert report["parts"][0]["assumed"]["num_attention_heads"] == 1
        assert report["options"]["targets"] == ["flax"]

    def test_dry_run(self, fixtures: Path, tmp_path: Path) -> None:
        """A plan is JSON too."""
        result = run("--part", "discriminator", fixtures / "electra_tiny", "--json", "--dry-run")
        report = json.loads(result.stdout)
        assert {head["status"] for head in report["heads"]} == {"planned"}
        assert report["nbytes"] > 10_000_000
        assert not list(tmp_path.iterdir())

    def test_inspection(self, fixtures: Path) -> None:
        """An inspection as JSON has every tensor with its canonical name, or why it has none."""
        report = json.loads(run("inspect", fixtures / "electra_tiny", "--json").stdout)
        assert [part["part"] for part in report["parts"]] == ["discriminator", "generator"]
        tensors = {tensor["name"]: tensor for tensor in report["tensors"]}
        assert len(tensors) == 337
        word = tensors["electra/embeddings/word_embeddings"]
        assert word["shape"] == [600, 32]
        assert word["canonical"] == dict.fromkeys(("discriminator", "generator"), "embeddings.word.table")
        assert tensors["global_step"]["canonical"] == {}
        assert tensors["global_step"]["explanation"] == "ignored: the training step"

    def test_error_leaves_stdout_empty(self) -> None:
        """What reads stdout gets nothing to misread."""
        result = run("nowhere", "--json")
        assert result.exit_code == 1
        assert not result.stdout
        assert result.stderr.startswith("error: ")


class TestInspect:
    def test_names_every_tensor(self, fixtures: Path) -> None:
        """Each tensor has a line with shape, dtype and canonical name, however long it is."""
        result = run("inspect", fixtures / "electra_tiny")
        lines = result.stdout.splitlines()
        assert lines[0] == "model.ckpt-30: a discriminator and a generator that share their embeddings"
        assert lines[1].startswith("337 tensors, 2.16 MB; index sha256 ")
        (line,) = (line for line in lines if line.startswith("generator/encoder/layer_0/output/dense/kernel "))
        assert line.split(maxsplit=4) == [
            *("generator/encoder/layer_0/output/dense/kernel", "[128,", "32]", "float32"),
            "layer.0.ffn.down.kernel (generator)",
        ]
        assert sum("Adam's first moments" in line for line in lines) == 112

    def test_part_that_cannot_be_converted_says_why(self, fixtures: Path, tmp_path: Path) -> None:
        """A fault is shown whole, brackets included, and what is in no mapping is marked."""
        folder = Path(shutil.copytree(MAPPINGS, tmp_path / "mappings"))
        text = (folder / "google_tf1.yaml").read_text()
        (folder / "google_tf1.yaml").write_text(text.replace("}position_embeddings", "}place_embeddings"))
        result = run("inspect", fixtures / "electra_tiny", "--mappings", folder)
        assert result.exit_code == 0
        assert "discriminator cannot be converted" in result.stdout
        missing = "electra/embeddings/place_embeddings [max_position_embeddings, embedding_size] is missing"
        assert missing in " ".join(result.stdout.split())
        (line,) = (
            line for line in result.stdout.splitlines() if line.startswith("electra/embeddings/position_embeddings ")
        )
        assert "in no mapping" in line.lower()

    def test_reads_no_values(self, fixtures: Path, tmp_path: Path) -> None:
        """Damage to the values does not keep the checkpoint from being described."""
        source = Path(shutil.copytree(fixtures / "electra_tiny_uniform", tmp_path / "source"))
        (data,) = source.glob("*.data-*")
        data.write_bytes(bytes(data.stat().st_size))
        assert run("inspect", source).stdout == run("inspect", fixtures / "electra_tiny_uniform").stdout


class TestMappings:
    def test_list(self) -> None:
        """The files are listed with the beginning of their hashes, below the folder they are in."""
        lines = run("mappings", "list").stdout.splitlines()
        assert lines[0] == str(MAPPINGS)
        hashes = load_mappings().hashes
        assert [line.split() for line in lines[1:]] == [[name, "sha256", hashes[name][:16]] for name in sorted(hashes)]

    def test_check(self) -> None:
        """The package's own mappings have no fault."""
        result = run("mappings", "check")
        assert result.exit_code == 0
        assert result.stdout.strip() == "4 formats name all 25 modules of 8 heads: no fault"

    def test_check_lists_every_fault(self, tmp_path: Path) -> None:
        """All faults of a folder come at once, each with file and row."""
        folder = Path(shutil.copytree(MAPPINGS, tmp_path / "mappings"))
        for file in ("pytorch.yaml", "flax.yaml"):
            text = (folder / file).read_text()
            (folder / file).write_text(re.sub(r"  discriminator\.score:.*\n", "", text))
        result = run("mappings", "check", folder)
        assert result.exit_code == 1
        for file in ("pytorch.yaml", "flax.yaml"):
            assert f"  - {file}: discriminator.score " in result.stderr

    def test_schema_accepts_the_shipped_files_and_not_a_wrong_one(self) -> None:
        """The schema is one an editor can use."""
        jsonschema = pytest.importorskip("jsonschema")
        schema = json.loads(run("mappings", "schema").stdout)
        jsonschema.Draft202012Validator.check_schema(schema)
        validator = jsonschema.Draft202012Validator(schema)
        for path in sorted(MAPPINGS.glob("*.yaml")):
            content = yaml.safe_load(path.read_text())
            assert validator.is_valid(content), path.name
            assert not validator.is_valid(content | {"modulse": {}}), path.name
            assert not validator.is_valid(content | {"version": 2}), path.name


class TestHelp:
    @pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
    def test_every_command_and_option_is_documented(self, path: tuple[str, ...]) -> None:
        """Each command says what it does, and each of its options is in its help with a text."""
        command = COMMANDS[path]
        result = run(*path, "--help")
        assert result.exit_code == 0
        assert result.stdout == run(*path, "-h").stdout
        assert command.help
        for parameter in command.params:
            if isinstance(parameter, click.Option):
                assert parameter.help, parameter.name
                for name in (*parameter.opts, *parameter.secondary_opts):
                    assert name in result.stdout

    def test_first_help_shows_the_usual_call(self) -> None:
        """The first thing help shows is the call most users need."""
        text = run("--help").stdout
        assert text.startswith("Usage: electra-convert [convert] --part PART [SOURCE] [OUT]")
        assert "electra-convert --part discriminator electra_small" in text
        assert all(name in text for name in main.commands)

    def test_choices_are_the_librarys(self) -> None:
        """What the command line offers without loading the library is what the library knows."""
        options = {parameter.name: parameter for parameter in main.commands["convert"].params}
        assert list(HEADS) == list(load_mappings().inventory.heads)
        choices = {
            name: tuple(options[name].type.choices)  # type: ignore[attr-defined]
            for name in ("part", "layout", "dtype", "heads", "targets")
        }
        assert choices == {
            "part": PART_CHOICES,
            "layout": LAYOUTS,
            "dtype": DTYPES,
            "heads": (*HEADS, NATIVE_HEAD),
            "targets": TARGET_CHOICES,
        }
        assert get_args(electra_convert.formats.Framework) == electra_convert.formats.FRAMEWORKS

    def test_every_option_of_the_library_can_be_typed(self, fixtures: Path) -> None:
        """Each field of ConvertOptions has an option, and the same default."""
        names = {parameter.name for parameter in main.commands["convert"].params}
        assert names - {"source", "out", "dry_run", "verified", "as_json", "debug"} == set(
            ConvertOptions.__struct_fields__
        )
        result = run(fixtures / "electra_tiny_uniform", "--dry-run", "--json")
        defaults = {field: getattr(ConvertOptions(), field) for field in ConvertOptions.__struct_fields__}
        assert json.loads(result.stdout)["options"] == json.loads(json.dumps(defaults))

    def test_version(self) -> None:
        """`--version` prints name and version."""
        assert run("--version").stdout == f"electra-convert {electra_convert.__version__}\n"


LOADED = """
import sys
from electra_convert.cli import main
try:
    main()
finally:
    print(*(name for name in sys.modules if "." not in name), file=sys.stderr)
"""


class TestWhatIsLoaded:
    def loaded(self, *arguments: str | Path) -> set[str]:
        result = process(*arguments, script=LOADED)
        assert result.returncode == 0, result.stderr
        return set(result.stderr.splitlines()[-1].split())

    @pytest.mark.parametrize(
        "arguments", [["--help"], ["convert", "--help"], ["mappings", "list", "-h"], ["--version"]]
    )
    def test_help_loads_almost_nothing(self, arguments: list[str]) -> None:
        """Help is instant, for neither a framework nor NumPy is loaded."""
        loaded = self.loaded(*arguments)
        assert "click" in loaded
        assert not loaded & {*FRAMEWORKS, *SLOW}

    def test_importing_the_package_loads_nothing(self) -> None:
        """The package itself loads nothing but itself."""
        result = process(script="import electra_convert, sys; print(*sys.modules)")
        loaded = set(result.stdout.split())
        assert "electra_convert" in loaded
        assert not {name.partition(".")[0] for name in loaded} & {*FRAMEWORKS, *SLOW, "click"}

    def test_converting_loads_no_framework(self, fixtures: Path) -> None:
        """Every format is written without its framework."""
        loaded = self.loaded(fixtures / "electra_tiny_uniform", "out")
        assert "numpy" in loaded
        assert not loaded & {*FRAMEWORKS}

    def test_inspecting_loads_no_numpy(self, fixtures: Path) -> None:
        """A checkpoint is described from its index alone, without NumPy."""
        loaded = self.loaded("inspect", fixtures / "electra_tiny")
        assert not loaded & {*FRAMEWORKS, "numpy", "h5py", "tokenizers"}

    @pytest.mark.parametrize("command", [["inspect"], ["--to", "pytorch"]], ids=["inspect", "convert"])
    def test_what_few_runs_need_is_not_loaded(self, fixtures: Path, command: list[str]) -> None:
        """A start takes 0.2 seconds; what archives, pickles and slips of the pen need would add to it."""
        loaded = self.loaded(*command, fixtures / "electra_tiny_uniform")
        assert not loaded & {"tarfile", "zipfile", "pickletools", "difflib", "subprocess", "electra_convert.archive"}


def test_a_bug_is_not_hidden(fixtures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no known error keeps its traceback: it is ours to fix."""

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr("electra_convert.convert.convert_checkpoint", broken)
    assert isinstance(run(fixtures / "electra_tiny_uniform").exception, ZeroDivisionError)


def test_hparams_settle_what_is_assumed(fixtures: Path, hparams: Callable[[str], Path]) -> None:
    """With `--config` the head count is no longer among what is assumed."""
    source = fixtures / "electra_tiny_uniform"
    without = run(source, "--dry-run").stdout
    given = run(source, "--dry-run", "--config", hparams("electra_tiny_uniform")).stdout
    assert "num_attention_heads = 1" in without
    assert "--config" in without
    assert "num_attention_heads" not in given
    assert "--config" not in given
