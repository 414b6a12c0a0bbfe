"""What stages do with each other's artifacts."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from marl_sale.algorithms._load import build_policy
from marl_sale.artifacts.manifest import differences, plain
from marl_sale.artifacts.reader import Artifact, Checkpoint
from marl_sale.config.recipe import Recipe, recipe_from_text
from marl_sale.config.schema import Config
from marl_sale.errors import ArtifactError, ConfigError
from marl_sale.nn.agent import Agent
from marl_sale.spec import EnvSpec


def recipe_of(artifact: Artifact, *changes: str) -> Recipe:
    """The recipe an artifact was made with; `changes` are `key=value`, as after --set."""
    text = artifact.config_text
    if text is None:
        raise ArtifactError(f"{artifact.path}: has no config.yaml", "make the artifact again")
    manifest = artifact.manifest
    with as_artifact_error(artifact):
        return recipe_from_text(
            text,
            where=str(artifact.path / "config.yaml"),
            name=manifest.recipe,
            overrides=(*manifest.overrides, *changes),
        )


@contextmanager
def sound_state(where: Path) -> Iterator[None]:
    """A saved state that cannot be put in its place is damage, however sound its files are."""
    try:
        yield
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
        what = plain(f"{type(error).__name__}: {error}")[:400]
        raise ArtifactError(
            f"{where}: damaged: its state is not that of a run of this recipe: {what}",
            "it may be of another version of marl-sale: start a new run with --out",
        ) from error


@contextmanager
def as_artifact_error(artifact: Artifact) -> Iterator[None]:
    """A problem of the artifact's recipe is one of the artifact, not of what the user asked for."""
    try:
        yield
    except ConfigError as error:
        raise ArtifactError(
            f"{artifact.path}: its recipe cannot be used here:\n{error.what}",
            "it is damaged, or of another version of marl-sale or of the environment",
        ) from error


def require_same_task(artifact: Artifact, spec: EnvSpec) -> None:
    """ArtifactError listing every difference between the artifact's task and this one.

    Backends are no difference: they play by the same rules, and an agent of one can be tested in the other.
    Notes are one where they alone differ, by another version of the rules or of the game, say; beside other
    differences they only say these again.
    """
    found = {**(artifact.manifest.env_spec or {}), "backend": spec.backend}
    expected = spec.to_dict()
    problems = differences({**found, "notes": spec.notes}, expected) or differences(found, expected)
    if problems:
        raise ArtifactError(
            "\n".join([f"{artifact.path}: was made for another task:", *problems]),
            "use an artifact of the same task, or the recipe it was made with",
        )


def require_same_sections(artifact: Artifact, config: Config, names: Sequence[str]) -> None:
    """ArtifactError listing every difference in these keys or sections (dotted) of the recipes."""

    def chosen(values: Config) -> dict[str, Any]:
        dump, result = values.model_dump(mode="json"), {}
        for name in names:
            value: Any = dump
            for part in name.split("."):
                value = value[part]
            result[name] = value
        return result

    if problems := differences(chosen(recipe_of(artifact).config), chosen(config)):
        raise ArtifactError(
            "\n".join([f"{artifact.path}: was made with other networks:", *problems]),
            "use the same values here (--set), or make the artifact again with this recipe",
        )


def load_policy(checkpoint: Checkpoint, config: Config, spec: EnvSpec) -> Agent:
    """The agents' network of a checkpoint, on the CPU."""
    policy = build_policy(config, spec)
    policy.load_state_dict(checkpoint.tensors("weights", policy.state_dict()))
    return policy


def spec_of(artifact: Artifact) -> EnvSpec:
    """The task an artifact was made for."""
    found: Mapping[str, Any] | None = artifact.manifest.env_spec
    if found is None:
        raise ArtifactError(f"{artifact.path}: its manifest names no task (env_spec)")
    try:
        return EnvSpec(**found)
    except TypeError as error:
        raise ArtifactError(f"{artifact.path}: env_spec: {error}") from error
