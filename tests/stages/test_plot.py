import csv
import hashlib
import io
import json
from dataclasses import asdict

import pytest
from PIL import Image

from marl_sale.artifacts.manifest import read_manifest
from marl_sale.artifacts.reader import Artifact
from marl_sale.artifacts.store import Run
from marl_sale.errors import ArtifactError, RunExistsError, UsageError
from marl_sale.observer import Silent
from marl_sale.spec import EnvSpec
from marl_sale.stages import plot

TRAIN = ("env_steps", "seconds", "loss", "loss_td", "loss_rec", "episode_return", "win_rate")
EVALUATION = (
    *("env_steps", "episodes", "updates", "seconds", "evaluation_episodes"),
    *("episode_return", "episode_return_std", "episode_length", "win_rate"),
)


def spec(task="8x8-2p-2f-coop", masked=False, success=True):
    return asdict(
        EnvSpec("lbf", task, "original", 2, 6, 12, 24, 50, masks_actions=masked, has_success=success)
    )


def agent(
    folder,
    *,
    seed=0,
    algorithm="mmsa",
    recipe="lbf/8x8-2p-2f-coop",
    env_spec=None,
    overrides=(),
    settings="",
    period=1000,
    inputs=(),
    top=1.0,
    status="complete",
    evaluations=11,
    episodes=32,
    offset=0,
):
    """An agent artifact whose return rises linearly from 0 to `top` in 10,000 env steps."""
    env_spec = env_spec or spec()
    identity = f"{algorithm} {env_spec['task']} {env_spec['masks_actions']} {overrides} {settings}"
    with Run.create(
        folder,
        kind="agent",
        recipe=recipe,
        overrides=overrides,
        config_text=f"algorithm: {algorithm}\nevaluation:\n  period: {period}\ntrain:\n  log_period: 1000\n"
        + settings,
        fingerprint=hashlib.sha256(identity.encode()).hexdigest(),
        seed=seed,
        env_spec=env_spec,
        inputs=inputs,
        command="marl-sale train",
        device="cpu",
    ) as run:
        train, evaluation = run.metrics("train", TRAIN), run.metrics("evaluation", EVALUATION)
        for k in range(evaluations):
            steps = 1000 * k + (offset + 7 * seed if k else 0)
            share = k / 10 * top
            success = share if env_spec["has_success"] else None
            loss = None if k == 0 else 1 / k
            train.append(dict(zip(TRAIN, (steps, 2.0 * k, loss, loss, loss, share, success), strict=True)))
            row = (steps, 10 * k, k, 2.0 * k, episodes, share, 0.1, 20.0, success)
            evaluation.append(dict(zip(EVALUATION, row, strict=True)))
        if status == "running":
            train.sync()
            evaluation.sync()
            run._release()
        else:
            run.finish(status, counters={"env_steps": 1000 * (evaluations - 1)})
    return folder


def evaluation(folder, agent_folder, *, wins, episodes, status="complete"):
    """An evaluation; `wins` None: of a family without success, `agent_folder` None: of random play."""
    columns = ("episode", "seed", "episode_return", "episode_length", "success")
    with Run.create(
        folder,
        kind="evaluation",
        recipe="lbf/8x8-2p-2f-coop",
        overrides=(),
        config_text=None,
        fingerprint=None,
        seed=0,
        env_spec=spec(),
        inputs=[Artifact.open(agent_folder, kind="agent").as_input("agent")] if agent_folder else [],
        command="marl-sale eval",
        device="cpu",
    ) as run:
        rows = run.rows("episodes", columns)
        for k in range(episodes):
            win = None if wins is None else k < wins
            rows.append(dict(zip(columns, (k, k, float(bool(win)), 9, win), strict=True)))
        who = {"policy": "agent", "checkpoint": 10000} if agent_folder else {"policy": "random"}
        run.write_json("report", who)
        run.finish(status, counters={})
    return folder


def draw(runs, out, quantities=("episode_return",), **options):
    return plot.run(
        runs, out, seed=0, observer=Silent(), command="marl-sale plot", quantities=quantities, **options
    )


def cells(folder, name):
    text = (folder / "figures" / f"{name}.csv").read_text()
    return list(csv.DictReader(io.StringIO(text)))


