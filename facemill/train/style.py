"""The losses of the fast face-swap network, as pure functions (S21, S22).

Korshunova et al. 2017, section 2.2, with x the picture that comes in, x̂ the one that is drawn and Φ the activations of
a feature network:

    content    mean (Φ(x̂) − Φ(x))²                             same pose and expression                     Eq. (1)
    style      mean over places i of min over j (1 − cos(Φᵢ(x̂), Φᵢ(yⱼ)))      the person's texture          Eq. (2)-(4)
    light      mean (Γ(x̂) − Γ(x))², Γ the light network         same light                                   Eq. (6)
    variation  mean squared difference of neighbours            no noise                                     Eq. (7)

The y are the person's own pictures with the most similar landmarks, so that pose and expression agree and a patch need
only be looked for at its own place. Patches are 1×1, as in the paper's experiments. All losses are means over faces.

The paper's weights belong to its feature normalisation and do not carry over: here each loss gets the weight at which
its gradient has a stated share, see `balanced_weights`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional

from facemill.errors import FacemillError

NEAREST = 16
"""Style pictures that a face is compared with: the paper's N_best."""


def content_loss(drawn: Tensor, given: Tensor) -> Tensor:
    """Mean squared difference of activations (N, C, H, W)."""
    return functional.mse_loss(drawn.float(), given.float())


def style_loss(drawn: Tensor, style: Tensor, nearest: Tensor) -> Tensor:
    """Mean over places of the cosine distance to the best-fitting style picture, each place for itself; 0…2.

    Args:
        drawn: activations (N, C, H, W) of what was drawn.
        style: `unit` activations (S, C, H, W) of the person's pictures.
        nearest: (N, K) int64: which of them each face is compared with, see `nearest_styles`.
    """
    losses = []
    for own, rows in zip(unit(drawn), nearest, strict=True):  # face by face: K maps of each would fill the memory
        candidates = style[rows].float()
        with torch.no_grad():
            best = torch.einsum("chw,kchw->khw", own, candidates).argmax(0)
        fitting = candidates.gather(0, best.expand(1, *own.shape))[0]  # (C, H, W)
        losses.append(1 - (own * fitting).sum(0).mean())
    return torch.stack(losses).mean()


def unit(activations: Tensor) -> Tensor:
    """(N, C, H, W) with the channels of each place made a vector of length 1."""
    return functional.normalize(activations.float(), dim=1)


def nearest_styles(landmarks: Tensor, of_style: Tensor, count: int = NEAREST) -> Tensor:
    """The style pictures whose landmarks are closest to a face's: (N, 68, 2), (S, 68, 2) → (N, min(count, S)) int64.

    Euclidean distance of all points at once; both in the same aligned frame.
    """
    distances = torch.cdist(
        landmarks.float().flatten(1), of_style.float().flatten(1), compute_mode="donot_use_mm_for_euclid_dist"
    )
    return distances.topk(min(count, len(of_style)), largest=False).indices


def light_loss(drawn: Tensor, given: Tensor) -> Tensor:
    """Mean squared difference of the light network's features (N, F)."""
    return functional.mse_loss(drawn.float(), given.float())


def squared_variation(pictures: Tensor) -> Tensor:
    """Squared differences of neighbours down and right, summed over a face and divided by its number of values."""
    pictures = pictures.float()
    down, right = pictures.diff(dim=2).square().sum(), pictures.diff(dim=3).square().sum()
    return (down + right) / pictures.numel()


def balanced_weights(
    losses: Callable[[Tensor], Mapping[str, Tensor]], at: Tensor, shares: Mapping[str, float]
) -> dict[str, float]:
    """Weights at which the gradients of the losses have norms in the ratio of `shares`; that of the first one is 1.

    Args:
        losses: named losses of pictures.
        at: (N, 3, P, P) pictures at which the gradients are taken.
        shares: by name, > 0; they need not add up to 1.

    Raises:
        FacemillError: a loss whose gradient is zero or not finite there: no weight gives it a share.
    """
    pictures = at.detach().requires_grad_(True)
    norms = {}
    with torch.enable_grad():
        found = losses(pictures)
        for name in shares:
            (gradient,) = torch.autograd.grad(found[name], pictures, retain_graph=True)
            norms[name] = float(gradient.norm())
    for name, norm in norms.items():
        if not 0 < norm < float("inf"):
            raise FacemillError(
                f"the {name} loss has a gradient of norm {norm} on the first faces, so it cannot be balanced: look at "
                "the faces (all alike, or empty?) and at the files of train.options, or give it no share"
            )
    first = next(iter(shares))
    return {name: share / norms[name] * norms[first] / shares[first] for name, share in shares.items()}
