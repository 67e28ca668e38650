"""The parameters in params.yaml, checked once, each wrong value named with its path.

One frozen class per stage, a line under each field. Unknown keys are refused and the nearest known one is offered.
No key may be called `size` or `nfiles`: DVC's run cache ignores those (treeverse/dvc #10296).
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints, ValidationError, model_validator

from facemill.errors import FacemillError
from facemill.patience import FRAME_SILENCE_S
from facemill.quality import LEAST_PRESENCE, LEAST_VISIBLE, MOST_DOUBT
from facemill.rights import Rights
from facemill.settings import DetectorNames, Limits, Name, Share
from facemill.sources import SOURCES, Source, StatedPath, reference_source
from facemill.swap.settings import SwapSettings
from facemill.track.settings import TrackingSettings
from facemill.train.settings import FaceTraining
from tasks.params_file import PARAMS_FILE, check_plain, read_params_file
from tasks.work.wrong_values import WrongParams, lines_of


class _Group(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    def __hash__(self) -> int:
        """That of its values as JSON, since options are dictionaries, which have none."""
        return hash(self.model_dump_json())


if TYPE_CHECKING:
    AnySource = Source
else:
    AnySource = Annotated[Union[tuple(SOURCES.values())], Field(discriminator="kind")]  # noqa: UP007  # known at run time
"""One of the sources of facemill/sources: each module there declares the parameters of its kind."""


class ReferencePicture(_Group):
    """A picture of several people, with the face that is meant."""

    path: Annotated[str, Field(min_length=1)]
    """The picture, as it would stand under `references`."""
    face: (
        Annotated[int, Field(ge=1, le=1000)]
        | Annotated[list[Annotated[float, Field(ge=0, le=1e6)]], Field(min_length=2, max_length=2)]
    )
    """2 for the second face from the left, or [x, y] for the one at that place in pixels. What is named here is never
    doubted."""

    @property
    def stated(self) -> str:
        """As tables have it, see `facemill.references.ReferenceFace`."""
        return str(self.face) if isinstance(self.face, int) else ",".join(f"{part:g}" for part in self.face)


class Identity(_Group):
    """A person in the dataset, under a name that you choose."""

    rights: Rights
    """On what ground this person's face may be used; a source can state its own for what it brings."""
    references: Annotated[list[Annotated[str, Field(min_length=1)] | ReferencePicture], Field(min_length=1)]
    """Pictures, folders of pictures, or videos (up to five frames of the first five minutes) in which this face
    is the largest; `sample:NAME` is a sample portrait. What else can stand here, the module of each source says. Of a
    picture of several people `{path: group.jpg, face: 2}` says which face is meant, see `ReferencePicture`."""
    sources: Annotated[list[AnySource], Field(min_length=1)]
    """Where this person's pictures come from; `kind` names a module of facemill/sources."""

    @property
    def exceptions(self) -> list[str]:
        """The rights of sources that state their own, in words: `from urls: licensed (invoice 2026-77)`."""
        return [f"from {source.kind}: {source.rights.words}" for source in self.sources if source.rights is not None]

    @property
    def reference_paths(self) -> list[str]:
        """The references without what is said of their faces."""
        return [each if isinstance(each, str) else each.path for each in self.references]


class SampleArchive(_Group):
    """Videos of the sample people, drawn by `collect`."""

    kind: Literal["sample"]
    seconds: Annotated[float, Field(gt=0, le=600)] = 5.0
    """Length of each sample video."""


class FolderArchive(_Group):
    """Videos and pictures of your own that are converted."""

    kind: Literal["folder"]
    path: StatedPath
    """The folder in which they lie, at any depth."""