@pytest.fixture
def two_recipes(tmp_path):
    return [
        agent(tmp_path / f"{name}{seed}", seed=seed, algorithm=name, recipe=recipe, top=top - seed / 10)
        for name, recipe, top in [
            ("mmsa", "lbf/8x8-2p-2f-coop", 1.0),
            ("qmix", "lbf/8x8-2p-2f-coop+qmix", 0.6),
        ]
        for seed in range(3)
    ]


def test_the_report_is_an_artifact_with_figures_data_and_table(two_recipes, tmp_path):
    result = draw(two_recipes, tmp_path / "out", plot.QUANTITIES)
    artifact = Artifact.open(result.artifact, kind="report")
    assert artifact.verify() == []
    figures = {
        f"figures/{name}.{kind}"
        for name in ("episode_return", "win_rate", "losses")
        for kind in ("png", "svg", "csv")
    }
    assert figures | {"table.md", "report.json", "command.txt"} == set(artifact.manifest.files)
    ids = {Artifact.open(folder, kind="agent").manifest.id for folder in two_recipes}
    assert {entry.id for entry in artifact.manifest.inputs} == ids
    with Image.open(tmp_path / "out/figures/episode_return.png") as picture:
        assert all(name in picture.info["Source"] for name in ids)
        assert picture.info["dpi"] == pytest.approx((200, 200), abs=0.1)
    svg = (tmp_path / "out/figures/episode_return.svg").read_text()
    assert all(name in svg for name in ids)
    losses = cells(tmp_path / "out", "losses")
    assert {row["quantity"] for row in losses} == {"loss", "loss_td", "loss_rec"}
    assert json.dumps(result.to_json())


def test_the_figures_of_the_table(two_recipes, tmp_path):
    draw(two_recipes, tmp_path / "out", ())
    mmsa, qmix = Artifact.open(tmp_path / "out", kind="report").json("report")["groups"]
    assert (mmsa["label"], qmix["label"]) == ("mmsa", "qmix")
    assert mmsa["episode_return"]["final"]["per_seed"] == pytest.approx([1.0, 0.9, 0.8])
    assert mmsa["episode_return"]["final"]["value"] == pytest.approx(0.9)
    assert mmsa["episode_return"]["final"]["ci95"] == pytest.approx([0.8, 1.0])
    assert mmsa["episode_return"]["best"]["per_seed"] == pytest.approx([1.0, 0.9, 0.8])
    # Straight lines up to 1.0, 0.9 and 0.8, a little late: half of that on average.
    assert mmsa["episode_return"]["area"]["per_seed"] == pytest.approx([0.5, 0.45, 0.4], rel=0.01)
    assert [run["env_steps"] for run in mmsa["runs"]] == [10000, 10007, 10014]
    table = (tmp_path / "out/table.md").read_text()
    row = "| all actions available | mmsa | 3 | 10,000–10,014 | 20 | 0.900 (0.800 to 1.000) |"
    assert row in table
    assert "| mmsa | qmix | 3 and 3 | 1.000 (1.000 to 1.000) |" in table


def test_seeds_are_aligned_on_multiples_of_the_evaluation_period(two_recipes, tmp_path):
    draw(two_recipes[:3], tmp_path / "out")
    rows = cells(tmp_path / "out", "episode_return")
    line = [row for row in rows if row["series"] == "iqm"]
    assert [float(row["env_steps"]) for row in line] == [1000.0 * k for k in range(11)]
    # At 5,000 env steps seed s (top 1 − s/10) is 7 s env steps late.
    values = [(0.4 + 0.1 * (1000 - 7 * s) / 1000) * (1 - s / 10) for s in range(3)]
    assert float(line[5]["value"]) == pytest.approx((0.25 * values[0] + values[1] + 0.25 * values[2]) / 1.5)
    assert (float(line[5]["low"]), float(line[5]["high"])) == pytest.approx((values[2], values[0]))
    single = [row for row in rows if row["series"] == "seed" and row["seed"] == "2"]
    assert [float(row["env_steps"]) for row in single][:3] == [0, 1014, 2014]


