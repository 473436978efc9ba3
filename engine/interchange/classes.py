"""Whether classes are in the order they are thought to be, and accuracy where they have no order at all (clusters)."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import nn

from engine.context import Context
from engine.data import Dataset, normalise
from engine.data.pseudo import match_clusters
from engine.softlabels import SyntheticSet

#: The order is in doubt where another one fits the teacher better by this factor.
DOUBT = 1.5


def teacher_votes(ctx: Context, network: nn.Module, synthetic: SyntheticSet, dataset: Dataset) -> torch.Tensor:
    """Softmax of the teacher's logits of the images themselves; (N, C) float64 on the CPU."""
    votes_NC = torch.zeros(len(synthetic.labels_N), len(dataset.class_names), dtype=torch.float64)

    def work(rows: slice) -> None:
        inputs = normalise(synthetic.images_NCHW[rows].to(ctx.device), dataset.mean, dataset.std)
        with torch.no_grad():
            votes_NC[rows] = network(inputs).double().softmax(1).cpu()

    for start in range(0, len(votes_NC), ctx.config.relabel.batch_size):
        ctx.cut("relabel", slice(start, min(start + ctx.config.relabel.batch_size, len(votes_NC))), work)
    return votes_NC


def order_in_doubt(votes_NC: torch.Tensor, labels_N: torch.Tensor, names: tuple[str, ...]) -> str:
    """A sentence where the teacher takes the images for other classes than they are filed under; else empty.

    Compared are the votes for the classes as filed and under the best one-to-one exchange of classes.
    """
    classes = votes_NC.shape[1]
    table_CC = torch.zeros(classes, classes, dtype=torch.float64).index_add_(0, labels_N, votes_NC).numpy()
    chosen_C = match_clusters(table_CC)
    filed, best = float(table_CC.trace()), float(table_CC[range(classes), chosen_C].sum())
    moved = [label for label in range(classes) if chosen_C[label] != label]
    if not moved or best < DOUBT * filed:
        return ""
    first = moved[0]
    return (
        f"the order of the classes is in doubt: the images filed as '{names[first]}' look to the teacher like "
        f"'{names[int(chosen_C[first])]}', and so on for {len(moved)} of {classes} classes"
    )


def cluster_judge(ctx: Context, dataset: Dataset) -> Callable[[nn.Module], tuple[float, float]]:
    """Top-1 and top-5 in percent of a network whose outputs are clusters of unknown class.

    Each cluster stands for the class that optimal assignment over the validation images gives it.
    """
    labels_N, clusters = dataset.val.labels_N, dataset.outputs

    def judge(network: nn.Module) -> tuple[float, float]:
        was_training = network.training
        network.eval()
        logits = torch.zeros(len(labels_N), clusters)
        lists = list(torch.arange(len(labels_N)).split(ctx.config.train.eval_batch))
        with torch.no_grad():
            for index, images in zip(lists, dataset.val.batches(lists), strict=True):
                inputs = normalise(images, dataset.mean, dataset.std)
                ctx.cut("evaluation", slice(0, len(index)), partial(_forward, network, inputs, logits[index[0] :]))
                ctx.stop_if_asked("train")
        network.train(was_training)
        return cluster_accuracy(logits, labels_N, len(dataset.class_names))

    return judge


def _forward(network: nn.Module, inputs_BCHW: torch.Tensor, logits_BK: torch.Tensor, part: slice) -> None:
    logits_BK[part] = network(inputs_BCHW[part]).float().cpu()


def cluster_accuracy(logits_NK: torch.Tensor, labels_N: torch.Tensor, classes: int) -> tuple[float, float]:
    """Top-1 and top-5 in percent when each cluster stands for one class, chosen so that most images agree."""
    clusters = logits_NK.shape[1]
    table_KC = torch.zeros(clusters, classes, dtype=torch.int64)
    table_KC.index_put_((logits_NK.argmax(1), labels_N), torch.ones(len(labels_N), dtype=torch.int64), accumulate=True)
    chosen_K = torch.from_numpy(match_clusters(table_KC.numpy()))
    best = chosen_K[logits_NK.topk(min(5, clusters), dim=1).indices] == labels_N[:, None]
    top1, top5 = (100.0 * float(hits.float().mean()) for hits in (best[:, 0], best.any(1)))
    return top1, top5
