"""The published settings: each preset names its paper and holds that paper's numbers."""

from __future__ import annotations

import pytest

from engine import presets
from engine.data import normalisation

PUBLISHED = {
    "Liu et al., ICCV 2025": ("imagenette-paper", "tiny-imagenet", "imagenet1k"),
    "Liu et al. (ICCV 2025)": ("imagenette-weights", "imagenette-ablation"),
    "Yin et al., NeurIPS 2023": ("sre2l-",),
    "Yin and Shen, TMLR 2024": ("cda-",),
}


def test_every_published_setting_says_which_paper_it_is() -> None:
    for paper, beginnings in PUBLISHED.items():
        for beginning in beginnings:
            names = [name for name in presets.PRESETS if name.startswith(beginning)]
            assert names, beginning
            assert all(paper in presets.describe(name) for name in names), beginning


@pytest.mark.parametrize(
    ("name", "iterations", "lr", "r_bn", "curriculum"),
    [
        ("sre2l-imagenet1k-ipc50", 4000, 0.25, 0.01, "none"),
        ("sre2l-tiny-imagenet-ipc50", 4000, 0.1, 1.0, "none"),
        ("sre2l-cifar100-ipc50", 1000, 0.25, 0.01, "none"),
        ("cda-imagenet1k-ipc50", 4000, 0.25, 0.01, "cosine"),
        ("cda-tiny-imagenet-ipc50", 4000, 0.4, 0.05, "cosine"),
        ("cda-imagenet21k-ipc20", 2000, 0.05, 0.25, "cosine"),
    ],
)
def test_recovery_of_sre2l_and_cda(name: str, iterations: int, lr: float, r_bn: float, curriculum: str) -> None:
    recover = presets.get(name).recover
    assert (recover.iterations, recover.lr, recover.r_bn, recover.curriculum) == (iterations, lr, r_bn, curriculum)
    assert (recover.objective, recover.bn, recover.chunk) == ("sre2l", "global", "across-classes")
    assert (recover.first_bn_multiplier, recover.milestone) == (10.0, 1.0)


def test_only_sre2l_on_tiny_imagenet_shifts_to_either_side() -> None:
    both = {name for name in presets.PRESETS if presets.get(name).recover.roll_both}
    assert both == {"sre2l-tiny-imagenet-ipc50", "sre2l-tiny-imagenet-ipc100"}


def test_imagenet_21k_needs_no_statistics_of_its_ten_thousand_classes() -> None:
    settings = presets.get("cda-imagenet21k-ipc20")
    assert settings.stages == ("squeeze", "recover", "relabel", "train")
    assert normalisation(settings.data) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert normalisation(presets.get("cda-imagenet1k-ipc50").data)[0] == (0.485, 0.456, 0.406)


def test_the_four_cells_of_the_ablation() -> None:
    cells = {name: presets.get(f"imagenette-ablation-{name}") for name in ("w-pcbn", "ce-pcbn", "w-bn", "ce-bn")}
    assert {name: (c.recover.objective, c.recover.bn, c.recover.chunk) for name, c in cells.items()} == {
        "w-pcbn": ("wmdd", "per-class", "per-class"),
        "ce-pcbn": ("sre2l", "per-class", "per-class"),
        "w-bn": ("wmdd", "global", "across-classes"),
        "ce-bn": ("sre2l", "global", "across-classes"),
    }
    assert cells["w-bn"].recover.r_wb == 0, "there the feature term takes the place of cross-entropy"
    assert {c.recover.r_bn for c in cells.values()} == {10.0}
    without = presets.get("imagenette-paper-ipc10").model_copy(update={"preset": "imagenette-ablation-w-pcbn"})
    assert cells["w-pcbn"] == without
