"""Metrics that add up over batches and over processes."""

import torch


def topk_correct(scores, labels, ks):
    """For each k a bool tensor B: is the label among the k highest scores? k above the number of classes counts all."""
    order = scores.topk(min(max(ks), scores.shape[1]), dim=1).indices
    hits = order == labels[:, None]
    return [hits[:, :k].any(1) for k in ks]


class TopK:
    """Top-1 and top-5 accuracy, in percent."""

    names = ("top1_acc", "top5_acc")
    primary = "top1_acc"

    def __init__(self):
        self.counts = torch.zeros(3, dtype=torch.int64)

    def update(self, scores, batch):
        """scores: B, K, on the CPU; batch: what the loader gave, with labels B."""
        top1, top5 = topk_correct(scores, batch.labels, (1, 5))
        self.counts += torch.tensor([len(scores), int(top1.sum()), int(top5.sum())])

    def merge(self, other):
        self.counts += other.counts

    def values(self):
        """{name: percent}; ValueError when no video was seen."""
        total, *correct = self.counts.tolist()
        if total == 0:
            raise ValueError("no video was evaluated")
        return {name: 100.0 * count / total for name, count in zip(self.names, correct)}

    @property
    def num_videos(self):
        return int(self.counts[0])

    def state(self):
        return self.counts.clone()

    def load_state(self, state):
        self.counts = state.clone()
