"""The options of the data of a run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from rskernels.experiments.datasets import (
    DATASETS,
    OWN_SIZES,
    TEXTS,
    Loaded,
    Reading,
    check_source,
    load,
)
from rskernels.rsft.config import RunConfig
from rskernels.rsft.options import one_of, option, whole

IMBALANCE = 20.0
MULTIMODAL_IMBALANCE = 5.0  # where a class of the rarest modality has 1 to 5 rows
KEPT = f"none for {', '.join(OWN_SIZES)}, whose classes keep their sizes"
IMAGE_SIZE, BACKBONE_SIZE = 32, 224

DATA = "Data"


@dataclass(frozen=True, kw_only=True)
class DataConfig(RunConfig):
    """The data of a run."""

    data: str = option("digits", "Data set.", DATA, accepted=one_of(DATASETS))
    path: str | None = option(
        None,
        "Where the data are: of mnist and imagefolder the folder, of npz the file, of text either.",
        DATA,
        may_change=True,
    )
    channels: str | None = option(
        None,
        "Where the channels of images [N, ., ., .] are.",
        DATA,
        accepted=one_of(("first", "last")),
        read_by=("data", ("npz",)),
        shown="told by their shape",
    )
    imbalance: float | None = option(
        None,
        "Most frequent class of the training pool over its rarest; rows are left out for it.",
        DATA,
        shown=f"{IMBALANCE:g}; {MULTIMODAL_IMBALANCE:g} for multimodal; {KEPT}",
    )
    test_fraction: float = option(
        0.4, "Share of the smallest class, or of the speakers, that is held out.", DATA
    )
    image_size: int | None = option(
        None,
        "Height and width that images in folders are brought to, and those of a backbone.",
        DATA,
        accepted=whole(2, 4096),
        shown=f"{IMAGE_SIZE} of folders, {BACKBONE_SIZE} under a backbone",
    )
    max_bad: int | None = option(
        0,
        "Malformed images or texts that are left out; one more is an error.",
        DATA,
        accepted=whole(0),
        read_by=("data", ("imagefolder", "text")),
    )
    text_column: str | None = option(
        "text", "Column of the texts.", DATA, read_by=("data", ("text",))
    )
    label_column: str | None = option(
        "label", "Column of their classes.", DATA, read_by=("data", ("text",))
    )
    max_tokens: int | None = option(
        64, "Tokens that are read of a text.", DATA, accepted=whole(1), read_by=("data", TEXTS)
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_source(self.data, self.path)
        if self.imbalance is None:
            object.__setattr__(self, "imbalance", self.usual_imbalance)
        if self.image_size is None:
            object.__setattr__(self, "image_size", self.usual_image_size)
        elif self.usual_image_size is None:
            raise ValueError(
                f"image_size={self.image_size}: only data imagefolder reads it, and a backbone of "
                f"images; got data={self.data!r}"
            )
        if self.data in TEXTS and not self.reads_texts:
            raise ValueError(f"data={self.data!r} are texts: only `rskernels train` reads them")

    @property
    def usual_imbalance(self) -> float | None:
        """The imbalance where none is given: files keep the sizes of their classes."""
        if self.data in OWN_SIZES:
            return None
        return MULTIMODAL_IMBALANCE if self.data == "multimodal" else IMBALANCE

    @property
    def usual_image_size(self) -> int | None:
        """Height and width of images where none is given; None where they stay as they are."""
        return IMAGE_SIZE if self.data == "imagefolder" else None

    @property
    def reads_texts(self) -> bool:
        """Whether the models of this family read texts."""
        return False

    @property
    def tokenizer(self) -> Path | None:
        """The folder of a tokenizer."""
        return None

    @property
    def pool_imbalance(self) -> float | None:
        """The imbalance of the pool that is loaded; None leaves it as it is."""
        return self.imbalance

    def load(self, generator: torch.Generator) -> Loaded:
        """Load the data; errors are those of `rskernels.experiments.datasets.load`."""
        return load(
            self.data,
            path=self.path,
            imbalance=self.pool_imbalance,
            test_fraction=self.test_fraction,
            generator=generator,
            reading=Reading(
                channels=self.channels,
                image_size=self.image_size or IMAGE_SIZE,
                max_bad=self.max_bad or 0,
                text_column=self.text_column or "",
                label_column=self.label_column or "",
                max_tokens=self.max_tokens or 0,
                tokenizer=self.tokenizer,
            ),
        )
