"""TEST SUPPORT, not StarCraft II: a server that speaks the game's protocol, for tests without the game.

The published packages pysc2, smac and smacv2 run against it as they are. Its battles are plausible and no
more: flat maps, units that walk through each other, round numbers. No figure made with it says anything about
StarCraft II, so none may be reported; its build number, which stands in the notes of every artifact, is one
that the game does not have.

`install(folder)` makes a folder that `SC2PATH` can name. Environment variables of the server:

| | |
|---|---|
| `SC2_STAND_IN_FAULT=crash@12` | at the 12th env step of a process: crash, drop, hang or malformed (reply) |
| `SC2_STAND_IN_ARMED=FILE` | only while this file exists; it is removed when the fault happens |
| `SC2_STAND_IN_DELAY=0.05` | seconds that every env step takes longer |
| `SC2_STAND_IN_DRAWS=game` | random draws go on from battle to battle, as in StarCraft II |

Without the last one each battle draws the same numbers anew, so that an episode depends on its start and its
actions alone.
"""

import json
import sys
from pathlib import Path

from sc2_stand_in.scenarios import SCENARIOS

BUILD = 99999

_SCRIPT = """#!{python}
import sys
sys.path[:0] = {path}
from sc2_stand_in.server import main
main(sys.argv[1:])
"""


def install(folder: Path) -> Path:
    """Write what pysc2 expects of an installed game below `folder`, and return it."""
    program = folder / f"Versions/Base{BUILD}/SC2_x64"
    program.parent.mkdir(parents=True)
    program.write_text(
        _SCRIPT.format(python=sys.executable, path=[str(Path(__file__).parents[1]), *sys.path])
    )
    program.chmod(0o755)
    maps = folder / "Maps/SMAC_Maps"
    maps.mkdir(parents=True)
    for name, scenario in SCENARIOS.items():
        (maps / f"{name}.SC2Map").write_text(json.dumps(scenario))
    return folder