def test_over_seconds(two_recipes, tmp_path):
    draw(two_recipes, tmp_path / "out", ("win_rate",), x="seconds")
    line = [row for row in cells(tmp_path / "out", "win_rate") if row["series"] == "iqm"]
    assert float(line[10]["seconds"]) == 20
    assert not (tmp_path / "out/figures/losses.png").exists()


def test_the_same_command_gives_the_same_figures(two_recipes, tmp_path):
    draw(two_recipes, tmp_path / "a")
    draw(two_recipes[::-1], tmp_path / "b")
    for name in ("episode_return.svg", "episode_return.png", "episode_return.csv"):
        first, again = (tmp_path / out / "figures" / name for out in "ab")
        assert first.read_bytes() == again.read_bytes(), name


def test_masked_and_published_tasks_never_share_a_panel(tmp_path):
    published = agent(tmp_path / "published")
    masked = agent(tmp_path / "masked", env_spec=spec(masked=True), recipe="lbf/8x8-2p-2f-coop+masked")
    result = draw([published, masked], tmp_path / "out", ("episode_return", "losses"))
    rows = cells(tmp_path / "out", "episode_return")
    ids = [Artifact.open(folder, kind="agent").manifest.id for folder in (published, masked)]
    assert {(row["protocol"], row["run"]) for row in rows if row["run"]} == {
        ("all actions available", ids[0]),
        ("masked actions", ids[1]),
    }
    svg = (tmp_path / "out/figures/episode_return.svg").read_text()
    assert "<!-- masked actions -->" in svg
    assert "<!-- all actions available -->" in svg
    table = (tmp_path / "out/table.md").read_text()
    assert "| masked actions | mmsa | 1 |" in table
    assert "| all actions available | mmsa | 1 |" in table
    assert "all 2 tasks" not in table
    assert "improvement" not in table
    assert any("not comparable" in note for note in result.metrics["notes"])
    assert sorted(path.name for path in (tmp_path / "out/figures").glob("losses*.png")) == [
        "losses-1-lbf-8x8-2p-2f-coop-all-actions-available.png",
        "losses-2-lbf-8x8-2p-2f-coop-masked-actions.png",
    ]


def test_win_rates_are_pooled_over_tasks_with_seeds_stratified(tmp_path):
    runs = [
        agent(tmp_path / f"{task}{seed}", seed=seed, env_spec=spec(task), top=top)
        for task, top in (("5x5-2p-1f-coop", 1.0), ("8x8-2p-2f-coop", 0.5))
        for seed in range(2)
    ]
    draw(runs, tmp_path / "out", ())
    (pooled,) = Artifact.open(tmp_path / "out", kind="report").json("report")["across_tasks"]
    # No spread within a task: whatever seeds are drawn, two are of each.
    assert pooled["win_rate"]["final"] == {"value": 0.75, "ci95": [0.75, 0.75]}
    tasks = "lbf/5x5-2p-1f-coop + lbf/8x8-2p-2f-coop"
    table = (tmp_path / "out/table.md").read_text()
    assert f"| {tasks} | all actions available | mmsa | 2 + 2 |  |  | 0.750 (0.750 to 0.750) |" in table


def test_no_task_outweighs_another_in_a_pooled_win_rate(tmp_path):
    runs = [agent(tmp_path / f"a{seed}", seed=seed, env_spec=spec("5x5-2p-1f-coop")) for seed in range(3)]
    draw([*runs, agent(tmp_path / "b")], tmp_path / "out", ())
    (pooled,) = Artifact.open(tmp_path / "out", kind="report").json("report")["across_tasks"]
    assert (pooled["seeds"], pooled["win_rate"]) == ([3, 1], None)
    assert "| mmsa | 3 + 1 |  |  | – | – | – |" in (tmp_path / "out/table.md").read_text()


def test_different_settings_are_not_pooled_over_tasks(tmp_path):
    rates = {"5x5-2p-1f-coop": 0.1, "8x8-2p-2f-coop": 0.2}
    runs = [
        agent(tmp_path / task, env_spec=spec(task), settings=f"optimiser:\n  learning_rate: {rate}\n")
        for task, rate in rates.items()
    ]
    draw(runs, tmp_path / "out", ())
    report = Artifact.open(tmp_path / "out", kind="report").json("report")
    assert [group["label"] for group in report["groups"]] == ["mmsa", "mmsa"]  # each alone in its panel
    assert report["across_tasks"] == []


