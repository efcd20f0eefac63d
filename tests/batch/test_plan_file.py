"""Plans: what they say, what is found wrong in them, and the schema that tells editors the same."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import asdict, fields

from electra_convert.batch.plan_file import (
    DEFAULT_OUTPUT,
    BatchPlan,
    JobDefaults,
    JobPlan,
    TokenizerPlan,
    UploadPlan,
    VerifyPlan,
    plan_schema,
    read_plan,
)
from electra_convert.cli import main
from electra_convert.errors import PlanError

VALUES: dict[str, tuple[list[Any], list[Any]]] = {
    "source": (["model.ckpt-*", "https://host/x.zip"], [None, 7, ["a"]]),
    "name": (["ko-small", None], [7, ["a"]]),
    "part": (["generator", "both", None], ["encoder", 1]),
    "heads": ([["base"], "native", "all"], ["base", [1], None, []]),
    "targets": ([["flax", "pytorch"], []], ["flax", ["onnx"]]),
    "config": (["hparams.json", None], [{"hidden_size": 3}]),
    "tokenizer": (
        [True, False, {}, {"vocab": "v.txt", "lowercase": False, "strip_accents": None}],
        ["no", None, {"lowercase": "no"}, {"cased": True}],
    ),
    "task": (["mnli", "reviews=token_classification", None], [1, ["mnli"]]),
    "labels": ([["B", "I"], []], ["B", [1]]),
    "num_labels": ([3, None], [0, -1, "3", True]),
    "label_map": (["chunk_label_mapping.pkl", None], [7]),
    "seed": ([12, 0], [-1, "0", 1.5]),
    "layout": (["shared"], ["one", None]),
    "split_formats": ([True], ["yes", 1]),
    "dtype": (["bfloat16"], ["int8"]),
    "mappings": (["mine", None], [True]),
    "output": (["out/{name}", "gs://bucket/{name}"], [None, 3]),
    "overwrite": ([True], ["true", None]),
    "verify": (
        [True, False, {}, {"frameworks": ["flax"], "text": "t.txt", "budget": 1000}],
        [None, "yes", {"frameworks": ["jax"]}, {"budget": "1e9"}, {"gate": 1}],
    ),
    "upload": (
        [{"repo_id": "org/{name}", "language": ["ko"], "include": ["*.txt"], "private": True}, {}, None],
        ["org/name", {"language": "ko"}, {"repo": "org/{name}"}, {"create_pr": 1}],
    ),
}
"""Of each key of a job: values that may stand there, and some that may not."""
DEFAULT_VALUES = {key: values for key, values in VALUES.items() if key not in {"source", "name"}}
JOB = {"source": "."}
PLAN: dict[str, Any] = {"version": 1, "jobs": [JOB]}
PLANS: list[tuple[Any, bool]] = [
    (PLAN, True),
    ({**PLAN, "defaults": {}}, True),
    ({**PLAN, "jobs": [JOB, JOB]}, True),
    ({**PLAN, "version": 2}, False),
    ({**PLAN, "version": "1"}, False),
    ({"jobs": [JOB]}, False),
    ({"version": 1}, False),
    ({**PLAN, "jobs": []}, False),
    ({**PLAN, "jobs": JOB}, False),
    ({**PLAN, "jobs": [JOB, None]}, False),
    ({**PLAN, "jobs": ["model.ckpt-*"]}, False),
    ({**PLAN, "defaults": None}, False),
    ({**PLAN, "defaults": {"source": "."}}, False),
    ({**PLAN, "defaults": {"name": "ko"}}, False),
    ({**PLAN, "extra": 1}, False),
    ({**PLAN, "jobs": [{"part": "both"}]}, False),
    ({**PLAN, "jobs": [{**JOB, "sources": ["a"]}]}, False),
    ([PLAN], False),
    ("plan", False),
    (None, False),
]
"""Plans, each with whether it is one."""


def read(folder: Path, text: str) -> tuple[JobPlan, ...]:
    """Read a plan with this text."""
    path = folder / "plan.yaml"
    path.write_text(text)
    return read_plan(path)


def refusal(folder: Path, text: str) -> PlanError:
    """Return the error that a plan is refused with."""
    with pytest.raises(PlanError) as caught:
        read(folder, text)
    return caught.value


def is_read(folder: Path, content: Any) -> bool:
    """Say whether a plan is taken."""
    try:
        read(folder, json.dumps(content))  # which is YAML too
    except PlanError:
        return False
    return True


class TestRead:
    def test_a_job_alone_is_enough(self, tmp_path: Path) -> None:
        """A source is all a job must say; the native heads are converted to every format, and proven."""
        (job,) = read(tmp_path, "{version: 1, jobs: [{source: model.ckpt-*}]}")
        assert (job.source, job.heads, job.targets, job.output) == (
            "model.ckpt-*",
            "native",
            ("pytorch", "tensorflow", "flax"),
            DEFAULT_OUTPUT,
        )
        assert (job.verify, job.upload, job.part) == (VerifyPlan(), None, None)

    def test_every_key_is_read(self, tmp_path: Path) -> None:
        """Each key that a job may have comes out as it was written, be it the job's own or a default."""
        content = {key: good[0] for key, (good, _) in VALUES.items()}
        defaults = {key: value for key, value in content.items() if key in DEFAULT_VALUES}
        (own,) = read(tmp_path, yaml.safe_dump({"version": 1, "jobs": [content]}))
        (given_by_default,) = read(
            tmp_path,
            yaml.safe_dump(
                {"version": 1, "defaults": defaults, "jobs": [{"source": content["source"], "name": content["name"]}]}
            ),
        )
        assert own == given_by_default
        empty = asdict(JobPlan(source=""))
        assert not [name for name, value in asdict(own).items() if value == empty[name]]

    def test_defaults_are_merged_key_by_key(self, tmp_path: Path) -> None:
        """A job changes one key of a nested mapping and keeps the others; a value that is no mapping is replaced."""
        first, second = read(
            tmp_path,
            """
            version: 1
            defaults:
              targets: [pytorch, flax]
              tokenizer: {lowercase: false, vocab: a.txt}
              upload: {license: mit, language: [ko, en], private: true}
            jobs:
              - {source: a, upload: {repo_id: org/a, language: [ja]}, tokenizer: {vocab: b.txt}, targets: [flax]}
              - {source: b, upload: {repo_id: org/b, private: false}}
            """,
        )
        assert first.upload == UploadPlan(repo_id="org/a", license="mit", language=("ja",), private=True)
        assert first.tokenizer == TokenizerPlan(lowercase=False, vocab="b.txt")
        assert first.targets == ("flax",)
        assert second.upload == UploadPlan(repo_id="org/b", license="mit", language=("ko", "en"))
        assert second.tokenizer == TokenizerPlan(lowercase=False, vocab="a.txt")

    def test_a_job_may_do_without_a_default(self, tmp_path: Path) -> None:
        """`null` and `false` take a whole mapping of the defaults away."""
        (job,) = read(
            tmp_path,
            """
            version: 1
            defaults: {upload: {repo_id: org/a}, tokenizer: {lowercase: false}, verify: {text: t.txt}, config: c.json}
            jobs: [{source: a, upload: null, tokenizer: false, verify: false, config: null}]
            """,
        )
        assert (job.upload, job.tokenizer, job.verify, job.config) == (None, False, False, None)


