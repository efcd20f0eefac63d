"""From a plan to jobs: what they are called, where they go, which are chosen, and what gets in each other's way."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from electra_convert import ConvertOptions
from electra_convert.batch.jobs import Job, Shard, choose_jobs, plan_jobs, report_on
from electra_convert.errors import OptionError, PlanError
from electra_convert.hub.publication import UploadOptions
from electra_convert.template import fill, placeholders

TARGETS = ["pytorch", "tensorflow", "flax"]
PUBLISHED = {"repo_id": "org/{name}", "allow_unverified": True}
A_JOB = Job(
    id="", name="", step=None, source="", place="", output="", convert=ConvertOptions(), proof=None, upload=None
)


SEEDS = "it must be a whole number from 0 to 2**64 - 1"


def named(*ids: str) -> list[Job]:
    """Return jobs that are called so."""
    return [replace(A_JOB, id=each) for each in ids]


def refusal(plan: Path) -> list[str]:
    """Return the faults of a plan that cannot be carried out."""
    with pytest.raises(PlanError, match=re.escape(f"{plan} cannot be carried out")) as caught:
        plan_jobs(plan)
    return list(caught.value.problems)


class TestTemplates:
    def test_placeholders_are_filled_in(self) -> None:
        """Each name in braces becomes its value, as often as it stands there; doubled braces are braces."""
        values = {"name": "ko", "step": "30", "part": "{name}"}
        assert fill("org/{name}-{step}/{name}", values) == "org/ko-30/ko"
        assert fill("{{{name}}}", values) == "{ko}"
        assert fill("{part}", values) == "{name}"  # a value is no template
        assert fill("", values) == ""
        assert placeholders("{b}-{a}-{b}") == ["b", "a", "b"]

    def test_what_cannot_be_filled_in_is_told_at_once(self) -> None:
        """Unknown placeholders are told with those there are, and with them those that have no value here."""
        with pytest.raises(OptionError) as caught:
            fill("{nam}/{step}/{part}/{head}", {"name": "ko", "step": None, "part": ""} | {"head": "base"})
        assert caught.value.problems == (
            "there is no {nam}: {name}, {step}, {part}, {head}",
            "{step} has no value here",
            "{part} has no value here",
        )

    @pytest.mark.parametrize(
        "template",
        [
            *("{part.__class__}", "{part[0]}", "{part!r}", "{part:>10}", "{part:{name}}", "{}", "{0}", "{ part}"),
            *("{part", "part}", "{", "{a-b}"),
        ],
    )
    def test_a_placeholder_is_a_name_alone(self, template: str) -> None:
        """Attributes, items, conversions, formats, numbers and lone braces are refused: nothing is evaluated."""
        with pytest.raises(OptionError, match="is no template"):
            fill(template, {"part": "generator", "name": "ko"})


class TestExpansion:
    def test_a_pattern_is_a_job_for_each_step(
        self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path]
    ) -> None:
        """What a pattern matches is in the order of steps, 900 before 1000, and named after its directory and step."""
        folder = checkpoint("runs/ko-small", 1000, 900, 20)
        jobs = plan_jobs(write_plan("runs/ko-small/model.ckpt-*"))
        assert [job.id for job in jobs] == ["ko-small/20", "ko-small/900", "ko-small/1000"]
        assert jobs[0].names == {"name": "ko-small", "step": "20"}
        assert [job.source for job in jobs] == [f"{folder}/model.ckpt-{step}" for step in (20, 900, 1000)]

    @pytest.mark.parametrize(
        ("source", "job_id", "output"),
        [
            ("runs/ko-small/model.ckpt-30", "ko-small/30", "out/ko-small/30"),
            ("runs/ko-small/model.ckpt-30.index", "ko-small/30", "out/ko-small/30"),
            ("runs/ko-small", "ko-small/30", "out/ko-small/30"),
            ("runs/ko-small/", "ko-small/30", "out/ko-small/30"),
            ("runs/k*", "ko-small/30", "out/ko-small/30"),
            ("ja-256", "ja-256/30", "out/ja-256/30"),
            ("ja-*", "ja-256/30", "out/ja-256/30"),
            ("released", "released", "out/released"),
            ("packed/ko-small.zip", "ko-small", "out/ko-small"),
            ("packed/*.zip", "ko-small", "out/ko-small"),
        ],
    )
    def test_names_and_outputs(
        self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path], source: str, job_id: str, output: str
    ) -> None:
        """A prefix, a directory or an archive names the job; without a step the default output has no folder for it."""
        folder = checkpoint("runs/ko-small")
        root = folder.parents[1]
        shutil.make_archive(str(root / "packed" / "ko-small"), "zip", folder)
        checkpoint("ja-256")
        for file in checkpoint("released").glob("*"):
            name = file.name.replace("model.ckpt-30", "electra_small")
            file.rename(file.with_name(name))
        (root / "released" / "checkpoint").unlink()
        (job,) = plan_jobs(write_plan(source))
        assert (job.id, job.output, job.fault) == (job_id, str(root / output), "")

    def test_a_name_that_is_given_counts(
        self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path]
    ) -> None:
        """`name` replaces the directory's, in the job's name, its output, and what it publishes."""
        checkpoint("runs/ko-small", 20, 30)
        upload = {**PUBLISHED, "repo_id": "org/{name}-{part}", "revision": "step-{step}"}
        jobs = plan_jobs(write_plan({"source": "runs/ko-small/model.ckpt-*", "name": "kim", "upload": upload}))
        assert [job.id for job in jobs] == ["kim/20", "kim/30"]
        assert [Path(job.output).parts[-2:] for job in jobs] == [("kim", "20"), ("kim", "30")]
        assert [job.places for job in jobs] == [
            (("org/kim-{part}", "step-20"),),
            (("org/kim-{part}", "step-30"),),
        ]

    def test_both_parts_are_two_places(self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path]) -> None:
        """What a job publishes is told in advance, for each of its parts."""
        checkpoint("ko", fixture="electra_tiny")
        (job,) = plan_jobs(
            write_plan({"source": "ko", "part": "both", "upload": {**PUBLISHED, "repo_id": "org/{name}-{part}"}})
        )
        assert job.places == (("org/ko-discriminator", "main"), ("org/ko-generator", "main"))

    def test_paths_are_relative_to_the_plan(
        self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Wherever a plan is named from, its paths are those beside it; `~` and URLs stay what they are."""
        folder = checkpoint("ko")
        root = folder.parent
        plan = write_plan(
            {
                "source": "ko",
                "config": "hparams.json",
                "mappings": "mine",
                "tokenizer": {"vocab": "ko/vocab.txt"},
                "verify": {"text": "text.txt"},
                "upload": {"repo_id": "org/{name}", "card_template": "card.md"},
                "output": "../out/{name}",
            },
            {"source": "ko", "name": "url", "output": "memory://bucket/{name}"},
            {"source": "ko", "name": "home", "output": "~/out"},
        )
        expected = plan_jobs(plan)
        (root / "elsewhere").mkdir()
        for working_directory, name in ((root, "plan.yaml"), (root / "elsewhere", "../plan.yaml")):
            monkeypatch.chdir(working_directory)
            first, url, home = plan_jobs(Path(name))
            assert first.proof
            assert first.upload
            paths = (first.convert.config, first.convert.vocab, first.convert.mappings, first.proof.text)
            assert [path and path.resolve() for path in (*paths, first.proof.mappings, first.upload.mappings)] == [
                *(root / name for name in ("hparams.json", "ko/vocab.txt", "mine", "text.txt", "mine", "mine")),
            ]
            assert first.upload.card_template
            assert first.upload.card_template.resolve() == root / "card.md"
            assert Path(first.output).resolve() == root.parent / "out" / "ko"
            assert (url.output, home.output) == ("memory://bucket/url", str(Path.home() / "out"))
            assert all(Path(job.source).is_absolute() for job in (first, url, home))
        assert len(expected) == 3


