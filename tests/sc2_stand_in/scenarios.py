"""Who fights whom on each map of SMAC, and the empty map of SMACv2."""

from typing import Any

ALLIES_START, ENEMIES_START = (9.0, 16.0), (23.0, 16.0)


def _battle(allies: dict[str, int], enemies: dict[str, int] | None = None) -> dict[str, Any]:
    return {"allies": allies, "enemies": allies if enemies is None else enemies, "agents_of": sorted(allies)}


SCENARIOS: dict[str, dict[str, Any]] = {
    "3m": _battle({"Marine": 3}),
    "8m": _battle({"Marine": 8}),
    "25m": _battle({"Marine": 25}),
    "5m_vs_6m": _battle({"Marine": 5}, {"Marine": 6}),
    "8m_vs_9m": _battle({"Marine": 8}, {"Marine": 9}),
    "10m_vs_11m": _battle({"Marine": 10}, {"Marine": 11}),
    "27m_vs_30m": _battle({"Marine": 27}, {"Marine": 30}),
    "MMM": _battle({"Marauder": 2, "Marine": 7, "Medivac": 1}),
    "MMM2": _battle({"Marauder": 2, "Marine": 7, "Medivac": 1}, {"Marauder": 3, "Marine": 8, "Medivac": 1}),
    "2s3z": _battle({"Stalker": 2, "Zealot": 3}),
    "3s5z": _battle({"Stalker": 3, "Zealot": 5}),
    "3s5z_vs_3s6z": _battle({"Stalker": 3, "Zealot": 5}, {"Stalker": 3, "Zealot": 6}),
    "1c3s5z": _battle({"Colossus": 1, "Stalker": 3, "Zealot": 5}),
    "3s_vs_3z": _battle({"Stalker": 3}, {"Zealot": 3}),
    "3s_vs_4z": _battle({"Stalker": 3}, {"Zealot": 4}),
    "3s_vs_5z": _battle({"Stalker": 3}, {"Zealot": 5}),
    "2s_vs_1sc": _battle({"Stalker": 2}, {"SpineCrawler": 1}),
    "2m_vs_1z": _battle({"Marine": 2}, {"Zealot": 1}),
    "6h_vs_8z": _battle({"Hydralisk": 6}, {"Zealot": 8}),
    "corridor": _battle({"Zealot": 6}, {"Zergling": 24}),
    "so_many_baneling": _battle({"Zealot": 7}, {"Baneling": 32}),
    "bane_vs_bane": _battle({"Baneling": 4, "Zergling": 20}),
    "2c_vs_64zg": _battle({"Colossus": 2}, {"Zergling": 64}),
    # SMACv2 creates its teams itself; agents are of these kinds, the last of the game's unit types.
    "32x32_flat": {
        "allies": {},
        "enemies": {},
        "agents_of": [
            *("Baneling", "Colossus", "Hydralisk", "Marauder", "Marine", "Medivac", "Stalker"),
            *("Zealot", "Zergling"),
        ],
    },
}
