"""Names of nets; torch-free, so that a quick verb may ask."""

OWN = ("litecnn", "litecnn_pro")  # these need no extra
# The documents' names where timm's differ. The Swin is the one with a window of 12, trained on ImageNet-22k.
ALIASES = {
    "swin_base_384": "swin_base_patch4_window12_384.ms_in22k",
    "deit_base_384": "deit_base_patch16_384.fb_in1k",
}
