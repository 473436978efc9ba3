"""The configuration: one definition, clear errors."""

from __future__ import annotations

import pytest

from engine import config, presets
from engine.config import RunConfig
from engine.config.section import Section
from engine.errors import ConfigError


@pytest.mark.parametrize("name", list(presets.PRESETS))
def test_presets_survive_toml(name: str) -> None:
    settings = presets.get(name)
    assert config.from_toml(config.to_toml(settings)) == settings
    assert settings.preset == name
    assert presets.describe(name).endswith(".")


def test_every_option_has_help() -> None:
    rows = config.describe()
    assert [key for key, _, _ in rows] == config.option_keys()
    for key, _, text in rows:
        assert len(text) > 12, key


@pytest.mark.parametrize(
    ("assignment", "said"),
    [
        ("recover.iteration=3", "did you mean 'recover.iterations'"),
        ("r_bn=3", "did you mean 'recover.r_bn'"),
        ("ipc=0", "ipc = 0"),
        ("ipc=-3", "ipc = -3"),
        ("ipc=ten", "ipc = 'ten'"),
        ("data.resolution=1024", "512"),
        ("recover.objective=sgd", "'wmdd', 'sre2l', 'real', 'start' or 'given'"),
        ("recover.r_bn", "has no '='"),
        ("recover.lr=nan", "recover.lr"),
        ('data.dataset="imagefolder"', "needs data.path"),
        ('teacher.arch="resnet18"', "resolution 16 is too small"),
        ("recover.chunk=across-classes", "recover.bn = 'global'"),
        ("barycenter.weights=none", "recover.r_feature = 0"),
    ],
)
def test_bad_options_say_what_to_do(assignment: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        config.override(presets.get("digits"), [assignment])
    assert said in str(caught.value)


def test_unknown_preset_suggests() -> None:
    with pytest.raises(ConfigError, match="did you mean 'digits'"):
        presets.get("digit")


def test_overrides_take_toml_literals_and_bare_words() -> None:
    changed = config.override(presets.get("digits"), ["name=a b [c]", "recover.flip=true", "recover.lr=1e-2"])
    assert (changed.name, changed.recover.flip, changed.recover.lr) == ("a b [c]", True, 0.01)


@pytest.mark.parametrize("text", ["a = [", "\x00", "ipc = 10\nipc = 11"])
def test_broken_toml(text: str) -> None:
    with pytest.raises(ConfigError, match="not valid TOML"):
        config.from_toml(text)


def test_environment_in_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WMDD_DATA", "/somewhere")
    assert presets.get("imagenette-paper-ipc10").data.path == "/somewhere/imagenette"


def test_a_run_began_as_what_was_asked_for_whatever_auto_came_to() -> None:
    asked = config.RunConfig()
    settled = config.override(
        asked, ["run.precision=bf16", "recover.compile=on", "train.compile=on", "squeeze.compile=on"]
    )
    assert settled.began_as(asked)
    assert settled.began_as(settled)
    assert asked.began_as(asked)
    assert not asked.began_as(settled)
    assert not config.override(settled, ["seed=1"]).began_as(asked)
    assert not settled.began_as(config.override(asked, ["run.precision=fp32"]))


def test_every_whole_number_has_an_upper_bound() -> None:
    """Beyond it nobody means it, and memory or the tensors' own numbers end before the message could be clear."""
    sections = [RunConfig, *(type(value) for _, value in RunConfig() if isinstance(value, Section))]
    numbers = [(one, name) for one in sections for name, field in one.model_fields.items() if field.annotation is int]
    assert len(numbers) > 30
    for section, name in numbers:
        bounds = [getattr(limit, "le", getattr(limit, "lt", None)) for limit in section.model_fields[name].metadata]
        assert any(bound is not None for bound in bounds), (section, name)
    with pytest.raises(ConfigError, match=r"recover\.iterations.*1000000"):
        config.override(RunConfig(), ["recover.iterations=99999999999999999999"])
