"""Point clouds with and without known partners: known maps are found again, through outliers and missing points."""

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from facemill.align import MEAN_DEPTH, MEAN_FACE
from facemill.point_sets import apply, fit, fit_trimmed, mean_shape, register

FLAT, HEAD = MEAN_FACE, np.column_stack([MEAN_FACE, MEAN_DEPTH])
KINDS = ["rigid", "similarity", "affine"]
clouds = st.sampled_from([2, 3]).flatmap(lambda d: hnp.arrays(np.float64, (9, d), elements=st.floats(-100, 100)))


def turned(rng, dimensions, kind):
    """A map of that kind: any turn, and where the kind has them a scale of 0.3…4 and some shear."""
    linear, _ = np.linalg.qr(rng.normal(size=(dimensions, dimensions)))
    linear[:, 0] *= np.linalg.det(linear)
    if kind != "rigid":
        linear *= rng.uniform(0.3, 4)
    if kind == "affine":
        linear = linear @ (np.eye(dimensions) + rng.normal(0, 0.1, (dimensions, dimensions)))
    return np.hstack([linear, rng.normal(0, 5, (dimensions, 1))])


def scene(rng, points, matrix, *, noise=0.0, missing=0.0, clutter=0.0):
    """The mapped points in another order, some of them gone, strangers among them; parts of the points' spread."""
    seen = apply(matrix, points)
    spread = np.sqrt(seen.var(axis=0).sum())
    strangers = rng.uniform(seen.min(axis=0), seen.max(axis=0), (int(clutter * len(seen)), seen.shape[1]))
    seen = seen + rng.normal(0, noise * spread, seen.shape)
    seen = np.vstack([seen[rng.random(len(seen)) >= missing], strangers])
    return seen[rng.permutation(len(seen))], spread


@pytest.mark.parametrize("points", [FLAT, HEAD], ids=["2d", "3d"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_cloud_in_another_order_is_found_exactly_whatever_its_turn(kind, points):
    rng = np.random.default_rng(3)
    true = turned(rng, points.shape[1], kind)
    seen, spread = scene(rng, points, true)
    found = register(points, seen, kind)
    np.testing.assert_allclose(apply(found.matrix, points), apply(true, points), atol=1e-3 * spread)
    np.testing.assert_allclose(seen[found.partner], apply(true, points), atol=1e-6)
    assert found.converged
    assert found.residual < 1e-3 * spread


@pytest.mark.parametrize("points", [FLAT, HEAD], ids=["2d", "3d"])
@pytest.mark.parametrize("kind", KINDS)
def test_outliers_missing_points_and_noise_are_borne(kind, points):
    """A fifth strangers, a fifth gone, noise of 0.5 % of the spread: the map is good to 1 %."""
    rng = np.random.default_rng(5)
    true = turned(rng, points.shape[1], kind)
    seen, spread = scene(rng, points, true, noise=0.005, missing=0.2, clutter=0.2)
    found = register(points, seen, kind, outliers=0.2)
    error = np.linalg.norm(apply(found.matrix, points) - apply(true, points), axis=1)
    assert error.max() < 0.01 * spread


def test_a_point_without_partner_has_none():
    rng = np.random.default_rng(7)
    seen, _ = scene(rng, FLAT, np.hstack([np.eye(2), [[3], [4]]]))
    lonely = np.vstack([FLAT, [[2.0, 2.0]]])
    assert register(lonely, seen, "rigid").partner[-1] == -1
    assert (register(lonely, seen, "rigid").partner[:-1] >= 0).all()


def test_registration_gives_the_same_twice_and_never_a_mirror_image():
    rng = np.random.default_rng(9)
    mirrored = FLAT * [-1, 1] + rng.normal(0, 0.01, FLAT.shape)
    first, second = (register(FLAT, mirrored, kind="affine") for _ in range(2))
    np.testing.assert_array_equal(first.matrix, second.matrix)
    assert np.linalg.det(first.matrix[:, :2]) > 0


@pytest.mark.parametrize(
    ("moving", "fixed", "match"),
    [
        (np.zeros((5, 2)), FLAT, "moving: the points coincide"),
        (FLAT, np.full((5, 2), np.nan), "fixed holds NaN"),
        (FLAT, HEAD, "2 dimensions, fixed 3"),
        (FLAT[:2], FLAT, r"moving: expected \(K, 2\)"),
        (FLAT, np.zeros((5, 4)), "fixed: expected"),
        (np.random.default_rng(0).random((5000, 2)), np.random.default_rng(1).random((5000, 2)), "thin the clouds"),
    ],
)
def test_clouds_that_determine_nothing_are_refused(moving, fixed, match):
    with pytest.raises(ValueError, match=match):
        register(moving, fixed)


@given(clouds, st.sampled_from(KINDS), st.integers(0, 2**32 - 1))
def test_fit_recovers_its_map_in_two_and_three_dimensions(points, kind, seed):
    assume(np.linalg.svd(points - points.mean(0), compute_uv=False)[-1] > 1)
    true = turned(np.random.default_rng(seed), points.shape[1], kind)
    np.testing.assert_allclose(apply(fit(points, apply(true, points), kind), points), apply(true, points), atol=1e-5)


def test_a_point_of_weight_zero_does_not_count():
    wrong = FLAT.copy()
    wrong[5] += 100
    weights = np.ones(68)
    weights[5] = 0
    np.testing.assert_allclose(fit(FLAT, wrong, "affine", weights), [[1, 0, 0], [0, 1, 0]], atol=1e-9)


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_and_missing_partners_do_not_move_a_trimmed_fit(kind):
    rng = np.random.default_rng(11)
    true = turned(rng, 3, kind)
    seen = apply(true, HEAD)
    seen[::4] += rng.normal(0, 50, (17, 3))  # a quarter is wrong
    seen[1] = np.nan  # one is missing
    np.testing.assert_allclose(fit_trimmed(HEAD, seen, kind), true, atol=1e-6)


def test_the_mean_of_turned_and_scaled_copies_is_their_shape():
    rng = np.random.default_rng(13)
    copies = np.array([apply(turned(rng, 3, "similarity"), HEAD) for _ in range(5)])
    mean = mean_shape(copies)
    np.testing.assert_allclose(apply(fit(mean, HEAD), mean), HEAD, atol=1e-6)
    assert np.square(mean).sum(axis=1).mean() == pytest.approx(1.0)
