"""A face on its side gets the points of the upright one, turned with it: by both predictors, at every roll."""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from facemill.align import five_points, transform
from facemill.boxes import LANDMARK_BOXES
from facemill.detect import build_detector
from facemill.errors import FacemillError
from facemill.landmarks import LandmarkPredictor, build_predictor, doubt, landmark_box, upright_boxes
from facemill.landmarks._upright import Square, roll_of
from facemill.landmarks.mesh import MAX_BYTES, TASK_MEMBER, VERTICES, MeshPredictor, read_net
from facemill.quality import LEAST_PRESENCE, is_seen

Picture = npt.NDArray[np.uint8]
Points = npt.NDArray[np.float64]
ROLLS = (30, 75, 90, 135, 180, 240, 330)


def turned(picture: Picture, points: Points, degrees: float) -> tuple[Picture, Points]:
    """The picture turned clockwise about its middle, and the points with it."""
    height, width = picture.shape[:2]
    turn = cv2.getRotationMatrix2D((width / 2, height / 2), -degrees, 1.0)
    size = (width, height)
    return cv2.warpAffine(picture, turn, size, borderMode=cv2.BORDER_REPLICATE), transform(points, turn)


def error(found: npt.NDArray[np.float32], expected: Points) -> float:
    """Mean distance over that of the outer corners of the eyes."""
    apart = np.linalg.norm(expected[36] - expected[45])
    return float(np.linalg.norm(found - expected, axis=1).mean() / apart)


@pytest.fixture(params=["dlib", "mesh"])
def predictor(request: pytest.FixtureRequest) -> LandmarkPredictor:
    if request.param == "mesh":
        return build_predictor("mesh", weights=request.getfixturevalue("mesh_weights"))
    return build_predictor("dlib")


@pytest.fixture
def upright(predictor: LandmarkPredictor, collins: Picture) -> Points:
    boxes = build_detector("hog", min_face_px=60).detect([collins])[0].boxes_xyxy[:1]
    points: Points = predictor.predict(collins, boxes)[0].astype(np.float64)
    return points


@pytest.mark.parametrize("degrees", ROLLS)
def test_with_five_points_the_roll_does_not_matter(
    predictor: LandmarkPredictor, collins: Picture, upright: Points, degrees: int
) -> None:
    picture, expected = turned(collins, upright, degrees)
    boxes, fives = upright_boxes(expected[None]), five_points(expected)[None]
    assert error(predictor.predict(picture, boxes, LANDMARK_BOXES, points5=fives)[0], expected) < 0.02


def test_a_face_that_is_almost_upright_is_looked_at_as_it_is(collins: Picture) -> None:
    dlib = build_predictor("dlib")
    boxes = build_detector("hog", min_face_px=60).detect([collins])[0].boxes_xyxy[:1]
    points = dlib.predict(collins, boxes)
    again = dlib.predict(collins, boxes, points5=five_points(points[0])[None])
    np.testing.assert_array_equal(again, points)
    np.testing.assert_array_equal(upright_boxes(points), landmark_box(points))


@given(st.floats(-3.1, 3.1), st.floats(0.2, 5), st.floats(-500, 500), st.floats(-500, 500))
def test_a_turned_face_has_its_box_around_the_same_middle_and_of_the_same_size(
    roll: float, scale: float, x: float, y: float
) -> None:
    face = np.random.default_rng(3).uniform(-50, 50, (68, 2)) + [0, 400]
    face[36:42], face[42:48] = [-30, 380], [30, 380]
    face[48], face[54] = [-20, 430], [20, 430]
    spin = scale * np.array([[np.cos(roll), -np.sin(roll)], [np.sin(roll), np.cos(roll)]])
    spun = face @ spin.T + [x, y]
    assert roll_of(five_points(spun)) == pytest.approx(roll, abs=1e-6)
    (before,), (after,) = upright_boxes(face[None]), upright_boxes(spun[None])
    if abs(roll) > 0.18:  # under 10° the box is the plain one, which grows a little with the roll
        np.testing.assert_allclose(after[2:] - after[:2], scale * (before[2:] - before[:2]), rtol=1e-6)
        np.testing.assert_allclose(
            (after[2:] + after[:2]) / 2, (before[2:] + before[:2]) / 2 @ spin.T + [x, y], atol=1e-4
        )


def test_a_square_crop_has_what_was_in_its_middle_in_its_middle() -> None:
    affine = Square(np.array([30.0, 40.0]), 20.0, np.pi / 2).affine(41)
    np.testing.assert_allclose(transform(np.array([[30.0, 40.0]]), affine), [[20, 20]])
    # a face that is rolled clockwise by a quarter has its chin at the left
    np.testing.assert_allclose(transform(np.array([[20.0, 40.0]]), affine), [[20, 40.5]])