class TestImpossible:
    @pytest.mark.parametrize(
        ("source", "job_id"),
        [
            ("runs/none", "none"),
            ("runs/none/model.ckpt-*", "none/model.ckpt-*"),
            ("runs/*/model.ckpt-30", "model.ckpt-30"),
        ],
    )
    def test_a_source_that_is_not_there_is_a_job_that_fails(
        self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path], source: str, job_id: str
    ) -> None:
        """It stops no other job, is named as it would be, and says what is missing."""
        checkpoint("ko")
        first, second = plan_jobs(write_plan(source, "ko"))
        assert (first.id, second.id) == (job_id, "ko/30")
        assert first.fault.startswith(("there is no checkpoint at", "no checkpoint matches"))
        assert source in first.fault
        assert not second.fault

    @pytest.mark.parametrize(("source", "job_id"), [("runs/none/model.ckpt-30", "none/30"), ("none.zip", "none")])
    def test_what_is_named_by_its_path_is_not_looked_for(
        self, write_plan: Callable[..., Path], source: str, job_id: str
    ) -> None:
        """A prefix and an archive are planned whether they are there or not; the job will tell."""
        (job,) = plan_jobs(write_plan(source))
        assert (job.id, job.fault) == (job_id, "")

    def test_several_of_one_name(self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path]) -> None:
        """Sources that are missing may be called alike: they get in nobody's way."""
        checkpoint("ko")
        jobs = plan_jobs(
            write_plan("a/ja/model.ckpt-*", "b/ja/model.ckpt-*", "ko", {"source": "none", "name": "ko/30"})
        )
        assert [bool(job.fault) for job in jobs] == [True, True, False, True]

    def test_one_of_a_pattern(self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path]) -> None:
        """A directory that matches and holds too many checkpoints is one job that fails; the other is planned."""
        checkpoint("runs/a")
        checkpoint("runs/b", 10, 20)
        good, bad = plan_jobs(write_plan("runs/*"))
        assert (good.id, good.fault, bad.id) == ("a/30", "", "b")
        assert "holds 2 checkpoints" in bad.fault


