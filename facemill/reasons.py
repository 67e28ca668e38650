"""The closed list of states and reasons that a row of any table can carry.

A row is `ok` (no reason), `rejected` (the input is fine, but not wanted) or `failed` (the input or its processing is
broken; `--retry` takes it up again). Reports, metrics and tests count by these codes, so a new one is added here and
nowhere else.
"""

from __future__ import annotations

from enum import StrEnum


class State(StrEnum):
    OK = "ok"
    REJECTED = "rejected"
    FAILED = "failed"


class Reason(StrEnum):
    # failed: pictures
    EMPTY_FILE = "empty_file"
    NOT_A_PICTURE = "not_a_picture"
    TRUNCATED = "truncated"
    TOO_LARGE = "too_large"
    UNREADABLE = "unreadable"
    DOWNLOAD_FAILED = "download_failed"
    # failed: videos
    NOT_A_VIDEO = "not_a_video"
    VIDEO_TRUNCATED = "video_truncated"
    HDR_VIDEO = "hdr_video"
    CONVERSION_FAILED = "conversion_failed"
    # failed: the work itself
    WORKER_KILLED = "worker_killed"
    PROCESSING_ERROR = "processing_error"
    # rejected
    OPTED_OUT = "opted_out"
    EXACT_DUPLICATE = "exact_duplicate"
    NEAR_DUPLICATE = "near_duplicate"
    NO_FACE = "no_face"
    OTHER_IDENTITY = "other_identity"
    SECOND_FACE = "second_face"
    FACE_TOO_SMALL = "face_too_small"
    BLURRED = "blurred"
    EXTREME_POSE = "extreme_pose"

    @property
    def state(self) -> State:
        return State.REJECTED if self in _REJECTIONS else State.FAILED

    @property
    def sentence(self) -> str:
        """What the code means, for reports and messages."""
        return _SENTENCES[self]


_REJECTIONS = frozenset(
    {
        Reason.OPTED_OUT,
        Reason.EXACT_DUPLICATE,
        Reason.NEAR_DUPLICATE,
        Reason.NO_FACE,
        Reason.OTHER_IDENTITY,
        Reason.SECOND_FACE,
        Reason.FACE_TOO_SMALL,
        Reason.BLURRED,
        Reason.EXTREME_POSE,
    }
)

_SENTENCES: dict[Reason, str] = {
    Reason.EMPTY_FILE: "the file has no bytes",
    Reason.NOT_A_PICTURE: "the bytes are not a picture that OpenCV reads",
    Reason.TRUNCATED: "the picture ends before its last row",
    Reason.TOO_LARGE: "the picture or file is over the limit on size",
    Reason.UNREADABLE: "the file could not be opened",
    Reason.DOWNLOAD_FAILED: "the address gave no picture",
    Reason.NOT_A_VIDEO: "no video stream that FFmpeg reads",
    Reason.VIDEO_TRUNCATED: "the video ends in the middle of its data",
    Reason.HDR_VIDEO: "high dynamic range, which would be flattened silently",
    Reason.CONVERSION_FAILED: "the conversion failed; see the detail",
    Reason.WORKER_KILLED: "the worker process died on this row, twice",
    Reason.PROCESSING_ERROR: "an unexpected error on this row; see the detail",
    Reason.OPTED_OUT: "the host asks not to be used for training",
    Reason.EXACT_DUPLICATE: "the same bytes as a picture that is kept",
    Reason.NEAR_DUPLICATE: "looks the same as a picture that is kept",
    Reason.NO_FACE: "the detector found no face",
    Reason.OTHER_IDENTITY: "the face is farther from the references than the limit",
    Reason.SECOND_FACE: "a nearer face of the same identity is in the same picture",
    Reason.FACE_TOO_SMALL: "the face has too few pixels",
    Reason.BLURRED: "the face is not sharp enough",
    Reason.EXTREME_POSE: "the head is turned too far",
}