@pytest.mark.parametrize("degrees", [0, *ROLLS])
def test_the_mesh_finds_the_roll_itself_when_nobody_says_it(mesh_weights: Path, collins: Picture, degrees: int) -> None:
    mesh = MeshPredictor(mesh_weights)
    boxes = build_detector("hog", min_face_px=60).detect([collins])[0].boxes_xyxy[:1]
    picture, expected = turned(collins, mesh.predict(collins, boxes)[0].astype(np.float64), degrees)
    (found,) = mesh.meshes(picture, upright_boxes(expected[None]), LANDMARK_BOXES)
    assert found.presence > 12
    assert error(found.points[VERTICES, :2].astype(np.float32), expected) < 0.02
    assert np.degrees(found.roll) == pytest.approx((degrees + 3 + 180) % 360 - 180, abs=4)  # 3: her own


def test_the_mesh_says_where_there_is_no_face(mesh_weights: Path) -> None:
    grey = np.full((200, 200, 3), 127, np.uint8)
    (found,) = MeshPredictor(mesh_weights).meshes(grey, np.array([[50, 50, 150, 150]]))
    assert found.presence < 0
    assert np.isfinite(found.points).all()


def test_points_that_something_covers_are_in_doubt_and_open_ones_are_not(
    predictor: LandmarkPredictor, collins: Picture, upright: Points
) -> None:
    points = upright[None].astype(np.float32)
    open_faces, sure = predictor.look(collins, landmark_box(points), LANDMARK_BOXES)
    before = float(doubt(predictor, collins, open_faces)[0])
    assert is_seen(1.0, before, known(sure[0]))
    low, high = upright.min(axis=0).astype(int), upright.max(axis=0).astype(int)
    covered = collins.copy()
    covered[low[1] - 20 : high[1] + 20, low[0] - 20 : high[0] + 20] = 128
    guesses, unsure = predictor.look(covered, landmark_box(points), LANDMARK_BOXES)
    after = float(doubt(predictor, covered, guesses)[0])
    assert after > 2 * before or not is_seen(1.0, after, known(unsure[0]))


def known(presence: float) -> float | None:
    return None if np.isnan(presence) else float(presence)


def test_points_in_one_place_are_in_all_doubt_and_none_give_none(predictor: LandmarkPredictor) -> None:
    grey = np.full((60, 60, 3), 127, np.uint8)
    assert doubt(predictor, grey, np.full((1, 68, 2), 30, np.float32)).tolist() == [np.inf]
    assert doubt(predictor, grey, np.zeros((0, 68, 2), np.float32)).shape == (0,)


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 5000, 3), (7, 3, 3)])
def test_pictures_of_any_shape_are_borne(predictor: LandmarkPredictor, shape: tuple[int, int, int]) -> None:
    picture = np.full(shape, 90, np.uint8)
    points = predictor.predict(picture, np.array([[-2.0, -2.0, 5.0, 5.0]]))
    assert points.shape == (1, 68, 2)
    assert np.isfinite(points).all()
    assert predictor.predict(picture, np.zeros((0, 4))).shape == (0, 68, 2)


@pytest.mark.parametrize("points5", [np.full((1, 5, 2), np.nan), np.full((1, 5, 2), np.inf)])
def test_points_that_are_none_are_refused(predictor: LandmarkPredictor, points5: Points) -> None:
    with pytest.raises(ValueError, match="NaN"):
        predictor.predict(np.zeros((50, 50, 3), np.uint8), np.array([[0, 0, 50, 50]]), points5=points5)


def test_five_points_in_one_place_are_borne(predictor: LandmarkPredictor) -> None:
    points = predictor.predict(
        np.zeros((50, 50, 3), np.uint8), np.array([[0, 0, 50, 50]]), points5=np.full((1, 5, 2), 20.0)
    )
    assert np.isfinite(points).all()


def broken_weights(good: bytes) -> dict[str, bytes]:
    return {
        "cut off": good[:-1],
        "empty": b"",
        "a picture": b"\xff\xd8\xff" + bytes(100),
        "a zip": b"PK\x03\x04" + good[:99],
        "another version": b"\x1c\x00\x00\x00TFL3" + good,
        "a bundle with another net": bundled(good),
        "a bundle cut off": bundled(good)[:-9],
    }


def bundled(net: bytes) -> bytes:
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr(TASK_MEMBER, net)
    return stream.getvalue()