class TestFaults:
    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("", ["it is not a mapping with version, defaults and jobs"]),
            ("- source: a", ["it is not a mapping with version, defaults and jobs"]),
            ("jobs: [{source: a}]", ["Object missing required field `version`"]),
            ("{version: 3, jobs: [{source: a}]}", ["Invalid enum value 3 - at `$.version`"]),
            ("version: 1", ["Expected `array`, got `null` - at `$.jobs`"]),
            ("{version: 1, jobs: []}", ["Expected `array` of length >= 1 - at `$.jobs`"]),
            ("{version: 1, job: [], jobs: [{source: a}]}", ["Object contains unknown field `job`"]),
            ("{version: 1, jobs: [{part: both}]}", ["jobs[0]: Object missing required field `source`"]),
            ("{version: 1, jobs: [a]}", ["jobs[0]: Expected `object`, got `str`"]),
            ("{version: 1, jobs: [{source: 2024}]}", ["jobs[0]: Expected `str`, got `int` - at `$.source`"]),
            (
                "{version: 1, jobs: [{source: a}, {source: b, upload: {repo: org/b}}]}",
                ["jobs[1]: Object contains unknown field `repo` - at `$.upload`"],
            ),
            (
                "{version: 1, jobs: [{source: a, targets: [onnx]}]}",
                ["jobs[0]: Invalid enum value 'onnx' - at `$.targets[0]`"],
            ),
            ("{version: 1, defaults: [], jobs: [{source: a}]}", ["defaults: Expected `object`, got `array`"]),
            (
                "{version: 1, defaults: {source: a}, jobs: [{source: a}]}",
                ["defaults: Object contains unknown field `source`"],
            ),
        ],
    )
    def test_what_is_wrong_and_where(self, tmp_path: Path, text: str, told: list[str]) -> None:
        """A fault is told with the part of the plan it is in, and where to look up what may stand there."""
        error = refusal(tmp_path, text)
        assert list(error.problems) == told
        assert error.message == f"{tmp_path / 'plan.yaml'} is no plan of a batch"
        assert "electra-convert batch --schema" in error.hint

    def test_all_at_once(self, tmp_path: Path) -> None:
        """A fault of the defaults, of each job that has one, and of the plan itself are told together."""
        error = refusal(
            tmp_path,
            """
            version: 2
            defaults: {targets: pytorch}
            jobs:
              - {source: a, sed: 1}
              - {source: b}
              - {source: c, num_labels: 0}
              - {part: generator}
            """,
        )
        assert list(error.problems) == [
            "defaults: Expected `array`, got `str` - at `$.targets`",
            "jobs[0]: Object contains unknown field `sed`",
            "jobs[2]: Expected `int` >= 1 - at `$.num_labels`",
            "jobs[3]: Object missing required field `source`",
            "Invalid enum value 2 - at `$.version`",
        ]

    @pytest.mark.parametrize(
        ("text", "told"),
        [
            ("version: 1\njobs:\n- source: a\n  source: b\n", "line 4: the key 'source' stands here a second time"),
            ("version: 1\njobs:\n- &one {source: a}\n- *one\n", "line 4: *one is an alias"),
        ],
    )
    def test_ambiguous(self, tmp_path: Path, text: str, told: str) -> None:
        """A key that stands twice, and an alias, are told with their lines: what counts must be seen at a glance."""
        error = refusal(tmp_path, text)
        assert (error.message, list(error.problems)) == ("plan.yaml is ambiguous", [told])

    def test_unreadable(self, tmp_path: Path) -> None:
        """What is no YAML, no text, or not there is told as one error."""
        assert "plan.yaml cannot be read as YAML" in refusal(tmp_path, "jobs: [").message
        (tmp_path / "plan.yaml").write_bytes(b"\xff\xfe\xfa")
        with pytest.raises(PlanError, match=r"plan\.yaml cannot be read as YAML"):
            read_plan(tmp_path / "plan.yaml")
        with pytest.raises(PlanError, match=r"none\.yaml cannot be read as YAML"):
            read_plan(tmp_path / "none.yaml")


