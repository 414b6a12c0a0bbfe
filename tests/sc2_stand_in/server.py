"""The stand-in's program: answers the requests that pysc2, smac and smacv2 send."""

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

from marl_sale.envs import _sc2_protobuf

_sc2_protobuf.install()

from s2clientprotocol import sc2api_pb2 as api  # noqa: E402

from sc2_stand_in.combat import AGENTS, SIZE, UNIT_TYPES, World  # noqa: E402
from sc2_stand_in.websocket import Websocket  # noqa: E402

_ENV_STEP = 8  # game loops of one env step
_TO_CONNECT = 60.0  # seconds


class Server:
    """The game's state machine: `answer` carries out one request."""

    def __init__(self) -> None:
        self.status = api.launched
        self._world: World

    def answer(self, request: Any) -> Any:
        kind = request.WhichOneof("request")
        response = api.Response(id=request.id)
        method = getattr(self, kind, None)
        if method is None:
            response.error.append(f"stand-in: no {kind}")
        else:
            getattr(response, kind).SetInParent()
            method(getattr(request, kind), getattr(response, kind))
        response.status = self.status
        return response

    def ping(self, _: Any, reply: Any) -> None:
        reply.game_version = "stand-in"

    def create_game(self, asked: Any, _: Any) -> None:
        draws_go_on = os.environ.get("SC2_STAND_IN_DRAWS") == "game"
        self._world = World(json.loads(asked.local_map.map_data), asked.random_seed, draws_go_on)
        self.status = api.init_game

    def join_game(self, _: Any, reply: Any) -> None:
        reply.player_id = AGENTS
        self.status = api.in_game

    def game_info(self, _: Any, reply: Any) -> None:
        raw = reply.start_raw
        raw.map_size.x = raw.map_size.y = SIZE
        raw.playable_area.p1.x = raw.playable_area.p1.y = SIZE
        raw.playable_area.p0.SetInParent()
        for grid, bits, byte in ((raw.pathing_grid, 1, b"\xff"), (raw.terrain_height, 8, b"\x7f")):
            grid.bits_per_pixel, grid.size.x, grid.size.y = bits, SIZE, SIZE
            grid.data = byte * (SIZE * SIZE * bits // 8)

    def data(self, _: Any, reply: Any) -> None:
        for type_id in range(UNIT_TYPES):
            reply.units.add(unit_id=type_id)

    def step(self, asked: Any, reply: Any) -> None:
        for _ in range(asked.count):
            self._world.advance()
        reply.simulation_loop = self._world.loop

    def action(self, asked: Any, reply: Any) -> None:
        for action in asked.actions:
            order = action.action_raw.unit_command
            goal = target = None
            if order.HasField("target_world_space_pos"):
                goal = (order.target_world_space_pos.x, order.target_world_space_pos.y)
            if order.HasField("target_unit_tag"):
                target = order.target_unit_tag
            obeyed = [self._world.order(tag, goal, target) for tag in order.unit_tags]
            reply.result.append(1 if all(obeyed) else 2)

    def observation(self, _: Any, reply: Any) -> None:
        seen = reply.observation
        seen.game_loop = self._world.loop
        seen.raw_data.SetInParent()
        for unit in self._world.units:
            shown = seen.raw_data.units.add(
                tag=unit.tag,
                unit_type=unit.type_id,
                owner=unit.owner,
                health=unit.health,
                health_max=unit.kind.health,
                shield=unit.shield,
                shield_max=unit.kind.shield,
                energy=unit.energy,
                weapon_cooldown=unit.cooldown,
                radius=unit.kind.radius,
            )
            shown.pos.x, shown.pos.y = unit.x, unit.y

    def debug(self, asked: Any, _: Any) -> None:
        for command in asked.debug:
            if command.HasField("kill_unit"):
                self._world.kill(command.kill_unit.tag)
            elif command.HasField("create_unit"):
                new = command.create_unit
                for _ in range(new.quantity):
                    self._world.create(new.unit_type, new.owner, new.pos.x, new.pos.y)

    def save_replay(self, _: Any, reply: Any) -> None:
        reply.data = b"stand-in"

    def quit(self, _: Any, __: Any) -> None:
        self.status = api.quit


class Faults:
    """What the environment variables ask to go wrong (the package's docstring lists them)."""

    def __init__(self) -> None:
        self._fault, _, number = os.environ.get("SC2_STAND_IN_FAULT", "").partition("@")
        self._number = int(number or 0)
        self._armed = os.environ.get("SC2_STAND_IN_ARMED", "")
        self._delay = float(os.environ.get("SC2_STAND_IN_DELAY", "0"))
        self._steps = 0

    def due(self, request: Any) -> str:
        """The fault that happens now, in place of an answer; empty for none."""
        if request.WhichOneof("request") != "step" or request.step.count != _ENV_STEP:
            return ""
        time.sleep(self._delay)
        self._steps += 1
        if self._steps != self._number:
            return ""
        if self._armed:
            try:
                Path(self._armed).unlink()  # of several processes, one succeeds
            except FileNotFoundError:
                return ""
        return self._fault


def main(arguments: Sequence[str]) -> None:
    """Serve one client on the host and port of the game's command line, then end."""
    options = dict(pairwise(arguments))
    connection = Websocket(options["-listen"], int(options["-port"]), _TO_CONNECT)
    server, faults = Server(), Faults()
    with suppress(EOFError, OSError):
        while server.status != api.quit:
            request = api.Request.FromString(connection.receive())
            match faults.due(request):
                case "crash":
                    os._exit(1)
                case "drop":
                    connection.close()
                case "hang":
                    time.sleep(1000)
                case "malformed":
                    connection.send(b"\xff not a reply")
                case _:
                    connection.send(server.answer(request).SerializeToString())