class TestFaults:
    def test_collisions_are_told_at_once(
        self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path]
    ) -> None:
        """Jobs that write to one place, publish as one, or are called alike are told together, with what helps."""
        root = checkpoint("a/ko", 10, 20).parents[1]
        checkpoint("b/ko", 10)
        plan = write_plan(
            {"source": "a/ko/model.ckpt-*", "output": "out/{name}", "upload": PUBLISHED},
            {"source": "b/ko", "output": "./out/b/"},
            {"source": "b/ko", "name": "other", "output": "out/b", "upload": {**PUBLISHED, "repo_id": "org/other"}},
        )
        assert refusal(plan) == [
            f"2 jobs write to {root}/out/ko: tell them apart with {{name}} and {{step}} in output",
            f"2 jobs write to {root}/out/b: tell them apart with {{name}} and {{step}} in output",
            "2 jobs publish org/ko: tell them apart with {name} in repo_id, or {step} in revision",
            "2 jobs are called ko/10: give each a name",
        ]

    def test_repositories_differ_by_branch_or_part(
        self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path]
    ) -> None:
        """Branches of one repository, and parts in repositories of their own, do not collide; a part alone may."""
        checkpoint("ko", 10, 20, fixture="electra_tiny")
        by_branch = {**PUBLISHED, "revision": "step-{step}"}
        assert len(plan_jobs(write_plan({"source": "ko/model.ckpt-*", "part": "generator", "upload": by_branch}))) == 2
        by_part = {**PUBLISHED, "repo_id": "org/{part}"}
        parts = [
            {"source": "ko/model.ckpt-10", "name": part, "part": part, "upload": by_part}
            for part in ("discriminator", "generator")
        ]
        assert len(plan_jobs(write_plan(*parts))) == 2
        both = {"source": "ko/model.ckpt-20", "part": "both", "upload": by_part}
        assert [fault.partition(":")[0] for fault in refusal(write_plan(*parts, both))] == [
            "2 jobs publish org/discriminator",
            "2 jobs publish org/generator",
        ]

    def test_what_contradicts_itself_is_told_before_any_work(
        self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path]
    ) -> None:
        """Options, templates and uploads that cannot be are told for each job, all at once."""
        checkpoint("ko")
        plan = write_plan(
            {"source": "ko", "targets": ["tensorflow"], "dtype": "bfloat16"},
            {"source": "ko", "output": "out/{part}"},
            {"source": "ko", "upload": {"license": "mit", "allow_unverified": True}},
            {"source": "ko", "upload": {**PUBLISHED, "repo_id": "org/{nam}"}},
            {"source": "ko", "upload": {**PUBLISHED, "repo_id": "org/x", "revision": "{step.real}"}},
            {"source": "ko", "upload": {**PUBLISHED, "repo_id": "org/x", "revision": "x", "create_pr": True}},
            {"source": "ko", "seed": 2**64},
            {"source": "ko", "output": "sound"},
        )
        assert [fault.partition(" (")[0] for fault in refusal(plan)] == [
            "jobs[0]: these options do not go together; tensorflow cannot hold bfloat16: float32, float16 can",
            "jobs[1]: 'out/{part}' cannot be filled in; there is no {part}: {name}, {step}",
            "jobs[2]: upload has no repo_id",
            "jobs[3]: 'org/{nam}' cannot be filled in; there is no {nam}: {part}, {head}, {format}, {name}, {step}",
            "jobs[4]: '{step.real}' is no template",
            "jobs[5]: this cannot be published; a pull request is made against main, but the revision is 'x'",
            f"jobs[6]: these options do not go together; seed is {2**64}; {SEEDS}",
        ]

    def test_what_no_run_can_do_is_told_before_any_work(
        self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path]
    ) -> None:
        """What would fail at the end of a job, whatever its checkpoint, is told of all jobs at once."""
        checkpoint("ko", fixture="electra_tiny")
        proven: dict[str, Any] = {"source": "ko", "verify": True}
        several = {**PUBLISHED, "heads": ["base", "pretraining"]}
        plan = write_plan(
            {"source": "ko", "heads": ["pretrainning"]},
            {"source": "ko", "output": "https://host/out"},
            {"source": "ko", "output": "nowhere://host/out"},
            {"source": "ko", "upload": {"repo_id": "org/x"}},
            {**proven, "targets": TARGETS, "verify": {"frameworks": ["pytorch"]}, "upload": {"repo_id": "org/x"}},
            {**proven, "heads": ["base"], "upload": {"repo_id": "org/x", "heads": ["pretraining"]}},
            {"source": "ko", "part": "both", "upload": PUBLISHED},
            {"source": "ko", "heads": "all", "upload": several},
            {"source": "ko", "targets": TARGETS, "split_formats": True, "upload": PUBLISHED},
            {"source": "ko", "upload": {**PUBLISHED, "repo_id": "name"}},
            {"source": "ko", "upload": {**PUBLISHED, "repo_id": "org/a b"}},
        )
        faults = refusal(plan)
        needles = (
            "there is no head 'pretrainning': choose from native, all, base",
            "the output https://host/out cannot be written to",
            "nowhere",
            "the proof has verify: false",
            "the proof has tensorflow and flax left out of it",
            "pretraining would be published, but not converted",
            "tell them apart with {part}",
            "tell them apart with {head}",
            "tell them apart with {format}",
            "'name' does not say whose repository it is",
            "'org/a b' is no name of a repository",
        )
        for number, needle in enumerate(needles):
            assert [fault for fault in faults if fault.startswith(f"jobs[{number}]: ") and needle in fault], needle

    @pytest.mark.parametrize("head", ["pretraining", "sequence_classification", "base"])
    def test_what_the_native_head_is_the_checkpoint_tells(
        self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path], head: str
    ) -> None:
        """A fine-tuned checkpoint's is its task's: no head is refused where the native one is converted."""
        checkpoint("ko", fixture="electra_tiny")
        upload = {**PUBLISHED, "heads": [head]}
        (job,) = plan_jobs(write_plan({"source": "ko", "verify": True, "upload": upload}))
        assert not job.fault

    def test_above_the_plan(self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path]) -> None:
        """A source above the plan is called as its directory is."""
        root = checkpoint("ko").parent
        plan = write_plan("../ko/model.ckpt-*")
        (root / "plans").mkdir()
        plan = plan.rename(root / "plans" / "plan.yaml")
        (job,) = plan_jobs(plan)
        assert (job.id, job.output) == ("ko/30", str(root / "plans" / "out" / "ko" / "30"))
        beside = root / "ko" / "plan.yaml"
        beside.write_text(plan.read_text().replace("../ko/", "./"))
        assert [job.id for job in plan_jobs(beside)] == ["ko/30"]

    def test_a_step_where_there_is_none(self, checkpoint: Callable[..., Path], write_plan: Callable[..., Path]) -> None:
        """An own template with {step} is refused for a checkpoint that has none."""
        folder = checkpoint("ko")
        archive = shutil.make_archive(str(folder), "zip", folder)
        assert refusal(write_plan({"source": archive, "output": "steps/{step}"})) == [
            "jobs[0]: 'steps/{step}' cannot be filled in; {step} has no value here"
        ]