def test_a_family_without_success_has_no_win_rate(tmp_path):
    draw([agent(tmp_path / "agent", env_spec=spec(success=False))], tmp_path / "out", ("win_rate",))
    assert not (tmp_path / "out/figures/win_rate.png").exists()
    assert "Win rate" not in (tmp_path / "out/table.md").read_text()


def test_evaluations_get_wilson_intervals(tmp_path):
    trained = agent(tmp_path / "agent")
    tested = evaluation(tmp_path / "evaluation", trained, wins=5, episodes=10)
    unknown = evaluation(tmp_path / "unknown", trained, wins=None, episodes=4)
    draw([trained, tested, unknown], tmp_path / "out", ())
    table = (tmp_path / "out/table.md").read_text()
    agent_id = Artifact.open(trained, kind="agent").manifest.id
    assert f"| {agent_id} | 10,000 | 0 | 10 | 0.500 (0.237 to 0.763) |" in table
    assert "| 4 | – | 0.000 (0.000 to 0.000) |" in table


def test_evaluations_of_the_seeds_of_a_recipe_make_one_row(tmp_path):
    agents = [agent(tmp_path / f"agent{seed}", seed=seed) for seed in range(3)]
    tested = [
        evaluation(tmp_path / f"evaluation{k}", trained, wins=wins, episodes=10)
        for k, (trained, wins) in enumerate(zip(agents, (2, 5, 9), strict=True))
    ]
    draw([*agents, *tested], tmp_path / "out", ())
    report = Artifact.open(tmp_path / "out", kind="report").json("report")
    (row,) = report["evaluated"]
    assert (row["label"], row["seeds"]) == ("mmsa", 3)
    assert row["win_rate"]["value"] == pytest.approx((0.25 * 0.2 + 0.5 + 0.25 * 0.9) / 1.5)
    assert row["win_rate"]["ci95"] == pytest.approx([0.2, 0.9])
    assert [(entry["label"], entry["seed"]) for entry in report["evaluations"]] == [
        ("mmsa", 0),
        ("mmsa", 1),
        ("mmsa", 2),
    ]
    draw(tested, tmp_path / "alone", ())
    assert Artifact.open(tmp_path / "alone", kind="report").json("report")["evaluated"] == []


def test_random_play_stands_beside_the_agents(tmp_path):
    trained = agent(tmp_path / "agent")
    random = evaluation(tmp_path / "random", None, wins=1, episodes=10)
    draw([trained, random], tmp_path / "out")
    row = next(line for line in (tmp_path / "out/table.md").read_text().splitlines() if "random play" in line)
    assert "| – | 0 | 10 | 0.100 (" in row


def test_evaluations_alone_make_a_table(tmp_path):
    tested = evaluation(tmp_path / "evaluation", agent(tmp_path / "agent"), wins=5, episodes=10)
    result = draw([tested], tmp_path / "out")
    assert result.metrics["figures"] == 0
    assert "## Evaluations" in (tmp_path / "out/table.md").read_text()


def test_unfinished_runs_are_drawn_and_named(tmp_path):
    runs = [
        agent(tmp_path / "done"),
        agent(tmp_path / "going", seed=1, status="running", evaluations=6),
        agent(tmp_path / "stopped", seed=2, status="interrupted", evaluations=6),
    ]
    result = draw(runs, tmp_path / "out")
    notes = "\n".join(result.metrics["notes"])
    assert "2 of 3 runs are not complete" in notes
    assert "(killed)" in notes  # it says that it runs, and nobody writes to it
    assert "(interrupted)" in notes
    assert "5,007 to 10,000 env steps" in notes
    table = (tmp_path / "out/table.md").read_text()
    assert "2 of 3 runs are not complete" in table
    assert "| 1 | killed | 5,007 |" in table
    line = [row for row in cells(tmp_path / "out", "episode_return") if row["series"] == "iqm"]
    assert float(line[-1]["env_steps"]) == 5007  # where the first seed ends


