"""Which terms bind what a project makes: its dataset, its model, its converted videos.

    raw's licences ┐
    detectors      ├─► dataset ─► model (model.json: terms) ─► outputs
    predictor      │              + losses, start, embedder     + tracks' detector and predictor
    rights         ┘

What was made is asked what it was made with: the tables' columns `detector`, `predictor`, `source` and `licence`, and
`terms` of model.json. What is not there yet is told as params.yaml asks for it. Each work's terms stand in the module
that uses it (`facemill.terms`).

`commercial: true` in params.yaml makes `facemill check`, the inventory, training and conversion refuse what does not
allow commercial use, by name and with the remedy.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from facemill import tables
from facemill.errors import FacemillError
from facemill.files import read_object
from facemill.picture_licences import licence_of
from facemill.reasons import State
from facemill.rights import rights_text, source_rights
from facemill.schema import DATASET, TRACKS
from facemill.sources import Source
from facemill.terms import Terms, Use, terms_of, unique
from tasks.catalogue import Data
from tasks.params import Params
from tasks.paths import place
from tasks.work.plugin_files import LooksForFaces

MODEL_TERMS = "terms"
"""The key of model.json under which the terms are that bind it."""


@dataclass(frozen=True)
class Bound:
    """What binds one thing.

    Attributes:
        what: `dataset`, `model` or `outputs`.
        made: whether it is there, and was asked; otherwise these are the terms of what params.yaml asks for.
        terms: each once; those that do not allow commercial use first.
    """

    what: str
    made: bool
    terms: tuple[Terms, ...]

    @property
    def forbidding(self) -> tuple[Terms, ...]:
        """Those that do not allow commercial use."""
        return tuple(each for each in self.terms if not each.use.allows_commerce)


def licences(params: Params, root: Path, model_folder: Path | None = None) -> list[Bound]:
    """What binds the dataset, the model and the outputs of a project.

    Args:
        model_folder: of the model, by default the project's.

    Raises:
        FacemillError: a table of another version, or a name in params.yaml that stands for nothing.
    """
    folder = model_folder or root / Data.MODEL
    used_for_dataset, model, tracks = _dataset(params, root), of_model(folder, root), _tracks(params, root)
    asked_of_dataset = used_for_dataset if used_for_dataset is not None else _asked_of_dataset(params)
    model_terms = model if model is not None else asked_of_dataset + _asked_of_training(params)
    outputs = model_terms + (tracks if tracks is not None else _looked_for_with(params.track)) + _drawn_with(params)
    found = [
        ("dataset", used_for_dataset is not None, asked_of_dataset),
        ("model", model is not None, model_terms),
        ("outputs", model is not None and tracks is not None, outputs),
    ]
    return [Bound(what, made, _sorted(_resolved(terms, params, root))) for what, made, terms in found]


def terms_to_train(params: Params, root: Path) -> tuple[Terms, ...]:
    """What binds a model that is trained on the dataset as it lies there. Files stand by their paths of params.yaml,
    since what `terms` of params.yaml says of them may change without another training.

    Raises:
        FacemillError: no dataset, or `commercial: true` and something that does not allow it.
    """
    dataset = _dataset(params, root)
    if dataset is None:
        raise FacemillError("there is no dataset: run the stages collect, dedup, extract and curate first")
    terms = unique(dataset + _asked_of_training(params))
    refuse(params, root, terms, "the model that was to be trained")
    return terms


def check_asked(params: Params, root: Path) -> None:
    """Raises FacemillError where `commercial: true` stands beside anything in params.yaml that does not allow it, or
    `terms` names a file that nothing else names and that is no model."""
    asked = _asked_of_dataset(params) + _asked_of_training(params) + _looked_for_with(params.track)
    asked += _drawn_with(params)
    named = {place(each.file, root) for each in asked if each.file}
    models = {place(Data.MODEL, root)}  # what was trained here, and whatever model `convert` can be given
    models |= {folder for path in params.terms if _described(folder := place(path, root)).is_file()}
    if loose := [path for path in params.terms if place(path, root) not in named | models]:
        raise FacemillError(
            f"terms: nothing that params.yaml asks for is a file {', '.join(loose)}, nor is a model there; there are "
            f"{', '.join(each.file for each in unique(asked) if each.file) or 'none'}"
        )
    refuse(params, root, asked, "what params.yaml asks for")


def check_conversion(params: Params, root: Path, model_folder: Path) -> None:
    """Raises FacemillError where `commercial: true` stands beside a model, a way of tracking or a net for what lies in
    front of faces that does not allow it."""
    model = of_model(model_folder, root) or (_nobody_said(model_folder, root),)
    used = model + _looked_for_with(params.track) + _drawn_with(params)
    refuse(params, root, used, f"a conversion with {model_folder}")


def check_made(params: Params, root: Path) -> None:
    """Raises FacemillError where `commercial: true` stands beside a dataset or a model made with what forbids it."""
    for bound in licences(params, root):
        if bound.made:
            refuse(params, root, bound.terms, f"the {bound.what} as made so far")


def refuse(params: Params, root: Path, terms: Iterable[Terms], what: str) -> None:
    """Raises FacemillError where `commercial: true` stands beside terms that do not allow it.

    Args:
        params, root: of the project.
        terms: of everything that took part, or will.
        what: is bound by them, as a sentence begins.
    """
    if not params.commercial:
        return
    forbidding = [each for each in _sorted(_resolved(terms, params, root)) if not each.use.allows_commerce]
    if forbidding:
        lines = "\n  ".join(sentence(each) for each in forbidding)
        raise FacemillError(f"params.yaml says `commercial: true`, which {what} does not allow:\n  {lines}")


def sentence(terms: Terms) -> str:
    """The terms of one work in a line, with the remedy."""
    said = f"{terms.name}: {terms.use.words}; {terms.licence}"
    trained_on = f"; trained on {terms.trained_on}" if terms.trained_on and terms.trained_on not in said else ""
    source = f" ({terms.source})" if terms.source else ""
    return f"{said}{trained_on}{source}{f'. Remedy: {terms.remedy}' if terms.remedy else ''}"


def of_model(folder: Path, root: Path = Path()) -> tuple[Terms, ...] | None:
    """What binds a model, as its folder says; None where there is none.

    Args:
        folder: of the model.
        root: of the project, which a folder inside it is named from.

    Raises:
        FacemillError: its model.json is broken.
    """
    if not _described(folder).is_file():
        return None
    said = _said_by(folder)
    return (_nobody_said(folder, root),) if said is None else said


def _said_by(folder: Path) -> tuple[Terms, ...] | None:
    """What a model's folder says; None where it says nothing, or is none. Raises FacemillError as `of_model`."""
    described = _described(folder)
    stated = read_object(described).get(MODEL_TERMS) if described.is_file() else None
    if not isinstance(stated, list):
        return None
    try:
        return tuple(Terms.of_plain(each) for each in stated)
    except ValueError as error:
        raise FacemillError(f"{described}: {error}; train the model again") from error


