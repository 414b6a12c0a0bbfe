"""From what an artifact was made, and whether it is still here."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from marl_sale.artifacts.lineage import lineage
from marl_sale.artifacts.reader import Artifact, require_digest
from marl_sale.artifacts.store import Run
from marl_sale.errors import ArtifactError

Start = Callable[..., Run]


def made(start: Start, path: Path, *sources: Path) -> Path:
    """A finished artifact made from others."""
    inputs = [Artifact.open(source, kind="agent").as_input("policy") for source in sources]
    with start(path, inputs=inputs) as run:
        run.finish("complete", counters={})
    return path


def test_three_generations(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    first = made(start, Path("first"))
    second = made(start, Path("second"), first)
    third = made(start, Path("third"), second)
    found = lineage(third, Path())
    (parent,) = found.made_from
    (grandparent,) = parent.made_from
    assert [each.path for each in (found, parent, grandparent)] == [third, second, first]
    assert (parent.role, parent.state, grandparent.state) == ("policy", "same", "same")
    assert grandparent.made_from == ()


def test_moved_changed_and_missing(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    sources = [made(start, Path(name)) for name in ("moved", "changed", "missing")]
    child = made(start, Path("child"), *sources)
    Path("moved").rename("elsewhere")
    manifest = Path("changed/manifest.json")
    manifest.write_text(manifest.read_text().replace('"seed": ', '"seed": 1'))
    shutil.rmtree("missing")
    found = {each.id: each for each in lineage(child, Path()).made_from}
    assert [(each.path, each.state) for each in found.values()] == [
        (Path("elsewhere"), "same"),
        (Path("changed"), "changed"),
        (None, "missing"),
    ]


def test_another_artifact_in_its_place_is_not_taken_for_it(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    child = made(start, Path("child"), made(start, Path("source")))
    shutil.rmtree("source")
    made(start, Path("source"))
    assert lineage(child, Path()).made_from[0].state == "missing"


def test_the_digest_expected(start: Start, tmp_path: Path) -> None:
    path = made(start, tmp_path / "agent")
    digest = Artifact.open(path, kind="agent").digest
    require_digest(path, digest.upper())
    with pytest.raises(ArtifactError, match=f"is {digest}, expected {'0' * 64}"):
        require_digest(path, "0" * 64)
