"""What messages say about keys."""

import pytest

from marl_sale.config.keys import expected, keys, nearest, sections, unknown
from marl_sale.config.schema import Config


def test_every_section_and_key_of_the_schema_is_known() -> None:
    tops = [key for key in keys() if "." not in key]
    assert tops == ["algorithm", "discount"]
    assert {*tops, *sections()} == set(Config.model_fields)
    assert "optimiser.learning_rate" in keys()
    assert sections()["exploration"] == ("start", "finish", "anneal_env_steps")


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("algorithm", "one of mmsa, qmix, vdn, iql"),
        ("sale.enabled", "true or false"),
        ("discount", "a number from 0 to 1"),
        ("optimiser.learning_rate", "a number above 0 to 10"),
        ("pretrain.holdout", "a number above 0 to below 1"),
        ("train.env_steps", "an integer from 1 to 1000000000"),
        ("train.checkpoint_minutes", "a number from 0 to 10000"),
        ("train.keep_checkpoints", "one of latest, best, every"),
        ("env.family", "the name of a family, in lower case"),
        ("env.task", "the name of a task, perhaps with options (balance,n_agents=4)"),
    ],
)
def test_expected(key: str, text: str) -> None:
    assert expected(key) == text


def test_every_number_is_bounded_on_both_sides() -> None:
    for key, rule in keys().items():
        if rule.get("type") in ("integer", "number"):
            assert {"minimum", "exclusiveMinimum"} & set(rule), key
            assert {"maximum", "exclusiveMaximum"} & set(rule), key


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("sale.enabld", "did you mean sale.enabled?"),
        ("sale.learning_rate", "did you mean optimiser.learning_rate?"),
        ("env_steps", "did you mean train.env_steps?"),
        ("optimizer", "did you mean optimiser?"),
        ("optimizer.max_grad_norm", "did you mean optimiser.max_grad_norm?"),
        ("sale.foo", "keys of sale: enabled, size, hidden_size, global_state, clip_targets"),
        ("foo", "keys at the top: algorithm, discount, env,"),
    ],
)
def test_unknown_keys_get_the_nearest_or_the_list(key: str, text: str) -> None:
    assert text in unknown(key)


def test_nearest() -> None:
    assert nearest("quix", ["qmix", "vdn"]) == "qmix"
    assert nearest("nothing", ["qmix", "vdn"]) == ""
