"""What a verification can tell without any framework: files, configs, usage."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from electra_convert import ConvertOptions, VerifyOptions, cli, convert_checkpoint, verify_output
from electra_convert.errors import (
    CheckpointNotFoundError,
    ConfigError,
    CorruptCheckpointError,
    DiskSpaceError,
    OptionError,
    OutputError,
)
from electra_convert.parity import verify as verify_module
from electra_convert.parity.verdict import verdict
from electra_convert.parity.verification import read_verification

pytest.importorskip("scipy")


@pytest.fixture(autouse=True)
def no_framework(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is installed, wherever these tests run."""
    monkeypatch.setattr(verify_module, "installed", lambda _: False)


@pytest.fixture
def out(converted: Callable[..., Path], tmp_path: Path) -> Path:
    """A conversion that a test may damage."""
    return Path(
        shutil.copytree(converted("electra_tiny", "discriminator", heads=("pretraining", "base")), tmp_path / "out")
    )


def run(*arguments: str | Path) -> Result:
    """Run the command line."""
    return CliRunner().invoke(cli.main, list(map(str, arguments)))


def edit(path: Path, **fields: Any) -> None:
    """Change fields of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def faults(output: Path, head: str = "pretraining") -> list[str]:
    """Verify, and return what the checks of one head found."""
    report = verify_output(output)
    return [fault for each in report.heads if each.head == head for check in each.checks for fault in check.faults]


def test_without_frameworks_the_files_are_checked_and_nothing_is_proven(out: Path) -> None:
    """Every bit is compared; the verdict is incomplete, with what to install."""
    result = run("verify", out)
    assert result.exit_code == 1
    assert "incomplete: not all was run, for pytorch, tensorflow and flax are not installed" in result.stdout
    found = read_verification(out / "pretraining")
    assert found is not None
    assert found.status == "incomplete"
    assert [check.passed for check in found.checks] == [True] * 6
    assert "59 tensors equal the source bit for bit" in found.checks[1].says


def test_a_verification_takes_the_place_of_the_one_before(out: Path) -> None:
    """It can be run again and again, and says the same."""
    verify_output(out)
    before = (out / "base/verification.json").read_bytes()
    verify_output(out)
    assert (out / "base/verification.json").read_bytes() == before


def test_what_cannot_be_written_is_told_before_the_work(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A full disk, with what to do."""
    monkeypatch.setattr(verify_module, "LARGEST_VERIFICATION", 10**18)
    with pytest.raises(DiskSpaceError):
        verify_output(out)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"hidden_act": "relu"}, 'config.json has hidden_act = "relu"; expected "gelu"'),
        ({"layer_norm_eps": 1e-5}, "config.json has layer_norm_eps = 1e-05; expected 1e-12"),
        ({"architectures": ["ElectraModel"]}, "config.json has architectures"),
        ({"pad_token_id": "x"}, 'config.json has pad_token_id = "x"; expected an id of the vocabulary'),
        ({"is_decoder": True}, "config.json has is_decoder = true, which no conversion writes"),
    ],
)
def test_a_config_that_was_changed_is_found(out: Path, change: dict[str, Any], fault: str) -> None:
    """Whatever it says now, and what the conversion understood."""
    edit(out / "pretraining/config.json", **change)
    assert any(found.startswith(fault) for found in faults(out))


def test_a_tokenizer_that_was_changed_is_found(out: Path) -> None:
    """It is built again from its vocabulary."""
    path = out / "pretraining/tokenizer.json"
    path.write_text(path.read_text().replace('"lowercase": true', '"lowercase": false'))
    assert faults(out) == ["tokenizer.json is not what vocab.txt gives"]


def test_a_vocabulary_that_was_changed_is_found(out: Path) -> None:
    """Even if the tokenizer was built again from it, or taken away."""
    path = out / "base/vocab.txt"
    path.write_text(path.read_text().replace("##a\n", "##another\n"))
    assert faults(out, "base")[-1] == "vocab.txt is not the one that was written"
    path.unlink()
    assert faults(out, "base") == ["vocab.txt is gone"]