def one_key(good: bool) -> list[dict[str, Any]]:  # noqa: FBT001  # for parametrize
    """Return jobs that have one key beside their source, or another source."""
    return [{**JOB, key: value} for key, values in VALUES.items() for value in values[not good]]


class TestSchema:
    def test_the_command_prints_it(self) -> None:
        """`electra-convert batch --schema` needs no plan, and prints a JSON Schema that tells what each key is."""
        result = CliRunner().invoke(main, ["batch", "--schema"])
        assert result.exit_code == 0, result.stderr
        schema = json.loads(result.stdout)
        assert schema == json.loads(json.dumps(plan_schema()))
        jsonschema.Draft202012Validator.check_schema(schema)
        for struct in (BatchPlan, JobPlan, JobDefaults, TokenizerPlan, VerifyPlan, UploadPlan):
            properties = schema["$defs"][struct.__name__]["properties"]
            assert set(properties) == {field.name for field in fields(struct)}
            assert not [name for name, told in properties.items() if not told.get("description")]

    @pytest.mark.parametrize(
        ("content", "is_plan"),
        [
            *PLANS,
            *(({**PLAN, "jobs": [job]}, True) for job in one_key(good=True)),
            *(({**PLAN, "jobs": [job]}, False) for job in one_key(good=False)),
        ],
    )
    def test_it_says_what_is_read(self, tmp_path: Path, content: Any, is_plan: bool) -> None:  # noqa: FBT001
        """The schema accepts each plan that is read, and refuses each that is not."""
        assert is_read(tmp_path, content) == is_plan
        assert jsonschema.Draft202012Validator(plan_schema()).is_valid(content) == is_plan

    def test_the_plan_of_the_readme(self, tmp_path: Path) -> None:
        """What users copy is a plan, and its jobs have what the defaults say."""
        readme = (Path(__file__).parents[2] / "README.md").read_text()
        (text,) = [
            block for block in re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL) if "\nversion: 1" in f"\n{block}"
        ]
        jsonschema.validate(yaml.safe_load(text), plan_schema())
        plan = tmp_path / "plan.yaml"
        plan.write_text(text)
        uploads = [job.upload for job in read_plan(plan)]
        assert [upload and upload.language for upload in uploads] == [("ko",), ("ja",)]
        assert {upload and upload.repo_id for upload in uploads} == {"my-org/{name}-{part}"}

    def test_every_key_is_among_the_examples(self) -> None:
        """There are examples, good and bad, of each key that a job and the defaults may have."""
        assert set(VALUES) == {field.name for field in fields(JobPlan)}
        assert set(DEFAULT_VALUES) == {field.name for field in fields(JobDefaults)}
        assert all(good and bad for good, bad in VALUES.values())

    @settings(max_examples=150, deadline=None)
    @given(st.data())
    def test_any_mixture(self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
        """The schema agrees with what is read on any mixture of right and wrong defaults and jobs."""
        mixed = {key: st.sampled_from([*good, *good, *good, bad[0]]) for key, (good, bad) in VALUES.items()}
        optional = {key: values for key, values in mixed.items() if key != "source"}
        defaults = {key: values for key, values in mixed.items() if key in DEFAULT_VALUES}
        content = {
            "version": 1,
            "defaults": data.draw(st.fixed_dictionaries({}, optional=defaults)),
            "jobs": data.draw(
                st.lists(st.fixed_dictionaries({"source": st.just(".")}, optional=optional), min_size=1, max_size=3)
            ),
        }
        is_plan = jsonschema.Draft202012Validator(plan_schema()).is_valid(content)
        assert is_read(tmp_path_factory.getbasetemp(), content) == is_plan