class CollectParams(_Group):
    """How pictures are fetched: stage `collect`."""

    max_file_bytes: Annotated[int, Field(ge=1, le=2**30)] = 40_000_000
    """Larger files are not read, and not downloaded."""
    max_pixels: Annotated[int, Field(ge=1)] = 64_000_000
    """Pictures with more are refused by their header. What is collected is taken by all later stages."""
    rows_per_shard: Annotated[int, Field(ge=1)] = 64
    """Pictures in a part of the table, and fetched by a worker at a time; fewer where they have more than 256 MiB."""
    hosts_at_once: Annotated[int, Field(ge=1, le=256)] = 16
    """So many hosts are asked for pictures at the same time by each worker; each host for one after another."""
    recheck_days: Annotated[float, Field(ge=0)] | None = 30
    """So long a picture of the network is believed to be there still; then its address is asked again, and one that was
    withdrawn or has opted out leaves. It costs a request for each, without a body where the host answers 304; null or 0
    never asks again."""
    failure_limit: Annotated[float, Field(ge=0, le=1)] = 0.2
    """The stage fails when a larger share of its rows failed."""


class DedupParams(_Group):
    """Which pictures are copies, and which licences are wanted: stage `dedup`."""

    licences: list[Annotated[str, Field(min_length=1)]] = []
    """Take only pictures under these licences, as SPDX ids (`[CC0-1.0, CC-BY-4.0]`) or in the words of your sources;
    empty takes all. Others fall, references too, and none under these licences falls to one of them."""
    hash_distance: Annotated[int, Field(ge=0, le=7)] = 4
    """Pictures whose 64-bit hashes differ in at most so many bits are duplicates."""
    confirm_distance: Annotated[int, Field(ge=0, le=12)] = 8
    """Up to so many bits a second test decides."""


class ExtractParams(_Group):
    """How faces are found and cut out: stage `extract`."""

    detector: DetectorNames = "hog"
    """Name of the detector, or several with commas between, see docs/detectors.md."""
    min_face_px: Annotated[int, Field(ge=12)] = 80
    """Smaller faces are not looked for."""
    detector_options: dict[str, Any] = {}
    """Of the detector, see `build` in its module; of several by their names: `{hog: {upsample: 1}}`."""
    landmarks: Name = "dlib"
    """The landmark predictor. Crops of one are not to be mixed with another's: track.landmarks is to be the same."""
    landmark_options: dict[str, Any] = {}
    """Of the landmark predictor, see `build` in its module in facemill/landmarks."""
    max_side_px: Annotated[int, Field(ge=64)] = 1280
    """Larger pictures are searched at this size; crops still come from the original."""
    crop_px: Annotated[int, Field(ge=64, le=1024)] = 256
    """Side, in pixels, of the square to which each face is cut and aligned."""
    coverage: Annotated[float, Field(ge=1.0, le=4.0)] = 1.6
    """Side of the crop over the height of the mean face's landmark box."""
    rows_per_shard: Annotated[int, Field(ge=1)] = 16
    """Pictures that a worker searches at a time."""
    failure_limit: Annotated[float, Field(ge=0, le=1)] = 0.05
    """The stage fails when a larger share of its rows failed."""

    @model_validator(mode="before")
    @classmethod
    def _upsample_is_an_option(cls, values: Any) -> Any:
        if isinstance(values, dict) and "upsample" in values:
            raise ValueError(f"upsample: unknown key; write `detector_options: {{upsample: {values['upsample']}}}`")
        return values