def test_a_config_that_is_lost_is_found(out: Path) -> None:
    """The directory is known by its record, and is not passed over."""
    (out / "base/config.json").unlink()
    assert any("config.json cannot be read" in found for found in faults(out, "base"))


def test_a_directory_that_changes_while_it_is_verified_is_no_proof(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hashes are those of what was read."""

    def change(report: Any) -> str:
        (out / "base/vocab.txt").write_text("another")
        return verdict(report)

    monkeypatch.setattr(verify_module, "verdict", change)
    with pytest.raises(OutputError, match="changed while it was verified"):
        verify_output(out)


def test_a_file_that_is_damaged_is_found(out: Path) -> None:
    """A truncated file is a fault of its format; the others are checked."""
    path = out / "pretraining/flax_model.msgpack"
    path.write_bytes(path.read_bytes()[:-100])
    (fault,) = faults(out)
    assert "flax_model.msgpack is no tree of Flax parameters, or a damaged one" in fault
    assert faults(out, "base") == []


def test_a_source_that_is_damaged_is_found(out: Path, fixtures: Path, tmp_path: Path) -> None:
    """Its checksums are compared, even where the index is the same."""
    source = shutil.copytree(fixtures / "electra_tiny", tmp_path / "source")
    data = source / "model.ckpt-30.data-00000-of-00001"
    content = bytearray(data.read_bytes())
    content[len(content) // 2 :] = bytes(len(content) - len(content) // 2)
    data.write_bytes(content)
    report = verify_output(out, VerifyOptions(source=source))
    assert report.status == "failed"
    assert any("differ from their checksums" in fault for fault in report.heads[0].checks[0].faults)


def test_a_source_that_is_there_and_cannot_be_read_is_an_error(
    fixtures: Path, hparams: Callable[[str], Path], tmp_path: Path
) -> None:
    """Who waits for a proof is not told that all is well by an audit; one that is gone leaves no more than that."""
    source = Path(shutil.copytree(fixtures / "electra_tiny", tmp_path / "source"))
    options = ConvertOptions(part="discriminator", heads=("base",), config=hparams("electra_tiny"))
    convert_checkpoint(source, tmp_path / "out", options)
    index = source / "model.ckpt-30.index"
    index.write_bytes(index.read_bytes()[:100])
    with pytest.raises(CorruptCheckpointError):
        verify_output(tmp_path / "out")
    shutil.rmtree(source)
    report = verify_output(tmp_path / "out")
    assert any("not where it was" in note for note in report.notes)


class TestUsage:
    def test_something_must_be_named(self) -> None:
        """Exit code 2, as for every wrong usage."""
        result = run("verify")
        assert result.exit_code == 2
        assert "nothing is named" in result.stderr

    @pytest.mark.parametrize(
        "arguments", [("--loosen", "float32"), ("--loosen", "float16=3"), ("--loosen", "float32=0.5")]
    )
    def test_a_gate_is_loosened_by_a_factor(self, out: Path, arguments: tuple[str, str]) -> None:
        """Of more than 1, and only those there are."""
        assert run("verify", out, *arguments).exit_code == 2

    def test_every_option_of_the_library_can_be_typed(self) -> None:
        """Each field of VerifyOptions has an option."""
        names = {parameter.name for parameter in cli.main.commands["verify"].params}
        own = {"output", "testing", "junit", "html", "as_json", "debug", "loosen", "github"}
        assert names - own == set(VerifyOptions.__struct_fields__) - {"loosened"}

    def test_all_contradictions_are_listed(self) -> None:
        """In one error."""
        with pytest.raises(OptionError) as raised:
            VerifyOptions(step=3, budget=-1, loosened={"float32": 0.0})
        assert len(raised.value.problems) == 3

    def test_a_directory_without_a_model(self, tmp_path: Path) -> None:
        """The message says what was looked for, and where."""
        with pytest.raises(CheckpointNotFoundError, match=r"no config\.json there, nor in 3 levels below"):
            verify_output(tmp_path)

    def test_a_framework_that_has_no_file(self, converted: Callable[..., Path]) -> None:
        """Nothing would be run."""
        output = converted("electra_tiny", "discriminator", heads=("base",), targets=("flax",))
        with pytest.raises(OptionError, match="there are no weights for pytorch: the output holds flax"):
            verify_output(output, VerifyOptions(frameworks=("pytorch",)))

    def test_weights_that_are_lost(self, out: Path) -> None:
        """The record says that they were written."""
        (out / "base/tf_model.h5").unlink()
        with pytest.raises(CorruptCheckpointError, match="has lost its weights for tensorflow"):
            verify_output(out)

    @pytest.mark.parametrize("content", ["[]", "{", '{"part": "generator"}'])
    def test_a_record_that_is_none(self, out: Path, content: str) -> None:
        """It cannot be read as one; the message says what to do."""
        (out / "base/conversion.json").write_text(content)
        with pytest.raises(ConfigError, match=r"conversion\.json"):
            verify_output(out)

    def test_outputs_of_several_sources(self, converted: Callable[..., Path], tmp_path: Path) -> None:
        """They are verified one at a time."""
        for name in ("electra_tiny", "electra_tiny_proj"):
            shutil.copytree(converted(name, "discriminator", heads=("base",)), tmp_path / "out" / name)
        with pytest.raises(OptionError, match="these directories come from several sources"):
            verify_output(tmp_path / "out")

    @pytest.mark.parametrize("field", ["num_attention_heads", "layer_norm_eps"])
    def test_a_record_of_no_model(self, out: Path, field: str) -> None:
        """A value of the wrong type is told, with the file."""
        path = out / "base/conversion.json"
        config = json.loads(path.read_text())["config"]
        edit(path, config=config | {field: {"value": "4", "from": "x"}})
        with pytest.raises(ConfigError, match=r"conversion\.json describes no model"):
            verify_output(out)

    def test_a_head_that_there_is_not(self, out: Path) -> None:
        """A record must name one of the inventory's."""
        edit(out / "base/conversion.json", head="nope")
        with pytest.raises(ConfigError, match="names the head 'nope'"):
            verify_output(out)

    def test_a_text_without_a_checkpoint(self, out: Path, tmp_path: Path) -> None:
        """An audit has no use for it, and says so."""
        (out / ".electra-convert.json").unlink()
        (tmp_path / "text").write_text("text")
        result = run("verify", out, "--text", tmp_path / "text")
        assert result.exit_code == 2
        assert "none is known here" in result.stderr

    def test_a_generator_of_what_has_none(self, out: Path, fixtures: Path) -> None:
        """Only a checkpoint for Google's code is made of two sources."""
        result = run("verify", out, "--generator", fixtures / "electra_tiny")
        assert result.exit_code == 2
        assert "is no checkpoint for Google's code, which alone has two sources" in result.stderr

    def test_a_text_for_a_checkpoint_for_googles_code(self, fixtures: Path, tmp_path: Path) -> None:
        """It is tried on models: that it was not is told, not passed over."""
        options = ConvertOptions(part="both", targets=("google_tf1",))
        convert_checkpoint(fixtures / "electra_tiny", tmp_path / "out", options)
        (tmp_path / "text").write_text("text")
        result = run("verify", tmp_path / "out", "--source", fixtures / "electra_tiny", "--text", tmp_path / "text")
        assert result.exit_code == 2
        assert "a text is tried on models" in result.stderr

    def test_a_text_that_is_none(self, out: Path, tmp_path: Path) -> None:
        """Bytes that are not UTF-8 are told, whatever else is found; so are pipes and devices, which never end."""
        (tmp_path / "text").write_bytes(b"\xff\xfe")
        os.mkfifo(tmp_path / "pipe")
        for text in (tmp_path / "text", tmp_path / "pipe", Path("/dev/zero")):
            with pytest.raises(OptionError, match=f"{text} is not a text that can be read"):
                verify_output(out, VerifyOptions(text=text))
