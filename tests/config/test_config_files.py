from pathlib import Path

import pytest
import torch

from mutual3d.config.yaml_file import flatten
from mutual3d.models.build import build_model, model_arguments
from mutual3d.pipeline import load_config
from mutual3d.sampling import RULES, Configuration, SearchSpace

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FILES = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.yaml"))
# On Charades and AVA the paper fine-tunes the largest configuration of a mutual network, and no other (6.5.2).
ADAPTIVE = [
    name for name in FILES
    if "/MUTUAL_" in name and (name.endswith("_ADAPTIVE.yaml") or not name.startswith(("AVA/", "Charades/")))
]  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_every_config_loads_and_describes_its_network(name):
    cfg = load_config(CONFIGS / name)
    arguments = model_arguments(cfg)
    space = SearchSpace(**arguments["space"])
    greatest_width = cfg.MUTUAL.WIDTH_RANGE[1] if cfg.MUTUAL.ENABLE else 1.0
    assert space.largest == Configuration(greatest_width, cfg.DATA.TRAIN_CROP_SIZE, space.temporal_sizes[-1])
    assert arguments["num_classes"] == cfg.MODEL.NUM_CLASSES
    assert set(cfg.MUTUAL.SUBNETS) <= set(RULES)


@pytest.mark.parametrize("name", FILES)
def test_every_config_builds_its_network(name):
    cfg = load_config(CONFIGS / name)
    with torch.device("meta"):
        network = build_model(cfg)
    if "classes" in network.gives:
        assert len(network.get_submodule(network.classifier_name).weight) == cfg.MODEL.NUM_CLASSES
    assert network.activate(network.space.smallest).active == network.space.smallest


@pytest.mark.parametrize("name", ADAPTIVE)
def test_a_mutual_config_trains_more_than_one_configuration(name):
    cfg = load_config(CONFIGS / name)
    assert cfg.MUTUAL.ENABLE
    assert len(SearchSpace(**model_arguments(cfg)["space"]).corners()) == (4 if cfg.DATA.NUM_FRAMES == 1 else 8)


# ---- One recipe for what is compared ----------------------------------------------------------------------------------

# What a method is; all else is its recipe.
OWN = ("MUTUAL.", "CALIBRATION.", "GRID.", "OUTPUT_DIR")
METHODS = ("MUTUAL", "US", "US_PLUS", "S", "RS", "MULTISCALE", "US_MULTISCALE", "PRIVATE_SIZE", "BOOST", "FFN", "FFN_WIDTHS")
# RS-Net's recipe on ImageNet is its own paper's (4.1), which its ablations share.
FAMILIES = {
    **{f"ImageNet/{name}": [m for m in METHODS if m != "RS"] for name in ("MOBILENET_V1", "MOBILENET_V2", "MOBILENET_V3", "RESNET50", "VGG16")},
    **{f"Kinetics/{name}": METHODS for name in ("X3D_XS", "X3D_S", "X3D_M", "X3D_L", "SLOW_8x8_R50", "SLOWFAST_4x16_R50", "SLOWFAST_8x8_R50")},
    **{f"CIFAR/WRN_28_10_CIFAR{classes}": METHODS for classes in (10, 100)},
}
COMPARED = [
    *((base, f"{base.replace('/', f'/{method}_')}") for base, methods in FAMILIES.items() for method in methods),
    *(("Methods/BASE", name.removesuffix(".yaml")) for name in FILES if name.startswith("Methods/")),
    ("Demo/X3D", "Demo/FFN_X3D"), ("Demo/FFN_X3D", "Demo/FFN_WIDTHS_X3D"),
    *(("ImageNet/RS_MOBILENET_V2", f"ImageNet/{name}_MOBILENET_V2") for name in ("PARALLEL", "PARALLEL_SHARED")),
    *(("ImageNet/RS_RESNET18", f"ImageNet/RS_RESNET18_{name}") for name in ("VANILLA", "LARGER", "LARGEST", "MULTI_CROP")),
    ("ImageNet/RS_RESNET18", "ImageNet/PARALLEL_RESNET18"),
    ("ImageNet/RS_RESNET50", "ImageNet/RS_RESNET50_TABLE_8"),
    *((f"ImageNet/TRANSFER_{data}", f"ImageNet/TRANSFER_{whose}_{data}") for whose in ("US", "ALONE") for data in ("CIFAR100", "FOOD101", "INDOOR67")),
]  # fmt: skip
COMPARED = [(base, name) for base, name in COMPARED if f"{name}.yaml" in FILES]


