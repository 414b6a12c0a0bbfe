"""One update of 32 episodes: against what its matrix products alone would take, and MMSA against QMIX."""

from collections.abc import Callable

from benchmarks import gemm
from benchmarks.products import operations
from benchmarks.record import Parameter, Record
from benchmarks.shapes import (
    FEED_FORWARD,
    LBF_2,
    LBF_4,
    MMSA,
    MMSA_BILINEAR,
    MMSA_WITHOUT_SALE,
    QMIX,
    SMAC_2S3Z,
    SMAC_3S5Z,
    full_lengths,
    spread_lengths,
    synthetic_batch,
)
from benchmarks.timing import QUICK, Effort, Lap, devices, paired_ratio, take_turns, timed
from marl_sale.algorithms._api import Algorithm
from marl_sale.data.batch import Batch
from marl_sale.spec import EnvSpec

LEARNERS = {
    "qmix": QMIX,
    "qmix, feed-forward": FEED_FORWARD,
    "mmsa without SALE": MMSA_WITHOUT_SALE,
    "mmsa, mlp head": MMSA,
    "mmsa, bilinear head": MMSA_BILINEAR,
}
LENGTHS = {"at the limit": full_lengths, "half the limit on average": spread_lengths}
EPISODES = 32


def updates(algorithm: Algorithm, batch: Batch, device: str) -> Callable[[], Lap]:
    """One update, again and again on the same batch."""

    def update() -> int:
        algorithm.update(batch)
        return 1

    return timed(update, device)


def measure(spec: EnvSpec, lengths: str, episodes: int, device: str, effort: Effort) -> list[Record]:
    """Every learner on the same batch, in turn with a large product of matrices."""
    batch = synthetic_batch(spec, LENGTHS[lengths](spec, episodes), device)
    algorithms = {name: learner.build(spec, device) for name, learner in LEARNERS.items()}
    pieces = {name: updates(algorithm, batch, device) for name, algorithm in algorithms.items()}
    laps = take_turns({"product": gemm.product(device), **pieces}, effort)

    records = [gemm.record(laps["product"], device, spec.task, lengths=lengths)]
    on_cpu = synthetic_batch(spec, LENGTHS[lengths](spec, episodes), "cpu")
    needed = {name: operations(learner.build(spec, "cpu"), on_cpu) for name, learner in LEARNERS.items()}
    for name, algorithm in algorithms.items():
        figures = {
            "GEMM bound, ms": 1e3 * needed[name] / gemm.rate(laps["product"], device),
            "x GEMM bound": paired_ratio(laps[name], laps["product"], device)
            * gemm.OPERATIONS
            / needed[name],
        }
        if name != "qmix":
            figures["x qmix"] = paired_ratio(laps[name], laps["qmix"], device)
            figures["products x qmix"] = needed[name] / needed["qmix"]
        parameters: dict[str, Parameter] = {
            "lengths": lengths,
            "episodes": episodes,
            "device": device,
            "trained parameters": algorithm.parameter_count(),
        }
        records.append(Record(name, spec.task, "update", laps[name], parameters, figures))
    return records


def run(quick: bool) -> list[Record]:
    """Each shape, with both kinds of lengths, on each device."""
    effort, episodes = (QUICK, 4) if quick else (Effort(rounds=7, seconds=12), EPISODES)
    records = []
    for device in devices():
        for spec in (LBF_2,) if quick else (LBF_2, LBF_4, SMAC_2S3Z, SMAC_3S5Z):
            for lengths in list(LENGTHS)[:1] if quick else LENGTHS:
                records += measure(spec, lengths, episodes, device, effort)
    return records
