"""The operations manual's memory table, and where it contradicts itself. Torch-free."""

from __future__ import annotations

from dataclasses import dataclass

from engine.config import Settings

_NAMES = {
    "swin_base_384": "swin_base_patch4_window12_384.ms_in22k",
    "deit_base_384": "deit_base_patch16_384.fb_in1k",
}


@dataclass(frozen=True)
class Row:
    """One setting; `says` is the manual's figure in GB, as it is written there."""

    model: str
    side: int
    batch: int
    says: str


DOCUMENTED = (
    Row("resnet34", 768, 16, "8"),
    Row("resnet34", 768, 32, "8"),
    Row("resnet50", 768, 16, "10"),
    Row("resnet50", 768, 32, "10"),
    Row("efficientnet_b4", 768, 8, "19"),
    Row("efficientnet_b4", 768, 12, "22"),
    Row("efficientnet_b4", 768, 32, "20"),
    Row("convnext_base", 768, 16, "25+"),
    Row("convnext_base", 768, 32, "28"),
    Row("convnext_base", 768, 64, "50"),
    Row("convnext_base", 512, 4, "20"),
    Row("resnet34", 384, 16, "6"),
    Row("resnet50", 384, 16, "8"),
    Row("efficientnet_b4", 384, 8, "15"),
    Row("convnext_base", 384, 4, "20+"),
    Row("swin_base_384", 384, 16, "12"),
    Row("swin_base_384", 384, 20, "15"),
    Row("swin_base_384", 384, 32, "15"),
    Row("deit_base_384", 384, 16, "12"),
    Row("deit_base_384", 384, 20, "15"),
    Row("deit_base_384", 384, 32, "15"),
)


def contradictions() -> list[str]:
    """What cannot all be true in the manual's table, in sentences."""
    return [
        "resnet34 and resnet50 at 768 px: the same memory for a batch of 16 and of 32; all but the weights doubles",
        "efficientnet_b4 at 768 px: 22 GB for a batch of 12 and 20 GB for 32",
        "convnext_base: a batch of 4 takes 20 GB at 512 px and 20+ GB at 384 px, of 16 at 768 px 25+ GB:"
        " nine times the pixels of the second, four times the samples",
        "swin_base_384 and deit_base_384: 15 GB for a batch of 20 and of 32; 'in the 768 pipeline' 18 GB, where both"
        " still see 384 px",
        "resnet34 and resnet50 at 384 px: 6 and 8 GB against 8 and 10 GB at 768 px, which has four times the pixels",
    ]


def settings_of(settings: Settings, row: Row) -> Settings:
    """The settings of this host with the row's net, image and batch."""
    copy = settings.model_copy(deep=True)
    copy.defaults.model = row.model
    copy.model.name, copy.model.settings = _NAMES.get(row.model, row.model), {}
    copy.data.kind, copy.data.root, copy.data.img_size = "folder", None, row.side
    copy.training.batch_size, copy.training.micro_batch = row.batch, None
    return copy
