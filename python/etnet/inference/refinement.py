"""What is done around a network: the window of grey values, mirror images, tiles, a threshold, rules for structures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from etnet.inference.decision import decision_for
from etnet.inference.flips import FlipAveragingBackend
from etnet.inference.halving import HalvingBackend
from etnet.inference.postprocess import PostprocessedPredictor
from etnet.inference.predictor import ImagePredictor, Predictor
from etnet.inference.tiling import TiledPredictor, Tiling, can_be_tiled
from etnet.inference.two_stage import TwoStagePredictor
from etnet.types import Postprocessing, StructureRule


@dataclass(frozen=True)
class Refinement:
    """Choices beside the network.

    Attributes:
        tiling: How large images are divided; None divides none. One that is automatic is left out for a network that
            sees images at another size than their own.
        tiles_per_run: Tiles that go through the network together.
        flips: Whether results are averaged over mirror images; of a bundle, those of its segmenter.
        postprocessing: What becomes of the probabilities and labels; None does what the contract says.
        intensity_window: (low, high) mapped to 0..255 in images of more than 8 bits, in place of the contract's; None
            keeps that.
    """

    tiling: Tiling | None = field(default_factory=Tiling)
    tiles_per_run: int = 1
    flips: bool = False
    postprocessing: Postprocessing | None = None
    intensity_window: tuple[float, float] | None = None


def refine(
    predictor: Predictor | TwoStagePredictor,
    refinement: Refinement,
    *,
    on_smaller_batch: Callable[[int], None] | None = None,
) -> ImagePredictor:
    """Build a predictor that does all this around a network; closing it closes the network.

    Batches that do not fit into the device's memory are halved.

    Args:
        predictor: The network, or a bundle's two.
        refinement: What is done around it.
        on_smaller_batch: Told the new size each time a batch is halved.

    Raises:
        UsageError: The network cannot be refined so: no tile of this size, no threshold for its classes, no structure
            of this name.
    """
    rules = predictor.contract.postprocess if refinement.postprocessing is None else refinement.postprocessing
    halving = _halving(_seen_through(predictor, refinement.intensity_window), on_smaller_batch)
    refined = _of_network(halving, refinement, threshold=rules.threshold)
    return PostprocessedPredictor(refined, rules.structures) if rules.structures else refined


def _seen_through(
    predictor: Predictor | TwoStagePredictor, window: tuple[float, float] | None
) -> Predictor | TwoStagePredictor:
    """The same networks, which ask for images of another window; a bundle reads each image once, for both."""
    if window is None:
        return predictor
    if isinstance(predictor, TwoStagePredictor):
        localizer, segmenter = (
            _network_through(network, window) for network in (predictor.localizer, predictor.segmenter)
        )
        return TwoStagePredictor(localizer, segmenter, predictor.rule, description=predictor.description)
    return _network_through(predictor, window)


def _network_through(network: Predictor, window: tuple[float, float]) -> Predictor:
    return Predictor(
        network.backend,
        replace(network.contract, intensity_window=window),
        description=network.description,
        decision=network.decision,
    )


def _halving(
    predictor: Predictor | TwoStagePredictor, on_smaller_batch: Callable[[int], None] | None
) -> Predictor | TwoStagePredictor:
    if isinstance(predictor, TwoStagePredictor):
        localizer, segmenter = (
            _halving_network(network, on_smaller_batch) for network in (predictor.localizer, predictor.segmenter)
        )
        return TwoStagePredictor(localizer, segmenter, predictor.rule, description=predictor.description)
    return _halving_network(predictor, on_smaller_batch)


def _halving_network(network: Predictor, on_smaller_batch: Callable[[int], None] | None) -> Predictor:
    return Predictor(
        HalvingBackend(network.backend, on_smaller_batch),
        network.contract,
        description=network.description,
        decision=network.decision,
    )


def _of_network(
    predictor: Predictor | TwoStagePredictor, refinement: Refinement, *, threshold: float | None
) -> ImagePredictor:
    network = predictor.segmenter if isinstance(predictor, TwoStagePredictor) else predictor
    changed = Predictor(
        FlipAveragingBackend(network.backend) if refinement.flips else network.backend,
        network.contract,
        description=network.description,
        decision=decision_for(threshold, network.contract.num_classes),
    )
    tiling = refinement.tiling
    if tiling is not None and (can_be_tiled(network.contract) or not tiling.automatic):
        return TiledPredictor(changed, tiling, tiles_per_run=refinement.tiles_per_run)
    if isinstance(predictor, TwoStagePredictor):
        return TwoStagePredictor(predictor.localizer, changed, predictor.rule, description=predictor.description)
    return changed


def override(default: Postprocessing, given: Postprocessing) -> Postprocessing:
    """Replace parts of a post-processing by others.

    Args:
        default: What the contract says.
        given: A threshold, or None for the default's, and rules that are joined with those for the same structure:
            what they do not set (`largest` None, `min_area` 0, `fill_holes` false) stays.

    Returns:
        The default's rules in their order, then those for other structures.

    Example:
        >>> model = Postprocessing(structures=(StructureRule("foreground", largest=2),))
        >>> given = Postprocessing(structures=(StructureRule("foreground", fill_holes=True),))
        >>> override(model, given).structures
        (StructureRule(structure='foreground', largest=2, min_area=0, fill_holes=True),)
    """
    merged = {rule.structure: rule for rule in default.structures}
    for rule in given.structures:
        base = merged.get(rule.structure, StructureRule(rule.structure))
        merged[rule.structure] = StructureRule(
            rule.structure,
            largest=base.largest if rule.largest is None else rule.largest,
            min_area=rule.min_area or base.min_area,
            fill_holes=rule.fill_holes or base.fill_holes,
        )
    threshold = default.threshold if given.threshold is None else given.threshold
    return Postprocessing(threshold, tuple(merged.values()))
