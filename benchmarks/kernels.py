"""The same update with the compiled kernels and with torch in their place, in turn."""

from unittest import mock

from benchmarks.record import Record
from benchmarks.shapes import LBF_2, LBF_4, SMAC_2S3Z, SMAC_3S5Z, full_lengths, synthetic_batch
from benchmarks.timing import QUICK, Effort, Lap, paired_ratio, take_turns
from benchmarks.update import EPISODES, LEARNERS, updates
from marl_sale import kernels
from marl_sale.spec import EnvSpec


def measure(name: str, spec: EnvSpec, episodes: int, effort: Effort) -> list[Record]:
    """A learner's update on full episodes, both ways."""
    batch = synthetic_batch(spec, full_lengths(spec, episodes), "cpu")
    update = updates(LEARNERS[name].build(spec, "cpu"), batch, "cpu")

    def in_torch() -> Lap:
        with mock.patch.object(kernels, "usable", return_value=False):
            return update()

    laps = take_turns({"kernels": update, "torch": in_torch}, effort)
    figures = {"torch": {}, "kernels": {"x torch": paired_ratio(laps["kernels"], laps["torch"])}}
    return [
        Record(name, spec.task, "update", found, {"way": way, "episodes": episodes}, figures[way])
        for way, found in laps.items()
    ]


def run(quick: bool) -> list[Record]:
    """Each learner on each shape; nothing where the kernels are not compiled."""
    if kernels.instruction_set() == "none":
        return []
    effort, episodes = (QUICK, 4) if quick else (Effort(rounds=7, seconds=30), EPISODES)
    specs = (LBF_2,) if quick else (LBF_2, LBF_4, SMAC_2S3Z, SMAC_3S5Z)
    return [record for spec in specs for name in LEARNERS for record in measure(name, spec, episodes, effort)]