class CurateParams(_Group):
    """Which faces make the dataset: stage `curate`."""

    identity_distance: Annotated[float, Field(gt=0, le=2)] = 0.55
    """Largest distance of a face's embedding to its identity's references, see `facemill.embeddings.identity_distance`.
    On LFW 0.55 has a precision and a recall of 0.99 and more with 3 to 30 references."""
    min_face_px: Annotated[int, Field(ge=16)] = 80
    """Least short side of a face's box, in pixels of the picture."""
    min_sharpness: Annotated[float, Field(ge=0)] = 15.0
    """Variance of the Laplacian of the grey crop, see facemill.quality."""
    max_yaw_deg: Annotated[float, Field(gt=0, le=180)] = 55.0
    """A face that is turned farther to either side, in degrees, is rejected."""
    max_pitch_deg: Annotated[float, Field(gt=0, le=180)] = 45.0
    """A face that looks farther up or down, in degrees, is rejected."""
    max_roll_deg: Annotated[float, Field(gt=0, le=180)] = 45.0
    """A face that is tilted farther towards either shoulder, in degrees, is rejected."""
    same_look: Annotated[float, Field(ge=0, le=10)] = 1.0
    """How far pose, expression and light of two faces of one video may be apart to count as the same, in units of
    facemill.face_looks: 3 % of the distance of the eyes for the mouth, 3°. 0 keeps all frames."""
    budget: Annotated[int, Field(ge=1)] | None = None
    """Of each identity at most so many faces, chosen so that every pose, expression and light is there before more of
    one is (facemill.coverage); null takes all. What a person has kept is taken in any case."""
    min_visibility: Annotated[float, Field(ge=0, le=1)] = LEAST_VISIBLE
    """Least share of the landmarks that lie in the picture, less where the head is turned to a profile."""
    max_doubt: Annotated[float, Field(ge=0)] = MOST_DOUBT
    """How far landmarks may move when they are looked for again, in parts of the eyes' distance: far where something
    covers the face. facemill.quality says how well that tells."""
    min_presence: float = LEAST_PRESENCE
    """Least logit of there being a face, of a landmark predictor that tells it (mesh)."""
    val_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Of each identity's faces, so many are held out to validate with: between 0.4 and 2.5 times that, see
    facemill.split."""


@dataclass(frozen=True, kw_only=True)
class TrainParams(FaceTraining):
    """How a model is trained: the settings are those of facemill/train/settings.py. Each evaluation draws a preview."""

    measured_faces: Annotated[int, Limits(ge=0, le=1000)] = 12
    """Held-out faces of each identity whose swaps are measured with each preview; 0.02 s each for each other one."""
    processes: Annotated[int, Limits(ge=1, le=64)] | Literal["auto"] = "auto"
    """auto: one for each GPU, one on a CPU."""
    exemplars: Annotated[int, Limits(ge=0, le=1024)] = 128
    """Real pictures of each identity that travel with the model, at most: conversion takes fine detail from them
    (facemill/swap/detail/exemplars.py). 0 for none. Changing it trains nothing again."""


@dataclass(frozen=True, kw_only=True)
class TrackParams(TrackingSettings):
    """How faces are looked for in videos: the settings are those of facemill/track/settings.py."""

    failure_limit: Share = 0.5
    """The stage fails when a larger share of its videos failed."""


@dataclass(frozen=True, kw_only=True)
class ConvertParams(SwapSettings):
    """Who becomes whom, and how: the settings are those of facemill/swap/settings.py."""

    becomes: Annotated[dict[Name, Name], Field(min_length=1)]
    """The identity whose face is looked for and replaced → the identity whose face is put there. `{bert: anna}`: Bert
    becomes Anna. Several pairs are converted at once."""
    failure_limit: Share = 0.5
    """The stage fails when a larger share of its videos failed."""
    check_space: bool = True
    """Whether a run ends before it begins where the disk has less room than the originals take."""


class FreshnessParams(_Group):
    """How old the dataset may be (`facemill freshness`). Not a parameter of any stage: it changes no result."""

    max_age_h: Annotated[float, Field(gt=0)] = 36
    """Hours since a refresh last ended, or since the dataset was named. 36: one night may be missed, not two."""


class ReportParams(_Group):
    """What the report shows: stage `report`."""

    title: str = "facemill"
    """What stands at the top of the report, and in the browser's tab."""
    faces_per_sheet: Annotated[int, Field(ge=1, le=400)] = 24
    """Faces on a contact sheet, at most."""
    frames_per_video: Annotated[int, Field(ge=1, le=64)] = 5
    """Frames of each video that are shown before and after, at most."""
    measured_frames: Annotated[int, Field(ge=1)] = 12
    """Frames of each video on which the swap is measured."""


