"""The options of `infer` and `evaluate` for what is done around the network: tiles, mirror images, masks afterwards."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypeVar, cast

import click

from etnet.cli.console import was_given
from etnet.errors import UsageError

if TYPE_CHECKING:
    from etnet.inference.refinement import Refinement
    from etnet.types import Contract, Postprocessing

Command = TypeVar("Command", bound=Callable[..., Any])

TILE_WORDS = ("auto", "off")


@dataclass(frozen=True)
class RefinementChoice:
    """What the command line says, before a model is open.

    Attributes:
        tile: `auto`, `off`, or pixels a side.
        overlap: Least share of a tile that its neighbour sees too.
        flips: Whether mirror images are averaged.
        keeps_rules: Whether the model's own rules hold where no option says otherwise.
        threshold: Probability from which a pixel belongs to the second of two classes.
        largest: Regions that stay, by structure.
        min_area: Pixels of the smallest region that stays, by structure.
        fill_holes: Structures whose holes are filled.
    """

    tile: str | int
    overlap: float
    flips: bool
    keeps_rules: bool
    threshold: float | None
    largest: dict[str, int]
    min_area: dict[str, int]
    fill_holes: tuple[str, ...]

    def refinement(self, contract: Contract, *, batch_size: int) -> Refinement:
        """What is to be done around a network of this contract."""
        from etnet.inference.refinement import Refinement, override
        from etnet.inference.tiling import Tiling
        from etnet.types import Postprocessing

        tiling = None
        if self.tile == "auto":
            tiling = Tiling(overlap=self.overlap)
        elif isinstance(self.tile, int):
            tiling = Tiling(self.tile, overlap=self.overlap, largest_whole=0)
        rules = contract.postprocess if self.keeps_rules else Postprocessing()
        return Refinement(tiling, batch_size, self.flips, override(rules, self._given()))

    def _given(self) -> Postprocessing:
        from etnet.types import Postprocessing, StructureRule

        names = dict.fromkeys([*self.largest, *self.min_area, *self.fill_holes])
        rules = (
            StructureRule(name, self.largest.get(name), self.min_area.get(name, 0), name in self.fill_holes)
            for name in names
        )
        return Postprocessing(self.threshold, tuple(rules))


def settings(refinement: Refinement) -> dict[str, Any]:
    """What `summary.json` says about it."""
    tiling = refinement.tiling
    return {
        "tile": "off" if tiling is None else tiling.size or "auto",
        "overlap": None if tiling is None else tiling.overlap,
        "tta": "flips" if refinement.flips else None,
        "postprocess": None if refinement.postprocessing is None else asdict(refinement.postprocessing),
    }


class TileSize(click.ParamType[str | int]):
    """`auto`, `off`, or a number of pixels."""

    name = "tile"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str | int:
        """Read the option's text."""
        if value in TILE_WORDS:
            return str(value)
        if not str(value).isdecimal() or int(value) < 1:
            self.fail(f"{value!r} is neither auto nor off nor a number of pixels", param, ctx)
        return int(value)


class CountOfStructure(click.ParamType[tuple[str, int]]):
    """`NAME=NUMBER`, or `NAME` alone where there is a default number."""

    name = "structure"

    def __init__(self, *, default: int | None = None) -> None:
        self.default = default

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, int]:
        """Read the option's text."""
        if isinstance(value, tuple):
            return value
        name, equals, number = str(value).partition("=")
        if name and not equals and self.default is not None:
            return name, self.default
        if not name or not number.isdecimal() or int(number) < 1:
            self.fail(f"{value!r} is not of the form NAME=NUMBER with a number from 1", param, ctx)
        return name, int(number)


def _options(*, by_default: bool) -> Iterable[Callable[[Callable[..., Any]], Callable[..., Any]]]:
    yield click.option(
        "--tile",
        type=TileSize(),
        default="auto" if by_default else "off",
        show_default=True,
        metavar="auto|off|PIXELS",
        help="Divide images into tiles of this side; auto does so with large ones in their own resolution.",
    )
    yield click.option(
        "--overlap",
        type=click.FloatRange(0, 0.75),
        default=0.25,
        show_default=True,
        metavar="SHARE",
        help="Share of a tile that its neighbour sees too.",
    )
    yield click.option(
        "--tta", type=click.Choice(["flips"]), help="Average over mirror images; takes four times as long."
    )
    yield click.option(
        "--threshold",
        type=click.FloatRange(0, 1, min_open=True, max_open=True),
        metavar="P",
        help="Probability from which a pixel belongs to the second of two classes [default: the model's, or 0.5].",
    )
    yield click.option(
        "--largest-component",
        type=CountOfStructure(default=1),
        multiple=True,
        metavar="NAME[=COUNT]",
        help="Keep only the largest region, or COUNT of them, of a class or group; repeatable.",
    )
    yield click.option(
        "--min-area",
        type=CountOfStructure(),
        multiple=True,
        metavar="NAME=PIXELS",
        help="Take away smaller regions of a class or group; repeatable.",
    )
    yield click.option(
        "--fill-holes", multiple=True, metavar="NAME", help="Fill the holes of a class or group; repeatable."
    )
    yield click.option(
        "--postprocess/--no-postprocess",
        "keeps_rules",
        default=by_default,
        show_default=True,
        help="Whether the model's own rules for masks count; those of the options above always do.",
    )


def refinement_options(*, by_default: bool) -> Callable[[Command], Command]:
    """Give a command these options; it receives them as `choice`, a `RefinementChoice`.

    Args:
        by_default: Whether large images are tiled and the model's rules for masks applied unless an option says
            otherwise.
    """

    def decorate(command: Command) -> Command:
        decorated: Any = _with_choice(command)
        for option in reversed(list(_options(by_default=by_default))):
            decorated = option(decorated)
        return decorated  # type: ignore[no-any-return]

    return decorate


def _with_choice(command: Command) -> Command:
    @functools.wraps(command)
    def with_choice(
        *arguments: Any,
        tile: str | int,
        overlap: float,
        tta: str | None,
        threshold: float | None,
        largest_component: Sequence[tuple[str, int]],
        min_area: Sequence[tuple[str, int]],
        fill_holes: tuple[str, ...],
        keeps_rules: bool,
        **others: Any,
    ) -> Any:
        if tile == "off" and was_given("overlap"):
            raise UsageError(
                f"--overlap {overlap:g}: no image is divided into tiles; add --tile auto or --tile with a number of "
                "pixels, or leave --overlap away"
            )
        choice = RefinementChoice(
            tile=tile,
            overlap=overlap,
            flips=tta == "flips",
            keeps_rules=keeps_rules,
            threshold=threshold,
            largest=dict(largest_component),
            min_area=dict(min_area),
            fill_holes=fill_holes,
        )
        return command(*arguments, choice=choice, **others)

    return cast(Command, with_choice)