def _described(folder: Path) -> Path:
    return folder / Path(Data.MODEL_META).name


def _nobody_said(folder: Path, root: Path) -> Terms:
    name = folder.relative_to(root) if folder.is_relative_to(root) else folder
    return Terms(
        "the model",
        Use.UNKNOWN,
        licence="its folder does not say what it was made with",
        remedy=f"state under `terms` of params.yaml what binds {name}, or train it again",
        file=str(name),
    )


def _asked_of_dataset(params: Params) -> tuple[Terms, ...]:
    """Of the people's pictures, as far as sources say it before they are asked, and of what finds faces in them."""
    pictures = []
    for name, identity in params.identities.items():
        for source in identity.sources:
            if not source.stated_licence and source.asks_network and source.rights is None:
                continue  # each picture brings its own along: known when it is there
            stated = rights_text(source.rights, identity.rights)
            pictures.append(_pictures(params, name, source.kind, source.stated_licence, stated))
    return tuple(pictures) + _chosen_with(params) + _looked_for_with(params.extract)


def _chosen_with(params: Params, kinds: Collection[str] | None = None) -> tuple[Terms, ...]:
    """Of what sources choose pictures with: all that params.yaml names, or those of some kinds, as params.yaml has them
    now (a row does not say by which options its source has chosen it)."""
    from facemill.sources import reference_source

    sources: list[Source] = []
    for identity in params.identities.values():
        sources += identity.sources
        for reference in identity.references:
            with suppress(FacemillError):  # one that is nothing is told of where it is planned, with its key
                sources.append(reference_source(reference if isinstance(reference, str) else reference.path))
    return unique(each for one in sources if kinds is None or one.kind in kinds for each in one.terms)


def _asked_of_training(params: Params) -> tuple[Terms, ...]:
    """Of the embedder, which chooses and measures faces, of what the losses ask, and of the model to start from."""
    from facemill.train.objectives import objective_terms

    started = () if params.train.start is None else (_started_from(str(params.train.start)),)
    return _embedder() + objective_terms(params.train.model, params.train.options) + started


def _started_from(path: str) -> Terms:
    licence, remedy = "those of the model in the folder", "leave train.start out"
    return Terms("the model that training starts from", Use.UNKNOWN, licence, remedy=remedy, file=path)


def _embedder() -> tuple[Terms, ...]:
    from facemill.nets import dlib_resnet

    return dlib_resnet.TERMS


def _looked_for_with(group: LooksForFaces) -> tuple[Terms, ...]:
    """Of the detectors and the landmark predictor of a group of params.yaml, and of the embedder."""
    from facemill.detect import detector_names

    names = detector_names(group.detector)
    detectors = [each for name in names for each in _detector(name, group)]
    return (*detectors, *_predictor(group.landmarks, group), *_embedder())


def _drawn_with(params: Params) -> tuple[Terms, ...]:
    """Of what a conversion uses beside tracks and model."""
    from facemill.swap.occlusion.methods import METHODS

    name = params.convert.occlusion
    return terms_of(METHODS.module(name), f"the occlusion method {name}", params.convert.occlusion_options)