MIN_WORKER_BYTES = 256 * 2**20
"""What a worker takes that has imported OpenCV and torch and holds no picture yet (257 MB were measured)."""


def _memory(text: str) -> str:
    from dask.utils import parse_bytes

    try:
        enough = text == "auto" or parse_bytes(text) >= MIN_WORKER_BYTES
    except (ValueError, OverflowError):
        raise ValueError(f"{text!r} is no amount of memory, such as 4GiB") from None
    if not enough:
        raise ValueError(f"{text!r} is less than a worker needs to start; give it 256MiB or more, better some GiB")
    return text


def _whole_path(text: str) -> str:
    if not text.startswith(("/", "~")):
        raise ValueError(f"{text!r} is a relative path: write it out, or begin it with ~/")
    return text


class ClusterTls(_Group):
    """PEM files on this machine with which a cluster that runs elsewhere knows us, and we know it."""

    ca_file: Annotated[StatedPath, AfterValidator(_whole_path)]
    """The certificate authority that signed the cluster's certificates."""
    cert: Annotated[StatedPath, AfterValidator(_whole_path)]
    """Our certificate; for `kind: class` also that of the scheduler and the workers that it starts."""
    key: Annotated[StatedPath, AfterValidator(_whole_path)]
    """Its key, without a password."""


class ClusterParams(_Group):
    """Where Dask's workers are. Not a parameter of any stage: it changes no result."""

    kind: Literal["local", "address", "class", "inline"] = "local"
    """local: workers of this machine, for each stage anew. address: a Dask scheduler that runs. class: one of Dask's
    cluster classes. inline: no workers, all in the stage's own process."""
    workers: Annotated[int, Field(ge=0)] = 0
    """0 takes one for each core."""
    address: str | None = None
    """For `address`: where its scheduler listens, such as tls://scheduler:8786."""
    cluster_class: Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$")] | None = None
    """For `class`: a dotted name such as dask_jobqueue.SLURMCluster."""
    options: dict[str, Any] = {}
    """For the cluster's class; for `local` those of distributed.LocalCluster."""
    tls: ClusterTls | None = None
    """For `address` (with tls://) and `class`; a local cluster makes its own certificates."""
    memory_limit: Annotated[str, AfterValidator(_memory)] = "4GiB"
    """Of each worker, or auto for its share of the machine's."""
    start_timeout_s: Annotated[float, Field(gt=0)] = 120
    """A cluster that has no worker after so long is an error."""
    silence_s: Annotated[float, Field(gt=0)] = FRAME_SILENCE_S
    """A worker that is at a video and has not got one frame further for so long is ended with it."""

    @model_validator(mode="after")
    def _complete(self) -> ClusterParams:
        if self.kind == "address" and not self.address:
            raise ValueError("kind: address needs an address, such as tcp://host:8786")
        if self.kind == "class" and not self.cluster_class:
            raise ValueError("kind: class needs a cluster_class, such as dask_jobqueue.SLURMCluster")
        if self.tls is not None and self.kind not in ("address", "class"):
            raise ValueError("tls is for a cluster elsewhere: a local one makes its own certificates")
        if self.address and self.kind == "address" and self.address.startswith("tls://") != (self.tls is not None):
            raise ValueError("an address with tls:// and certificates under tls belong together: give both or none")
        return self


class StatedTerms(_Group):
    """Whose a file of weights is that params.yaml names elsewhere: nobody else can say (docs/licences.md)."""

    licence: Annotated[str, StringConstraints(strip_whitespace=True, min_length=3)]
    """In words: `ours, trained on footage under contract 2026-114`."""
    commercial: bool
    """Whether it allows commercial use."""


