"""The contrastive loss over a client's own rows, and the keys by which equal things are known.

InfoNCE with in-batch negatives: Oord, Li and Vinyals 2018, arXiv 1807.03748, eq. 4; over texts as
in Henderson et al. 2017, arXiv 1705.00652, section 4.4 (MultipleNegativesRankingLoss of
sentence-transformers); in both directions as in CLIP (Radford et al. 2021, arXiv 2103.00020,
figure 3).

Shapes: K clients with b rows each, V views of a row (anchor, positive, perhaps a negative), d
features, C = (V − 1)·b candidates of a client.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from atoll.models.collate import IGNORED
from atoll.models.objective import Batch

__all__ = ["Contrast", "key_of", "vectors_of"]

LARGEST = 100.0
"""Of a scale that is learned, as in CLIP, section 2.5."""


@dataclass(frozen=True)
class Contrast:
    """How pairs are told from other pairs.

    temperature: cosines are divided by it; None: the last column of the outputs is the logarithm
        of what they are multiplied by.
    symmetric: positives look for their anchors too, and both losses are averaged.
    """

    temperature: float | None
    symmetric: bool

    def losses(self, outputs: Tensor, batch: Batch) -> Tensor:
        """The loss of each row [K·b]; a padding row's is zero, and it is nobody's negative.

        What equals one of the anchor's positives, or the anchor, is no negative of it.
        """
        vectors = vectors_of(outputs, batch, learned=self.temperature is None)
        keys = batch.target.view(batch.clients, -1, batch.target.shape[1])
        unit = normalize(vectors, dim=-1).view(*keys.shape, -1)
        anchors, others = unit[:, :, 0], unit[:, :, 1:].transpose(1, 2).flatten(1, 2)
        cosines = anchors @ others.transpose(1, 2)
        if self.temperature is None:
            scale = outputs[:, -1].to(cosines.dtype).clamp(max=math.log(LARGEST)).exp()
            logits = cosines * scale.view(*keys.shape[:2], -1)[:, :, :1]
        else:
            logits = cosines / self.temperature
        open_to = _candidates(keys)
        found = _told_apart(logits, open_to)
        if self.symmetric:
            back = open_to[:, :, : keys.shape[1]].transpose(1, 2)
            found = (found + _told_apart(logits[:, :, : keys.shape[1]].transpose(1, 2), back)) / 2
        return found.flatten()


def vectors_of(outputs: Tensor, batch: Batch, *, learned: bool) -> Tensor:
    """[N, V, d], in float32 or finer; V is as many as the outputs have for each row.

    learned: whether their last column is a scale.
    """
    vectors = outputs[:, :-1] if learned else outputs
    exact = vectors.to(torch.promote_types(vectors.dtype, torch.float32))
    return exact.view(len(batch.target), -1, exact.shape[-1])


def key_of(content: np.ndarray) -> int:
    """A number of 52 bits for what a model reads; exact as a float64."""
    digest = hashlib.blake2b(np.ascontiguousarray(content).tobytes(), digest_size=8)
    return int.from_bytes(digest.digest(), "little") >> 12


def _candidates(keys: Tensor) -> Tensor:
    """[K, b, C]: whom an anchor is told from, and its own positive."""
    size = keys.shape[1]
    anchors, positives = keys[:, :, 0], keys[:, :, 1]
    others = keys[:, :, 1:].transpose(1, 2).flatten(1)
    same = anchors.unsqueeze(2) == anchors.unsqueeze(1)
    equal = positives.unsqueeze(2) == others.unsqueeze(1)
    # A positive of any row with this anchor, whatever row it stands in.
    known = (same.float() @ equal.float()) > 0
    known |= anchors.unsqueeze(2) == others.unsqueeze(1)
    found = ~known & (others != IGNORED).unsqueeze(1) & (anchors != IGNORED).unsqueeze(2)
    own = torch.eye(size, others.shape[1], dtype=torch.bool, device=keys.device)
    return found | own


def _told_apart(logits: Tensor, open_to: Tensor) -> Tensor:
    """−log softmax of each row's own candidate, the one on the diagonal, [K, b]."""
    chances = logits.masked_fill(~open_to, -torch.inf).log_softmax(-1)
    return -chances.diagonal(dim1=1, dim2=2)