def _detector(name: str, group: LooksForFaces) -> tuple[Terms, ...]:
    from facemill.detect import DETECTORS, auto, detector_names

    chosen = detector_names(group.detector)
    whose = name if name in chosen else "auto" if "auto" in chosen else ""
    given: Any = group.detector_options.get(whose, {}) if len(chosen) > 1 else group.detector_options
    options: Mapping[str, Any] = given if whose and isinstance(given, Mapping) else {}
    if whose != name:
        options = auto.options_of(name, options)
    return terms_of(DETECTORS.module(name), f"the detector {name}", options)


def _predictor(name: str, group: LooksForFaces) -> tuple[Terms, ...]:
    from facemill.landmarks import PREDICTORS

    options = group.landmark_options if name == group.landmarks else {}
    return terms_of(PREDICTORS.module(name), f"the landmark predictor {name}", options)


def _dataset(params: Params, root: Path) -> tuple[Terms, ...] | None:
    """Of what the accepted faces were made with; None where there is no dataset."""
    if not (root / Data.DATASET).is_dir():
        return None
    columns = ["identity", "source", "licence", "rights", "detector", "predictor", "status"]
    pictures = Counter[tuple[str, str, str, str]]()
    detectors, predictors = set[str](), set[str]()
    for row in tables.iterate_rows(root / Data.DATASET, DATASET, columns):
        if row["status"] == State.OK:
            stated = source_rights(row["rights"])
            pictures[row["identity"] or "", row["source"] or "", row["licence"] or "", stated] += 1
            detectors.add(row["detector"] or "")
            predictors.add(row["predictor"] or "")
    shown = [
        replace(each, name=f"{each.name} ({count:,} face{'' if count == 1 else 's'})")
        for (identity, source, licence, stated), count in sorted(pictures.items())
        for each in [_pictures(params, identity, source, licence, stated)]
    ]
    chosen = _chosen_with(params, {source for _, source, _, _ in pictures})
    return (*shown, *chosen, *_used(detectors, predictors, params.extract), *_embedder())


def _tracks(params: Params, root: Path) -> tuple[Terms, ...] | None:
    """Of what faces were tracked with; None where nothing was tracked."""
    if not (root / Data.TRACKS).is_dir():
        return None
    detectors, predictors = set[str](), set[str]()
    for row in tables.iterate_rows(root / Data.TRACKS, TRACKS, ["detector", "predictor", "status"]):
        if row["status"] == State.OK:
            detectors.add(row["detector"] or "")
            predictors.add(row["predictor"] or "")
    return (*_used(detectors, predictors, params.track), *_embedder())


def _used(detectors: Iterable[str], predictors: Iterable[str], group: LooksForFaces) -> Iterator[Terms]:
    """Of plug-ins by the names that tables have: a chain's with commas, a predictor's with its weights behind it."""
    for name in sorted({part for names in detectors for part in names.split(",") if part}):
        yield from _detector(name, group)
    for signature in sorted(filter(None, predictors)):
        yield from _predictor(signature.partition(" ")[0], group)


def _pictures(params: Params, identity: str, source: str, licence: str, rights: str) -> Terms:
    """Of the pictures of a source. What brings no licence is covered by the rights that the source states; without
    them, what a person has put into a folder by the identity's, and of what comes from the network nobody has said
    anything.

    Args:
        params: of the project.
        identity, source, licence, rights: as the table `dataset` has them.
    """
    from facemill.sources import network_kinds

    name = f"pictures of {identity} from {source}"
    if not licence and (stated := source_rights(rights)):
        return Terms(name, Use.ANY, f"as the source's rights state: {stated}", source="params.yaml")
    if licence or source in network_kinds() or identity not in params.identities:
        use, said = licence_of(licence).use, licence or "no licence is stated"
        remedy = "" if use.allows_commerce else f"leave this source of identities.{identity} out, or take others"
        if use is Use.UNKNOWN and source not in network_kinds():
            remedy = (
                f"leave the source's `licence` out if identities.{identity}.rights covers its pictures, or {remedy}"
            )
        return Terms(name, use, said, source="as their source states", remedy=remedy)
    own = params.identities[identity].rights
    said = f"as identities.{identity}.rights states: {own.basis.replace('_', ' ')}, {own.evidence}"
    return Terms(name, Use.ANY, said, source="params.yaml")


def _resolved(terms: Iterable[Terms], params: Params, root: Path) -> Iterator[Terms]:
    """With what params.yaml says of files that a person brought, or the folder of a model itself."""
    stated = {place(path, root).resolve(): one for path, one in params.terms.items()}
    for each in terms:
        path = place(each.file, root).resolve() if each.file else None
        if path in stated:
            use = Use.ANY if stated[path].commercial else Use.RESEARCH
            name = f"{each.name} ({each.file})"
            yield replace(each, name=name, use=use, licence=stated[path].licence, source="params.yaml, terms", file="")
        else:
            own = None if path is None else _said_by(path)
            yield from (each,) if own is None else own


def _sorted(terms: Iterable[Terms]) -> tuple[Terms, ...]:
    order: Sequence[Use] = (Use.RESEARCH, Use.UNKNOWN, Use.ANY)
    return tuple(sorted(unique(terms), key=lambda each: order.index(each.use)))
