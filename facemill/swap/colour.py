"""Gives the new face the light and skin tone of the old one. Methods by the name that `params.yaml` uses.

A method takes the new face, the old face and the mask, all in crop coordinates, and returns the new face recoloured. To
add one, write a function with that signature and `@register("name")`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from facemill.registry import Registry

Picture = npt.NDArray[np.float32]  # RGB, H×W×3, 0…1
ColourMethod = Callable[[Picture, Picture, npt.NDArray[np.float32]], Picture]

MAX_GAIN = 1.1  # of the new face's own spread
MIN_WEIGHT = 16.0  # pixels of mask below which there is nothing to measure
METHODS: Registry[ColourMethod] = Registry("colour method")
register = METHODS.register


def colour_method(name: str) -> ColourMethod:
    """The method of that name.

    Raises:
        FacemillError: no such method; the message lists those there are.
    """
    return METHODS[name]


@register("none")
def keep_colours(new: Picture, old: Picture, mask: npt.NDArray[np.float32]) -> Picture:
    """Leaves the new face in the colours in which the net drew it."""
    return new


@register("reinhard")
def reinhard(new: Picture, old: Picture, mask: npt.NDArray[np.float32]) -> Picture:
    """Mean and spread of each Lab channel inside the mask (Reinhard et al. 2001, "Color Transfer between Images")."""
    if mask.sum() < MIN_WEIGHT:
        return new
    new_lab, old_lab = _lab(new), _lab(old)
    new_mean, new_spread = _moments(new_lab, mask)
    old_mean, old_spread = _moments(old_lab, mask)
    # Spread that comes from glasses or deep lines must not become contrast of the new skin.
    gain = np.clip(old_spread / np.maximum(new_spread, 1e-3), 0.5, MAX_GAIN)
    return _rgb((new_lab - new_mean) * gain + old_mean)


@register("linear")
def linear(new: Picture, old: Picture, mask: npt.NDArray[np.float32]) -> Picture:
    """The optimal linear map between the two colour clouds in RGB (Pitié & Kokaram 2007, "The linear Monge-Kantorovitch
    linear colour mapping", Eq. (8)): it also turns colours, where Reinhard's only shifts and stretches them."""
    if mask.sum() < MIN_WEIGHT:
        return new
    new_mean, new_cov = _covariance(new, mask)
    old_mean, old_cov = _covariance(old, mask)
    root = _root(new_cov)
    inverse = np.linalg.inv(root)
    matrix = inverse @ _root(root @ old_cov @ root) @ inverse
    mapped = (new - new_mean) @ matrix.T + old_mean
    return np.asarray(np.clip(mapped, 0.0, 1.0), np.float32)


def _moments(picture: Picture, mask: npt.NDArray[np.float32]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    weights = (mask / mask.sum()).ravel()
    flat = picture.reshape(-1, 3)
    mean = np.einsum("p,pc->c", weights, flat)
    apart = flat - mean
    apart *= apart
    return mean, np.sqrt(np.einsum("p,pc->c", weights, apart))


def _covariance(picture: Picture, mask: npt.NDArray[np.float32]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    weights = (mask / mask.sum()).reshape(-1, 1).astype(np.float64)
    flat = picture.reshape(-1, 3).astype(np.float64)
    mean = (flat * weights).sum(axis=0)
    centred = flat - mean
    return mean, (centred * weights).T @ centred + 1e-5 * np.eye(3)


def _root(matrix: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Square root of a symmetric positive matrix."""
    values, vectors = np.linalg.eigh(matrix)
    rooted: npt.NDArray[Any] = (vectors * np.sqrt(np.maximum(values, 1e-12))) @ vectors.T
    return rooted


def _lab(picture: Picture) -> Picture:
    return np.asarray(cv2.cvtColor(np.ascontiguousarray(picture, np.float32), cv2.COLOR_RGB2Lab), np.float32)


def _rgb(lab: npt.NDArray[Any]) -> Picture:
    rgb = cv2.cvtColor(np.ascontiguousarray(lab, np.float32), cv2.COLOR_Lab2RGB)
    return np.clip(np.asarray(rgb, np.float32), 0.0, 1.0)