class Params(_Group):
    """All of params.yaml; the groups have a class each."""

    seed: Annotated[int, Field(ge=0, le=2**31 - 1)] = 0
    """Of what the sample people and a training draw by chance."""
    identities: Annotated[dict[Name, Identity], Field(min_length=1)]
    """The people, by names that you choose."""
    archive: Annotated[SampleArchive | FolderArchive, Field(discriminator="kind")]
    """The videos in which faces are followed and replaced: those of the sample people, or of a folder."""
    collect: CollectParams = CollectParams()
    dedup: DedupParams = DedupParams()
    extract: ExtractParams = ExtractParams()
    curate: CurateParams = CurateParams()
    train: TrainParams = TrainParams()
    track: TrackParams = TrackParams()
    convert: ConvertParams
    report: ReportParams = ReportParams()
    cluster: ClusterParams = ClusterParams()
    freshness: FreshnessParams = FreshnessParams()
    commercial: bool = False
    """Whether all that is made here must be free for commercial use: what is not is then refused, by name and with the
    remedy (`facemill licences`). Not a parameter of any stage: it changes no result."""
    terms: dict[Annotated[str, Field(min_length=1)], StatedTerms] = {}
    """The terms of files and folders that you brought, by their paths as they stand elsewhere in this file."""

    @model_validator(mode="after")
    def _consistent(self) -> Params:
        known = ", ".join(sorted(self.identities))
        becomes = self.convert.becomes
        wrong = [
            f"convert.becomes: no identity {name!r}; known are {known}"
            for name in dict.fromkeys([*becomes, *becomes.values()])
            if name not in self.identities
        ]
        wrong += [f"convert.becomes: {name} becomes {name}" for name, new in becomes.items() if name == new]
        if self.train.coverage > self.extract.coverage:
            wrong.append("train.coverage is larger than extract.coverage: the crops do not hold so much of the face")
        if wrong:
            raise ValueError("\n  ".join(wrong))
        return self

    @property
    def source_kinds(self) -> set[str]:
        """The kinds of all sources and references."""
        kinds = {source.kind for identity in self.identities.values() for source in identity.sources}
        for reference in (text for identity in self.identities.values() for text in identity.reference_paths):
            with suppress(FacemillError):  # nobody answers for it: collecting says so
                kinds.add(reference_source(reference).kind)
        return kinds

    @property
    def network_sources(self) -> bool:
        """Whether any source can give other pictures tomorrow though no file here has changed."""
        return any(source.asks_network for identity in self.identities.values() for source in identity.sources)


def load_params(root: Path) -> Params:
    """Reads and checks `params.yaml` in the project's root.

    Raises:
        FacemillError: missing, not YAML, or wrong; the message has one line for each wrong value, with its key.
    """
    return parse_params(read_params_file(root))


def check_groups(root: Path, groups: Iterable[str]) -> None:
    """Asks for groups that dvc.yaml names, even if all of one has defaults: DVC takes a missing one for an error.

    Args:
        root: the project's folder.
        groups: their names (`tasks.stages.PARAM_GROUPS`).

    Raises:
        FacemillError: with what to write.
    """
    values = read_params_file(root)
    if missing := [group for group in groups if group not in values]:
        written = " ".join(f"`{group}: {{}}`" if group != "seed" else "`seed: 0`" for group in missing)
        raise FacemillError(
            f"{PARAMS_FILE} lacks {', '.join(missing)}: DVC wants each of them; write {written} for the defaults"
        )


def parse_params(values: dict[str, Any]) -> Params:
    """Checks parameters that are already plain values. Raises as `load_params`.

    They are read strictly, and as JSON: a number in quotes is text, `true` is no number, 8.0 is no whole number, and
    text can be a path.
    """
    check_plain(values, PARAMS_FILE)
    try:
        return Params.model_validate_json(json.dumps(values), strict=True)
    except ValidationError as error:
        raise WrongParams(lines_of(error, values, _all_keys())) from error


@cache
def _all_keys() -> list[str]:
    schema = Params.model_json_schema()
    return sorted({key for part in (schema, *schema["$defs"].values()) for key in part.get("properties", {})})
