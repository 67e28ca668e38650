"""What hides a face is seen by what the net does not draw: a net that knows the person draws their face, and no hand.

    crop ──► net, as the person who is in it ──► drawing ──► how far apart, over what is usual ──► parts in front
      ▲                                                                                             │
      └──────────────── the parts filled with the drawing, three times ◄────────────────────────────┘

What is usual stands in the person's own pictures, which travel with the model beside the net's drawings of them; a face
that is turned, moved or lit as none of them is may differ by more (`usual.py`). A net that sees a hand draws the rest
of the face wrong too, so what was found is filled with its drawing and the face drawn again: what is then left is the
hand. At last the outline is brought to the edges of the frame's own pixels.

A hand in the person's own tone differs nowhere by much, and by somewhat all over: the net takes it for shadow. So what
is left of the face is looked at more broadly too, where errors of a drawing, which change from place to place, cancel
out. That says something in light alone that the pictures show: in other light the net draws whole parts of a face in
a tone that is off by as much.

Each frame is looked at by itself, so that segments and workers change nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from facemill.swap.mask import face_mask
from facemill.swap.occlusion.guided import guided
from facemill.swap.occlusion.methods import FaceView, InFront, OcclusionMethod, OcclusionNeeds, Picture
from facemill.swap.occlusion.usual import BROAD, Mask, Usual, blurred, difference, in_tone, lab, what_is_usual

ROUNDS = 3
"""How often a face in which something was found is drawn again without it."""
WEAK, STRONG = 1.3, 2.0
"""Times the usual difference from which on a pixel may belong to something in front, and which each part reaches."""
CERTAIN = 2.4
"""Times the usual difference, reached by a part, from which on it counts whole: it comes and goes gradually."""
LEAST_AREA = 0.003
"""Of the square: what is smaller is a highlight or a lash."""
RIM = 2
"""In 64ths of the square, the width of the face's edge: no part is told by its pixels there alone, since a jaw that is
drawn somewhat to the side differs there as much as anything."""
BROAD_WEAK, BROAD_STRONG, BROAD_CERTAIN = 0.7, 1.2, 1.32
"""As `WEAK`, `STRONG` and `CERTAIN`, for broad differences."""
BROAD_LEAST_AREA = 0.01
"""As `LEAST_AREA`, for broad differences."""
NOTABLE = 0.6
"""Times the usual difference that each pixel of a broad part reaches by itself."""
APART = 7
"""In 64ths of the square: how wide around what was found a face is not looked at broadly, since it bleeds."""
CALM, CALM_AT = 30.0, 0.45
"""Percentile of a face's differences, and how many times the usual difference it may be: in a frame that the net draws
badly all over (a film of other colours than it was trained on), differences count less."""
RELIT = 1.75
"""Times the usual difference that a face may have in light that was brought to a known one, and is that but nearly."""
RADIUS = 0.05
"""Of the window in which an outline is brought to edges, over the side of the square."""
_LEAST_SEEN = 0.2  # of the face; of less nobody can tell its tone
_LEAST_LEFT = 0.1  # of the face, beside what was found; of less nothing can be said


class ResidualOcclusion(OcclusionMethod):
    """Finds what the net does not draw when it draws the person who is in the frame."""

    def __init__(self, needs: OcclusionNeeds) -> None:
        self._needs = needs
        self._without = sorted(name for name in needs.replaced if name not in needs.exemplars)
        self._usual: dict[str, Usual] = {}

    def find(self, faces: Sequence[FaceView]) -> list[InFront | None]:
        """What lies in front of each face; None where nothing does, or where the net gave no answer."""
        searches = [_Search(face) if face.identity not in self._without else None for face in faces]
        for _ in range(ROUNDS + 1):
            going = [one for one in searches if one is not None and one.goes_on]
            for identity in dict.fromkeys(one.face.identity for one in going):
                own = [one for one in going if one.face.identity == identity]
                drawings = self._needs.redraw([one.shown for one in own], identity)
                for one, drawn in zip(own, drawings, strict=True):
                    one.look(drawn, self._usual_of(identity))
        return [one.found() if one is not None else None for one in searches]

    def notes(self) -> list[str]:
        """A line for each replaced identity without exemplars: nothing in front of those faces can be found."""
        return [
            f"the model has no exemplars of {name}: what lies in front of this face is drawn over (convert.occlusion)"
            for name in self._without
        ]

    def _usual_of(self, identity: str) -> Usual:
        if identity not in self._usual:
            self._usual[identity] = what_is_usual(self._needs.exemplars[identity], self._needs.coverage)
        return self._usual[identity]


class _Search:
    """What is known of one face after each drawing: the parts in front so far, and the crop without them."""

    def __init__(self, face: FaceView) -> None:
        self.face, self.shown = face, face.crop
        self.goes_on = True
        self._hidden: Picture | None = None
        self._crop = face.crop.astype(np.float32) / np.float32(255)
        self._inside: Mask = face_mask(face.landmarks, len(face.crop), 0.0) > 0.5
        self._allowed: Picture | None = None

    def look(self, drawn: Picture | None, usual: Usual) -> None:
        """Compares the face with a drawing of `shown`, and fills what was found for the next one."""
        if drawn is None or not self._inside.any():
            self.goes_on, self._hidden, self.shown = False, None, self.face.crop
            return
        seen = self._inside if self._hidden is None else self._inside & (self._hidden == 0)
        if seen.sum() < _LEAST_SEEN * self._inside.sum():
            seen = self._inside
        if self._allowed is None:
            self._allowed = usual.shaped_otherwise(self.face.landmarks, len(self._crop))
        tone = lab(self._crop)[seen].mean(axis=0)
        toned = in_tone(drawn, self._crop, seen, self.face.one_tone)
        apart = difference(self._crop, toned) / self._allowed
        lit_otherwise = RELIT if self.face.relit else usual.lit_otherwise(tone)
        times = calmed(blurred(apart) / (usual.fine * np.float32(lit_otherwise)), self._inside)
        hidden = parts_in_front(times, self._inside)
        if usual.broad is not None and usual.knows(tone) and not self.face.relit:
            hidden = np.maximum(hidden, self._broad_parts(apart, times, hidden, usual.broad))
        if not hidden.any():
            self.goes_on, self._hidden, self.shown = False, None, self.face.crop
            return
        self._hidden = hidden
        over = cv2.dilate((hidden > 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        filling = cv2.cvtColor(toned, cv2.COLOR_Lab2RGB)
        filled = np.where(over[..., None], filling, self._crop)
        self.shown = np.asarray(np.clip(filled * 255 + 0.5, 0, 255), np.uint8)

    def _broad_parts(self, apart: Picture, times: Picture, hidden: Picture, usual: Picture) -> Picture:
        """(P, P) in 0…1: parts of what is left of the face that differ broadly."""
        around = max(1, round(APART * len(apart) / 64))
        bleeds = cv2.dilate((hidden == 1).astype(np.uint8), cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (around,) * 2))
        left = self._inside & (bleeds == 0)
        if left.sum() < _LEAST_LEFT * self._inside.sum():
            return np.zeros_like(apart)
        weight = left.astype(np.float32)
        usually = usual * np.maximum(blurred(weight, BROAD), 0.01)
        broad = calmed(np.asarray(blurred(apart * weight, BROAD) / usually, np.float32), left)
        grades = (BROAD_WEAK, BROAD_STRONG, BROAD_CERTAIN)
        return parts_in_front(broad, left & (times > NOTABLE), grades, BROAD_LEAST_AREA)

    def found(self) -> InFront | None:
        """What the last round found."""
        if self._hidden is None:
            return None
        side = len(self.face.fine)
        large = np.asarray(cv2.resize(self._hidden, (side, side), interpolation=cv2.INTER_LINEAR), np.float32)
        edged = guided(large, self.face.fine, round(RADIUS * side))
        # what is half in front is neither: the filter's slopes are made twice as steep
        hidden = np.clip((edged - 0.5 * large.max()) * 2 + 0.5 * large.max(), 0.0, large.max())
        return InFront(np.asarray(hidden, np.float32), self.shown)


def calmed(times: Picture, inside: Mask) -> Picture:
    """Differences that count less where the face is drawn badly all over: see `CALM`."""
    return times / np.float32(max(1.0, float(np.percentile(times[inside], CALM)) / CALM_AT))


def parts_in_front(
    times: Picture,
    inside: Mask,
    grades: tuple[float, float, float] = (WEAK, STRONG, CERTAIN),
    least_area: float = LEAST_AREA,
) -> Picture:
    """(P, P) in 0…1: connected parts of a face that differ by more than usual, and are no specks.

    Args:
        times: (P, P), how many times the usual difference.
        inside: (P, P), the face.
        grades: what each pixel exceeds, what each part reaches somewhere off the rim, and from where on it counts
            whole.
        least_area: of a part, over the square's.
    """
    weak, strong, certain = grades
    around = 2 * round(RIM * len(times) / 64) + 1
    # beyond the square a face goes on, but nobody sees how
    within = cv2.erode(
        inside.astype(np.uint8),
        cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (around, around)),
        borderType=cv2.BORDER_CONSTANT,
        borderValue=0,
    ).astype(bool)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(((times > weak) & inside).astype(np.uint8))
    weights = np.zeros(count, np.float32)
    for label in range(1, count):
        if stats[label, cv2.CC_STAT_AREA] >= least_area * times.size:
            peak = float(times[(labels == label) & within].max(initial=0.0))
            weights[label] = np.clip((peak - strong) / (certain - strong), 0.0, 1.0)
    return np.asarray(weights[labels], np.float32)
