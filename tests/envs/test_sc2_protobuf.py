"""The game's messages with today's protobuf."""

import importlib
import subprocess
import sys
from pathlib import Path

import pytest

from marl_sale.envs import _sc2_protobuf

pytest.importorskip("s2clientprotocol", reason="not installed: s2clientprotocol (make install-sc2)")


def imported(first: str) -> subprocess.CompletedProcess[str]:
    """Import the messages in a new process, after other code."""
    then = "from s2clientprotocol import sc2api_pb2 as api\nprint(api.Request(id=7).SerializeToString())"
    return subprocess.run([sys.executable, "-c", f"{first}\n{then}"], capture_output=True, text=True)


def test_messages_are_built_from_their_descriptions() -> None:
    assert "Descriptors cannot be created directly" in imported("").stderr  # else the finder is not needed
    done = imported("from marl_sale.envs import _sc2_protobuf as p; p.install(); p.install()")
    assert done.stdout == "b'\\x88\\x06\\x07'\n", done.stderr  # field 97, varint 7, in any version


def test_messages_survive_a_round_trip() -> None:
    _sc2_protobuf.install()
    before = len(sys.meta_path)
    _sc2_protobuf.install()
    assert len(sys.meta_path) == before
    api = importlib.import_module("s2clientprotocol.sc2api_pb2")
    response = api.Response(status=api.in_game)
    unit = response.observation.observation.raw_data.units.add(tag=5, health=3.5)  # of another file
    unit.pos.x = 2.0
    again = api.Response.FromString(response.SerializeToString())
    assert again == response
    assert again.observation.observation.raw_data.units[0].pos.x == 2.0
    assert api.Status.Name(again.status) == "in_game"


def test_modules_of_another_form_are_left_alone(tmp_path: Path) -> None:
    (tmp_path / "new_pb2.py").write_text("DESCRIPTOR = AddSerializedFile(b'')\n")
    (tmp_path / "old_pb2.py").write_text("serialized_pb=_b('\\n\\x01')\n")
    finder, path = _sc2_protobuf._Finder(), [str(tmp_path)]
    assert finder.find_spec("s2clientprotocol.new_pb2", path) is None
    assert finder.find_spec("other.old_pb2", path) is None
    assert finder.find_spec("s2clientprotocol.old_pb2", path) is not None
