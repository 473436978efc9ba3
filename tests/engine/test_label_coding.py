"""Soft labels on disk: what each coding keeps, what it takes, and files that hold it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from engine import rundir
from engine.config import RelabelConfig, RunConfig
from engine.labelcoding import decode, encode
from engine.softlabels import block_bytes, block_is_whole, block_path, read_soft_labels

CODINGS = [RelabelConfig(), RelabelConfig(bits=8), RelabelConfig(top_k=4), RelabelConfig(top_k=4, bits=8)]


def _labels(classes: int = 12) -> torch.Tensor:
    return (4 * torch.randn(3, 5, classes, generator=torch.Generator().manual_seed(0))).half()


@pytest.mark.parametrize("config", CODINGS, ids=lambda config: f"top {config.top_k}, {config.bits} bits")
@pytest.mark.parametrize("classes", [12, 300])
def test_labels_are_read_back_as_they_were_kept(config: RelabelConfig, classes: int) -> None:
    logits_ENC = _labels(classes)
    stored = encode(logits_ENC, config)
    for epoch, wanted_NC in enumerate(logits_ENC):
        found_NC = decode({name: one[epoch] for name, one in stored.items()}, classes)
        assert found_NC.dtype == torch.float16
        top = wanted_NC.float().topk(config.top_k or classes, dim=1)
        span_N1 = top.values.amax(1, keepdim=True) - top.values.amin(1, keepdim=True)
        error = (found_NC.float().gather(1, top.indices) - top.values).abs()
        assert (error <= (0 if config.bits == 16 else span_N1 / 255 + 0.01)).all()
        torch.testing.assert_close(found_NC.float().mean(1), wanted_NC.float().mean(1), rtol=0, atol=0.02)


@pytest.mark.parametrize("config", CODINGS, ids=lambda config: f"top {config.top_k}, {config.bits} bits")
@pytest.mark.parametrize("classes", [12, 300])
def test_a_label_takes_the_bytes_that_are_told(config: RelabelConfig, classes: int) -> None:
    logits_ENC = _labels(classes)
    total = sum(one.numel() * one.element_size() for one in encode(logits_ENC, config).values())
    assert total == config.label_bytes(classes) * logits_ENC.shape[0] * logits_ENC.shape[1]


def test_a_label_of_equal_logits_survives_eight_bits() -> None:
    logits_ENC = torch.full((1, 2, 5), 3.5).half()
    stored = encode(logits_ENC, RelabelConfig(bits=8))
    assert torch.equal(decode({name: one[0] for name, one in stored.items()}, 5), logits_ENC[0])


@pytest.mark.parametrize("config", CODINGS, ids=lambda config: f"top {config.top_k}, {config.bits} bits")
def test_files_hold_every_coding(config: RelabelConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WMDD_HOME", str(tmp_path))
    run, logits_ENC = rundir.create(RunConfig()), _labels()
    path = block_path(run, range(3))
    data = block_bytes(logits_ENC, "key", config)
    assert data == block_bytes(logits_ENC, "key", config), "equal work, equal bytes"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(data)
    assert block_is_whole(path, (3, 5, 12), "key")
    assert not block_is_whole(path, (3, 5, 12), "other work")
    assert not block_is_whole(path, (3, 5, 11), "key")
    stored = encode(logits_ENC, config)
    assert torch.equal(read_soft_labels(run, 2), decode({name: one[2] for name, one in stored.items()}, 12))
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert not block_is_whole(path, (3, 5, 12), "key")