def test_a_single_evaluation_is_a_point(tmp_path):
    draw([agent(tmp_path / str(seed), seed=seed, evaluations=1) for seed in range(2)], tmp_path / "out")
    rows = cells(tmp_path / "out", "episode_return")
    assert [row["series"] for row in rows] == ["iqm", "seed", "seed"]


def test_seeds_without_a_common_range_are_drawn_without_iqm(tmp_path):
    runs = [agent(tmp_path / str(seed), seed=seed, status="running", evaluations=4) for seed in range(2)]
    for folder, keep in zip(runs, (slice(0, 2), slice(2, 4)), strict=True):
        path = folder / "metrics/evaluation.jsonl"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[keep]))
    result = draw(runs, tmp_path / "out")
    assert {row["series"] for row in cells(tmp_path / "out", "episode_return")} == {"seed"}
    assert any("share no range" in note for note in result.metrics["notes"])


def test_a_failed_seed_is_drawn_to_its_last_row_and_counted(tmp_path):
    runs = [agent(tmp_path / str(seed), seed=seed) for seed in range(2)]
    runs.append(agent(tmp_path / "failed", seed=2, status="failed", evaluations=5))
    others = [agent(tmp_path / "other", seed=3, env_spec=spec("5x5-2p-1f-coop"))]
    result = draw([*runs, *others], tmp_path / "out", ("episode_return", "win_rate"))
    name = Artifact.open(runs[2], kind="agent", status=("failed",)).manifest.id
    note = f"mmsa: 1 of 3 seeds failed ({name} at 4,014 env steps)"
    (said,) = [text for text in result.metrics["notes"] if "failed" in text]
    assert note in said
    assert not any("not complete" in text for text in result.metrics["notes"])
    table = (tmp_path / "out/table.md").read_text()
    assert "1 of 3 seeds failed" in table
    assert "| mmsa | 3 (1 failed) | 4,014–10,007 |" in table
    assert "| mmsa | 1 + 3 (1 failed) |" in table  # over both tasks
    assert "| 2 | failed | 4,014 |" in table
    drawn = [row for row in cells(tmp_path / "out", "episode_return") if row["run"] == name]
    assert float(drawn[-1]["env_steps"]) == 4014
    assert "mmsa (1–3 seeds, 0–1 failed)" in (tmp_path / "out/figures/episode_return.svg").read_text()


def test_what_shows_nothing_yet_is_left_out_where_nobody_named_it(tmp_path):
    good = agent(tmp_path / "good")
    half = evaluation(tmp_path / "half", good, wins=1, episodes=2, status="interrupted")
    early = agent(tmp_path / "early", seed=1, status="failed", evaluations=0)
    result = draw([good, half, early], tmp_path / "out", (), below={good, half, early})
    ids = [read_manifest(path)[0].id for path in (half, early)]
    half_note, early_note = result.metrics["notes"][:2]
    assert half_note == f"{ids[0]} is not finished (interrupted): left out"
    assert early_note == f"{ids[1]} (lbf/8x8-2p-2f-coop, seed 1, failed) has no evaluation yet: left out"
    table = (tmp_path / "out/table.md").read_text()
    assert "(interrupted): left out" in table
    assert "failed) has no evaluation yet: left out" in table
    inputs = Artifact.open(tmp_path / "out", kind="report").manifest.inputs
    assert not {entry.id for entry in inputs} & set(ids)
    for named, why in ((half, "its status is interrupted"), (early, "no evaluation in it yet")):
        with pytest.raises(ArtifactError, match=why):
            draw([good, named], tmp_path / "strict", (), below={good})
    with pytest.raises(ArtifactError, match="left out"):
        draw([half, early], tmp_path / "nothing", (), below={half, early})
    assert not (tmp_path / "nothing").exists()