def recipe(name):
    return {key: value for key, value in flatten(load_config(CONFIGS / f"{name}.yaml")) if not key.startswith(OWN)}


def differences(base, name):
    first, second = recipe(base), recipe(name)
    return {key: second[key] for key in first if first[key] != second[key]}


@pytest.mark.parametrize("base, name", COMPARED)
def test_methods_that_are_compared_share_one_recipe(base, name):
    assert differences(base, name) == {}


def test_every_method_of_a_network_is_compared():
    """A new file joins the comparison, or is told here why not."""
    alone = {"ImageNet/MUTUAL_MOBILENET_V1_2X", "ImageNet/US_MOBILENET_V1_LINEAR", "ImageNet/US_MOBILENET_V2_LINEAR"}
    named = {name.removesuffix(".yaml") for name in FILES if name.startswith(("ImageNet/", "Kinetics/")) and name.split("/")[1].startswith(("MUTUAL_", "US_", "S_", "FFN_"))}
    assert named - alone == {name for _, name in COMPARED} & named and len(COMPARED) > 40


@pytest.mark.parametrize("name, wanted", [
    ("ImageNet/US_MOBILENET_V1_LINEAR", {"SOLVER.LR_POLICY": "linear"}),
    ("ImageNet/US_MOBILENET_V2_LINEAR", {"SOLVER.LR_POLICY": "linear"}),
    ("ImageNet/SE_RESNET50", {"RESNET.SE_REDUCTION": 16}),
    ("ImageNet/CUTOUT_RESNET50", {"AUG.ENABLE": True, "AUG.AA_TYPE": "", "AUG.RE_PROB": 0.0, "AUG.CUTOUT": 112}),
    ("ImageNet/AUTOAUGMENT_RESNET50", {"AUG.ENABLE": True, "AUG.AA_TYPE": "autoaugment-imagenet", "AUG.RE_PROB": 0.0, "DATA.COLOR_JITTER": 0.0}),
    ("ImageNet/MIXUP_RESNET50", {"MIXUP.ENABLE": True, "MIXUP.ALPHA": 0.2, "MIXUP.CUTMIX_ALPHA": 0.0, "MIXUP.LABEL_SMOOTH_VALUE": 0.0}),
    ("CIFAR/CUTOUT_WRN_28_10_CIFAR100", {"AUG.ENABLE": True, "AUG.AA_TYPE": "", "AUG.RE_PROB": 0.0, "AUG.CUTOUT": 8}),
    ("CIFAR/AUTOAUGMENT_WRN_28_10_CIFAR100", {"AUG.ENABLE": True, "AUG.AA_TYPE": "autoaugment-cifar10", "AUG.RE_PROB": 0.0, "AUG.CUTOUT": 16}),
    ("CIFAR/MIXUP_WRN_28_10_CIFAR10", {"MIXUP.ENABLE": True, "MIXUP.ALPHA": 1.0, "MIXUP.CUTMIX_ALPHA": 0.0, "MIXUP.LABEL_SMOOTH_VALUE": 0.0}),
])  # fmt: skip
def test_a_row_of_a_paper_s_table_differs_from_the_plain_network_in_what_it_is_named_for(name, wanted):
    folder, own = name.split("/")
    base = own.removesuffix("_LINEAR") if own.endswith("_LINEAR") else own.partition("_")[2]
    assert differences(f"{folder}/{base}", name) == wanted


def test_x3d_m_has_the_sizes_of_the_paper():
    space = SearchSpace(**model_arguments(load_config(CONFIGS / "Kinetics/MUTUAL_X3D_M.yaml"))["space"])
    assert space == SearchSpace([0.63, 1.0], [142, 160, 192, 224], [6, 9, 12, 16], 8)
