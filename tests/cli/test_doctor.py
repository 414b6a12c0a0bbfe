"""`marl-sale doctor`: findings, the lines to type, exit codes."""

import json
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from marl_sale_cli.app import app
from typer.testing import CliRunner, Result

from marl_sale.config.recipe import list_recipes, load_recipe
from marl_sale.envs import _findings, _load
from marl_sale.envs._findings import folder, graphics, package
from marl_sale.envs._load import families
from marl_sale.stages import doctor as stage
from marl_sale.stages import preflight


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, ["doctor", *arguments])


@pytest.fixture
def without_vmas(monkeypatch: pytest.MonkeyPatch) -> None:
    real = metadata.version

    def version(name: str) -> str:
        if name == "vmas":
            raise metadata.PackageNotFoundError
        return real(name)

    monkeypatch.setattr(_findings.metadata, "version", version)


def test_a_family_that_lacks_nothing() -> None:
    done = run("tiny", "--json")
    assert done.exit_code == 0
    found = json.loads(done.stdout)
    assert {"python", "torch", "cuda", "kernels", "cpus", "memory_bytes"} <= set(found["machine"])
    (tiny,) = found["families"]
    assert (tiny["family"], tiny["ok"]) == ("tiny", True)
    assert [f["what"] for f in tiny["findings"]] == ["memory for tiny/match"]


def test_a_named_family_that_lacks_a_package_ends_with_7_and_the_line_to_type(without_vmas: None) -> None:
    done = run("tiny", "vmas")
    assert done.exit_code == 7
    assert 'pip install "vmas==1.5.2"' in done.stdout
    assert "not ready: vmas" in done.stderr


def test_without_names_every_family_is_told_and_nothing_is_wrong(
    without_vmas: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = run("--json")
    assert done.exit_code == 0
    found = {entry["family"]: entry["ok"] for entry in json.loads(done.stdout)["families"]}
    assert set(found) == set(families())
    assert found["tiny"]
    assert not found["vmas"]
    assert "only of families that you name: marl-sale doctor" in done.stderr


def test_a_family_that_cannot_be_imported_needs_no_code_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(name: str) -> Any:
        raise ModuleNotFoundError(name="vmas.simulator")

    monkeypatch.setattr(_load, "import_module", fails)
    monkeypatch.setattr(
        _findings.metadata, "version", lambda _: (_ for _ in ()).throw(metadata.PackageNotFoundError)
    )
    (finding,) = _load.diagnose("tiny")
    assert (finding.ok, finding.fix) == (False, 'pip install "vmas==1.5.2"')


def test_an_unknown_family_is_a_wrong_word() -> None:
    done = run("tiny", "vmass")
    assert done.exit_code == 2
    assert "did you mean 'vmas'?" in done.stderr


def test_a_replay_that_does_not_fit_is_told_with_one_that_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preflight, "available_memory", lambda: 54_000_000)
    (diagnosis,) = stage.run(["tiny"])
    (memory,) = diagnosis.findings
    assert not memory.ok
    capacity = int(memory.fix.partition("=")[2].split()[0])
    assert 1 < capacity < 1000
    assert diagnosis.ok  # optional: a shorter run may never fill it


def test_smoke_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("tiny", "--smoke")
    assert done.exit_code == 0
    assert "training tiny/match" in done.stdout
    assert "env steps, 1 update, in" in done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("family", families())
def test_smoke_is_one_episode_of_each_kind_and_one_update(family: str) -> None:
    """What bounds its time: three episodes, in one environment at a time, with a network of 16 units."""
    name = next(r.name for r in list_recipes() if r.name.startswith(f"{family}/"))
    config = load_recipe(f"{name}+tiny+qmix", stage._SHORT).config
    assert config.train.env_steps == config.train.num_envs == config.evaluation.num_envs == 1
    assert config.evaluation.episodes == 1
    assert int(config.train.updates_per_episode * (1 - config.replay.batch_episodes + 1)) == 1
    assert config.agent.hidden_size == 16


def test_a_training_that_fails_is_a_finding_whatever_it_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any, **__: Any) -> None:
        raise RuntimeError("no such texture")

    monkeypatch.setattr(stage.train, "run", fails)
    done = run("tiny", "--smoke", "--json")
    assert done.exit_code == 7
    finding = json.loads(done.stdout)["families"][0]["findings"][-1]
    assert (finding["ok"], finding["found"]) == (False, "RuntimeError: no such texture")
    assert finding["fix"] == "see where: marl-sale train tiny/match+tiny+qmix --debug"


def test_libraries_for_pictures_are_optional(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_findings.ctypes.util, "find_library", lambda name: None if name == "GLU" else name)
    (finding,) = graphics()
    assert (finding.ok, finding.needed, finding.fix) == (False, False, "apt install libglu1-mesa")


def test_packages_and_folders(tmp_path: Path) -> None:
    assert package("torch").ok
    missing = package("no-such-package", "make it yourself")
    assert (missing.ok, missing.fix) == (False, "make it yourself")
    assert folder("maps", tmp_path, "unpack them").ok
    assert not folder("maps", tmp_path / "gone", "unpack them").ok
