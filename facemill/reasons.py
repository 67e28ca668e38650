"""The closed list of states and reasons that a row of any table can carry.

A row is `ok` (no reason), `rejected` (the input is fine, but not wanted) or `failed` (the input or its processing is
broken; `--retry` takes it up again). Reports, metrics and tests count by these codes, so a new one is one
line of `Reason`.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    """How a row ended: taken, refused though nothing is wrong with it, or broken."""

    OK = "ok"
    REJECTED = "rejected"
    FAILED = "failed"


class Reason(StrEnum):
    """Why a row is not `ok`: the code that tables, metrics and receipts hold, with what it means.

    `Reason("truncated")` finds one by its code.
    """

    state: State
    """Which state a row with this reason is in: `rejected` or `failed`."""
    sentence: str
    """What the code means, for reports and messages."""

    # The defaults are for mypy, which takes finding one by its code for making one.
    def __new__(cls, code: str, state: State = State.FAILED, sentence: str = "") -> Reason:
        member = str.__new__(cls, code)
        member._value_ = code
        member.state = state
        member.sentence = sentence
        return member

    # failed: pictures
    EMPTY_FILE = "empty_file", State.FAILED, "the file has no bytes"
    NOT_A_PICTURE = "not_a_picture", State.FAILED, "the bytes are not a picture of a kind that is read"
    DAMAGED = "damaged", State.FAILED, "the picture is broken before its end"
    TRUNCATED = "truncated", State.FAILED, "the picture ends before its last row"
    TOO_LARGE = "too_large", State.FAILED, "the picture or file is over the limit on size"
    UNREADABLE = "unreadable", State.FAILED, "the file could not be opened"
    CHANGED = "changed", State.FAILED, "the file changed while the refresh ran; the next run takes it"
    SEARCH_FAILED = "search_failed", State.FAILED, "the search gave no addresses; see the detail"
    BROKEN_LINE = "broken_line", State.FAILED, "the line of a list has no address; see the detail"
    DOWNLOAD_FAILED = "download_failed", State.FAILED, "the address gave no picture"
    # failed: videos
    NOT_A_VIDEO = "not_a_video", State.FAILED, "no video stream that FFmpeg reads"
    VIDEO_TRUNCATED = "video_truncated", State.FAILED, "the video ends in the middle of its data"
    HDR_VIDEO = "hdr_video", State.FAILED, "high dynamic range, which would be flattened silently"
    OUTPUT_TAKEN = "output_taken", State.FAILED, "a file of somebody else's lies where the result would go"
    CONVERSION_FAILED = "conversion_failed", State.FAILED, "the conversion failed; see the detail"
    # failed: the work itself
    WORKER_KILLED = "worker_killed", State.FAILED, "the worker process died on this row, twice"
    WORKER_HUNG = "worker_hung", State.FAILED, "the work on this row stopped getting on, twice, and was ended"
    PROCESSING_ERROR = "processing_error", State.FAILED, "an unexpected error on this row; see the detail"
    # rejected
    OPTED_OUT = "opted_out", State.REJECTED, "the host asks not to be used for training"
    FORGOTTEN = "forgotten", State.REJECTED, "it was asked to be forgotten, see forgotten.yaml"
    EXACT_DUPLICATE = "exact_duplicate", State.REJECTED, "the same bytes as a picture that is kept"
    NEAR_DUPLICATE = "near_duplicate", State.REJECTED, "looks the same as a picture that is kept"
    OTHER_KIND = "other_kind", State.REJECTED, "what was found is no picture: a video, a document, a drawing of vectors"
    UNWANTED_LICENCE = "unwanted_licence", State.REJECTED, "its licence is none of those that are wanted"
    NO_FACE = "no_face", State.REJECTED, "the detector found no face"
    OTHER_IDENTITY = "other_identity", State.REJECTED, "the face is farther from the references than the limit"
    SECOND_FACE = "second_face", State.REJECTED, "a nearer face of the same identity is in the same picture"
    FACE_TOO_SMALL = "face_too_small", State.REJECTED, "the face has too few pixels"
    BLURRED = "blurred", State.REJECTED, "the face is not sharp enough"
    HIDDEN = "hidden", State.REJECTED, "too little of the face is to be seen, or its landmarks are not to be trusted"
    EXTREME_POSE = "extreme_pose", State.REJECTED, "the head is turned too far"
    SAME_LOOK = "same_look", State.REJECTED, "pose, expression and light of a face of the same video that is kept"
    OVER_BUDGET = (
        "over_budget",
        State.REJECTED,
        "more faces of this pose, expression and light than curate.budget asks for",
    )
    DOUBTFUL_REFERENCE = "doubtful_reference", State.REJECTED, "a reference unlike the identity's other references"
    DROPPED = "dropped", State.REJECTED, "a person has said so, see decisions.csv"
    WHICH_FACE = "which_face", State.REJECTED, "a reference with several faces, of which a person has to name one"


PERMANENT = frozenset(
    {Reason.EMPTY_FILE, Reason.NOT_A_VIDEO, Reason.VIDEO_TRUNCATED, Reason.HDR_VIDEO}
    | {Reason.NOT_A_PICTURE, Reason.TRUNCATED, Reason.DAMAGED, Reason.TOO_LARGE}
)
"""Failures of a video or picture that lie in its bytes: as long as those are the same, another try fails alike."""