@pytest.mark.parametrize("kind", broken_weights(b""))
def test_other_weights_are_refused_by_name(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "net.tflite"
    path.write_bytes(broken_weights(bytes(range(256)) * 20)[kind])
    with pytest.raises(FacemillError, match=r"net.tflite is not Face Mesh V2.*facemill weights mesh"):
        build_predictor("mesh", weights=path)


def test_one_wrong_byte_is_enough_and_the_bundle_is_as_good_as_the_net(mesh_weights: Path, tmp_path: Path) -> None:
    good = mesh_weights.read_bytes()
    assert read_net(written(tmp_path / "face_landmarker.task", bundled(good))) == good
    for name, data in (("cut.tflite", good[:-1]), ("changed.tflite", good[:99] + b"?" + good[100:])):
        with pytest.raises(FacemillError, match=rf"{name} is not Face Mesh V2, or not all of it"):
            build_predictor("mesh", weights=written(tmp_path / name, data))


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("kind", ["pipe", "folder"])
def test_weights_that_are_no_file_are_not_waited_for(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "net"
    os.mkfifo(path) if kind == "pipe" else path.mkdir()
    with pytest.raises(FacemillError, match=rf"it is a {kind}, not a file.*facemill weights mesh"):
        build_predictor("mesh", weights=path)


def test_a_file_that_is_too_large_is_not_read_whole(tmp_path: Path) -> None:
    path = tmp_path / "film.task"
    with path.open("wb") as stream:
        stream.truncate(MAX_BYTES + 1)
    with pytest.raises(FacemillError, match="is too large to be Face Mesh V2"):
        build_predictor("mesh", weights=path)


def test_two_faces_side_by_side_each_get_their_own_points(
    predictor: LandmarkPredictor, collins: Picture, hopper: Picture
) -> None:
    """Cheek to cheek, so that the crop of each shows much of the other."""
    pair = np.hstack([collins[10:260, 130:320], cv2.resize(hopper[20:420, 110:414], (190, 250))])
    built = build_detector("hog", min_face_px=60)
    boxes = built.detect([pair])[0].boxes_xyxy
    assert len(boxes) == 2
    points = predictor.predict(pair, boxes)
    alone = [predictor.predict(pair, box[None])[0] for box in boxes]
    np.testing.assert_array_equal(points, alone)
    for box, own in zip(boxes, points, strict=True):
        middle, side = (box[:2] + box[2:]) / 2, box[2] - box[0]
        assert np.abs(own.mean(axis=0) - middle).max() < 0.25 * side
        assert 0.6 * side < np.ptp(own[:, 0]) < 1.4 * side


def test_a_box_around_two_faces_gives_one_of_them_or_none(
    predictor: LandmarkPredictor, collins: Picture, hopper: Picture
) -> None:
    pair = np.hstack([collins[10:260, 130:320], cv2.resize(hopper[20:420, 110:414], (190, 250))])
    points = predictor.predict(pair, np.array([[0.0, 0.0, 380.0, 250.0]]))
    assert points.shape == (1, 68, 2)
    assert np.isfinite(points).all()


@pytest.mark.parametrize("box", [[np.nan, 0, 50, 50], [0, 0, np.inf, 50]])
def test_boxes_that_are_none_are_refused(predictor: LandmarkPredictor, box: list[float]) -> None:
    with pytest.raises(ValueError, match="NaN or infinity"):
        predictor.predict(np.zeros((50, 50, 3), np.uint8), np.array([box]))


def test_a_drawing_and_a_face_behind_glass_are_borne(predictor: LandmarkPredictor, collins: Picture) -> None:
    boxes = build_detector("hog", min_face_px=60).detect([collins])[0].boxes_xyxy[:1]
    plain = predictor.predict(collins, boxes)[0].astype(np.float64)
    edges = cv2.Canny(collins, 60, 150)
    drawing = np.ascontiguousarray(np.repeat(255 - edges[:, :, None], 3, axis=2))
    glass = collins // 2 + np.ascontiguousarray(collins[::-1, ::-1]) // 4 + 40
    assert np.isfinite(predictor.predict(drawing, boxes)).all()
    assert error(predictor.predict(glass, boxes)[0], plain) < 0.1


def test_a_statue_is_a_face_like_another(predictor: LandmarkPredictor, collins: Picture) -> None:
    """Her portrait in stone: without colour, without the dark of eyes and brows, smooth and grainy."""
    boxes = build_detector("hog", min_face_px=60).detect([collins])[0].boxes_xyxy[:1]
    plain = predictor.predict(collins, boxes)[0].astype(np.float64)
    grey = cv2.bilateralFilter(cv2.cvtColor(collins, cv2.COLOR_RGB2GRAY), 9, 40, 5).astype(np.float64)
    grain = np.random.default_rng(1).normal(0, 6, grey.shape)
    stone = np.clip(np.rint(110 + 0.5 * grey + grain), 0, 255).astype(np.uint8)
    points, presence = predictor.look(np.repeat(stone[:, :, None], 3, axis=2), boxes)
    assert error(points[0], plain) < 0.1
    assert not presence[0] < LEAST_PRESENCE


def test_weights_that_are_missing_or_not_named_say_how_to_get_them(tmp_path: Path) -> None:
    with pytest.raises(FacemillError, match=r"cannot be read.*facemill weights mesh"):
        build_predictor("mesh", weights=tmp_path / "none.tflite")
    with pytest.raises(FacemillError, match="bring no weights"):
        build_predictor("mesh")
    with pytest.raises(FacemillError, match="no landmark predictor 'mash'; there are dlib, mesh"):
        build_predictor("mash")