def test_a_run_given_twice_is_refused(tmp_path):
    folder = agent(tmp_path / "agent")
    for again in (folder, tmp_path / "agent" / ".." / "agent"):
        with pytest.raises(UsageError, match="given twice"):
            draw([folder, again], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_same_seed_twice_is_refused(tmp_path):
    with pytest.raises(UsageError, match=r"/(agent|again): the same recipe and seed 0 as .*/(agent|again)"):
        draw([agent(tmp_path / "agent"), agent(tmp_path / "again")], tmp_path / "out")


def test_a_run_that_failed_and_was_made_again_counts_once(tmp_path):
    """Both lie below one folder: nobody has to move one away. Named themselves, they are a seed twice."""
    failed, whole = agent(tmp_path / "first", status="failed", evaluations=3), agent(tmp_path / "again")
    other = agent(tmp_path / "other", seed=1, status="failed", evaluations=3)
    result = draw([failed, whole, other], tmp_path / "out", below={failed, whole, other})
    ids = [read_manifest(path)[0].id for path in (failed, whole)]
    assert result.metrics["notes"][0] == f"{ids[0]} (failed) was made again to the end ({ids[1]}): left out"
    assert result.metrics["runs"] == 2
    with pytest.raises(UsageError, match="the same recipe and seed 0"):
        draw([failed, whole], tmp_path / "named", below={whole})


def test_a_start_from_a_world_model_is_another_recipe(tmp_path):
    first = agent(tmp_path / "first")
    source = Artifact.open(first, kind="agent").as_input("world-model")
    draw([first, agent(tmp_path / "second", inputs=[source])], tmp_path / "out")
    assert {row["recipe"] for row in cells(tmp_path / "out", "episode_return")} == {
        "mmsa",
        "mmsa from world-model",
    }


def test_a_label_names_what_learning_depends_on(tmp_path):
    watched = ("evaluation.period=50000", "train.checkpoint_period=100000", "train.keep_checkpoints=best")
    overrides = ("agent.head=bilinear", *watched)
    settings = "agent:\n  head: bilinear\nsale:\n  enabled: true\n"
    draw([agent(tmp_path / "run", overrides=overrides, settings=settings)], tmp_path / "out")
    labels = {row["recipe"] for row in cells(tmp_path / "out", "episode_return")}
    assert labels == {"mmsa head=bilinear"}


def test_a_label_names_where_configurations_differ_whatever_was_asked_for(tmp_path):
    """Recipes change: of two runs, one may set what the other's recipe had anyway."""
    size, other = "replay:\n  batch_episodes: 16\n", "agent:\n  hidden_size: 64\n"
    runs = [
        agent(tmp_path / "a", settings=size + other, overrides=("replay.batch_episodes=16",)),
        agent(tmp_path / "b", settings=size + other.replace("64", "32")),
    ]
    draw(runs, tmp_path / "out")
    labels = {row["recipe"] for row in cells(tmp_path / "out", "episode_return")}
    assert labels == {"mmsa agent.hidden_size=64", "mmsa agent.hidden_size=32"}


def test_a_label_names_an_overlay_but_not_what_it_sets(tmp_path):
    plain, without = "sale:\n  enabled: true\n  size: 64\n", "sale:\n  enabled: false\n  size: 64\n"
    runs = [
        agent(tmp_path / "a", settings=plain),
        agent(tmp_path / "b", settings=without, recipe="lbf/8x8-2p-2f-coop+no-sale"),
        agent(tmp_path / "c", settings=plain.replace("64", "32"), overrides=("sale.size=32",)),
        agent(tmp_path / "d", algorithm="qmix", settings=plain.replace("64", "8")),
    ]
    draw(runs, tmp_path / "out")
    labels = {row["recipe"] for row in cells(tmp_path / "out", "episode_return")}
    assert labels == {"mmsa sale.size=64", "mmsa no-sale", "mmsa sale.size=32", "qmix"}


def test_labels_too_long_for_a_legend_still_differ(tmp_path):
    many = "loss_weights:\n" + "".join(
        f"  {name}: 1.23456789\n" for name in ("td", "sale", "rec", "kl", "reg", "inv")
    )
    parts = "sale:\n  enabled: true\nworld_model:\n  enabled: true\n"
    runs = [
        agent(tmp_path / "a", settings=parts + many.replace("1.2", "2.1")),
        agent(tmp_path / "b", settings=parts + many),
        agent(tmp_path / "c", settings=parts + many + "optimiser:\n  learning_rate: 0.1\n"),
        agent(tmp_path / "d", settings=parts + many + "optimiser:\n  learning_rate: 0.2\n"),
    ]
    draw(runs, tmp_path / "out")
    labels = {row["recipe"] for row in cells(tmp_path / "out", "episode_return")}
    assert len(labels) == 4
    assert max(map(len, labels)) <= 120


def test_runs_of_different_length_are_told_apart_by_it(tmp_path):
    runs = [
        agent(tmp_path / str(steps), settings=f"mixer:\n  size: 32\nenv_steps: {steps}\n")
        for steps in (1000, 2000)
    ]
    draw(runs, tmp_path / "out")
    labels = {row["recipe"] for row in cells(tmp_path / "out", "episode_return")}
    assert labels == {"mmsa env_steps=1000", "mmsa env_steps=2000"}


def test_the_same_label_for_two_recipes_is_told_apart(tmp_path):
    runs = [agent(tmp_path / "a"), agent(tmp_path / "b", overrides=("env.task=8x8-2p-2f-coop",))]
    draw(runs, tmp_path / "out")
    labels = {row["recipe"] for row in cells(tmp_path / "out", "episode_return")}
    assert len(labels) == 2
    assert all(label.startswith("mmsa #") for label in labels)


def test_a_run_without_evaluation_says_to_train_longer(tmp_path):
    with pytest.raises(ArtifactError) as caught:
        draw([agent(tmp_path / "short", evaluations=0), agent(tmp_path / "good")], tmp_path / "out")
    assert "short" in caught.value.what
    assert "good" not in caught.value.what
    assert "train longer" in caught.value.hint


def test_no_run(tmp_path):
    with pytest.raises(UsageError, match="no run"):
        draw([], tmp_path / "out")


def test_an_existing_folder_is_left_alone(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out/mine.txt").write_text("mine")
    with pytest.raises(RunExistsError):
        draw([agent(tmp_path / "agent")], tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_damaged_stream_is_named(tmp_path):
    folder = agent(tmp_path / "agent", status="running", evaluations=3)
    path = folder / "metrics/evaluation.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([lines[0], lines[2], lines[1]]))
    with pytest.raises(ArtifactError, match=r"evaluation\.jsonl: damaged: env_steps falls from 2000 to 1000"):
        draw([folder], tmp_path / "out")


def test_foreign_text_is_text(tmp_path):
    hostile = "=1|$x_2$ $<b>[a](b)"
    folder = agent(tmp_path / "agent", recipe=f"lbf/8x8-2p-2f-coop+{hostile}")
    draw([folder], tmp_path / "out")
    svg = (tmp_path / "out/figures/episode_return.svg").read_text()
    assert "$x_2$" in svg  # the comment beside the drawn glyphs: read as text, not as math
    assert "<b>" not in svg
    assert r"mmsa =1\|\$x\_2\$ \$\<b\>\[a\](b)" in (tmp_path / "out/table.md").read_text()


@pytest.mark.parametrize("stream", ["train", "evaluation"])
def test_a_stream_that_a_manifest_lists_and_nobody_finds_is_damage(tmp_path, stream):
    folder = agent(tmp_path / "agent")
    (folder / f"metrics/{stream}.jsonl").unlink()
    with pytest.raises(ArtifactError, match=rf"{stream}\.jsonl"):
        draw([folder], tmp_path / "out", below={folder})


@pytest.mark.parametrize("period", [0, -5])
def test_a_period_below_one_is_damage(tmp_path, period):
    folder = agent(tmp_path / "agent", period=period)
    with pytest.raises(ArtifactError, match=rf"evaluation\.period is {period}"):
        draw([folder], tmp_path / "out")


def test_a_last_evaluation_without_a_return_is_told(tmp_path):
    folder = agent(tmp_path / "agent", status="running")
    path = folder / "metrics/evaluation.jsonl"
    *lines, last = path.read_text().splitlines()
    path.write_text("\n".join([*lines, json.dumps(json.loads(last) | {"episode_return": None})]) + "\n")
    result = draw([folder], tmp_path / "out")
    assert any("its last evaluation has no return" in note for note in result.metrics["notes"])
