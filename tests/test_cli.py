"""The command line as a whole: instant help, the examples of the help texts, exit codes, the page."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from marl_sale_cli import _docs
from marl_sale_cli.app import app
from typer.main import get_command
from typer.testing import CliRunner, Result

import marl_sale
from marl_sale.artifacts.reader import Artifact
from marl_sale.config.recipe import load_recipe

cli = CliRunner()
HEAVY = {"torch", "numpy", "pandas", "matplotlib", "lbforaging", "marl_sale.stages.result"}


def commands() -> dict[str, Any]:
    """Every command by its words, groups included."""

    def walk(words: str, command: Any) -> dict[str, Any]:
        found = {words: command}
        for name, child in getattr(command, "commands", {}).items():
            found |= walk(f"{words} {name}".strip(), child)
        return found

    return walk("", get_command(app))


def examples() -> dict[str, str]:
    """The example of each command's help."""
    lines = {words: str(command.help).splitlines() for words, command in commands().items()}
    return {w: x.strip()[9:] for w, all_ in lines.items() for x in all_ if x.strip().startswith("Example: ")}


def run(*arguments: str) -> Result:
    return cli.invoke(app, list(arguments))


@pytest.mark.parametrize("words", list(commands()))
def test_help_imports_nothing_heavy(words: str) -> None:
    code = (
        "import sys, marl_sale_cli.app as a\n"
        f"try: a.app({[*words.split(), '--help']!r})\n"
        f"except SystemExit: pass\n"
        f"print(*({HEAVY!r} & set(sys.modules)), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage:" in done.stdout
    assert done.stderr.split() == []


def test_help_is_instant() -> None:
    """Less than half a second of CPU: what others compute meanwhile does not count."""
    import resource

    def used() -> float:
        usage = resource.getrusage(resource.RUSAGE_CHILDREN)
        return usage.ru_utime + usage.ru_stime

    seconds = []
    for _ in range(3):
        before, began = used(), time.perf_counter()
        subprocess.run([sys.executable, "-m", "marl_sale_cli", "--help"], capture_output=True, check=True)
        seconds.append(min(used() - before, time.perf_counter() - began))
    assert min(seconds) < 0.5


def test_every_command_says_what_it_reads_and_writes_and_has_an_example() -> None:
    for words, command in commands().items():
        if getattr(command, "commands", None) is None:
            assert "Reads:" in command.help, words
            assert "Writes:" in command.help, words
            assert examples()[words].startswith(f"marl-sale {words}"), words


@pytest.mark.pipeline
def test_the_examples_of_the_help_texts_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the order of the commands: each finds what the one before wrote."""
    monkeypatch.chdir(tmp_path)
    for words, example in examples().items():
        monkeypatch.setattr(sys, "argv", example.split())
        done = run(*example.split()[1:])
        expected = 3 if words == "runs diverged" else 0  # no example of ours diverges
        assert done.exit_code == expected, (example, done.stderr)
        if words in ("pretrain-wm", "train", "eval", "plot"):
            out = Path(done.stdout.strip())
            assert str(out) == example.split("--out ")[1]
            assert Artifact.open(out, kind=_KINDS[words]).verify() == []
            assert (out / "command.txt").read_text().strip() == example


_KINDS = {"pretrain-wm": "world-model", "train": "agent", "eval": "evaluation", "plot": "report"}


@pytest.mark.pipeline
def test_the_commands_agree_on_default_folders_and_dry_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["tiny/match+tiny+qmix", "--set", "train.env_steps=400", "--set", "evaluation.period=100"]
    folder = load_recipe(options[0], options[2::2]).fingerprint[:8]

    planned = json.loads(run("train", *options, "--seed", "4", "--dry-run", "--json").stdout)
    assert planned["status"] == "dry-run"
    assert planned["artifact"] == f"results/tiny/match+tiny+qmix/train/seed4-{folder}"
    assert planned["metrics"]["expected_seconds"] is None
    assert not list(tmp_path.iterdir())

    trained = json.loads(run("train", *options, "--seed", "4", "--tensorboard", "--json").stdout)
    agent = Path(trained["artifact"])
    assert trained["artifact"] == planned["artifact"]
    assert planned["manifest_sha256"] is None
    for expected, code in ((trained["manifest_sha256"], 0), ("0" * 64, 3)):
        checked = run("runs", "verify", str(agent), "--expect-sha256", expected)
        assert checked.exit_code == code, checked.stderr
    wrong = ["--expect-sha256", "0" * 64]
    for command, code in (
        (["eval", str(agent), *wrong], 3),
        (["eval", options[0], "--random", *wrong], 2),
        (["eval", ""], 2),
        (["train", *options, "--seed", "6", *wrong], 2),
        (["train", "tiny/match+tiny", "--world-model", str(agent), *wrong], 3),
        (["pretrain-wm", "tiny/match+tiny", "--policy", str(agent), *wrong], 3),
        (["pretrain-wm", "tiny/match+tiny", *wrong], 2),
    ):
        refused = run(*command)
        assert (refused.exit_code, refused.stdout) == (code, ""), (command, refused.stderr)
    assert Artifact.open(agent, kind="agent").verify() == []
    assert list((agent / "tensorboard").iterdir())
    figures, plan = trained["metrics"], planned["metrics"]
    assert plan["env_steps"] <= figures["env_steps"]
    assert plan["updates_at_least"] <= figures["updates"]
    assert plan["evaluations"] == len(Artifact.open(agent, kind="agent").rows("metrics/evaluation"))

    again = json.loads(run("train", *options, "--seed", "5", "--dry-run", "--json").stdout)
    assert again["metrics"]["expected_seconds"] == pytest.approx(figures["seconds"], rel=0.1)
    for resume in ([], ["--resume"]):
        refused = run("train", *options, "--seed", "4", "--dry-run", *resume)
        assert (refused.exit_code, refused.stdout) == (4, "")

    best = Artifact.open(agent, kind="agent").checkpoint("best").step
    name = f"seed4-{folder}-{Artifact.open(agent, kind='agent').manifest.id[6:]}-{best}steps-4episodes"
    planned = json.loads(run("eval", str(agent), "--checkpoint", "best", "--dry-run", "--json").stdout)
    evaluated = run("eval", str(agent), "--checkpoint", "best", "--quiet")
    assert evaluated.stdout == f"results/tiny/match+tiny+qmix/eval/{name}\n"
    assert planned["artifact"] == evaluated.stdout.strip()
    assert evaluated.stderr == ""
    first = run("plot", "results")
    assert first.stdout.startswith("results/plots/")
    same = [(["eval", str(agent), "--checkpoint", "best"], "evaluation"), (["plot", "results"], "report")]
    for again, kind in same:
        refused = run(*again)
        assert refused.exit_code == 4
        assert f"this {kind} was made before ({kind}-" in refused.stderr
        assert "complete); nothing in it was touched" in refused.stderr
    assert run("plot", "results", "--x", "seconds").stdout != first.stdout
    longer = [*options, "--set", "train.env_steps=600", "--seed", "4", "--resume", "--out", str(agent)]
    assert run("train", *longer).exit_code == 0
    for again in (["eval", str(agent)], ["plot", str(agent)], ["plot", "results"]):
        assert run(*again).exit_code == 0, again


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["train", "tiny/match", "--set", "discont=1"], 2, "did you mean discount"),
        (["train", "tiny/match", "--world-model", "gone"], 3, "gone: no such folder"),
        (["train", "tiny/match", "--out", "full"], 4, "--out"),
        (["train", "tiny/match", "--resume", "--out", "gone"], 3, "gone"),
        (["train", "tiny/match", "--device", "tpu"], 2, "tpu"),
        (["train", "tiny/match", "--seed", str(2**63)], 2, "--seed"),
        (["train", "tiny/match", "--rollout-workers", "2"], 2, "--engine ray"),
        (["train", "tiny/match", "--no-sync"], 2, "--engine ray"),
        (["train", "tiny/match", "--engine", "ray", "--rollout-workers", "999"], 2, "at most 8"),
        (["pretrain-wm", "tiny/match+qmix"], 2, "nothing to pre-train"),
        (["pretrain-wm", "tiny/match", "--policy", "a", "--dataset", "b"], 2, "exclude"),
        (["pretrain-wm", "tiny/match", "--dataset", "full"], 3, "not an artifact"),
        (["eval", "gone"], 3, "gone"),
        (["eval", "gone", "--checkpoint", "newest"], 2, "newest"),
        (["eval", "gone", "--render", "film.mp4"], 2, ".gif"),
        (["eval", "tiny/match", "--random", "--checkpoint", "latest"], 2, "--checkpoint"),
        (["eval", "tiny/match", "--random", "--device", "cuda"], 2, "--device cuda"),
        (["eval", "tiny/match", "--random", "--render", "film.mp4"], 2, ".gif"),
        (["plot", "gone"], 3, "gone"),
        (["plot", "full"], 3, "no agent"),
    ],
)
@pytest.mark.parametrize("dry_run", [True, False])
def test_what_cannot_be_done_ends_before_anything_is_written(
    arguments: list[str],
    code: int,
    message: str,
    dry_run: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("full").mkdir()
    Path("full/precious.txt").write_text("x")
    refused = run(*arguments, *(["--dry-run"] if dry_run else []))
    assert (refused.exit_code, refused.stdout) == (code, "")
    assert message in refused.stderr
    assert "Traceback" not in refused.stderr
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["full", "precious.txt"]


def test_random_play_heeds_backend_and_render(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["lbf/5x5-2p-1f-coop+tiny", "--random", "--episodes", "2", "--backend", "original"]
    done = run("eval", *options, "--render", "random.gif")
    assert done.exit_code == 0, done.stderr
    name = f"random-{load_recipe(options[0], ['env.backend=original']).fingerprint[:8]}"
    assert done.stdout == f"results/lbf/5x5-2p-1f-coop+tiny/eval/{name}-2episodes-bank0-original\n"
    manifest = Artifact.open(Path(done.stdout.strip()), kind="evaluation").manifest
    assert (manifest.env_spec or {})["backend"] == "original"
    assert manifest.overrides == ("env.backend=original",)
    assert Path("random.gif").is_file()


@pytest.mark.pipeline
def test_a_folder_with_a_failed_agent_and_half_an_evaluation_is_drawn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in "01":
        options = ["--seed", seed, "--set", "train.env_steps=300", "--out", f"study/{seed}"]
        assert run("train", "tiny/match+tiny+qmix", *options).exit_code == 0
    assert run("eval", "study/0", "--out", "study/test").exit_code == 0
    for folder, status in (("study/1", "failed"), ("study/test", "interrupted")):
        manifest = Path(folder, "manifest.json")
        manifest.write_text(manifest.read_text().replace('"status": "complete"', f'"status": "{status}"'))
    planned = json.loads(run("plot", "study", "--dry-run", "--json").stdout)
    drawn = run("plot", "study", "--out", "figures")
    assert drawn.exit_code == 0, drawn.stderr
    assert "1 of 2 seeds failed" in drawn.stderr
    assert "is not finished (interrupted): left out" in drawn.stderr
    assert planned["metrics"]["left_out"][0] in drawn.stderr
    assert "| 2 (1 failed) |" in Path("figures/table.md").read_text()
    assert run("plot", "study/1", "--out", "one").exit_code == 0
    assert run("plot", "study/0", "study/test").exit_code == 3
    tested = run("eval", "study/1", "--out", "tested")
    assert tested.exit_code == 0, tested.stderr
    assert "was not complete (failed) when its checkpoint at" in tested.stderr


def test_a_plan_looks_at_every_folder_that_would_be_written(tmp_path: Path) -> None:
    full = tmp_path / "full"
    full.mkdir()
    (full / "precious.txt").write_text("x")
    out = ["--out", str(tmp_path / "wm"), "--save-dataset", str(full)]
    for how in (["--dry-run"], []):
        refused = run("pretrain-wm", "tiny/match+tiny", *out, *how)
        assert refused.exit_code == 4
        assert str(full) in refused.stderr
        assert "choose another folder with --save-dataset" in refused.stderr
    assert not (tmp_path / "wm").exists()


def test_tensorboard_missing_is_said_before_anything_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    monkeypatch.delitem(sys.modules, "marl_sale_cli._tensorboard", raising=False)
    refused = run("train", "tiny/match+tiny", "--tensorboard")
    assert refused.exit_code == 2
    assert "pip install 'marl-sale[tensorboard]'" in refused.stderr
    assert not list(tmp_path.iterdir())


def test_the_version_is_printed() -> None:
    assert run("--version").stdout == f"marl-sale {marl_sale.__version__}\n"


def test_the_reference_page_is_current() -> None:
    page = Path(__file__).parents[1] / "docs" / "cli.md"
    assert page.read_text(encoding="utf-8") == _docs.page(), "run: python -m marl_sale_cli._docs docs/cli.md"
