"""Finding families by name."""

import subprocess
import sys

import pytest

from marl_sale.config import schema
from marl_sale.envs._load import describe, families, make_env
from marl_sale.errors import ConfigError, EnvironmentFault


def config(family: str, task: str = "8x8-2p-2f-coop") -> schema.Env:
    return schema.Env(
        family=family,
        task=task,
        backend="original",
        mask_actions=False,
        scale_obs=True,
        bootstrap_at_time_limit=False,
    )


def test_families_are_the_public_modules() -> None:
    assert {"lbf", "tiny"} <= set(families())
    assert not any(name.startswith("_") for name in families())


def test_describe_tells_the_sizes() -> None:
    spec = describe(config("lbf"))
    assert (spec.n_agents, spec.n_actions, spec.obs_size, spec.state_size) == (2, 6, 12, 24)
    assert spec == make_env(config("lbf"), 3).spec


def test_unknown_family_suggests_the_nearest() -> None:
    with pytest.raises(ConfigError, match=r"env.family: found 'lfb', allowed: .*\blbf\b.*\btiny\b") as caught:
        make_env(config("lfb"), 1)
    assert caught.value.hint == "did you mean 'lbf'?"
    with pytest.raises(ConfigError, match="add-an-environment"):
        make_env(config("zzzzz"), 1)


def test_helper_modules_are_no_families() -> None:
    with pytest.raises(ConfigError):
        make_env(config("tiny").model_copy(update={"family": "_load"}), 1)


def test_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in [name for name in sys.modules if name.startswith("lbforaging")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.delitem(sys.modules, "marl_sale.envs.lbf.original", raising=False)
    monkeypatch.setitem(sys.modules, "lbforaging", None)
    with pytest.raises(EnvironmentFault, match="'lbf' needs the package 'lbforaging'") as caught:
        make_env(config("lbf"), 1)
    assert caught.value.hint == 'pip install "lbforaging==2.0.0"'


def test_loading_imports_no_simulator() -> None:
    code = (
        "import sys, marl_sale.envs._load as load; load.families(); "
        "print(sorted({'lbforaging', 'gymnasium', 'PIL'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