class TestChosen:
    @given(count=st.integers(0, 60), shards=st.integers(1, 70))
    def test_shards_are_a_partition(self, count: int, shards: int) -> None:
        """Each job is in exactly one shard, in order, and no shard has two jobs more than another."""
        jobs = named(*map(str, range(count)))
        found = [choose_jobs(jobs, shard=Shard(index, shards)) for index in range(1, shards + 1)]
        assert sorted((job.id for shard in found for job in shard), key=int) == [job.id for job in jobs]
        assert all([int(job.id) for job in shard] == sorted(int(job.id) for job in shard) for shard in found)
        assert max(map(len, found)) - min(map(len, found)) <= 1

    def test_only(self) -> None:
        """Patterns are compared with whole names, and a job that one of them matches is chosen once."""
        jobs = named("ko/10", "ko/20", "ja/10", "ko-large/10")
        assert [job.id for job in choose_jobs(jobs, only=("ko/*", "*/10"))] == [
            "ko/10",
            "ko/20",
            "ja/10",
            "ko-large/10",
        ]
        assert [job.id for job in choose_jobs(jobs, only=("ko/[1]0",))] == ["ko/10"]
        assert choose_jobs(jobs) == jobs

    def test_only_and_shard_do_not_depend_on_each_other(self) -> None:
        """A job is in the same shard whether others are chosen or not, and a shard without a chosen job is empty."""
        jobs = named("ko/10", "ja/10", "ko/20", "ja/20")
        assert choose_jobs(jobs, shard=Shard(1, 2), only=("ko/*",)) == named("ko/10", "ko/20")
        assert choose_jobs(jobs, shard=Shard(2, 2), only=("ko/*",)) == []

    def test_a_pattern_that_matches_nothing(self) -> None:
        """It is told, with the names that there are: a typing error must not pass as a batch that is done."""
        with pytest.raises(OptionError, match=r"no job is called kp/\* or KO/10") as caught:
            choose_jobs(named("ko/10", "ja/10"), only=("kp/*", "ja/*", "KO/10"))
        assert caught.value.problems == ("ko/10", "ja/10")

    @pytest.mark.parametrize(
        "text", ["0/2", "3/2", "1", "1/", "/2", "1/2/3", "-1/2", "a/b", "1/0", "", " 1/2", "1.0/2"]
    )
    def test_wrong_shard(self, text: str) -> None:
        """A shard is a number from 1 to their count, and their count."""
        with pytest.raises(OptionError, match="expected a number of a shard and their count"):
            Shard.parse(text)
        assert Shard.parse("2/2") == Shard(2, 2)


def test_a_report_tells_no_secret_of_a_url() -> None:
    """A signature, a user name and a password in the URLs of a plan are in no report on its jobs."""
    job = replace(
        A_JOB,
        source="https://someone:hunter2@host/ko.zip?sig=hunter2",
        output="s3://key:hunter2@bucket/ko",
        upload=UploadOptions(repo="org/ko"),
    )
    report = report_on(job, "planned")
    assert (report.source, report.output) == ("https://***@host/ko.zip?***", "s3://***@bucket/ko")


def test_a_missing_source_tells_no_secret_of_its_url(write_plan: Callable[..., Path]) -> None:
    """Nor are they in what a job is called that cannot be done."""
    (job,) = plan_jobs(write_plan("http://127.0.0.1:9/ko/model.ckpt-30.index?sig=hunter2"))
    assert job.fault
    assert "hunter2" not in f"{job.id} {job.name} {job.fault}"
