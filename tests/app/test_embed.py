"""The distribution beside the images: figures of known answer, the picture, the command on files of a run."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from typer.testing import CliRunner

from engine import events, presets, rundir
from engine.config import override
from engine.errors import EngineError, InputError, RunDirError
from wmdd_tui.cli.commands import app
from wmdd_tui.plotting.scatter import Cloud, draw
from wmdd_tui.store.embedding import coverage, figures_of, project, thinned, w2_squared
from wmdd_tui.store.features import ClassFeatures, chosen, read_features

runner = CliRunner()
CLASSES, REAL, IPC, LENGTH = 3, 12, 4, 5


@pytest.fixture
def cloud() -> ClassFeatures:
    real_ND = np.random.default_rng(0).normal(size=(30, 6))
    uniform = np.full(30, 1 / 30)
    return ClassFeatures(0, "zero", real_ND, real_ND.copy(), uniform, real_ND[:5], np.full(5, 0.2))


def one_class(images_MD: np.ndarray, of: ClassFeatures) -> ClassFeatures:
    weights = np.full(len(images_MD), 1 / len(images_MD))
    return ClassFeatures(of.label, of.name, of.real_ND, images_MD, weights, None, None)


# --- figures -----------------------------------------------------------------------------------------------


def test_images_that_are_the_real_ones_have_no_distance_and_cover_all(cloud: ClassFeatures) -> None:
    figures = figures_of(cloud, seed=0)
    assert figures.w2_images == pytest.approx(0, abs=1e-12)
    assert figures.coverage == 100
    assert figures.w2_random == pytest.approx(0, abs=1e-12), "as many random real images are all of them"
    assert figures.w2_barycenter is not None
    assert figures.w2_barycenter > 0


def test_a_shift_costs_its_square(cloud: ClassFeatures) -> None:
    shift = np.array([3.0, 0, 0, 4.0, 0, 0])
    figures = figures_of(one_class(cloud.real_ND + shift, cloud), seed=0)
    assert figures.w2_images == pytest.approx(25.0)
    assert figures.w2_barycenter is None


def test_weights_are_the_mass_of_the_points() -> None:
    real_ND = np.array([[0.0], [0.0], [0.0], [1.0]])
    points_KD = np.array([[0.0], [1.0]])
    assert w2_squared(real_ND, points_KD, np.array([0.75, 0.25])) == pytest.approx(0, abs=1e-12)
    assert w2_squared(real_ND, points_KD, np.array([0.5, 0.5])) == pytest.approx(0.25)


def test_coverage_counts_real_images_with_a_synthetic_one_in_reach() -> None:
    real_ND = np.array([[0.0], [1.0], [2.0], [100.0], [101.0], [102.0]])
    assert coverage(real_ND, np.array([[1.0]]), neighbours=2) == 50
    assert coverage(real_ND, np.array([[1.0], [101.0]]), neighbours=2) == 100
    assert coverage(real_ND, np.array([[50.0]]), neighbours=2) == 0
    assert coverage(np.array([[3.0]]), np.array([[3.0]])) == 100


# --- the plane ---------------------------------------------------------------------------------------------


def test_pca_keeps_distances_in_a_plane_and_its_axes_are_the_real_images() -> None:
    random = np.random.default_rng(1)
    basis = np.linalg.qr(random.normal(size=(6, 2)))[0].T
    flat_N2 = random.normal(size=(20, 2))
    one = ClassFeatures(0, "a", flat_N2 @ basis, (flat_N2 * 50)[:3] @ basis, np.full(3, 1 / 3), None, None)
    found = project([one], "pca", 0)[0]
    assert found.points_K2.shape == (0, 2)

    def distances(points: np.ndarray) -> np.ndarray:
        return np.linalg.norm(points[:, None] - points[None], axis=2)

    np.testing.assert_allclose(distances(found.real_N2), distances(flat_N2), atol=1e-9)
    np.testing.assert_allclose(distances(found.images_M2), distances(flat_N2[:3] * 50), atol=1e-9)
    other = project([one_class(np.zeros((3, 6)), one)], "pca", 0)[0]
    np.testing.assert_allclose(other.real_N2, found.real_N2)


def test_tsne_is_the_same_for_the_same_seed(cloud: ClassFeatures) -> None:
    first, again = (project([cloud], "t-sne", 3)[0] for _ in range(2))
    np.testing.assert_array_equal(first.real_N2, again.real_N2)
    assert [part.shape for part in (first.real_N2, first.images_M2, first.points_K2)] == [(30, 2), (30, 2), (5, 2)]


def test_thinning_leaves_out_real_images_alone(cloud: ClassFeatures) -> None:
    fewer = thinned(cloud, 7, 0)
    assert (len(fewer.real_ND), len(fewer.images_MD)) == (7, 30)
    assert thinned(cloud, 30, 0) is cloud


def test_two_points_are_no_picture() -> None:
    one = ClassFeatures(0, "a", np.zeros((1, 4)), np.zeros((1, 4)), np.ones(1), None, None)
    with pytest.raises(InputError, match="too few"):
        project([one], "pca", 0)


@pytest.mark.parametrize("ascii_only", [False, True])
def test_letters_lie_over_dots_at_their_places(ascii_only: bool) -> None:
    corners = np.array([[0.0, 0.0], [1.0, 1.0]])
    clouds = [
        Cloud(corners, (("a", corners[:1]),)),
        Cloud(np.array([[1.0, 0.0]]), (("B", np.array([[0.0, 1.0]])), ("b", np.zeros((0, 2))))),
    ]
    cells, owner = draw(clouds, 10, 20, ascii_only)
    assert cells.shape == (10, 20)
    assert (cells[9, 0], cells[0, 0]) == ("a", "B"), "the origin is at the lower left"
    assert (owner[9, 0], owner[0, 0], owner[9, 19], owner[0, 19], owner[5, 10]) == (0, 1, 1, 0, -1)
    dots = cells[0, 19] + cells[9, 19]
    assert dots == ".." if ascii_only else all(ord(dot) > 0x2800 for dot in dots)


def test_points_all_in_one_place_stand_in_the_middle() -> None:
    cells, _ = draw([Cloud(np.ones((3, 2)), ())], 9, 9, True)
    assert cells[4, 4] == "."
    assert (cells == ".").sum() == 1


# --- files of a run ----------------------------------------------------------------------------------------


def _checkpoint(path: Path, tensors: dict[str, np.ndarray]) -> None:
    body = safetensors.numpy.save(tensors, metadata={"state": "{}"})
    path.write_bytes(hashlib.sha256(body).digest() + body)


@pytest.fixture
def run() -> rundir.RunDir:
    """A run as the engine leaves it, with features in which class 1 is recovered perfectly."""
    made = rundir.create(override(presets.get("digits"), [f"ipc={IPC}", "name=embedded"]))
    random = np.random.default_rng(2)
    labels_N = np.arange(CLASSES * REAL) % CLASSES
    real_ND = random.normal(size=(len(labels_N), LENGTH)).astype(np.float32) + 10 * labels_N[:, None].astype(np.float32)
    images_MD = np.concatenate([real_ND[labels_N == label][:IPC] for label in range(CLASSES)])
    np.save(made.checkpoints / "features.npy", real_ND)
    np.save(made.report / "image_features.npy", images_MD)
    _checkpoint(made.checkpoints / "statistics.ckpt", {"labels_N": labels_N})
    points = images_MD.reshape(CLASSES, IPC, LENGTH).astype(np.float64)
    weights = np.full((CLASSES, IPC), 1 / IPC)
    _checkpoint(made.checkpoints / "barycenter.ckpt", {"points_CKD": points, "weights_CK": weights})
    writer = events.Writer(made.events_file)
    writer.write(events.Hello(class_names=["zero", "[one]", "two$"]))
    writer.close()
    return made


def test_the_features_of_a_run_are_read_class_by_class(run: rundir.RunDir) -> None:
    found = read_features(run, ["[one]", "2"])
    assert [(one.label, one.name) for one in found] == [(1, "[one]"), (2, "two$")]
    assert found[0].real_ND.shape == (REAL, LENGTH)
    np.testing.assert_array_equal(found[0].images_MD, found[0].real_ND[:IPC])
    np.testing.assert_array_equal(found[0].points_KD, found[0].images_MD)
    assert len(read_features(run)) == CLASSES


def test_classes_are_chosen_by_number_name_or_all() -> None:
    names = ["7", "cat", "dog"]
    assert chosen([], names, 2) == [0, 1]
    assert chosen(["all"], names, 2) == [0, 1, 2]
    assert chosen(["dog", "1", "dog"], names, 2) == [2, 1]
    assert chosen(["7"], names, 2) == [0], "a name comes before a number"
    with pytest.raises(InputError, match="class '9' is none of the run's 3"):
        chosen(["9"], names, 2)


def test_the_command_tells_draws_and_writes(run: rundir.RunDir, tmp_path: Path) -> None:
    target = tmp_path / "deep" / "embedding.svg"
    shown = runner.invoke(app, ["embed", run.id, "--ascii", "--out", str(target)], catch_exceptions=False)
    assert shown.exit_code == 0, shown.output
    assert "[one]" in shown.output
    assert "coverage" in shown.output
    assert target.read_text().count("two$") == 1
    answer = runner.invoke(app, ["embed", "embedded", "--class", "two$", "--method", "t-sne", "--json"])
    facts = json.loads(answer.stdout)
    assert (facts["method"], facts["file"], len(facts["classes"])) == ("t-sne", None, 1)
    row = facts["classes"][0]
    assert (row["name"], row["real"] and len(row["real"]), len(row["images"])) == ("two$", REAL, IPC)
    assert row["w2_images"] == pytest.approx(row["w2_barycenter"])
    assert 0 < row["coverage"] <= 100


@pytest.mark.parametrize("ending", ["png", "pdf"])
def test_pictures_of_other_kinds(run: rundir.RunDir, tmp_path: Path, ending: str) -> None:
    target = tmp_path / f"embedding.{ending}"
    runner.invoke(app, ["embed", run.id, "--out", str(target)], catch_exceptions=False)
    assert target.read_bytes()[:4] in (b"\x89PNG", b"%PDF")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--out", "a.bmp"], "end it in .svg, .png or .pdf"),
        (["--class", "9"], "give numbers from 0 to 2"),
    ],
)
def test_what_cannot_be_meant_is_refused(
    run: rundir.RunDir, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EngineError) as caught:
        runner.invoke(app, ["embed", run.id, *arguments], catch_exceptions=False)
    assert said in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_file_that_exists_is_kept(run: rundir.RunDir, tmp_path: Path) -> None:
    target = tmp_path / "kept.svg"
    target.write_text("mine")
    with pytest.raises(InputError, match="exists already"):
        runner.invoke(app, ["embed", run.id, "--out", str(target)], catch_exceptions=False)
    assert target.read_text() == "mine"


@pytest.mark.parametrize(
    "name", ["checkpoints/statistics.ckpt", "checkpoints/features.npy", "report/image_features.npy"]
)
@pytest.mark.parametrize("injury", ["missing", "damaged", "another's"])
def test_missing_and_damaged_files_are_said(run: rundir.RunDir, name: str, injury: str) -> None:
    path = run.path / name
    if injury == "missing":
        path.unlink()
    elif injury == "damaged":
        path.write_bytes(path.read_bytes()[:-7] if name.endswith("npy") else b"\x00" * 80)
    elif name.endswith("npy"):
        np.save(path, np.zeros((2, LENGTH), dtype=np.float32))
    else:
        _checkpoint(path, {"labels_N": np.zeros(4, dtype=np.int64)})
    with pytest.raises(RunDirError) as caught:
        read_features(run)
    assert f"wmdd-tui resume {run.id}" in str(caught.value)


def test_measuring_and_projecting_import_no_torch() -> None:
    code = (
        "import sys, numpy as np\n"
        "import wmdd_tui.cli.embed, wmdd_tui.store.embedding_figure\n"
        "from wmdd_tui.store.embedding import figures_of, project\n"
        "from wmdd_tui.store.features import ClassFeatures\n"
        "x = np.random.default_rng(0).normal(size=(9, 4))\n"
        "one = ClassFeatures(0, 'a', x, x[:3], np.full(3, 1 / 3), None, None)\n"
        "figures_of(one, 0), project([one], 'pca', 0)\n"
        "print('torch' in sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
